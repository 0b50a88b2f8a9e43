"""The values that a student reports: marked by evaluating the weights with this project's code."""

import contextlib
import errno
import io
import json
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from codebase import data, models
from codebase import evaluate as evaluation
from codebase.homework import submission
from codebase.homework.marking import Mark
from codebase.homework.problems import REPORTS, Report
from codebase.homework.submission import Submission
from codebase.machine.files import one_line, write_atomically
from codebase.project import UserError, group_of, model_of_name
from codebase.runs.published import ITERATIONS, PUBLISHED, REPLICATES
from codebase.runs.run import load_run

LARGEST = 64 << 20  # bytes; the largest weights that are graded have 4.2 million
MOST_RUNS = 10  # runs of one kind that are evaluated
WITHOUT_BOUND, SYNTHETIC = "model=ssvae_gw=000_cw=100", "_data=synthetic"
SEED = 0
# Errors that a student's JSON file may cause.
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
UNREADABLE += (RecursionError,)
DEVIATIONS = 4  # how many standard deviations a value may be from the mean of replicates
# How far two evaluations of the same weights may be apart. Over 12 seeds, the bounds of the
# reference weights differed by at most 0.31 nats (standard deviation at most 0.10).
TOLERANCES = {"accuracy": 0.001}
TOLERANCE = 0.6  # nats


@dataclass(frozen=True)
class Evaluated:
    """A submitted checkpoint.

    Args:
        run, step: name of the run, and iteration
        values: its metrics here; empty if it cannot be evaluated
        reason: why it cannot be
        reported: the metrics in the submission's results.json; empty if there is none
        of_step: the iteration in that file
        untrained: whether its values are closer to initial weights' values than to trained ones'
    """

    run: str
    step: int
    values: dict[str, float]
    reason: str
    reported: dict[str, float]
    of_step: int | None
    untrained: bool = False


def marks(
    handed_in: Submission, points: Mapping[str, float], code: Mapping[str, Mark], data_dir: Path
) -> list[Mark]:
    """Mark the questions that ask for values of trained models.

    Args:
        handed_in: the submission, with its weights
        points: by question
        code: marks of the submission's functions
        data_dir: folder of MNIST

    Raises:
        UserError: MNIST is not there
    """
    data.find_or_download("mnist", "mnist", data_dir)
    checkpoints, found = checkpoints_of(handed_in), {}
    for run, (step, path) in _of_the_homework(checkpoints).items():
        one = _evaluate(handed_in, path, run, step, data_dir)
        found.setdefault(group_of(run), []).append(one)
    marked = []
    for report in REPORTS:
        if points[report.key]:
            tried = [
                _mark(report, points[report.key], run, code) for run in found.get(report.group, [])
            ]
            best = max(tried, key=lambda mark: mark.score, default=None)
            marked.append(best or _missing(report, points[report.key], checkpoints))
    return marked


def expected(group: str, metric: str) -> tuple[float, float]:
    """The range of a metric that such training gives: replicates' mean ± 4 standard deviations.

    The larger deviation counts, this project's or the published one: some are of four runs.
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
    """The last iteration and the path of each run's weights, in the first folder of its name."""
    found, folders = {}, {}
    paths = [path for path in handed_in.files if path.endswith(".pt")]
    for path in submission.by_importance(paths, handed_in.root, "checkpoints"):
        above, _, file = path.rpartition("/")
        run, step = above.rpartition("/")[2], file.removeprefix("model-").removesuffix(".pt")
        if file == f"model-{step}.pt" and step.isdecimal() and len(step) < 12 and run:
            if folders.setdefault(run, above) == above:
                found[run] = max(found.get(run, (0, "")), (int(step), path))
    return found


def _of_the_homework(checkpoints: dict[str, tuple[int, str]]) -> dict[str, tuple[int, str]]:
    """The runs of the homework, a few of a kind."""
    found: dict[str, list[str]] = {}
    for run in sorted(checkpoints):
        with contextlib.suppress(UserError):
            model_of_name(run)
            found.setdefault(group_of(run), []).append(run)
    kept = [run for group in found if group in REPLICATES for run in found[group][:MOST_RUNS]]
    return {run: checkpoints[run] for run in kept}


def _reported(handed_in: Submission, run: str, step: int) -> tuple[dict[str, float], int | None]:
    """The metrics in the submission's results of a run, and the iteration that they are of.

    An evaluation of this iteration comes before the training's own; there may be none.
    """
    ends = (f"/{run}/evaluation-{step:05d}/results.json", f"/{run}/results.json")
    paths = submission.by_importance(list(handed_in.files), handed_in.root, "logs")
    for path in (path for end in ends for path in paths if f"/{path}".endswith(end)):
        with contextlib.suppress(*UNREADABLE):
            content = json.loads(handed_in.files[path])
            numbers = {k: v for k, v in content["figures"].items() if type(v) in (int, float)}
            found = {metric: float(value) for metric, value in numbers.items()}
            of_step = content.get("iterations")
            return found, of_step if type(of_step) is int and 0 <= of_step < 10**12 else None
    return {}, None


def _evaluate(handed_in: Submission, path: str, run: str, step: int, data_dir: Path) -> Evaluated:
    reported = _reported(handed_in, run, step)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, run, f"model-{step:05d}.pt")
        write_atomically(file, handed_in.files[path])
        try:
            _check_size(file)
            model = load_run(file)
        except MemoryError:
            raise  # a lack of memory is not the submission's fault
        except Exception as error:  # a damaged file may raise anything: it costs no other points
            reason = one_line(error).replace(f"{folder}/", "")
            return Evaluated(run, step, {}, reason, *reported)
    values = metrics_of(model, data_dir)
    return Evaluated(run, step, values, "", *reported, _is_untrained(run, values, data_dir))


def _is_untrained(name: str, values: dict[str, float], data_dir: Path) -> bool:
    (metric, value), group = next(iter(values.items())), group_of(name)
    low, high = expected(group, metric)
    if low <= value <= high:
        return False
    with torch.random.fork_rng([]):
        torch.manual_seed(SEED)
        initial = metrics_of(models.build(model_of_name(name), name), data_dir)[metric]
    return abs(value - initial) <= abs(value - (low + high) / 2)


def _check_size(path: Path) -> None:
    """Raise OSError if a file of weights unpacks to more than weights can be."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST:
            raise OSError(errno.EFBIG, f"it unpacks to {size:,} bytes")


def metrics_of(model: torch.nn.Module, data_dir: Path) -> dict[str, float]:
    """Evaluate a model on MNIST, always with the same draws; metrics by name."""
    source = data.Source("mnist", data_dir, torch.device("cpu"), train=False)
    test = data.to_evaluate(model, source)
    with torch.random.fork_rng([]), contextlib.redirect_stdout(io.StringIO()):
        torch.manual_seed(SEED)
        return evaluation.evaluate(model, test)


def _mark(report: Report, points: float, run: Evaluated, code: Mapping[str, Mark]) -> Mark:
    """Mark a report with one run's weights."""
    name = f"{run.run}, iteration {run.step:,}"
    if not run.values:
        reason = f"The weights of {name} cannot be evaluated: {run.reason}."
        return _nothing(report, points, reason)
    outside, other = [], []
    for metric in report.metrics:
        value, (low, high) = run.values[metric], expected(report.group, metric)
        reported = run.reported.get(metric)
        if not low <= value <= high:
            outside.append(metric)
        elif reported is not None:
            if not abs(reported - value) <= TOLERANCES.get(metric, TOLERANCE):
                other.append(metric)
    excused = other and run.of_step == run.step and _lost(code, report.function)
    reasons = dict.fromkeys(outside, _out_of_range(report, run, outside, code))
    if not excused:
        reasons |= dict.fromkeys(other, _of_something_else(run, other))
    said = ", ".join(
        f"{metric} {in_words(metric, run.values[metric])} "
        f"({' to '.join(in_words(metric, end) for end in expected(report.group, metric))})"
        for metric in report.metrics
    )
    notes = [f"The weights of {name} give (expected range in parentheses): {said}."]
    if not run.reported:
        notes.append("You handed in no results.json of this run; its weights count.")
    elif missing := [metric for metric in report.metrics if metric not in run.reported]:
        notes.append(f"Your results.json has no {listed(missing)}; the weights count.")
    if excused:
        notes.append(
            f"You report different values for {listed(other)}, because {report.function} or a "
            "function that it uses is wrong; you lose no points for it here."
        )
    score = points * (1 - sum(report.parts[metric] for metric in reasons))
    said = tuple(dict.fromkeys([*reasons.values(), *notes]))
    return Mark(report, points, round(score, 2), tuple(reasons), said)


def _lost(code: Mapping[str, Mark], function: str) -> bool:
    """Whether a function, or one of utils.py that it may use, lost points."""
    names = [name for name in code if name == function or "." not in name] if function else []
    return any(code[name].lost for name in names)


def _out_of_range(
    report: Report, run: Evaluated, metrics: list[str], code: Mapping[str, Mark]
) -> str:
    if not metrics:
        return ""
    told = f"{listed(metrics)} {'is' if len(metrics) == 1 else 'are'} outside the expected range."
    loss = report.function.replace("iwae", "elbo") or "SSVAE.negative_elbo_bound"
    iterations = ITERATIONS[report.group]
    if run.step < iterations:
        return f"{told} Your weights are from iteration {run.step:,}; train for {iterations:,}."
    if run.untrained:
        return f"{told} The weights are untrained; hand in those that training has saved."
    if report.group != WITHOUT_BOUND and _lost(code, loss):
        return f"{told} {loss} is probably wrong; correct it and train again."
    return f"{told} Train again with the script's default flags."


def _of_something_else(run: Evaluated, metrics: list[str]) -> str:
    if not metrics:
        return ""
    values = [f"{metric} {in_words(metric, run.reported[metric])}" for metric in metrics]
    told = f"You report {listed(values)}, but your weights produce other values."
    if run.of_step is not None and run.of_step != run.step:
        return f"{told} You report iteration {run.of_step}; hand in the results of {run.step}."
    source = "This probably comes" if len(values) == 1 else "They probably come"
    return (
        f"{told} {source} from other weights or older code; run the script with --train 0 and hand "
        "in again."
    )


def _missing(report: Report, points: float, checkpoints: Mapping[str, object]) -> Mark:
    """Say that no weights were handed in, or which ones do not count."""
    of_digits = f"{report.group}{SYNTHETIC}"
    synthetic = [name for name in sorted(checkpoints) if group_of(name) == of_digits]
    if synthetic:
        reason = f"{synthetic[0]} was trained on synthetic digits; train on MNIST."
    else:
        reason = (
            f"You handed in no weights of {report.group}_run=0000; train this model, and hand in "
            "its weights with python -m codebase submit --weights 1."
        )
    return _nothing(report, points, reason)


def _nothing(report: Report, points: float, reason: str) -> Mark:
    return Mark(report, points, 0, report.metrics, (reason,))


def listed(words: list[str]) -> str:
    """Join words as a list in a sentence."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
