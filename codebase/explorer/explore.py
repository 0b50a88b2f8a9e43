"""Create the explorer page for a run: choose the run, the images and the file."""

import os
import re
import sys
import webbrowser
from pathlib import Path

from codebase import checkpoints, data
from codebase.datasets import download
from codebase.explorer import export
from codebase.models.base import LatentVariableModel
from codebase.project import step_of
from codebase.runs.run import Run, data_of, load_run, located

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
        UserError: there is no such run, or its weights are damaged
    """
    folder, step, found = located(run or _last() or f"{checkpoints.REFERENCE}/{DEFAULT}")
    model = load_run(folder, step)
    print(f"Run: {found.name}, iteration {step}", file=sys.stderr)
    write_page(found, model, step, _data_at_hand(found, model, data_dir), out)


def write_page(
    run: Run, model: LatentVariableModel, step: int, found: data.Data | None, path: Path
) -> None:
    """Write the explorer page for a trained model. Without data, it shows samples."""
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
    found = checkpoints.CHECKPOINTS.glob("model=*/model-*.pt")
    weights = [path for path in found if path.is_file() and step_of(path) is not None]
    return max(weights, key=os.path.getmtime).parent if weights else None


def _data_at_hand(run: Run, model: LatentVariableModel, data_dir: Path) -> data.Data | None:
    """Return a run's data set if no download is needed."""
    source = data_of(run, model)
    if source != "synthetic" and None in download.locate(source, data_dir).values():
        told = f"{source} is not in {data_dir}, so samples take the place of images"
        print(told, file=sys.stderr)
        return None
    return data.to_evaluate(model, source, data_dir)


def open_in_browser(path: Path) -> None:
    """Open a page if a user is probably at this machine."""
    has_screen = os.name == "nt" or sys.platform == "darwin"
    if sys.stdout.isatty() and (has_screen or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()):
        webbrowser.open(path.resolve().as_uri())
