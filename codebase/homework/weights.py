"""Mark reported values by evaluating the submitted weights with this project's code."""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from codebase import data
from codebase import evaluate as evaluation
from codebase.homework.marking import Mark
from codebase.homework.problems import REPORTS, Question
from codebase.homework.submission import Submission
from codebase.machine.files import one_line, write_atomically
from codebase.models import LatentVariableModel
from codebase.project import ROOT, group_of, model_of_name, step_of
from codebase.runs.published import ITERATIONS, PUBLISHED, REPLICATES
from codebase.runs.run import load_run

MOST_RUNS = 10  # runs of one kind that are evaluated
WITHOUT_BOUND = "model=ssvae_gw=000_cw=100"
SEED = 0
DEVIATIONS = 4  # how many standard deviations a value may be from the mean of replicates


def marks(
    handed_in: Submission, points: Mapping[str, float], code: Mapping[str, Mark], data_dir: Path
) -> list[Mark]:
    """Mark the questions that ask for values of trained models.

    Args:
        handed_in: the submission, with its weights
        points: points keyed by question
        code: marks of the submission's functions
        data_dir: folder of MNIST
    """
    checkpoints = checkpoints_of(handed_in)
    values: dict[str, dict[str, float] | str] = {}
    marked = []
    for report in REPORTS:
        runs = [run for run in sorted(checkpoints) if group_of(run) == report.group]
        tried = []
        for run in runs[:MOST_RUNS] if points[report.key] else ():
            step, path = checkpoints[run]
            if run not in values:
                values[run] = _evaluate(handed_in.files[path], run, step, data_dir)
            tried.append(_mark(report, points[report.key], run, step, values[run], code))
        missing = _missing(report, points[report.key], checkpoints)
        if points[report.key]:
            marked.append(max(tried, key=lambda mark: mark.score, default=missing))
    return marked


def expected(group: str, metric: str) -> tuple[float, float]:
    """Return the expected range of a metric: the replicates' mean ± 4 standard deviations.

    The standard deviation is this project's or the published one, whichever is larger.
    """
    mean, deviation, _ = REPLICATES[group][metric]
    deviation = max(deviation, PUBLISHED[group][metric][1] or 0)
    return mean - DEVIATIONS * deviation, mean + DEVIATIONS * deviation


def in_words(metric: str, value: float) -> str:
    """Format a metric: nats with two decimals, accuracies in percent."""
    if not abs(value) < 1e6:
        return f"{value:.2g}"
    return f"{value:.2%}" if metric == "accuracy" else f"{value:.2f}"


def checkpoints_of(handed_in: Submission) -> dict[str, tuple[int, str]]:
    """Find the last iteration and path of each run's weights, preferably in checkpoints/.

    Folders of the same name elsewhere may be backups.
    """
    found: dict[str, tuple[int, str]] = {}
    folders: dict[str, Path] = {}
    own = f"{handed_in.root}checkpoints/"
    paths = [path for path in handed_in.files if path.endswith(".pt")]
    for path in sorted(paths, key=lambda one: (not one.startswith(own), one.count("/"), one)):
        folder, step = Path(path).parent, step_of(Path(path))
        run = folder.name
        if step is not None and run and folders.setdefault(run, folder) == folder:
            found[run] = max(found.get(run, (0, "")), (step, path))
    return found


def metrics_of(model: LatentVariableModel, data_dir: Path) -> dict[str, float]:
    """Evaluate a model on MNIST with a fixed seed; return its metrics, keyed by name."""
    test = data.to_evaluate(model, "mnist", data_dir)
    with torch.random.fork_rng([]), contextlib.redirect_stdout(io.StringIO()):
        torch.manual_seed(SEED)
        return evaluation.evaluate(model, test)


def _evaluate(content: bytes, run: str, step: int, data_dir: Path) -> dict[str, float] | str:
    """Return the metrics of a file of weights, or why it cannot be evaluated, from a new process.

    Raises:
        subprocess.CalledProcessError: the process failed, for example for lack of memory
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, run, f"model-{step:05d}.pt")
        write_atomically(file, content)
        command = [
            sys.executable,
            "-m",
            "codebase.homework.weights",
            str(file),
            str(data_dir.resolve()),
        ]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
        found = json.loads(done.stdout)
    return found.replace(f"{folder}/", "") if isinstance(found, str) else found


def metrics_of_file(file: Path, data_dir: Path) -> dict[str, float] | str:
    """Return the metrics of a file of weights, or why it has none."""
    try:
        model_of_name(file.parent.name)
        model = load_run(file)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise anything: it costs no other points
        return one_line(error)
    return metrics_of(model, data_dir)


def _mark(
    report: Question,
    points: float,
    run: str,
    step: int,
    values: Mapping[str, float] | str,
    code: Mapping[str, Mark],
) -> Mark:
    """Mark reported values by evaluating one run's weights."""
    name = f"{run}, iteration {step:,}"
    if isinstance(values, str):
        reason = f"The weights of {name} cannot be evaluated: {values}."
        return Mark(report, points, 0, tuple(report.parts), (reason,))
    outside, told = [], []
    for metric in report.parts:
        low, high = expected(report.group, metric)
        outside += [] if low <= values[metric] <= high else [metric]
        value, least, most = (in_words(metric, one) for one in (values[metric], low, high))
        told.append(f"{metric} {value} ({least} to {most})")
    said = [f"The weights of {name} give (expected range in parentheses): {', '.join(told)}."]
    if outside:
        said.insert(0, _out_of_range(report, step, outside, code))
    score = points * (1 - sum(report.parts[metric] for metric in outside))
    return Mark(report, points, round(score, 2), tuple(outside), tuple(said))


def _out_of_range(report: Question, step: int, metrics: list[str], code: Mapping[str, Mark]) -> str:
    told, most = f"Outside the expected range: {', '.join(metrics)}.", ITERATIONS[report.group]
    if step < most:
        return f"{told} Your weights are from iteration {step:,}; train for {most:,}."
    loss = f"{model_of_name(f'{report.group}_run=0000')['class']}.negative_elbo_bound"
    used = [name for name in code if name == loss or "." not in name]
    if report.group != WITHOUT_BOUND and any(code[name].lost for name in used):
        return f"{told} {loss} is probably wrong; correct it and train again."
    return f"{told} Train again with the script's default flags."


def _missing(report: Question, points: float, checkpoints: Mapping[str, object]) -> Mark:
    """Return the mark for missing weights, or for weights that do not count."""
    of_digits = f"{report.group}_data=synthetic"
    reason = (
        f"You handed in no weights of {report.group}_run=0000; train this model, and hand in "
        "its weights with python -m codebase submit --weights 1."
    )
    for name in sorted(checkpoints):
        if group_of(name) == of_digits:
            reason = f"{name} was trained on synthetic digits; train on MNIST."
    return Mark(report, points, 0, tuple(report.parts), (reason,))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(metrics_of_file(Path(sys.argv[1]), Path(sys.argv[2]))))
