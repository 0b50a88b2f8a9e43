"""Draw one picture of several runs: images, and below them each run's reconstructions."""

from collections.abc import Sequence
from pathlib import Path

from codebase import data, figures
from codebase.machine.files import write_atomically
from codebase.project import UserError
from codebase.runs.run import data_of, load_run, located


def compare(runs: Sequence[str], labels: Sequence[str], data_dir: Path, out: Path) -> None:
    """Draw the comparison.

    Args:
        runs: names or paths of runs on one kind of data
        labels: row labels, one per run
        data_dir: folder of the data sets
        out: path of the picture

    Raises:
        UserError: a run does not exist, the runs' data sets differ, or a label is missing or
            repeated
    """
    if len(labels) != len(runs) or len(set(labels)) != len(labels):
        raise UserError(
            f"--labels: got {len(set(labels))} different labels for {len(runs)} runs, expected one "
            "per run"
        )
    models = {label: load_run(run) for label, run in zip(labels, runs, strict=True)}
    first = models[labels[0]]
    if len({model.dataset for model in models.values()}) > 1:
        raise UserError("compare: these runs were not trained on the same data set")
    loaded = data.to_evaluate(first, data_of(located(runs[0])[2], first), data_dir)
    x, y = (t.unflatten(0, (10, 10))[:, :2].flatten(0, 1) for t in data.examples(loaded))
    with figures.isolated_draws(x.device):
        picture = figures.comparison(models, x, y)
    write_atomically(out, figures.png(picture))
