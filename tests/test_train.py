"""The training loop: what it computes, saves and logs, how it ends, and how it goes on."""

import copy
import signal
from types import SimpleNamespace

import pytest
import torch
from conftest import run_python, same_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from codebase import ROOT
from codebase.checkpoints import CheckpointError
from codebase.minibatches import Minibatches
from codebase.models import FSVAE, GMVAE, SSVAE, VAE
from codebase.train import NotFinite, Trainer


def images(n, dim):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, dim), dtype=torch.uint8, generator=generator)


def setting(name):
    """Return a new model and its minibatches, three per epoch."""
    torch.manual_seed(0)
    labelled = torch.rand(10, 784), torch.eye(10)
    if name == "vae":
        return VAE(z_dim=2), Minibatches(images(50, 784), batch_size=20)
    if name == "gmvae":
        return GMVAE(z_dim=2, k=3), Minibatches(images(50, 784), batch_size=20)
    if name.startswith("ssvae"):
        model = SSVAE(gen_weight=0 if "gw 0" in name else 1)
        return model, Minibatches(images(50, 784), batch_size=20, labelled=labelled)
    labels = torch.eye(10)[torch.arange(50) % 10]
    return FSVAE(), Minibatches(images(50, 3072), labels, batch_size=20, binarised=False)


def trained(trainer, iter_max, iter_save=10_000, **options):
    """Train; return the states that were to be saved, by their steps."""
    states = {}
    save = lambda step: states.update({step: copy.deepcopy(trainer.state_dict())})  # noqa: E731
    trainer.train(iter_max, iter_save, **{"save": save} | options)
    return states


@pytest.mark.parametrize("name", ["vae", "gmvae", "ssvae", "ssvae gw 0", "fsvae"])
def test_resuming_anywhere_changes_nothing(name):
    """Seven iterations at once, or with an interruption after any of them: the same weights."""
    trainer = Trainer(*setting(name))
    states = {0: copy.deepcopy(trainer.state_dict())} | trained(trainer, 7, 1)
    final = copy.deepcopy(trainer.model.state_dict())
    after = torch.rand(3)
    assert sorted(states) == list(range(8))
    for step in range(8):
        trainer = Trainer(*setting(name))
        torch.manual_seed(99)
        trainer.load_state_dict(states[step])
        trained(trainer, 7)
        assert same_weights(trainer.model.state_dict(), final), step
        assert torch.equal(torch.rand(3), after)


@pytest.mark.parametrize("rate", [1e-3, 0.01])
def test_the_step_is_adams(rate):
    trainer = Trainer(*setting("vae"), learning_rate=rate)
    trained(trainer, 5)
    reference, batches = setting("vae")
    optimiser = torch.optim.Adam(reference.parameters(), lr=rate)
    order = (batch for _ in range(2) for batch in batches)
    for _, batch in zip(range(5), order, strict=False):
        optimiser.zero_grad()
        reference.loss(*batch)[0].backward()
        optimiser.step()
    for one, other in zip(trainer.model.parameters(), reference.parameters(), strict=True):
        # A step is as long as the rate, whatever the gradient, of which the last bits are noise.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-3 * rate)


def test_saves_and_logs(monkeypatch):
    """On a fake clock, an iteration takes half a second, and saving and logging take 1,000."""
    clock, logs, shown = SimpleNamespace(now=7.0), [], []
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr("codebase.train.time", clock)

    def tick(seconds):
        clock.now += seconds

    def log(step, scalars):
        logs.append((step, scalars))
        tick(1000)

    bar = SimpleNamespace(
        update=lambda: tick(0.5), set_postfix=lambda of, refresh: shown.append(of)
    )
    states = trained(Trainer(*setting("ssvae")), 130, 40, log=log, bar=bar)
    assert {step: state["step"] for step, state in states.items()} == {
        step: step for step in (40, 80, 120, 130)
    }
    assert [step for step, _ in logs] == [50, 100] and shown[0].keys() == {"loss", "acc"}
    tags = {"train/loss", "gen/elbo", "gen/kl_z", "gen/kl_y", "gen/rec", "class/ce", "class/acc"}
    assert logs[0][1].keys() == tags | {"train/iterations_per_second"}
    assert all(isinstance(value, float) for value in logs[0][1].values())
    assert [scalars["train/iterations_per_second"] for _, scalars in logs] == [2, 2]
    assert [state["seconds"] for state in states.values()] == [20, 40, 60, 65]


def test_minibatches_that_are_used_up_are_an_error():
    """An iterator instead of an iterable yields nothing the second time."""
    model, batches = setting("vae")
    with pytest.raises(ValueError, match="can be iterated many times"):
        Trainer(model, iter(batches)).train(10)


def test_a_loaded_model_is_told_to_train():
    with pytest.raises(ValueError, match=r"call model\.requires_grad_\(True\)"):
        Trainer(VAE().requires_grad_(False), [])


def test_after_training_a_model_is_in_evaluation_mode():
    """In which it looks at all images; in training, at the first ones only."""
    trainer = Trainer(*setting("vae"))
    trainer.train(2)
    assert not trainer.model.training


def test_a_dataloader_can_stand_in():
    loader = DataLoader(TensorDataset(torch.rand(50, 784)), batch_size=20, shuffle=True)
    states = trained(Trainer(VAE(z_dim=2), loader), 5)
    resumed = Trainer(VAE(z_dim=2), loader)
    resumed.load_state_dict(states[5])
    assert list(trained(resumed, 7)) == [7]


class HostWaits(TorchDispatchMode):
    """Counts what makes the host wait for an accelerator."""

    names = ("_local_scalar_dense", "nonzero", "is_nonzero")
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.__name__.split(".")[0] in self.names
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["vae", "gmvae", "ssvae", "fsvae"])
def test_no_iteration_waits_for_the_host(name, monkeypatch):
    """Not on an accelerator; on the CPU, the SSVAE looks at which labels count."""
    pairs = SSVAE.pairs_that_count

    def as_on_an_accelerator(model, q_y):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            return pairs(model, q_y)

    monkeypatch.setattr(SSVAE, "pairs_that_count", as_on_an_accelerator)
    counts = []
    for iterations in (20, 45):
        trainer = Trainer(*setting(name))
        with HostWaits() as waits:
            trainer.train(iterations)
        counts.append(waits.count)
    assert counts[0] == counts[1]  # none that grows with the iterations


@pytest.mark.parametrize("at", [1, 37, 50, 51, 149])
def test_a_loss_that_is_not_finite_ends_the_run(at, monkeypatch):
    trainer, calls = Trainer(*setting("vae")), []
    loss = trainer.loss

    def broken(x):
        calls.append(x)
        value, summaries = loss(x)
        return (value * torch.nan if len(calls) == at else value), summaries

    trainer.loss, states = broken, {}
    with pytest.raises(NotFinite, match=f"iteration {at} "):
        trainer.train(1000, 30, lambda step: states.update({step: trainer.state_dict()}))
    assert len(calls) < at + 100 and list(states) == list(range(30, at, 30))


def test_weights_that_are_not_finite_are_not_saved():
    trainer, saves = Trainer(*setting("vae")), []
    model = trainer.model

    def log(step, scalars):
        model.enc.net[0].weight.data[0, 0] = torch.nan  # where the loss cannot see it

    def loss(x):
        value = model.dec.net[0].bias.square().sum()
        return value, {"train/loss": value}

    trainer.loss = loss
    with pytest.raises(NotFinite, match="iteration 60 "):
        trainer.train(60, save=saves.append, log=log)
    assert saves == []


@pytest.mark.parametrize("where", ["forward", "optimiser", "save"])
def test_an_interruption_anywhere_leaves_the_last_logged_iteration(where):
    """Also in the middle of Adam's step; what is saved continues to the same weights."""
    straight = Trainer(*setting("vae"))
    trained(straight, 170)
    trainer, calls = Trainer(*setting("vae")), []
    trainer.optimiser.zero_grad()

    def interrupt(function, at):
        def call(*args, **options):
            calls.append(1)
            if len(calls) == at:
                signal.raise_signal(signal.SIGINT)
            return function(*args, **options)

        return call

    states = {}
    save = lambda step: states.update({step: copy.deepcopy(trainer.state_dict())})  # noqa: E731
    options = {"save": save}
    if where == "forward":
        trainer.loss = interrupt(trainer.loss, 120)
    elif where == "optimiser":
        trainer.optimiser.step = interrupt(trainer.optimiser.step, 120)
    else:
        options["save"] = interrupt(save, 1)
    with pytest.raises(KeyboardInterrupt, match="stopped at iteration 100$"):
        trainer.train(170, 100 if where == "save" else 10_000, **options)
    assert list(states) == [100]
    resumed = Trainer(*setting("vae"))
    resumed.load_state_dict(states[100])
    trained(resumed, 170)
    assert same_weights(resumed.model.state_dict(), straight.model.state_dict())


def test_states_of_other_models_are_refused():
    state = trained(Trainer(*setting("vae")), 2)[2]
    wrong = copy.deepcopy(state["moments"])
    wrong[-1]["exp_avg_sq"] = torch.zeros(3)
    trainer = Trainer(*setting("vae"))
    for other in (state | {"moments": wrong}, state | {"model": VAE(z_dim=7).state_dict()}):
        with pytest.raises(CheckpointError):
            trainer.load_state_dict(other)
    expanded = [{k: v[:1].expand_as(v) for k, v in pair.items()} for pair in state["moments"]]
    trainer.load_state_dict(state | {"moments": expanded})
    trained(trainer, 3)  # fused Adam writes as if the moments were contiguous


def test_the_learning_rate_comes_from_the_code():
    states = trained(Trainer(*setting("vae")), 2)
    trainer = Trainer(*setting("vae"), learning_rate=0.5)
    trainer.load_state_dict(states[2] | {"optimiser": {"param_groups": [{"lr": 1000}]}})
    assert trainer.optimiser.param_groups[0]["lr"] == 0.5


def test_numbers_that_are_almost_zero_become_zero_on_all_threads():
    code = """
import torch
from codebase.machine.tuning import tune_process
tune_process()
print((torch.full((1 << 20,), 1e-30) * 1e-10).count_nonzero().item())
"""
    assert run_python(ROOT, "-c", code).stdout == "0\n"


# torch.compile


@pytest.mark.process
@pytest.mark.parametrize("name", ["vae", "ssvae"])
def test_a_compiled_loss_is_the_loss(name):
    """With the same draws; and the trial that compiles changes neither draws nor weights."""
    plain, compiled = Trainer(*setting(name)), Trainer(*setting(name))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    compiled.compile()
    assert compiled.loss != compiled.model.loss
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(plain.model.state_dict(), compiled.model.state_dict())
    for rows in (20, 10):  # the last minibatch of an epoch is smaller
        gradients = []
        for trainer in (plain, compiled):
            torch.manual_seed(2)
            batch = trainer.batches.minibatch(torch.arange(rows))
            trainer.optimiser.zero_grad()
            loss, _ = trainer.loss(*batch)
            loss.backward()
            gradients.append(torch.cat([p.grad.flatten() for p in trainer.parameters]))
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_if_compiling_fails_the_loss_stays(monkeypatch, capsys):
    def fails(*args, **options):
        def call(*batch):
            raise RuntimeError("InvalidCxxCompiler: no C++ compiler\nand more")

        return call

    monkeypatch.setattr(torch, "compile", fails)
    trainer = Trainer(*setting("vae"))
    trainer.compile()
    assert "not compiled" in capsys.readouterr().err
    assert list(trained(trainer, 3)) == [3]
