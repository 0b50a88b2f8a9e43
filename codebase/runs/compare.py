"""Draw one picture of several runs: images, and below them each run's reconstructions."""

from collections.abc import Sequence
from pathlib import Path

import torch

from codebase import data, figures
from codebase.machine.files import write_atomically
from codebase.project import UserError
from codebase.runs.run import data_of, load_run, located


def compare(runs: Sequence[str], labels: Sequence[str], data_dir: Path, out: Path) -> Path:
    """Draw the comparison.

    Args:
        runs: names or paths of runs on one kind of data
        labels: row labels, one per run
        data_dir: folder of the data sets
        out: path of the picture

    Returns:
        path of the picture

    Raises:
        UserError: a run does not exist or has no decoder, the runs' images are of different kinds,
            or a label is missing or repeated
    """
    if len(labels) != len(runs) or len(set(labels)) != len(labels):
        raise UserError(
            f"--labels: got {len(set(labels))} different labels for {len(runs)} runs, expected one "
            "per run"
        )
    models = {label: load_run(run) for label, run in zip(labels, runs, strict=True)}
    if not all(model.generates for model in models.values()):
        raise UserError("compare: a run with --gw 0 trains no decoder, so it reconstructs nothing")
    kinds = {
        (data_of(located(run)[2], model), model.dataset, model.likelihood.binary)
        for run, model in zip(runs, models.values(), strict=True)
    }
    if len(kinds) > 1:
        raise UserError("compare: these runs were not trained on the same kind of images")
    [(name, dataset, _)] = kinds
    data.find_or_download(dataset, name, data_dir)
    source = data.Source(name, data_dir, torch.device("cpu"), train=False)
    loaded = data.to_evaluate(next(iter(models.values())), source)
    x, y = (t.unflatten(0, (10, 10))[:, :2].flatten(0, 1) for t in data.examples(loaded))
    with figures.isolated_draws(x.device):
        picture = figures.comparison(models, x, y)
    write_atomically(out, figures.png(picture))
    return out
