"""What the tests share: folders of their own, data drawn once, and run scripts as processes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from codebase import ROOT, checkpoints, records, synthetic

SCRIPTS = ("run_vae.py", "run_gmvae.py", "run_ssvae.py", "run_fsvae.py")
# No test may depend on a network: where there is one, a proxy that is not there hides it.
NO_NETWORK = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    """A data folder with the synthetic digits and house numbers, and nothing else."""
    folder = tmp_path_factory.mktemp("data")
    synthetic.make_digits(folder)
    synthetic.make_house_numbers(folder)
    return folder


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
