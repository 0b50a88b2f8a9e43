import ctypes
import os
import signal
import subprocess
import sys

import pytest
import torch
from conftest import same_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from codebase import ROOT, UserError, cuda_graph
from codebase.data import Minibatches
from codebase.ensemble import Ensemble
from codebase.models.fsvae import FSVAE
from codebase.models.gmvae import GMVAE
from codebase.models.ssvae import SSVAE
from codebase.models.vae import VAE
from codebase.train import Interrupted, NotFinite, train, tune_process

QUIET = {"disable": True}


def images(n, dim):
    return torch.randint(
        256, (n, dim), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def setting(name):
    """A fresh model and minibatches of it, three an epoch."""
    torch.manual_seed(0)
    labelled = torch.rand(10, 784), torch.eye(10)
    if name == "vae":
        return VAE(z_dim=2), Minibatches(images(50, 784), batch_size=20)
    if name == "gmvae":
        return GMVAE(z_dim=2, k=3), Minibatches(images(50, 784), batch_size=20)
    if name == "ssvae":
        return SSVAE(), Minibatches(images(50, 784), batch_size=20, labelled=labelled)
    if name == "ensemble":
        models = [VAE(z_dim=2) for _ in range(3)]
        return Ensemble(models), Minibatches(images(50, 784), batch_size=20).replicated(3)
    labels = torch.eye(10)[torch.arange(50) % 10]
    return FSVAE(), Minibatches(images(50, 3072), labels, batch_size=20, binarised=False)


def copied(state):
    """A training state as it is read back from disk."""
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [copied(value) for value in state]
    return state.clone() if isinstance(state, torch.Tensor) else state


@pytest.mark.parametrize("name", ["vae", "gmvae", "ssvae", "fsvae", "ensemble"])
def test_resuming_anywhere_changes_nothing(name):
    """Seven iterations at once, or with an interruption after any of them: the same weights."""
    states = {}
    model, batches = setting(name)
    train(model, batches, 7, 1, save=lambda n, s: states.update({n: copied(s)}), bar_options=QUIET)
    final = copied(model.state_dict())
    after = torch.rand(3)
    assert sorted(states) == [1, 2, 3, 4, 5, 6, 7]
    for step in range(1, 8):
        model, batches = setting(name)
        torch.manual_seed(99)
        train(model, batches, 7, save=lambda *_: None, state=states[step], bar_options=QUIET)
        assert same_weights(model.state_dict(), final), step
        assert torch.equal(torch.rand(3), after)


def test_an_extended_run_is_a_longer_run():
    states = []
    model, batches = setting("vae")
    train(model, batches, 4, save=lambda n, s: states.append(copied(s)), bar_options=QUIET)
    model, batches = setting("vae")
    train(model, batches, 9, save=lambda *_: None, state=states[-1], bar_options=QUIET)
    straight, batches = setting("vae")
    train(straight, batches, 9, save=lambda *_: None, bar_options=QUIET)
    assert same_weights(model.state_dict(), straight.state_dict())


def test_the_step_is_adams():
    model, batches = setting("vae")
    train(model, batches, 5, save=lambda *_: None, bar_options=QUIET)
    reference, batches = setting("vae")
    optimiser = torch.optim.Adam(reference.parameters(), lr=1e-3)
    step = 0
    while step < 5:
        for batch in batches:
            optimiser.zero_grad()
            reference.loss(*batch)[0].backward()
            optimiser.step()
            step += 1
            if step == 5:
                break
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_saves_and_logs():
    saves, logs = [], []
    model, batches = setting("ssvae")
    train(
        model,
        batches,
        130,
        40,
        save=lambda step, state: saves.append((step, state["step"])),
        log=lambda step, scalars: logs.append((step, scalars)),
        bar_options=QUIET,
    )
    assert saves == [(40, 40), (80, 80), (120, 120), (130, 130)]
    assert [step for step, _ in logs] == [50, 100]
    tags = {"train/loss", "gen/elbo", "gen/kl_z", "gen/kl_y", "gen/rec", "class/ce", "class/acc"}
    assert logs[0][1].keys() == tags | {"train/iterations_per_second"}
    assert all(isinstance(value, float) for value in logs[0][1].values())


def test_a_dataloader_can_stand_in():
    model = VAE(z_dim=2)
    loader = DataLoader(TensorDataset(torch.rand(50, 784)), batch_size=20, shuffle=True)
    state = train(model, loader, 5, save=lambda *_: None, bar_options=QUIET)
    assert state["step"] == 5
    train(VAE(z_dim=2), loader, 7, save=lambda *_: None, state=state, bar_options=QUIET)


class HostWaits(TorchDispatchMode):
    """Counts what makes the host wait for an accelerator."""

    names = ("_local_scalar_dense", "nonzero", "is_nonzero", "_to_copy")
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.__name__.split(".")[0] in self.names[:3]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["vae", "gmvae", "ssvae", "fsvae"])
def test_no_iteration_waits_for_the_host(name):
    model, batches = setting(name)
    with HostWaits() as waits:
        train(model, batches, 20, save=lambda *_: None, bar_options=QUIET)
    few = waits.count
    model, batches = setting(name)
    with HostWaits() as waits:
        train(model, batches, 45, save=lambda *_: None, bar_options=QUIET)
    assert waits.count == few  # none that grows with the iterations


@pytest.mark.parametrize("at", [1, 37, 50, 51, 149])
def test_a_loss_that_is_not_finite_ends_the_run(at, monkeypatch):
    model, batches = setting("vae")
    saves, calls = [], 0
    loss = model.loss

    def broken(x):
        nonlocal calls
        calls += 1
        value, summaries = loss(x)
        return (value * torch.nan if calls == at else value), summaries

    monkeypatch.setattr(model, "loss", broken)
    with pytest.raises(NotFinite, match=f"iteration {at} "):
        train(
            model, batches, 1000, 30, save=lambda n, s: saves.append(copied(s)), bar_options=QUIET
        )
    assert calls < at + 100
    assert all(state["step"] < at for state in saves)
    assert len(saves) == (at - 1) // 30
    for state in saves:
        assert all(tensor.isfinite().all() for tensor in state["model"].values())


def test_weights_that_are_not_finite_are_not_saved(monkeypatch):
    model, batches = setting("vae")
    saves = []

    def log(step, scalars):
        with torch.no_grad():
            model.enc.net[0].weight[0, 0] = torch.nan  # where the loss cannot see it any more

    monkeypatch.setattr(model, "loss", lambda x: _constant_loss(model))
    with pytest.raises(NotFinite, match="weights of iteration 60 "):
        train(model, batches, 60, save=lambda n, s: saves.append(n), log=log, bar_options=QUIET)
    assert saves == []


def _constant_loss(model):
    loss = model.dec.net[0].bias.square().sum()
    return loss, {"train/loss": loss}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(number):
    model, batches = setting("vae")
    before = signal.getsignal(number)
    saves = []

    def log(step, scalars):
        os.kill(os.getpid(), number)

    with pytest.raises(Interrupted) as caught:
        train(
            model,
            batches,
            10_000,
            save=lambda step, state: saves.append(step),
            log=log,
            bar_options=QUIET,
        )
    assert caught.value.number == number and caught.value.step == saves[-1] and saves[-1] <= 52
    assert signal.getsignal(number) == before


def test_a_signal_at_the_end_of_an_epoch_is_saved_too(monkeypatch):
    """Sent where the last minibatch of an epoch has been dealt with."""
    model, batches = setting("vae")
    saves = []

    class Epochs:
        def __iter__(self):
            yield from batches
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as caught:
        train(model, Epochs(), 100, save=lambda n, s: saves.append(n), bar_options=QUIET)
    assert saves == [4] and caught.value.step == 4


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


def test_a_state_of_another_run_is_refused():
    model, batches = setting("vae")
    state = train(model, batches, 2, save=lambda *_: None, bar_options=QUIET)
    other, batches = setting("ssvae")
    for wrong in (
        state,
        state | {"optimiser": {}},
        {"step": 2},
        state | {"generators": {"cpu": 3}},
    ):
        with pytest.raises(UserError, match="of another run"):
            train(other, batches, 5, save=lambda *_: None, state=wrong, bar_options=QUIET)


def test_tuning_the_process(monkeypatch):
    """Numbers that are 0 for all purposes are 0, on all threads; other C libraries do no harm."""
    code = """
import torch
from codebase.train import tune_process
tune_process()
print((torch.full((1 << 20,), 1e-30) * 1e-10).count_nonzero().item())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"

    def no_library(name):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    tune_process()
