"""What a trained model shows of itself: pictures, the printed report, TensorBoard's extras."""

import contextlib
import io
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from codebase import data as data_sets
from codebase import figures
from codebase.data import Data
from codebase.machine.files import one_line, write_atomically
from codebase.runs.experiment import Run
from codebase.runs.records import Events
from codebase.train import NotFinite


class Trained(NamedTuple):
    """A trained model, and what is known of it.

    run: its identity
    model: with its weights
    step: iterations that it was trained for
    data: what it is evaluated on
    """

    run: Run
    model: torch.nn.Module
    step: int
    data: Data

    @property
    def heading(self) -> str:
        """What stands above its pictures."""
        return f"{self.run.name}, iteration {self.step}"


def report(
    trained: Trained, sheet: tuple[int, int], folder: Path
) -> tuple[dict[str, float], dict[str, object]]:
    """Write a trained model's pictures into a folder and print its report.

    The evaluation draws with the run's seed, so that it can be repeated to the digit.

    Args:
        trained: what to report
        sheet: rows and columns of the sheet of samples
        folder: of the pictures

    Returns:
        the figures by their names, and the pictures by theirs

    Raises:
        NotFinite: a figure is not a number
    """
    run, model, step, data = trained
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):  # pictures have figures in their titles
        if run.data == "synthetic":
            dataset = run.experiment.dataset.upper()
            print(f"Data: synthetic digits, not comparable with {dataset}")
        torch.manual_seed(run.seed)
        outcome = run.experiment.evaluate(model, data)
    name, value = next(iter(outcome.items()))
    heading = f"{trained.heading}, {name} {value:.4g}"
    made = {
        name: write_picture(model, picture, folder / f"{name}.png", heading)
        for name, picture in pictures_of(trained, sheet, heading).items()
    }
    print(printed.getvalue(), end="")
    if not all(map(math.isfinite, outcome.values())):
        raise NotFinite(f"the figures of {trained.heading} are not finite")
    return outcome, {name: picture for name, picture in made.items() if picture is not None}


def pictures_of(trained: Trained, sheet: tuple[int, int], heading: str) -> dict[str, Callable]:
    """The pictures of a trained model, as functions that make them, by their names."""
    model, data = trained.model, trained.data

    def examples():
        return data_sets.examples(data)

    pictures = {
        "samples": lambda: figures.sample_sheet(model, *sheet),
        "reconstructions": lambda: figures.reconstructions(model, *examples()),
    }
    if model.z_dim == 2:
        pictures["latent"] = lambda: figures.latent_plane(model, *data.test, heading)
        pictures["manifold"] = lambda: figures.manifold(model, *data.test, heading)
    else:
        pictures["traversal"] = lambda: figures.traversal(model, *examples())
    return pictures


def write_sheet(model: torch.nn.Module, sheet: tuple[int, int], path: Path, heading: str):
    """Write a sheet of samples, of so many rows and columns. Returns it, or None."""
    return write_picture(model, lambda: figures.sample_sheet(model, *sheet), path, heading)


def write_picture(model: torch.nn.Module, picture: Callable, path: Path, heading: str = ""):
    """Make a picture, write it, and print its path. Returns it.

    A picture that cannot be made is None, and a warning, never the loss of a trained model.
    """
    try:
        with figures.isolated_draws(next(model.parameters()).device):
            made = picture()
        write_atomically(path, figures.png(made, heading))
    except Exception as error:
        print(f"warning: {path.name} not written: {one_line(error)}", file=sys.stderr)
        return None
    tqdm.write(f"Picture: {path}")
    return made


def held_out_bound(model: torch.nn.Module, data: Data) -> dict[str, float]:
    """The model's bound on images that training does not see, with draws of its own.

    Of FSVAE, whose homework holds none back, on the first training images.

    Returns:
        the terms by TensorBoard's tags
    """
    with figures.isolated_draws(data.subset[0].device):
        x, y = data_sets.examples(data)
        x = model.likelihood.observe(x)
        nelbo, *kl, rec = (term.item() for term in model.negative_elbo_bound(*model.observed(x, y)))
    terms = {"test/elbo": -nelbo, "test/kl_z": kl[0], "test/rec": rec}
    return terms | ({"test/kl_y": kl[1]} if len(kl) > 1 else {})


def record_outcome(events: Events, trained: Trained, results: dict, pictures: dict) -> None:
    """What TensorBoard shows at the end: figures by flags, pictures, posterior means."""
    run, model, step, data = trained
    metrics = {f"final/{name}": value for name, value in results["figures"].items()}
    events.hyperparameters(run.identity(), metrics)
    for name, picture in pictures.items():
        if isinstance(picture, figures.Picture):
            events.add(lambda writer, n=name, p=picture: writer.add_image(n, p.grid, step))
        else:
            events.add(lambda writer, n=name, p=picture: writer.add_figure(n, p, step, close=False))
    try:
        with figures.isolated_draws(data.subset[0].device):
            x, y = data_sets.examples(data)
            x = model.likelihood.observe(x)
            means, *_ = model.infer_latents(*model.observed(x, y))
            images: Tensor = figures.as_images(x)
        events.add(
            lambda writer: writer.add_embedding(
                means.cpu(),
                metadata=y.argmax(-1).tolist(),
                label_img=images,
                global_step=step,
                tag="posterior_means",
            )
        )
    except Exception as error:
        print(f"warning: no embedding for TensorBoard: {one_line(error)}", file=sys.stderr)
