"""Create the explorer page for a run: choose the run, the images and the file."""

import os
import re
import sys
import webbrowser
from pathlib import Path

import torch

from codebase import checkpoints, data
from codebase.datasets import download, synthetic
from codebase.datasets.download import DataError
from codebase.explorer import export
from codebase.models.base import LatentVariableModel
from codebase.project import UserError, steps_in, weights_file
from codebase.runs.run import Run, data_of, load_run, located

FILE = "explore.html"
PER_ROW = 3  # images to encode from each row of ten examples; a row is one class of MNIST
DEFAULT = "model=vae_z=10_run=0000"


def explore(run: str | None, data_dir: Path, out: Path) -> None:
    """Write the explorer page for a run.

    Args:
        run: name or path of the run, see `codebase.load_run`; None: your last run, else the
            reference weights
        data_dir: folder of the data sets; missing ones are not downloaded
        out: path of the page

    Raises:
        UserError: there is no such run, its weights are damaged, or out is not an ordinary file
    """
    folder, step, found = located(run or _last() or _reference())
    if out.is_dir() or (out.exists() and not out.is_file()):
        raise UserError(f"--out {out} is not an ordinary file: pass a file, such as {FILE}")
    model = load_run(folder, step)
    print(f"Run: {found.name}, iteration {step}", file=sys.stderr)
    write_page(found, model, step, _data_at_hand(found, model, data_dir), out)


def write_page(
    run: Run, model: LatentVariableModel, step: int, found: data.Data | None, path: Path
) -> None:
    """Write the explorer page for a trained model. Without data, it shows samples.

    Raises:
        UserError: see `export.write`
        OSError: the page cannot be written
    """
    kind = type(model).__name__.replace("LaplaceVAE", "VAE")
    about = [f"{kind}, {model.z_dim} dimensions of z, iteration {step:,}"]
    options = re.sub(r".*_run=[0-9]+|_data=synthetic", "", run.name)
    about += [f"--{option.replace('=', ' ')}" for option in options.split("_")[1:]]
    if getattr(model, "gen_weight", 1) == 0:
        about.append("--gw 0: only its classifier was trained, and its images are noise")
    if run.is_synthetic:
        about.append("trained on synthetic digits")
    images = test = examples = None
    if found is None:
        about.append("its data set is not available, so the page shows samples of the model")
    else:
        test = found.test if found.test[0] is not None else None
        x, y = data.examples(found)
        examples = x, y.argmax(-1)
        index = [10 * row + i for row in range(10) for i in range(PER_ROW)]
        source = "test image" if test else "training image"
        images = export.Images(x[index], y[index].argmax(-1), source)
    export.write(path, model, run.name, "; ".join(about), images, test, examples)


def _last() -> Path | None:
    """Return the folder of your run with the newest weights; None if you have no run."""
    weights = [
        weights_file(folder, steps[-1])
        for folder in checkpoints.CHECKPOINTS.glob("model=*")
        if (steps := steps_in(folder))
    ]
    found = [path for path in weights if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def _reference() -> Path:
    folder = checkpoints.reference_folder(DEFAULT)
    if not folder.is_dir():
        raise UserError("there is no run yet: train one, for example with python run_vae.py")
    return folder


def _data_at_hand(run: Run, model: LatentVariableModel, data_dir: Path) -> data.Data | None:
    """Return a run's data set if it is on disk; never download or draw it."""
    name, folder = data_of(run, model), data_dir
    missing = [n for n, path in download.locate(model.dataset, data_dir).items() if path is None]
    if name == "synthetic":
        kinds = {"mnist": ("MNIST/raw", synthetic.DIGITS_MD5)}
        place, names = kinds.get(model.dataset, ("SVHN", synthetic.HOUSE_NUMBERS_MD5))
        folder = data_dir / "synthetic" / place
        missing = [file for file in names if not (folder / file).is_file()]
    try:
        if not missing:
            source = data.Source(name, data_dir, torch.device("cpu"), train=False)
            return data.to_evaluate(model, source)
        trouble = "are not in"
    except DataError:
        trouble = "are damaged in"
    print(f"Its images {trouble} {folder}: samples take their place", file=sys.stderr)
    return None


def open_in_browser(path: Path) -> None:
    """Open a page if a user is probably at this machine."""
    if sys.stdout.isatty() and (os.name == "nt" or sys.platform == "darwin" or _has_display()):
        webbrowser.open(path.resolve().as_uri())


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
