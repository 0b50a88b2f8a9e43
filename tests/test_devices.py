"""Other devices, emulated: one without float64 (MPS), and a second GPU that touches no other."""

import functools
import importlib
import subprocess
import sys

import pytest
import tiny
import torch
from conftest import SCRIPTS, results
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from codebase import ROOT, UserError, checkpoints, data, load_run
from codebase import utils as ut
from codebase.explorer import explore
from codebase.machine.tuning import pick_device
from codebase.runs.main import errors_in_one_line


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


@pytest.fixture
def without_float64(monkeypatch):
    """Commands run on a device without float64; the data are read on the host."""
    mode = WithoutFloat64(monkeypatch)
    for name in ("read_mnist", "read_svhn", "test_subset", "labelled_subset"):
        monkeypatch.setattr(data, name, _paused(getattr(data, name), mode))
    # There, log_normal_mixture takes its other branch: see the test on meta tensors.
    monkeypatch.setattr(
        ut,
        "log_normal_mixture",
        lambda z, m, v: ut.log_mean_exp(ut.log_normal(z.unsqueeze(1), m, v), dim=1),
    )
    save = checkpoints.write_state  # which may not see the emulation's own kind of tensors
    plain = functools.partial(tree_map_only, OnTheHost, lambda t: t.as_subclass(torch.Tensor))
    monkeypatch.setattr(checkpoints, "write_state", lambda path, state: save(path, plain(state)))
    with mode:
        yield mode


def _paused(function, mode):
    def call(*args, **options):
        mode.paused = True
        try:
            return function(*args, **options)
        finally:
            mode.paused = False

    return call


def test_the_emulation_refuses_float64(without_float64):
    x = torch.rand(3)
    for act in (x.double, lambda: torch.zeros(3, dtype=torch.float64), lambda: x.to(torch.double)):
        with pytest.raises(TypeError, match="does not support float64"):
            act()
    assert x.cpu().double().mean().item() == pytest.approx(x.mean().item())


@pytest.mark.process
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_device_without_float64(script, folders, data_dir, monkeypatch, without_float64):
    """Train (a VAE: two replicates) with pictures, resume, evaluate, export the explorer's page."""
    module = importlib.import_module(script.removesuffix(".py"))
    base = ("--data", "synthetic", "--data_dir", str(data_dir), "--iter_max", "3")
    base += ("--iter_save", "60", "--sheet", "2x2")
    last = 51 if script == "run_vae.py" else 5  # at 50 it logs what curves.png shows
    resume = ("--resume", "1", "--iter_max", str(last))
    first = ("--replicates", "2") if script == "run_vae.py" else ()
    for more in (first, resume, ("--train", "0")):
        monkeypatch.setattr(sys, "argv", [script, *base, *more])
        module.main(tiny.tiny(module.experiment))
    name = next((folders / "checkpoints").glob("model=*_run=0000*")).name
    assert results(folders, name)["figures"]
    pictures = {path.name for path in (folders / "logs" / name).glob("*.png")}
    expected = {"samples.png", "reconstructions.png", "traversal.png"}
    assert expected | ({"curves.png"} if last > 50 else set()) <= pictures
    explore.explore(name, data_dir, folders / "page.html")
    assert without_float64.count > 1_000


@pytest.mark.parametrize("script", ["run_vae.py", "run_gmvae.py"])
def test_the_plane_without_float64(script, folders, data_dir, monkeypatch, without_float64):
    module = importlib.import_module(script.removesuffix(".py"))
    flags = ("--data", "synthetic", "--data_dir", str(data_dir), "--iter_max", "2", "--z", "2")
    monkeypatch.setattr(sys, "argv", [script, *flags, "--sheet", "2x2"])
    module.main(tiny.tiny(module.experiment))
    [logs] = (folders / "logs").glob("model=*")
    assert (logs / "latent.png").exists() and (logs / "manifold.png").exists()
    load_run(logs.name)


def test_the_mixture_makes_no_float64_above_the_cpu():
    """On meta tensors, which are not on the CPU, no float64 is made; on the CPU it is."""
    yielded = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            output = func(*args, **(kwargs or {}))
            yielded.add(output.dtype)
            return output

    for device in ("meta", "cpu"):
        z, m, v = torch.ones(5, 2), torch.ones(1, 7, 2), torch.ones(1, 7, 2)
        z, m, v = z.to(device), m.to(device), v.to(device)
        yielded.clear()
        with Record():
            ut.log_normal_mixture(z, m, v)
        assert (torch.float64 in yielded) is (device == "cpu")


# A second GPU, whose calls are recorded


@pytest.fixture
def two_gpus(monkeypatch):
    """torch.cuda with two devices that only keep books."""
    calls = []

    def record(name, returns=None):
        def call(*args, **options):
            calls.append((name, *map(str, args)))
            return returns

        monkeypatch.setattr(torch.cuda, name, call)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    record("set_device")
    record("get_rng_state", torch.get_rng_state())
    record("set_rng_state")
    return calls


def test_the_device_is_made_the_current_one(two_gpus, monkeypatch):
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *shape, device=None: ones(*shape))
    assert pick_device("cuda:1") == torch.device("cuda:1")
    assert two_gpus == [("set_device", "cuda:1")]
    two_gpus.clear()
    for rank, index in (("0", 0), ("1", 1), ("2", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert pick_device("auto") == torch.device("cuda", index)
    assert two_gpus == [("set_device", f"cuda:{index}") for index in (0, 1, 0)]


def test_a_device_that_does_not_work_is_one_line(two_gpus, monkeypatch):
    """A GPU that this build of torch cannot use, or that another process holds."""

    def ones(*shape, device=None):
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")

    monkeypatch.setattr(torch, "ones", ones)
    for name in ("auto", "cuda", "cuda:1"):
        with pytest.raises(UserError, match="no kernel image is available.*: pass --device cpu$"):
            pick_device(name)
    monkeypatch.undo()
    for name in ("cuda", "cuda:7", "mps", "abacus"):
        if name == "abacus" or not torch.cuda.is_available():
            with pytest.raises(UserError, match=f"--device {name} does not work here"):
                pick_device(name)


def test_auto_is_cuda_or_the_cpu(monkeypatch):
    """`--device auto` never chooses mps, which nobody has measured; `--device mps` does."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cpu")
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *shape, device=None: ones(*shape))
    assert pick_device("mps") == torch.device("mps")


def test_an_operation_that_a_device_lacks_is_not_a_blank(capsys):
    """torch raises NotImplementedError with a message; a blank of the starter raises it without."""

    def lacking():
        raise NotImplementedError("The operator 'aten::x' is not implemented for MPS\nmore")

    def blank():
        raise NotImplementedError

    for act, said in ((lacking, "--device cpu"), (blank, "blank (")):
        with pytest.raises(SystemExit) as ended, errors_in_one_line():
            act()
        error = capsys.readouterr().err
        assert ended.value.code == 1 and said in error
        assert ("not written" in error) is (act is blank)


@pytest.mark.process
def test_the_benchmark_trains_both_ways(whole_data):
    code = (
        "import sys, benchmark, pathlib; name, folder = sys.argv[1], pathlib.Path(sys.argv[2])\n"
        "for way in (benchmark.project_training, benchmark.baseline_training):\n"
        "    way(name, folder, 'synthetic')[0](2)"
    )
    for name in ("vae", "ssvae"):
        command = [sys.executable, "-c", code, name, str(whole_data)]
        done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
