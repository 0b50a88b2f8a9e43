"""A submission's checkpoints, evaluated by this project's code beside the published results."""

import contextlib
import hashlib
import io
import tempfile
from pathlib import Path

import torch

from codebase import UserError, data
from codebase import evaluate as evaluation
from codebase.homework import submission
from codebase.homework.submission import Submission
from codebase.runs.load import load_run, run_named
from codebase.runs.run import group_of
from codebase.runs.table import PUBLISHED

LARGEST = 64 << 20  # bytes of a checkpoint; the homework's have 5 million at most
SEED = 0


def evaluate(path: Path, handed_in: Submission, data_dir: Path) -> list[str]:
    """Evaluate the last checkpoint of each run of the homework, as lines of Markdown.

    Args:
        path: of the submission
        handed_in: what was read there
        data_dir: folder of the data sets
    """
    lines = []
    for run, step in _last(handed_in):
        lines += _evaluated(path, handed_in.weights[run, step], run, step, data_dir)
    return lines or ["No checkpoints of the homework's runs are in it."]


def digest(path: Path, handed_in: Submission) -> str:
    """Hash the checkpoints that are evaluated."""
    found = hashlib.sha256()
    for run, step in _last(handed_in):
        try:
            content = submission.content(path, handed_in.weights[run, step], LARGEST)
        except (UserError, OSError) as error:
            content = str(error).encode(errors="replace")
        found.update(f"{run} {step} {len(content)} ".encode() + content)
    return found.hexdigest()


def _last(handed_in: Submission) -> list[tuple[str, int]]:
    """The last checkpoint of each run of the homework."""
    last = dict(sorted(handed_in.weights))
    found = []
    for run, step in last.items():
        with contextlib.suppress(UserError):
            if group_of(run_named(run).name) in PUBLISHED:
                found.append((run, step))
    return found


def _evaluated(path: Path, inner: str, name: str, step: int, data_dir: Path) -> list[str]:
    title = [f"`{name}`, iteration {step}:", ""]
    run = run_named(name)
    try:
        data.find_or_download("mnist", "mnist", data_dir)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, name, f"model-{step:05d}.pt")
            file.parent.mkdir()
            file.write_bytes(submission.content(path, inner, LARGEST))
            model = load_run(file)
        source = data.Source("mnist", data_dir, torch.device("cpu"), train=False)
        test = data.to_evaluate(model, source)
        with torch.random.fork_rng([]), contextlib.redirect_stdout(io.StringIO()):
            torch.manual_seed(SEED)
            figures = evaluation.evaluate(model, test)
    except (UserError, OSError) as error:
        reason = str(error).replace(str(path), "").splitlines()[0]
        return [*title, f"It cannot be evaluated: {reason}", ""]
    rows = ["| figure | here | published |", "|---|---|---|"]
    for figure, value in figures.items():
        mean, deviation = PUBLISHED[group_of(run.name)].get(figure, (None, None))
        published = "" if mean is None else f"{mean:g}"
        published += "" if deviation is None else f" ± {deviation:g}"
        digits = 4 if figure == "accuracy" else 2
        rows.append(f"| {figure} | {value:.{digits}f} | {published} |")
    return [*title, *rows, ""]
