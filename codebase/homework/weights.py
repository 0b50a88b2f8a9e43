"""The values that a student reports: marked by evaluating the weights with this project's code."""

import contextlib
import errno
import hashlib
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
from codebase.homework.marks import Finding, Mark, listed
from codebase.homework.problems import REPORTS, Report
from codebase.homework.submission import Submission
from codebase.machine.files import one_line, write_atomically
from codebase.project import UserError, group_of, model_of_name
from codebase.runs.published import ITERATIONS, PUBLISHED, REPLICATES
from codebase.runs.run import load_run

LARGEST = 64 << 20  # bytes; the largest weights that are graded have 4.2 million
LARGEST_RESULTS = 1 << 20
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
    path: Path,
    handed_in: Submission,
    points: Mapping[str, float],
    code: Mapping[str, Mark],
    data_dir: Path,
) -> list[Mark]:
    """Mark the questions that ask for values of trained models.

    Args:
        path: path of the submission
        handed_in: what was read there
        points: by question
        code: marks of the submission's functions
        data_dir: folder of MNIST

    Raises:
        UserError: MNIST is not there
    """
    data.find_or_download("mnist", "mnist", data_dir)
    files, found = submission.files_of(path), {}
    for run, step in _last(handed_in):
        one = _evaluate(files, handed_in.weights[run, step], run, step, data_dir)
        found.setdefault(group_of(run), []).append(one)
    marked = []
    for report in REPORTS:
        runs = found.get(report.group, [])
        tried = [_mark(report, points[report.key], run, code) for run in runs]
        best = max(tried, key=lambda mark: mark.score, default=None)
        marked.append(best or _missing(report, points[report.key], handed_in))
    return [mark for mark in marked if mark.points]


def nothing(points: Mapping[str, float], reason: str) -> list[Mark]:
    """Mark the same questions of a submission that cannot be graded."""
    return [_nothing(one, points[one.key], reason) for one in REPORTS if points[one.key]]


def expected(group: str, metric: str) -> tuple[float, float]:
    """The range of a metric that such training gives: replicates' mean ± 4 standard deviations.

    The larger deviation counts, this project's or the published one: some are of four runs.
    """
    mean, deviation, _ = REPLICATES[group][metric]
    deviation = max(deviation, PUBLISHED[group][metric][1] or 0)
    return mean - DEVIATIONS * deviation, mean + DEVIATIONS * deviation


def digest(path: Path, handed_in: Submission) -> str:
    """Hash the checkpoints and the results that are looked at."""
    found = hashlib.sha256()
    files = submission.files_of(path)
    for run, step in _last(handed_in):
        for inner in [handed_in.weights[run, step], *_results_files(files, run, step)]:
            try:
                content = files.contents(inner, LARGEST)
            except OSError as error:
                content = str(error).encode(errors="replace")
            found.update(f"{run} {step} {len(content)} ".encode() + content)
    return found.hexdigest()


def in_words(metric: str, value: float) -> str:
    """Format a metric: nats with two decimals, accuracies in percent."""
    if not abs(value) < 1e6:
        return f"{value:.2g}"
    return f"{value:.2%}" if metric == "accuracy" else f"{value:.2f}"


def _last(handed_in: Submission) -> list[tuple[str, int]]:
    """The last checkpoint of each run of the homework, a few runs of a kind."""
    last = dict(sorted(handed_in.weights))
    found: dict[str, list] = {}
    for run, step in last.items():
        with contextlib.suppress(UserError):
            model_of_name(run)
            if (group := group_of(run)) in REPLICATES:
                found.setdefault(group, []).append((run, step))
    return [one for runs in found.values() for one in runs[:MOST_RUNS]]


def _results_files(files: submission.Files, run: str, step: int) -> list[str]:
    """The submission's results of a run: an evaluation of this iteration, then the training's."""
    ends = (f"/{run}/evaluation-{step:05d}/results.json", f"/{run}/results.json")
    paths = submission.by_importance(files.paths, "logs")
    return [path for end in ends for path in paths if f"/{path}".endswith(end)]


def _evaluate(
    files: submission.Files, inner: str, name: str, step: int, data_dir: Path
) -> Evaluated:
    reported, of_step = {}, None
    for path in _results_files(files, name, step):
        with contextlib.suppress(*UNREADABLE):
            content = json.loads(files.contents(path, LARGEST_RESULTS))
            numbers = {k: v for k, v in content["figures"].items() if type(v) in (int, float)}
            reported = {metric: float(value) for metric, value in numbers.items()}
            of_step = content.get("iterations")
            of_step = of_step if type(of_step) is int and 0 <= of_step < 10**12 else None
            break
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name, f"model-{step:05d}.pt")
        try:
            content = files.contents(inner, LARGEST)
        except OSError as error:
            return Evaluated(name, step, {}, one_line(error), reported, of_step)
        write_atomically(file, content)
        try:
            _check_size(file)
            model = load_run(file)
        except MemoryError:
            raise  # a lack of memory is not the submission's fault
        except Exception as error:  # a damaged file may raise anything: it costs no other points
            reason = one_line(error).replace(f"{folder}/", "")
            return Evaluated(name, step, {}, reason, reported, of_step)
    values = metrics_of(model, data_dir)
    untrained = _is_untrained(name, values, data_dir)
    return Evaluated(name, step, values, "", reported, of_step, untrained)


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
    findings = [
        Finding(metric, metric not in reasons, reasons.get(metric, "")) for metric in report.metrics
    ]
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
    score = points * sum(report.parts[one.part] for one in findings if one.passed)
    return Mark(report, points, round(score, 2), tuple(findings), tuple(notes))


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


def _missing(report: Report, points: float, handed_in: Submission) -> Mark:
    """Say that no weights were handed in, or which ones do not count."""
    names = {run for run, _ in handed_in.weights}
    synthetic = [name for name in sorted(names) if group_of(name) == f"{report.group}{SYNTHETIC}"]
    if synthetic:
        reason = f"{synthetic[0]} was trained on synthetic digits; train on MNIST."
    else:
        reason = (
            f"You handed in no weights of {report.group}_run=0000; train this model, and hand in "
            "its weights with python -m codebase submit --weights 1."
        )
    return _nothing(report, points, reason)


def _nothing(report: Report, points: float, reason: str) -> Mark:
    findings = tuple(Finding(metric, False, reason) for metric in report.metrics)
    return Mark(report, points, 0, findings, ())
