"""The training loop: what it computes, saves and logs, how it ends, and how it goes on."""

import ctypes
import os
import signal
from types import SimpleNamespace

import pytest
import torch
from conftest import run_python, same_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from codebase import ROOT
from codebase.checkpoints import CheckpointError
from codebase.machine import cuda_graph
from codebase.machine.signals import Interrupted
from codebase.machine.tuning import tune_process
from codebase.minibatches import Minibatches
from codebase.models import FSVAE, GMVAE, SSVAE, VAE
from codebase.train import NotFinite, Trainer


def images(n, dim):
    return torch.randint(
        256, (n, dim), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


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


def copied(state):
    """A training state as it is read back from disk."""
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [copied(value) for value in state]
    return state.clone() if isinstance(state, torch.Tensor) else state


def trained(trainer, iter_max, iter_save=10_000, **options):
    """Train; returns the states that were to be saved, by their steps."""
    states = {}
    options = {"save": lambda step: states.update({step: copied(trainer.state_dict())})} | options
    trainer.train(iter_max, iter_save, **options)
    return states


@pytest.mark.parametrize("name", ["vae", "gmvae", "ssvae", "ssvae gw 0", "fsvae"])
def test_resuming_anywhere_changes_nothing(name):
    """Seven iterations at once, or with an interruption after any of them: the same weights."""
    trainer = Trainer(*setting(name))
    states = {0: copied(trainer.state_dict())} | trained(trainer, 7, 1)
    final = copied(trainer.model.state_dict())
    after = torch.rand(3)
    assert sorted(states) == list(range(8))
    for step in range(8):
        trainer = Trainer(*setting(name))
        torch.manual_seed(99)
        trainer.load_state_dict(states[step])
        trained(trainer, 7)
        assert same_weights(trainer.model.state_dict(), final), step
        assert torch.equal(torch.rand(3), after)


def test_an_extended_run_is_a_longer_run():
    states = trained(Trainer(*setting("vae")), 4)
    resumed, straight = Trainer(*setting("vae")), Trainer(*setting("vae"))
    torch.manual_seed(0)
    trained(straight, 9)
    torch.manual_seed(0)
    states = trained(Trainer(*setting("vae")), 4)
    resumed.load_state_dict(states[4])
    trained(resumed, 9)
    straight = Trainer(*setting("vae"))
    trained(straight, 9)
    assert same_weights(resumed.model.state_dict(), straight.model.state_dict())


@pytest.mark.parametrize("rate", [1e-3, 0.01])
def test_the_step_is_adams(rate):
    trainer = Trainer(*setting("vae"), learning_rate=rate)
    trained(trainer, 5)
    reference, batches = setting("vae")
    optimiser = torch.optim.Adam(reference.parameters(), lr=rate)
    step = 0
    while step < 5:
        for batch in batches:
            optimiser.zero_grad()
            reference.loss(*batch)[0].backward()
            optimiser.step()
            step += 1
            if step == 5:
                break
    for one, other in zip(trainer.model.parameters(), reference.parameters(), strict=True):
        # A step is as long as the rate, whatever the gradient, of which the last bits are noise.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-3 * rate)


def test_saves_and_logs(monkeypatch):
    """On a fake clock, each iteration takes half a second."""
    logs, postfixes = [], []

    class Bar:
        updates = 0

        def update(self):
            self.updates += 1

        def set_postfix(self, shown, refresh):
            postfixes.append(shown)

    bar = Bar()
    clock = SimpleNamespace(perf_counter=lambda: 7 + bar.updates / 2)
    monkeypatch.setattr("codebase.train.time", clock)
    log = lambda step, scalars: logs.append((step, scalars))  # noqa: E731
    states = trained(Trainer(*setting("ssvae")), 130, 40, log=log, bar=bar)
    assert [(step, state["step"]) for step, state in states.items()] == [
        (step, step) for step in (40, 80, 120, 130)
    ]
    assert [step for step, _ in logs] == [50, 100] and bar.updates == 130
    tags = {"train/loss", "gen/elbo", "gen/kl_z", "gen/kl_y", "gen/rec", "class/ce", "class/acc"}
    assert logs[0][1].keys() == tags | {"train/iterations_per_second"}
    assert all(isinstance(value, float) for value in logs[0][1].values())
    assert [scalars["train/iterations_per_second"] for _, scalars in logs] == [2, 2]
    assert [state["seconds"] for state in states.values()] == [20, 40, 60, 65]
    assert postfixes[0].keys() == {"loss", "acc"}


def test_the_rate_is_of_training_alone(monkeypatch):
    """The logged rate counts the iterations since a resume, and no time of saving or logging."""
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr("codebase.train.time", clock)

    class Bar:
        def update(self):
            clock.now += 0.5

        def set_postfix(self, shown, refresh):
            pass

    def slow(*rest):
        clock.now += 1000

    states = trained(Trainer(*setting("vae")), 149)
    trainer, rates = Trainer(*setting("vae")), []
    trainer.load_state_dict(states[149])
    seconds = trainer.seconds

    def log(step, scalars):
        slow()
        rates.append((step, scalars["train/iterations_per_second"]))

    trainer.train(250, 30, save=slow, log=log, bar=Bar())
    assert rates == [(150, 2), (200, 2), (250, 2)]
    assert trainer.seconds - seconds == 101 / 2


def test_minibatches_that_are_used_up_are_an_error():
    """An iterator instead of an iterable yields nothing the second time."""
    model, batches = setting("vae")
    with pytest.raises(ValueError, match="can be iterated many times"):
        Trainer(model, iter(batches)).train(10, 10_000, save=lambda step: None)


def test_moments_that_are_not_finite_are_not_saved(monkeypatch):
    """Weights may be finite while the mean of squared gradients has overflowed."""
    trainer, saves = Trainer(*setting("vae")), []

    def log(step, scalars):
        next(iter(trainer.optimiser.state.values()))["exp_avg_sq"].fill_(torch.inf)

    with pytest.raises(NotFinite, match="iteration 60, or Adam's moments"):
        trainer.train(60, 10_000, save=saves.append, log=log)
    assert saves == []


def test_a_dataloader_can_stand_in():
    loader = DataLoader(TensorDataset(torch.rand(50, 784)), batch_size=20, shuffle=True)
    states = trained(Trainer(VAE(z_dim=2), loader), 5)
    resumed = Trainer(VAE(z_dim=2), loader)
    resumed.load_state_dict(states[5])
    assert list(trained(resumed, 7)) == [7]


class HostWaits(TorchDispatchMode):
    """Counts what makes the host wait for an accelerator."""

    names = ("_local_scalar_dense", "nonzero", "is_nonzero", "_to_copy")
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.__name__.split(".")[0] in self.names[:3]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["vae", "gmvae", "ssvae", "fsvae"])
def test_no_iteration_waits_for_the_host(name):
    counts = []
    for iterations in (20, 45):
        trainer = Trainer(*setting(name))
        with HostWaits() as waits:
            trainer.train(iterations, 10_000, save=lambda step: None)
        counts.append(waits.count)
    assert counts[0] == counts[1]  # none that grows with the iterations


@pytest.mark.parametrize("at", [1, 37, 50, 51, 149])
def test_a_loss_that_is_not_finite_ends_the_run(at, monkeypatch):
    trainer = Trainer(*setting("vae"))
    states, calls = {}, 0
    loss = trainer.model.loss

    def broken(x):
        nonlocal calls
        calls += 1
        value, summaries = loss(x)
        return (value * torch.nan if calls == at else value), summaries

    def save(step):
        states[step] = copied(trainer.state_dict())

    monkeypatch.setattr(trainer.model, "loss", broken)
    with pytest.raises(NotFinite, match=f"iteration {at} "):
        trainer.train(1000, 30, save)
    assert calls < at + 100
    assert list(states) == list(range(30, at, 30))
    for state in states.values():
        assert all(tensor.isfinite().all() for tensor in state["model"].values())


def test_weights_that_are_not_finite_are_not_saved(monkeypatch):
    trainer = Trainer(*setting("vae"))
    saves = []

    def log(step, scalars):
        with torch.no_grad():
            trainer.model.enc.net[0].weight[0, 0] = torch.nan  # where the loss cannot see it

    monkeypatch.setattr(trainer.model, "loss", lambda x: _constant_loss(trainer.model))
    with pytest.raises(NotFinite, match="weights of iteration 60, "):
        trainer.train(60, 10_000, save=saves.append, log=log)
    assert saves == []


def _constant_loss(model):
    loss = model.dec.net[0].bias.square().sum()
    return loss, {"train/loss": loss}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(number):
    before = signal.getsignal(number)
    saves = []

    def log(step, scalars):
        os.kill(os.getpid(), number)

    with pytest.raises(Interrupted) as caught:
        Trainer(*setting("vae")).train(10_000, 10_000, save=saves.append, log=log)
    assert caught.value.number == number and saves[-1] <= 52
    assert str(caught.value) == f"interrupted at iteration {saves[-1]}, which is saved"
    assert signal.getsignal(number) == before


def test_a_signal_at_the_end_of_an_epoch_is_saved_too():
    """Sent where the last minibatch of an epoch has been dealt with."""
    model, batches = setting("vae")
    saves = []

    class Epochs:
        def __iter__(self):
            yield from batches
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="at iteration 4,"):
        Trainer(model, Epochs()).train(100, 10_000, save=saves.append)
    assert saves == [4]


def test_a_recorded_step_gets_every_minibatch(monkeypatch):
    """CUDA graphs without CUDA: recording keeps tensors of its own, and a replay reads those."""
    steps = []

    def step(x, y):
        steps.append((x, y))
        return x.sum() + y.sum(), {"sum": x.sum()}

    def record(self, batch):
        recorded = tuple(tensor.clone() for tensor in batch)
        outputs = self._step(*recorded)

        def replay():
            for output, new in zip(
                (outputs[0], outputs[1]["sum"]), self._step(*recorded), strict=True
            ):
                output.copy_(new["sum"] if isinstance(new, dict) else new)

        return recorded, replay, outputs

    monkeypatch.setattr(cuda_graph.GraphedStep, "_warm_up", lambda self, batch: self._step(*batch))
    monkeypatch.setattr(cuda_graph.GraphedStep, "_record", record)
    graphed = cuda_graph.GraphedStep(step)
    for i in range(40):
        n = 3 if i % 4 == 3 else 5  # an epoch's last minibatch is smaller
        x, y = torch.full((n, 2), float(i)), torch.full((n,), 1.0)
        loss, summaries = graphed(x, y)
        assert loss == 2 * n * i + n and summaries["sum"] == 2 * n * i
    large = [x.data_ptr() for x, _ in steps if len(x) == 5]
    assert len(set(large[cuda_graph.WARM_UP :])) == 1  # the recording's own, once warmed up


# States that are not sound: each is refused, and nothing is changed


def unsound(state):
    """Training states as other versions, other flags and damage leave them: name → state."""
    first = state["moments"][0]["exp_avg"]
    yield from ((f"without {key}", {k: v for k, v in state.items() if k != key}) for key in state)
    yield "step", state | {"step": "2"}
    yield "seconds", state | {"seconds": None}
    for name, value in {
        "three zeros": torch.zeros(3),
        "flat": first.flatten(),
        "double": first.double(),
        "not finite": torch.full_like(first, torch.nan),
        "sparse": first.to_sparse(),
        "on meta": first.to("meta"),
        "nothing": None,
    }.items():
        wrong = copied(state["moments"])
        wrong[-1]["exp_avg_sq"] = value
        yield f"moments {name}", state | {"moments": wrong}
        if name != "double":  # which can be converted
            key = next(iter(state["model"]))
            yield f"weights {name}", state | {"model": state["model"] | {key: value}}
    yield "one moment less", state | {"moments": state["moments"][:-1]}
    yield "moments by name", state | {"moments": dict(enumerate(state["moments"]))}
    yield "other weights", state | {"model": VAE(z_dim=7).state_dict()}
    for left in ([50], [-1], [0.5]):
        yield f"left {left}", state | {"batches": {"left": torch.tensor(left)}}
    generator = state["generators"]["cpu"]
    for name, value in {
        "short": generator[:-8],
        "long": generator.repeat(2),
        "no": None,
    }.items():
        yield f"generator {name}", state | {"generators": {"cpu": value}}
    for generators in ({}, None):
        yield f"generators {generators}", state | {"generators": generators}


def test_unsound_states_are_refused():
    state = trained(Trainer(*setting("vae")), 2)[2]
    for name, wrong in unsound(state):
        trainer = Trainer(*setting("vae"))
        before = copied(trainer.state_dict())
        with pytest.raises(CheckpointError) as caught:
            trainer.load_state_dict(wrong)
        assert len(str(caught.value).splitlines()) == 1, name
        assert equal(trainer.state_dict(), before), name


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_the_learning_rate_comes_from_the_code():
    states = trained(Trainer(*setting("vae")), 2)
    trainer = Trainer(*setting("vae"), learning_rate=0.5)
    trainer.load_state_dict(states[2] | {"lr": 1000, "optimiser": {"param_groups": [{"lr": 1000}]}})
    assert trainer.optimiser.param_groups[0]["lr"] == 0.5


def test_tuning_the_process(monkeypatch):
    """Denormal numbers become 0 on all threads; other C libraries do no harm."""
    code = """
import torch
from codebase.machine.tuning import tune_process
tune_process()
print((torch.full((1 << 20,), 1e-30) * 1e-10).count_nonzero().item())
"""
    assert run_python(ROOT, "-c", code).stdout == "0\n"

    def no_library(name):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    tune_process()


def test_minibatches_that_the_loss_does_not_take_are_refused():
    x, y = torch.zeros(5, 784, dtype=torch.uint8), torch.zeros(5)
    for batches, message in (
        (Minibatches(x, y), "got minibatches of length 2, expected what VAE.loss takes: x$"),
        (DataLoader(x.float()), "a minibatch is a Tensor, expected a tuple of tensors"),
        ([{"x": x}], "a minibatch is a dict"),
    ):
        with pytest.raises(ValueError, match=message):
            Trainer(VAE(), batches).train(2)


def test_a_model_is_trained_without_saving():
    saved = []
    trainer = Trainer(VAE(), Minibatches(torch.zeros(5, 784, dtype=torch.uint8)))
    trainer.train(3)
    trainer.train(7, save=saved.append)
    assert trainer.step == 7 and saved == [7]
