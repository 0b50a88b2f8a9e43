"""Making the page of a run: which run, which images, and where the page goes."""

import os
import sys
import webbrowser
from pathlib import Path

import torch

from codebase import UserError, checkpoints, data
from codebase.datasets.download import MNIST_MD5, SVHN_MD5
from codebase.explorer import export
from codebase.runs.experiment import Run
from codebase.runs.load import load_run, located, run_in
from codebase.runs.report import Trained

FILE = "explore.html"
PER_ROW = 3  # of ten examples, which are one class of MNIST: images to encode
DEFAULT = "model=vae_z=10_run=0000"


def explore(run: str | None, data_dir: Path, out: Path) -> None:
    """Write the page of a run.

    Args:
        run: its name or path, see `codebase.load_run`; None: one's last run, else the reference
            weights
        data_dir: folder of the data sets; what is not there is not downloaded
        out: the page's path

    Raises:
        UserError: there is no such run, or its weights or data are damaged
    """
    folder, step = located(run or _last() or _reference())
    model, identity = load_run(folder, step), run_in(folder)
    found = None
    if _at_hand(identity, data_dir):
        found = identity.experiment.load(identity, torch.device("cpu"), data_dir, train=False)
    write_page(Trained(identity, model, step, found), out)


def write_page(trained: Trained, path: Path) -> None:
    """Write the page of a trained model, whose data may be None.

    Raises:
        UserError: see `export.write`
        OSError: it cannot be written
    """
    run, model, step, found = trained
    about = f"{run.experiment.model.upper()}, {model.z_dim} dimensions of z, iteration {step:,}"
    about += "; trained on synthetic digits" if run.data == "synthetic" else ""
    images = test = None
    if found is None:
        about += "; the data set was not at hand, and its images are samples of the model"
    else:
        test = found.test if found.test[0] is not None else None
        x, y = data.examples(found)
        index = [10 * row + i for row in range(10) for i in range(PER_ROW)]
        source = "test image" if test else "training image"
        images = export.Images(x[index], y[index].argmax(-1), source)
    export.write(path, model, run.name, about, images, test)


def _last() -> Path | None:
    """The run of one's own whose weights are the newest."""
    weights = [
        path
        for path in checkpoints.CHECKPOINTS.glob("model=*/model-*.pt")
        if path.parent.name != checkpoints.REFERENCE
    ]
    return max(weights, key=lambda path: path.stat().st_mtime).parent if weights else None


def _reference() -> Path:
    folder = checkpoints.reference_folder(DEFAULT)
    if not folder.is_dir():
        raise UserError("there is no run yet: train one, such as python run_vae.py")
    return folder


def _at_hand(run: Run, data_dir: Path) -> bool:
    """Whether a run's data set is there: none is downloaded or drawn for a page."""
    dataset = run.experiment.dataset
    if run.data == "synthetic":
        folder = data_dir / "synthetic" / ("SVHN" if dataset == "svhn" else "MNIST/raw")
        return folder.is_dir() and any(folder.iterdir())
    folder = data_dir / "MNIST" / "raw" if dataset == "mnist" else data_dir
    names = MNIST_MD5 if dataset == "mnist" else SVHN_MD5
    return all((folder / name).is_file() for name in names)


def open_in_browser(path: Path) -> None:
    """Open a page where somebody sits who would see it."""
    if sys.stdout.isatty() and (os.name == "nt" or sys.platform == "darwin" or _has_display()):
        webbrowser.open(path.resolve().as_uri())


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
