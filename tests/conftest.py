"""What the tests share: folders of their own, data drawn once, and run scripts as processes."""

import argparse
import codecs
import contextlib
import gc
import importlib
import io
import json
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from pathlib import Path

import elsewhere
import faults
import pytest
import tiny
import torch
from filelock import FileLock
from tensorboardX.proto.event_pb2 import Event

from codebase import ROOT, checkpoints, data, figures
from codebase.models.vae import VAE
from codebase.runs import report
from codebase.runs import run as runs

# Imports make many objects and no garbage: looking for it took a quarter to a third of their time.
gc.disable()
# Each of pytest-xdist's workers has a core of its own: threads would only wait for one another.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
SCRIPTS = ("run_vae.py", "run_gmvae.py", "run_ssvae.py", "run_fsvae.py")
# No test may depend on a network: where there is one, a proxy that is not there hides it.
NO_NETWORK = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
NOBODY = 65534 if os.name == "posix" and os.geteuid() == 0 else None  # root may do everything


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


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
def data_dir() -> Path:
    """A data folder for a Child, whose few images need no files (see `tiny`). It does not exist."""
    return Path(tempfile.gettempdir(), "no-data")


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
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", a_fresh_clone / "checkpoints")
    monkeypatch.setattr(runs, "LOGS", a_fresh_clone / "logs")


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """Give a test its own checkpoints/ and logs/ for runs in its process; return their parent."""
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(runs, "LOGS", tmp_path / "logs")
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return a function that puts what a Child leaves into a folder; the same flags run once."""
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


@pytest.fixture
def public():
    """A folder below which another user may read everything."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def count(request):
    """Notes how many attacks of a family were tried, for the summary; one that hurts fails."""

    def note(family: str, tried: int) -> None:
        request.node.user_properties.append(("attack", [family, tried]))

    return note


def pytest_terminal_summary(terminalreporter):
    for passed in terminalreporter.getreports("passed"):
        for key, value in passed.user_properties:
            if key == "attack" and passed.when == "call":
                family, tried = value
                terminalreporter.write_line(f"attack: {family}: {tried} tried, {tried} kept")


def run_script(
    project: Path, *command, data_dir: Path | None = None, **options
) -> subprocess.CompletedProcess:
    """Run a script of a project to its end, from another working directory."""
    flags = [str(word) for word in command[1:]]
    if data_dir is not None:
        flags += ["--data_dir", str(data_dir)]
    return subprocess.run(
        [sys.executable, str(project / command[0]), *flags],
        cwd=project.parent,
        env=os.environ | NO_NETWORK | options.pop("env", {}),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        **options,
    )


# Child processes that start at once, because the server that forks them has imported everything.
FORKSERVER = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
if hasattr(os, "fork"):
    FORKSERVER.set_forkserver_preload(["tests.preloaded"])


class Child:
    """`python <script> <flags>` in a process that has imported everything already.

    It trains on few images, draws small pictures, and evaluates seldom: see `tiny`.

    Args:
        folder: where its checkpoints/, logs/ and output are
        script: a run script, or "codebase" for python -m codebase
        flags: --data_dir and the like, and values
        whole: its data and evaluation are a user's, see `whole_data`
        user: the user id it runs as
        file_size, memory: the most bytes that each of its files, and its data segment, may have
        stop: (signal, picture): it sends itself the signal when the picture has been written
        elsewhere: it has nothing that Windows lacks, see `elsewhere`
        fault: (number of the operation on files, kind): see `faults`
        trace: file that gets the operations on files
    """

    def __init__(self, folder: Path, script: str, *flags, **options):
        folder.mkdir(exist_ok=True)
        self.folder, self._outputs = folder, tempfile.TemporaryDirectory()
        os.chmod(self._outputs.name, 0o777)
        arguments = (folder, self._outputs.name, script, [str(f) for f in flags], options)
        self.process = FORKSERVER.Process(target=_main, args=arguments, daemon=True)
        self.process.start()

    def finish(self) -> tuple[int, str, str]:
        """Wait for its end: exit status, standard output, standard error."""
        self.process.join(240)
        stdout, stderr = (Path(self._outputs.name, name) for name in ("stdout", "stderr"))
        return (
            self.process.exitcode,
            stdout.read_text(encoding="utf-8"),
            stderr.read_text(encoding="utf-8"),
        )

    def stderr(self) -> str:
        """What it has written to standard error so far."""
        path = Path(self._outputs.name, "stderr")
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def wait_until(self, condition) -> None:
        """Wait until it has got so far, or has ended."""
        while self.process.is_alive() and not condition():
            time.sleep(0.005)


def run_python(folder: Path, *command) -> subprocess.CompletedProcess:
    """`python <command>` in a folder, to its end, with a project that is not this one.

    In a process that has imported torch and all other packages already, but nothing of the project.
    """
    command = [str(word) for word in command]
    with tempfile.TemporaryDirectory() as outputs:
        process = FORKSERVER.Process(target=_python, args=(folder, outputs, command))
        process.start()
        process.join(300)
        stdout, stderr = (
            Path(outputs, name).read_text(encoding="utf-8", errors="replace")
            for name in ("stdout", "stderr")
        )
    return subprocess.CompletedProcess(command, process.exitcode, stdout, stderr)


def _is_ours(path: str) -> bool:
    """Whether a path lies in the project, but not in its virtual environment."""
    return f"{path}{os.sep}".startswith(f"{ROOT}{os.sep}") and ".venv" not in Path(path).parts


def _python(folder, outputs, command) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{outputs}/{name}", os.O_WRONLY | os.O_CREAT), number)
    os.environ |= NO_NETWORK
    os.chdir(folder)
    for name, module in list(sys.modules.items()):
        if _is_ours(str(getattr(module, "__file__", None))):
            del sys.modules[name]
    how, *sys.argv = command if command[0] in ("-c", "-m") else ("", *command)
    own = [path for path in sys.path if not _is_ours(str(Path(path).resolve()))]
    sys.path[:] = [str(folder if how else Path(folder, sys.argv[0]).parent), *own]
    if how == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        exec(sys.argv[0], {"__name__": "__main__"})
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


def _main(folder, outputs, script, flags, options) -> None:
    assert "run_vae" in sys.modules, "the server that forks has not imported tests/preloaded.py"
    os.environ |= NO_NETWORK
    checkpoints.CHECKPOINTS, runs.LOGS = folder / "checkpoints", folder / "logs"
    sys.stdout = open(f"{outputs}/stdout", "w", buffering=1, encoding="utf-8")
    sys.stderr = open(f"{outputs}/stderr", "w", buffering=1, encoding="utf-8")
    sys.argv = [script, *flags]
    warnings.filterwarnings("error", category=EncodingWarning, module="codebase")
    torch.set_num_threads(1)
    for limit, name in (("RLIMIT_FSIZE", "file_size"), ("RLIMIT_DATA", "memory")):
        if name in options:
            resource = importlib.import_module("resource")  # which Windows lacks
            resource.setrlimit(getattr(resource, limit), (options[name],) * 2)
    module = "codebase.__main__" if script == "codebase" else script.removesuffix(".py")
    module = importlib.import_module(module)
    if options.get("user") is not None:
        import_what_is_imported_late()  # the user may have no access to those modules
        os.setgid(options["user"])
        os.setuid(options["user"])
    if options.get("elsewhere"):
        import_what_is_imported_late()
        elsewhere.hide_posix()
    if "stop" in options:
        _stop_after(*options["stop"])
    if "fault" in options or "trace" in options:
        import_what_is_imported_late()
        faults.install(folder, *options.get("fault", (0, "end")), options.get("trace"))
    if script == "codebase":
        module.main()
    else:
        if options.get("whole"):
            return module.main(module.experiment)
        figures.WIDTH = 1  # grids in their images' own pixels
        module.main(tiny.tiny(module.experiment))


def _stop_after(number: int, picture: str) -> None:
    write = report.write_atomically

    def write_and_stop(path, content):
        write(path, content)
        if path.name == picture:
            os.kill(os.getpid(), number)

    report.write_atomically = write_and_stop


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


def import_what_is_imported_late() -> None:
    codecs.lookup("hex")
    for name in ("tensorboardX", "torchvision", "scipy.stats"):
        importlib.import_module(name)
    figures.png(figures.sample_sheet(VAE()), "x")
    file = io.BytesIO()
    torch.save(VAE().state_dict(), file)
    file.seek(0)
    torch.load(file, map_location="cpu", weights_only=True)


def run_all(*children: Child) -> list[tuple[int, str, str]]:
    """Wait for processes, which must succeed; return what they printed."""
    outputs = [child.finish() for child in children]
    for status, _, stderr in outputs:
        assert status == 0, stderr
    return outputs


def succeed(*arguments, **options) -> tuple[str, str]:
    """Run a Child, which must succeed; return standard output and standard error."""
    [(_, stdout, stderr)] = run_all(Child(*arguments, **options))
    return stdout, stderr


def in_process(folder: Path, script: str, *flags) -> tuple[int, str, str]:
    """Run a command in this process, as a Child does: exit status, output, standard error."""
    module = importlib.import_module(
        "codebase.__main__" if script == "codebase" else script.removesuffix(".py")
    )
    printed, said, status = io.StringIO(), io.StringIO(), 0
    folder.mkdir(exist_ok=True)
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(said),
    ):
        patch.setattr(checkpoints, "CHECKPOINTS", folder / "checkpoints")
        patch.setattr(runs, "LOGS", folder / "logs")
        patch.setattr(sys, "argv", [script, *map(str, flags)])
        for name, value in NO_NETWORK.items():
            patch.setenv(name, value)
        urllib.request.install_opener(None)  # the last one has kept the proxies of its time
        try:
            if script == "codebase":
                module.main()
            else:
                module.main(tiny.tiny(module.experiment))
        except SystemExit as ended:
            status = ended.code
        finally:
            urllib.request.install_opener(None)
            torch.set_num_threads(1)
    return status, printed.getvalue(), said.getvalue()


def refused(*arguments, **options) -> str:
    """Run a command that must be refused in one line with exit status 2; returns the line.

    It runs in this process, unless it has the options of a Child.
    """
    run = Child(*arguments, **options).finish if options else lambda: in_process(*arguments)
    status, stdout, stderr = run()
    lines = [line for line in stderr.splitlines() if line.strip() and line[0] != "*"]
    lines = [line for line in lines if "it/s" not in line and "it]" not in line]  # the bar
    assert (status, stdout, len(lines)) == (2, "", 1), (status, stdout, stderr)
    return lines[0]


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


def events_of(folder: Path):
    """Yield the events in a folder, from their records: length, checksum, event, checksum."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            length = int.from_bytes(content[:8], "little")
            event = Event()
            event.ParseFromString(content[12 : 12 + length])
            yield event
            content = content[16 + length :]
