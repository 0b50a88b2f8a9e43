"""Making the page of a run: which run, which images, and where the page goes."""

import os
import sys
import webbrowser
from pathlib import Path

import torch

from codebase import UserError, checkpoints, data
from codebase.datasets.checked import DataError
from codebase.datasets.download import MNIST_MD5, SVHN_MD5
from codebase.datasets.synthetic import HOUSE_NUMBERS_MD5
from codebase.explorer import export
from codebase.runs.experiment import Run
from codebase.runs.load import load_run, located
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
    folder, step, identity = located(run or _last() or _reference())
    if out.is_dir() or (out.exists() and not out.is_file()):
        raise UserError(f"--out {out} is no ordinary file: name one, such as {FILE}")
    model = load_run(folder, step)
    print(f"Run: {identity.name}, iteration {step}", file=sys.stderr)
    write_page(Trained(identity, model, step, _data_at_hand(identity, data_dir)), out)


def write_page(trained: Trained, path: Path) -> None:
    """Write the page of a trained model, whose data may be None.

    Raises:
        UserError: see `export.write`
        OSError: it cannot be written
    """
    run, model, step, found = trained
    about = [f"{run.experiment.model.upper()}, {model.z_dim} dimensions of z, iteration {step:,}"]
    about += [
        f"--{option.flag} {run.options[option.flag]}"
        for option in run.experiment.options
        if option.digits is None and run.options[option.flag] != option.default
    ]
    if run.options.get("gw") == 0:
        about.append("--gw 0: only its classifier was trained, and its images are noise")
    if run.data == "synthetic":
        about.append("trained on synthetic digits")
    images = test = None
    if found is None:
        about.append("its data set was not at hand, and samples of the model take its place")
    else:
        test = found.test if found.test[0] is not None else None
        x, y = data.examples(found)
        index = [10 * row + i for row in range(10) for i in range(PER_ROW)]
        source = "test image" if test else "training image"
        images = export.Images(x[index], y[index].argmax(-1), source)
    export.write(path, model, run.name, "; ".join(about), images, test)


def _last() -> Path | None:
    """The run of one's own whose weights are the newest."""
    weights = [
        folder / f"model-{steps[-1]:05d}.pt"
        for folder in checkpoints.CHECKPOINTS.glob("model=*")
        if (steps := checkpoints.steps_in(folder))
    ]
    found = [path for path in weights if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def _reference() -> Path:
    folder = checkpoints.reference_folder(DEFAULT)
    if not folder.is_dir():
        raise UserError("there is no run yet: train one, such as python run_vae.py")
    return folder


def _data_at_hand(run: Run, data_dir: Path) -> data.Data | None:
    """A run's data set where it is there: none is downloaded or drawn for a page."""
    dataset = run.experiment.dataset
    folder = data_dir / "synthetic" if run.data == "synthetic" else data_dir
    if dataset == "mnist":
        folder, names = folder / "MNIST" / "raw", MNIST_MD5
    elif run.data == "synthetic":
        folder, names = folder / "SVHN", HOUSE_NUMBERS_MD5
    else:
        names = SVHN_MD5
    try:
        if all((folder / name).is_file() for name in names):
            return run.experiment.load(run, torch.device("cpu"), data_dir, train=False)
        trouble = "are not in"
    except DataError:
        trouble = "are damaged in"
    print(f"Its images {trouble} {folder}: samples take their place", file=sys.stderr)
    return None


def open_in_browser(path: Path) -> None:
    """Open a page where somebody sits who would see it."""
    if sys.stdout.isatty() and (os.name == "nt" or sys.platform == "darwin" or _has_display()):
        webbrowser.open(path.resolve().as_uri())


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
