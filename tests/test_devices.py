"""Other devices, emulated: one without float64 (MPS), and a second GPU."""

import functools

import pytest
import torch
from conftest import SCRIPTS, SHORT, results, run_command, run_python
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from codebase import ROOT, UserError, checkpoints, data
from codebase import utils as ut
from codebase.explorer import explore
from codebase.machine.tuning import pick_device


class OnTheHost(torch.Tensor):
    """A tensor that was copied to the CPU, where float64 exists."""


class WithoutFloat64(TorchDispatchMode):
    """The CPU as a device without float64: it refuses operations that yield float64, as MPS does.

    What `Tensor.cpu` returned, and what is computed from it, is on the host; so are tensors that
    are made of Python's numbers without a device.
    """

    def __init__(self, monkeypatch):
        super().__init__()
        self.count, self.paused = 0, False
        cpu = torch.Tensor.cpu
        monkeypatch.setattr(torch.Tensor, "cpu", lambda t: cpu(t).clone().as_subclass(OnTheHost))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        self.count += 1
        if self.paused or func is torch.ops.aten.lift_fresh.default:
            return output
        if any(isinstance(leaf, OnTheHost) for leaf in tree_iter((args, kwargs))):
            return output
        for leaf in tree_iter(output):
            if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64:
                raise TypeError(f"{func}: the device does not support float64")
        return output

    def paused_in(self, function):
        def call(*args, **options):
            self.paused = True
            try:
                return function(*args, **options)
            finally:
                self.paused = False

        return call


def test_the_mixture_makes_no_float64_above_the_cpu(monkeypatch):
    """On meta tensors, which are not on the CPU; on the CPU it does."""
    tensors = torch.ones(5, 2), torch.ones(1, 7, 2), torch.ones(1, 7, 2)
    with WithoutFloat64(monkeypatch):
        ut.log_normal_mixture(*(tensor.to("meta") for tensor in tensors))
        with pytest.raises(TypeError, match="does not support float64"):
            ut.log_normal_mixture(*tensors)


@pytest.mark.process
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_device_without_float64(script, folders, monkeypatch):
    """Train with pictures, resume, evaluate, export the explorer's page; the GMVAE on a plane."""
    mode = WithoutFloat64(monkeypatch)
    for name in ("read_mnist", "read_svhn", "test_subset", "labelled_subset"):  # on the host
        monkeypatch.setattr(data, name, mode.paused_in(getattr(data, name)))
    # There, log_normal_mixture takes its other branch: see the test on meta tensors.
    mixture = lambda z, m, v: ut.log_mean_exp(ut.log_normal(z.unsqueeze(1), m, v), dim=1)  # noqa: E731
    monkeypatch.setattr(ut, "log_normal_mixture", mixture)
    save = checkpoints.write_state  # which may not see the emulation's own kind of tensors
    plain = functools.partial(tree_map_only, OnTheHost, lambda t: t.as_subclass(torch.Tensor))
    monkeypatch.setattr(checkpoints, "write_state", lambda path, state: save(path, plain(state)))
    flags = (*SHORT, *(("--z", 2) if script == "run_gmvae.py" else ()))
    with mode:
        for more in ((), ("--resume", 1, "--iter_max", 51), ("--train", 0)):
            run_command(folders, script, (*flags, *more))
        [logs] = (folders / "logs").glob("model=*")
        explore.explore(logs.name, folders, folders / "page.html")
    assert results(folders, logs.name)["figures"] and mode.count > 1_000
    own = {"latent.png", "manifold.png"} if "--z" in flags else {"traversal.png"}
    expected = {"samples.png", "reconstructions.png", "curves.png"} | own
    assert expected <= {path.name for path in logs.glob("*.png")}


# A second GPU, whose calls are recorded


@pytest.fixture
def chosen(monkeypatch):
    """torch.cuda has two devices, which compute on the CPU; the names of those that are chosen."""
    names, ones = [], torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: names.append(str(device)))
    monkeypatch.setattr(torch, "ones", lambda *shape, device=None: ones(*shape))
    return names


def test_the_device_is_made_the_current_one(chosen, monkeypatch):
    assert pick_device("cuda:1") == torch.device("cuda:1") and chosen == ["cuda:1"]
    for rank, name in (("0", "cuda:0"), ("1", "cuda:1"), ("2", "cuda:0")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert str(pick_device("auto")) == chosen[-1] == name


def test_a_device_that_does_not_work_is_one_line(chosen, monkeypatch):
    """A GPU that this build of torch cannot use, or that another process holds."""

    def ones(*shape, device=None):
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")

    monkeypatch.setattr(torch, "ones", ones)
    for name in ("auto", "cuda:1"):
        with pytest.raises(UserError, match="no kernel image is available.*: pass --device cpu$"):
            pick_device(name)


def test_auto_is_cuda_or_the_cpu(monkeypatch):
    """`--device auto` never chooses mps, which nobody has measured."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cpu")


@pytest.mark.process
def test_the_benchmark_trains_in_each_way(whole_data):
    flags = ("ssvae", "--rounds", 1, "--seconds", 0, "--data_dir", whole_data)
    done = run_python(ROOT, "tests/benchmark.py", *flags)
    assert done.stdout.splitlines()[-1].startswith("| ssvae | "), done.stderr
