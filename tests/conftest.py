"""What the tests share: folders of their own, data drawn once, and run scripts as processes."""

import codecs
import importlib
import io
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from codebase import ROOT, checkpoints, figures, records, synthetic
from codebase.models.vae import VAE

SCRIPTS = ("run_vae.py", "run_gmvae.py", "run_ssvae.py", "run_fsvae.py")
# No test may depend on a network: where there is one, a proxy that is not there hides it.
NO_NETWORK = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}


@pytest.fixture(scope="session")
def data_dir():
    """A data folder with the synthetic digits and house numbers, which every user can read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        synthetic.make_digits(folder)
        synthetic.make_house_numbers(folder)
        yield folder


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """A data folder with the real MNIST; skips where there is none."""
    for folder in (ROOT / "data", ROOT.parent / "shared" / "data"):
        if (folder / "MNIST" / "raw" / "t10k-images-idx3-ubyte").exists():
            return folder
    pytest.skip("the real MNIST is not in data/")


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """checkpoints/ and logs/ of the test's own, for runs in this process; returns their parent."""
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(records, "LOGS", tmp_path / "logs")
    return tmp_path


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the project, whose checkpoints/ and logs/ are the test's own."""
    folder = tmp_path / "project"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "codebase", folder / "codebase", ignore=ignore)
    for script in SCRIPTS:
        shutil.copy(ROOT / script, folder)
    return folder


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
        text=True,
        timeout=300,
        **options,
    )


# Child processes that start at once, because the server that forks them has imported everything.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["conftest", "run_vae", "matplotlib.figure"])


def draw_few(folder: Path) -> None:
    """In a child: draw 2,000 synthetic digits in the place of 70,000."""
    synthetic.TRAIN_COUNTS, synthetic.TEST_COUNTS = (150,) * 10, (50,) * 10
    synthetic.make_digits(folder)


class Child:
    """`python <script> <flags>` in a process that has imported everything already.

    folder: where its checkpoints/, logs/ and output are; --data_dir and the like are flags
    user: the user id it runs as
    file_size: the most bytes that a file of its may have
    """

    def __init__(self, folder: Path, script: str, *flags, user=None, file_size=None):
        folder.mkdir(exist_ok=True)
        self.folder, self._outputs = folder, tempfile.TemporaryDirectory()
        os.chmod(self._outputs.name, 0o777)
        arguments = (folder, self._outputs.name, script, [str(f) for f in flags], user, file_size)
        self.process = FORKSERVER.Process(target=_main, args=arguments)
        self.process.start()

    def finish(self) -> tuple[int, str, str]:
        """Wait for its end: exit status, standard output, standard error."""
        self.process.join(240)
        stdout, stderr = (Path(self._outputs.name, name) for name in ("stdout", "stderr"))
        return self.process.exitcode, stdout.read_text(), stderr.read_text()

    def wait_until(self, condition) -> None:
        """Wait until it has got so far, or has ended."""
        while self.process.is_alive() and not condition():
            time.sleep(0.005)


def _main(folder, outputs, script, flags, user, file_size) -> None:
    os.environ |= NO_NETWORK
    checkpoints.CHECKPOINTS, records.LOGS = folder / "checkpoints", folder / "logs"
    sys.stdout = open(f"{outputs}/stdout", "w", buffering=1)
    sys.stderr = open(f"{outputs}/stderr", "w", buffering=1)
    sys.argv = [script, *flags]
    torch.set_num_threads(1)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    main = importlib.import_module(script.removesuffix(".py")).main
    if user is not None:
        _import_what_is_imported_late()  # the user may have no access to those modules
        os.setgid(user)
        os.setuid(user)
    main()


def _import_what_is_imported_late() -> None:
    codecs.lookup("hex")
    importlib.import_module("tensorboardX")
    figures.png(torch.zeros(3, 8, 8))
    file = io.BytesIO()
    torch.save(VAE().state_dict(), file)
    file.seek(0)
    torch.load(file, map_location="cpu", weights_only=True)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def same_weights(one: dict, other: dict) -> bool:
    """Whether two state_dicts are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
