"""What the tests share: folders of their own, data drawn once, and commands that are run."""
# ruff: noqa: E402

import argparse
import contextlib
import errno
import importlib
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from codebase.machine import tuning

tuning.load_torch()  # with a user's settings, for this process and those that it starts

import elsewhere
import pytest
import tiny
import torch
from filelock import FileLock

from codebase import ROOT, checkpoints, data, figures
from codebase.runs import report
from codebase.runs import run as runs

# Each of pytest-xdist's workers has a core of its own: threads would only wait for one another.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# No test may depend on a network: where there is one, a proxy that is not there hides it.
NO_NETWORK = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
os.environ |= NO_NETWORK | {"no_proxy": "127.0.0.1,localhost"}
SCRIPTS = ("run_vae.py", "run_gmvae.py", "run_ssvae.py", "run_fsvae.py")
# The flags of a short run, whose few images need no files (see `tiny`), and the name of a VAE's.
SHORT = ("--data", "synthetic", "--data_dir", Path(tempfile.gettempdir(), "no-data"))
SHORT += ("--iter_max", 6, "--iter_save", 4, "--sheet", "2x2")
NAME = "model=vae_z=10_run={:04d}_data=synthetic"


@pytest.fixture(scope="session")
def whole_data(pytestconfig) -> Path:
    """A data folder with the synthetic digits and SVHN-like digits of a user.

    It is kept in pytest's cache; what is damaged there is drawn again. pytest-xdist's workers share
    it.
    """
    folder = pytestconfig.cache.mkdir("synthetic-data")
    with FileLock(folder.with_suffix(".lock")):
        data.read_mnist("train", folder, "synthetic")
        data.read_mnist("test", folder, "synthetic")
        data.read_svhn(folder, "synthetic")
    return folder


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """A data folder with the real MNIST; skips where there is none."""
    for folder in (ROOT / "data", ROOT.parent / "shared" / "data"):
        if (folder / "MNIST" / "raw" / "t10k-images-idx3-ubyte").exists():
            return folder
    pytest.skip("the real MNIST is not in data/")


@pytest.fixture(scope="session")
def a_fresh_clone(tmp_path_factory) -> Path:
    """A folder with the reference weights, as in a fresh clone."""
    folder = tmp_path_factory.mktemp("fresh clone")
    kept = folder / "checkpoints" / checkpoints.REFERENCE
    shutil.copytree(ROOT / "checkpoints" / checkpoints.REFERENCE, kept)
    return folder


@pytest.fixture(autouse=True)
def none_of_the_users_runs(a_fresh_clone, monkeypatch) -> None:
    """Keep the user's runs out of the tests: they may have any name."""
    runs_in(a_fresh_clone, monkeypatch)


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """Give a test its own checkpoints/ and logs/ for runs in its process; return their parent."""
    return runs_in(tmp_path, monkeypatch)


def runs_in(folder: Path, monkeypatch) -> Path:
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", folder / "checkpoints")
    monkeypatch.setattr(runs, "LOGS", folder / "logs")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return a function that puts what a command leaves into a folder; the same flags run once."""
    done = {}

    def put_into(folder: Path, *command) -> None:
        if command not in done:
            done[command] = tmp_path_factory.mktemp("trained")
            succeed(done[command], *command)
        shutil.copytree(done[command], folder, dirs_exist_ok=True)

    return put_into


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the project, whose checkpoints/ and logs/ are the test's own."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "codebase", folder / "codebase")
    for script in SCRIPTS:
        shutil.copy(ROOT / script, folder)
    return folder


# Commands


def run_python(folder: Path, *command) -> subprocess.CompletedProcess:
    """Run `python <command>` in a folder, to its end."""
    words = [sys.executable, *map(str, command)]
    options = {"encoding": "utf-8", "errors": "replace", "timeout": 300}
    return subprocess.run(words, cwd=folder, capture_output=True, **options)


def run_command(folder: Path, script: str, flags, whole: bool = False) -> None:
    """Run `python <script> <flags>` in this process.

    It trains on few images, draws small pictures, and evaluates seldom: see `tiny`.

    Args:
        folder: where its checkpoints/ and logs/ are
        script: a run script, or "codebase" for python -m codebase
        flags: --data_dir and the like, and values
        whole: its data and evaluation are a user's, see `whole_data`
    """
    name = "codebase.__main__" if script == "codebase" else script.removesuffix(".py")
    module = importlib.import_module(name)
    with pytest.MonkeyPatch.context() as patch:
        runs_in(folder, patch)
        patch.setattr(sys, "argv", [script, *map(str, flags)])
        if script == "codebase":
            module.main()
        elif whole:
            module.main(module.experiment)
        else:
            patch.setattr(figures, "WIDTH", 1)  # grids in their images' own pixels
            module.main(tiny.tiny(module.experiment))


def in_process(
    folder: Path, script: str, *flags, whole: bool = False
) -> tuple[int | str | None, str, str]:
    """Run a command in this process: exit status, standard output, standard error."""
    printed, said, status = io.StringIO(), io.StringIO(), 0
    folder.mkdir(exist_ok=True)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        try:
            run_command(folder, script, flags, whole)
        except SystemExit as ended:
            status = ended.code
        finally:
            torch.set_num_threads(1)
    return status, printed.getvalue(), said.getvalue()


class Child:
    """A command as `run_command` runs it, in a process of its own.

    Args:
        folder, script, flags, whole: see `run_command`
        file_size: the most bytes that each of its files may have
        stop: (signal, picture): it sends itself the signal when the picture has been written
        elsewhere: it has nothing that Windows lacks, see `elsewhere`
        fault: (at, kind): its at-th operation on files ends it ("end"), or that and all later ones
            fail as on a full disk ("full"); it prints a line for each
    """

    def __init__(self, folder: Path, script: str, *flags, **options):
        folder.mkdir(exist_ok=True)
        self._outputs = tempfile.TemporaryDirectory()
        arguments = (folder, self._outputs.name, script, flags, options)
        spawn = multiprocessing.get_context("spawn")
        self.process = spawn.Process(target=_main, args=arguments, daemon=True)
        self.process.start()

    def finish(self) -> tuple[int | None, str, str]:
        """Wait for its end: exit status, standard output, standard error."""
        self.process.join(240)
        stdout, stderr = (
            Path(self._outputs.name, name).read_text(encoding="utf-8", errors="replace")
            for name in ("stdout", "stderr")
        )
        return self.process.exitcode, stdout, stderr

    def wait_until(self, condition) -> None:
        """Wait until it has got so far, or has ended."""
        while self.process.is_alive() and not condition():
            time.sleep(0.005)


def _main(folder, outputs, script, flags, options) -> None:
    encoding = "ascii" if options.get("elsewhere") else "utf-8"  # of a console
    sys.stdout = open(f"{outputs}/stdout", "w", buffering=1, encoding=encoding)
    sys.stderr = open(f"{outputs}/stderr", "w", buffering=1, encoding=encoding)
    if "file_size" in options:
        resource = importlib.import_module("resource")  # which Windows lacks
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["file_size"],) * 2)
    if options.get("elsewhere"):
        elsewhere.hide_posix()
    if "fault" in options:
        sys.addaudithook(_fault(str(folder), *options["fault"]))
    if "stop" in options:
        number, picture = options["stop"]
        write = report.write_atomically

        def write_and_stop(path, content):
            write(path, content)
            if path.name == picture:
                report.write_atomically = write  # the run saves again before it ends
                os.kill(os.getpid(), number)

        report.write_atomically = write_and_stop
    run_command(folder, script, flags, options.get("whole", False))


def _fault(folder: str, at: int, kind: str):
    """Return an audit hook that counts a process's operations on files, and lets one fail."""
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            return
        if not str(arguments[0]).startswith(folder):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        count += 1
        print(f"operation {count}: {event} {Path(arguments[0]).name}")
        if at == count and kind == "end":
            os._exit(137)
        if 0 < at <= count and kind == "full" and event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return hook


def outcome(*arguments, **options) -> tuple[int | str | None, str, str]:
    """Run a command: exit status, standard output, standard error.

    It runs in this process, unless it has the options of a Child.
    """
    if options.keys() - {"whole"}:
        return Child(*arguments, **options).finish()
    return in_process(*arguments, **options)


def succeed(*arguments, **options) -> tuple[str, str]:
    """Run a command, which must succeed; return standard output and standard error."""
    status, stdout, stderr = outcome(*arguments, **options)
    assert status == 0, stderr
    return stdout, stderr


def refused(*arguments, **options) -> str:
    """Run a command that must be refused in one line with exit status 2; return the line."""
    status, stdout, stderr = outcome(*arguments, **options)
    lines = [line for line in stderr.splitlines() if line.strip() and line[0] != "*"]
    lines = [line for line in lines if "it/s" not in line and "it]" not in line]  # the bar
    assert (status, stdout, len(lines)) == (2, "", 1), (status, stdout, stderr)
    return lines[0]


# What commands leave


def finished_run(script: str, *steps: int, **flags) -> runs.Run:
    """Write the run.json and the weights of a run that was not trained, for what only reads those.

    Args:
        script: whose run it is
        steps: iterations with weights; those of the last are drawn by the run's seed
        flags: of the run; its data are synthetic unless they say otherwise
    """
    experiment = importlib.import_module(script.removesuffix(".py")).experiment
    identity = experiment.identity(flags, flags.get("data", "synthetic"))
    name = experiment.name_of(identity)
    run = runs.Run(name, identity, experiment.model(argparse.Namespace(**identity)), True)
    torch.manual_seed(identity["seed"])
    model = run.build()
    run.write(torch.device("cpu"))
    for step in reversed(steps):
        checkpoints.save_model_by_name(model, step)
        torch.nn.init.ones_(next(model.parameters()))
    return run


def report_lines(stdout: str) -> list[str]:
    """The report, without the paths of pictures."""
    return [line for line in stdout.splitlines() if not line.startswith("Picture: ")]


def weights(path: Path) -> dict:
    """What a file of weights, or a training state, holds."""
    return torch.load(path, weights_only=True)


def results(folder: Path, name: str) -> dict:
    """A run's results.json."""
    return json.loads((folder / "logs" / name / "results.json").read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and ".locks" not in path.parts
    }


def same_weights(one: dict, other: dict) -> bool:
    """Whether two state_dicts are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
