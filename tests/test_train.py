"""The training loop: what it computes, saves and logs, how it ends, and how it goes on."""

import copy
import signal
from types import SimpleNamespace

import pytest
import torch
from conftest import run_python, same_weights
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


def keep(trainer, states):
    """Return a function that saves the trainer's state in a dictionary, by its step."""
    return lambda step: states.update({step: copy.deepcopy(trainer.state_dict())})


def trained(trainer, iter_max, iter_save=10_000, **options):
    """Train; return the states that were to be saved, by their steps."""
    states = {}
    trainer.train(iter_max, iter_save, keep(trainer, states), **options)
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


def test_saves_and_logs():
    logs, shown = {}, []
    bar = SimpleNamespace(update=lambda: None, set_postfix=lambda of, refresh: shown.append(of))
    trainer = Trainer(*setting("ssvae"))
    states = trained(
        trainer, 130, 40, log=lambda step, scalars: logs.update({step: scalars}), bar=bar
    )
    assert [state["step"] for state in states.values()] == list(states) == [40, 80, 120, 130]
    assert list(logs) == [50, 100] and shown[0].keys() == {"loss", "acc"}
    tags = {"train/loss", "gen/elbo", "gen/kl_z", "gen/kl_y", "gen/rec", "class/ce", "class/acc"}
    assert logs[50].keys() == tags | {"train/iterations_per_second"}
    assert all(isinstance(value, float) for value in logs[50].values())
    assert 0 < states[40]["seconds"] < states[130]["seconds"]
    assert not trainer.model.training  # so that it looks at all images that it is given


def test_what_cannot_train_is_refused():
    """An iterator yields nothing the second time; a model of load_run has no gradients."""
    model, batches = setting("vae")
    with pytest.raises(ValueError, match="can be iterated many times"):
        Trainer(model, iter(batches)).train(10)
    with pytest.raises(ValueError, match=r"call model\.requires_grad_\(True\)"):
        Trainer(model.requires_grad_(False), batches)


def test_a_dataloader_can_stand_in():
    loader = DataLoader(TensorDataset(torch.rand(50, 784)), batch_size=20, shuffle=True)
    states = trained(Trainer(VAE(z_dim=2), loader), 5)
    resumed = Trainer(VAE(z_dim=2), loader)
    resumed.load_state_dict(states[5])
    assert list(trained(resumed, 7)) == [7]


@pytest.mark.parametrize("at", [1, 50, 149])
def test_a_loss_that_is_not_finite_ends_the_run(at):
    trainer, calls = Trainer(*setting("vae")), []
    loss = trainer.loss

    def broken(x):
        calls.append(x)
        value, summaries = loss(x)
        return (value * torch.nan if len(calls) == at else value), summaries

    trainer.loss, states = broken, {}
    with pytest.raises(NotFinite, match=f"iteration {at} "):
        trainer.train(1000, 30, keep(trainer, states))
    assert len(calls) < at + 100 and list(states) == list(range(30, at, 30))


@pytest.mark.parametrize("where", ["forward", "optimiser"])
def test_an_interruption_anywhere_leaves_the_last_logged_iteration(where):
    """Also in the middle of Adam's step; what is saved continues to the same weights."""
    straight = Trainer(*setting("vae"))
    trained(straight, 170)
    trainer, calls, states = Trainer(*setting("vae")), [], {}

    def interrupted(function):
        def call(*args, **options):
            calls.append(1)
            if len(calls) == 120:
                signal.raise_signal(signal.SIGINT)
            return function(*args, **options)

        return call

    if where == "forward":
        trainer.loss = interrupted(trainer.loss)
    else:
        trainer.optimiser.step = interrupted(trainer.optimiser.step)
    with pytest.raises(KeyboardInterrupt, match="stopped at iteration 100$"):
        trainer.train(170, save=keep(trainer, states))
    assert list(states) == [100]
    resumed = Trainer(*setting("vae"))
    resumed.load_state_dict(states[100])
    trained(resumed, 170)
    assert same_weights(resumed.model.state_dict(), straight.model.state_dict())


def test_a_state_is_of_its_model_and_not_of_its_rate():
    state = trained(Trainer(*setting("vae")), 2)[2]
    wrong = copy.deepcopy(state["moments"])
    wrong[-1]["exp_avg_sq"] = torch.zeros(3)
    trainer = Trainer(*setting("vae"), learning_rate=0.5)
    for other in (state | {"moments": wrong}, state | {"model": VAE(z_dim=7).state_dict()}):
        with pytest.raises(CheckpointError):
            trainer.load_state_dict(other)
    trainer.load_state_dict(state | {"optimiser": {"param_groups": [{"lr": 1000}]}})
    assert trainer.optimiser.param_groups[0]["lr"] == 0.5


def test_weights_that_are_not_finite_are_not_saved():
    """The loss need not depend on them."""
    trainer, saves = Trainer(*setting("vae")), []

    def log(step, scalars):
        trainer.model.enc.net[0].weight.data[0, 0] = torch.nan

    def loss(x):
        value = trainer.model.dec.net[0].bias.square().sum()
        return value, {"train/loss": value}

    trainer.loss = loss
    with pytest.raises(NotFinite, match="iteration 60 "):
        trainer.train(60, save=saves.append, log=log)
    assert saves == []


def test_numbers_that_are_almost_zero_become_zero_on_all_threads():
    code = "import torch\nfrom codebase.machine.tuning import tune_process\ntune_process()\n"
    code += "print((torch.full((1 << 20,), 1e-30) * 1e-10).count_nonzero().item())"
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
