"""Report on a trained model: printed metrics, results.json and pictures."""

import math
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from tqdm.auto import tqdm

from codebase import data as data_sets
from codebase import evaluate, figures
from codebase.data import Data
from codebase.machine.files import one_line, write_atomically
from codebase.models.base import LatentVariableModel
from codebase.runs import run as runs
from codebase.runs.experiment import Experiment
from codebase.runs.run import Run
from codebase.train import NotFinite

DIVERGED = 1e5  # nats; an untrained model has 550, and on SVHN 30,000


def make_report(
    experiment: Experiment,
    run: Run,
    model: LatentVariableModel,
    step: int,
    data: Data,
    sheet: tuple[int, int],
    folder: Path,
    more: Mapping = {},
    whose: str = "your run",
) -> tuple[dict, dict[str, bytes]]:
    """Evaluate a trained model; print the report; write pictures, and results.json last.

    The evaluation draws with the run's seed, so its metrics can be reproduced exactly.

    Args:
        experiment: the run script, whose `evaluate` prints and returns the metrics
        run, model, step: the run, its model, and the iterations that it was trained for
        data: evaluation data
        sheet: rows and columns of the sample grid
        folder: folder for the files
        more: additional values for results.json
        whose: the origin of the weights, for the first line

    Returns:
        the results, as in results.json, and the pictures, as PNGs keyed by name

    Raises:
        NotFinite: a metric is not finite
    """
    dataset, iteration = experiment.dataset.upper(), f"iteration {step:,}"
    if step < experiment.iter_max:
        iteration += f" of {experiment.iter_max:,}"
    if run.is_synthetic:
        dataset = f"synthetic digits, not comparable with {dataset}"
    print(f"Evaluating {run.name}, {iteration}, {whose}, on {dataset}")
    torch.manual_seed(run.flags["seed"])
    metrics = experiment.evaluate(model, data)
    if not all(map(math.isfinite, metrics.values())):
        raise NotFinite(f"the metrics of {run.name}, iteration {step}, are not finite")
    results = run.results(step, metrics, data.subset[0].device) | dict(more)
    if hasattr(model, "cls"):
        results["accuracy by class"] = evaluate.accuracy_by_class(model, data.test)
        accuracies = (f"{accuracy:6.4f}" for accuracy in results["accuracy by class"])
        print("class   ", *(f"{digit:>6}" for digit in range(model.y_dim)), file=sys.stderr)
        print("accuracy", *accuracies, file=sys.stderr)
    name, value = next(iter(metrics.items()))
    heading = f"{run.name}, iteration {step}, {name} {value:.4g}"
    drawn: dict[str, tuple] = {}  # by name: a function of figures, and its arguments
    if model.generates:
        examples = data_sets.examples(data)
        drawn["samples"] = (figures.sample_sheet, *sheet)
        drawn["reconstructions"] = (figures.reconstructions, *examples)
        if model.z_dim == 2:
            drawn["latent"] = (figures.latent_plane, *data.test)
            drawn["manifold"] = (figures.manifold, *data.test)
        else:
            drawn["traversal"] = (figures.traversal, *examples)
    pictures = {
        name: write_picture(folder / f"{name}.png", heading, model, draw, *of)
        for name, (draw, *of) in drawn.items()
    }
    try:
        runs.write_json(folder / runs.RESULTS_FILE, results)  # a run with results is finished
    except OSError as error:
        print(f"warning: results not written: {error}", file=sys.stderr)
    return results, {name: made for name, made in pictures.items() if made is not None}


def write_picture(
    path: Path, heading: str, model: LatentVariableModel, draw: Callable, *of
) -> bytes | None:
    """Write the picture that draw(model, *of) returns, and print its path; return the PNG.

    If that fails, print a warning and return None, because a picture must not end a run.
    """
    try:
        with figures.isolated_draws(next(model.parameters()).device):
            content = figures.png(draw(model, *of), heading)
        write_atomically(path, content)
    except Exception as error:
        print(f"warning: {path.name} not written: {one_line(error)}", file=sys.stderr)
        return None
    tqdm.write(f"Picture: {path}")
    return content


def held_out_bound(model: LatentVariableModel, data: Data) -> dict[str, float]:
    """Compute the bound on held-out images, keyed by TensorBoard's tags.

    The run's generators do not change. The FSVAE has no held-out images, so its bound is on the
    first training images.
    """
    with figures.isolated_draws(data.subset[0].device):
        observed = model.observed_grey(*data_sets.examples(data))
        nelbo, *kl, rec = (term.item() for term in model.negative_elbo_bound(*observed))
    terms = {"test/elbo": -nelbo, "test/kl_z": kl[0], "test/rec": rec}
    return terms | ({"test/kl_y": kl[1]} if len(kl) > 1 else {})


def say_what_now(
    experiment: Experiment, run: Run, folder: Path, metrics: Mapping[str, float]
) -> None:
    """Print the folder of the results and a command to try next, to standard error."""
    what = f"Next: {experiment.next(Namespace(**run.flags))}"
    if any(abs(value) > DIVERGED for value in metrics.values()):
        what = "Training has diverged: train again with a smaller --lr, and --overwrite 1"
    for line in (
        f"Results and pictures: {folder}",
        f"TensorBoard: tensorboard --logdir {runs.LOGS} (after pip install tensorboard)",
        what,
    ):
        print(line, file=sys.stderr)
