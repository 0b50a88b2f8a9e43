"""Grading a submission: each function is called in a sandbox, and marked outside of it."""

import hashlib
import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path

from codebase.homework import cases, marking, sandbox
from codebase.homework.cases import Output
from codebase.homework.marks import Finding, Mark, Run
from codebase.homework.problems import PROBLEMS
from codebase.homework.sandboxed.calling import Case
from codebase.homework.sandboxed.functions import Helpers
from codebase.homework.sandboxed.importing import STAND_INS
from codebase.homework.submission import Submission
from codebase.project import ROOT

SECONDS = 240  # CPU time for a submission; a right one takes 3
ORDER = sorted(PROBLEMS, key=lambda problem: bool(problem.model))  # see `cases.helpers_for`


@dataclass(frozen=True)
class Graded:
    """A submission's marks.

    Args:
        name: name of the submission
        package: "codebase" or "submission"
        marks: marks of all functions, in the homework's order
        notes: notes about the submission as a whole
        printed: what its code printed
        seconds: time that each function took
        ungraded: why there was nothing to grade; empty for others
    """

    name: str
    package: str
    marks: tuple[Mark, ...]
    notes: tuple[str, ...]
    printed: str
    seconds: dict[str, float]
    ungraded: str = ""

    @property
    def score(self) -> float:
        """Points, with the bonus."""
        return round(sum(mark.score for mark in self.marks), 2)


def grade(
    handed_in: Submission, points: dict[str, float], kind: str, another: bool = False
) -> Graded:
    """Grade a submission.

    Args:
        handed_in: see `submission.read`
        points: points of each function
        kind: kind of sandbox
        another: whether another submission follows, whose sandbox starts meanwhile
    """
    seed = cases.seed_of(handed_in.digest.encode())
    marks, seconds = {}, {}
    with sandbox.Sandbox(kind, handed_in.package, handed_in.sources) as box:
        running = _Running(box.run)
        box.ready()
        if another:
            box.prepare(kind)
        for problem in ORDER:
            begun = time.monotonic()
            marks[problem.function] = marking.mark(
                problem, points[problem.function], seed, running, marks
            )
            seconds[problem.function] = time.monotonic() - begun
    in_order = tuple(marks[problem.function] for problem in PROBLEMS)
    notes = (*handed_in.notes, *running.notes())
    return Graded(handed_in.name, handed_in.package, in_order, notes, running.printed, seconds)


def unreadable(name: str, points: dict[str, float], reason: str) -> Graded:
    """Build the marks of a submission without code that can be called."""
    marks = []
    for problem in PROBLEMS:
        findings = tuple(Finding(part, False) for part in problem.parts)
        marks.append(Mark(problem, points[problem.function], 0, findings, ()))
    return Graded(name, "", tuple(marks), (reason,), "", dict.fromkeys(points, 0.0), reason)


def key_of(handed_in: Submission, points: dict[str, float], *settings) -> str:
    """Hash what the marks depend on: code, points, settings, and the grader itself."""
    parts = [handed_in.digest, repr(sorted(points.items())), repr(settings)]
    homework, package = Path(__file__).parent, ROOT / "codebase"
    right = [package / "utils.py", *sorted((package / "models").rglob("*.py"))]
    table = homework / "mistakes" / "README.md"
    for path in [*sorted(homework.rglob("*.py")), table, *right]:
        parts.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class _Running:
    """Runs test cases until the submission's time is used up, and keeps what else is said."""

    def __init__(self, run: Run):
        self._run, self._left = run, float(SECONDS)
        self.printed, self._missing, self._broken = "", set(), {}

    def __call__(self, case: Case, helpers: Helpers | None) -> Output:
        if self._left <= 0:
            return Output(None, f"your submission's {SECONDS} seconds are used up", "Ended")
        begun = time.monotonic()
        output = self._run(case, helpers)
        # CPU time, because a busy machine costs no points; but sleep is not free either.
        self._left -= max(output.cpu, (time.monotonic() - begun) / sandbox.server.WAITING)
        if helpers is None:  # else it could print the helpers that it was given
            if output.printed not in self.printed:
                self.printed = (self.printed + output.printed)[:20_000]
            self._missing |= set(output.missing)
            self._broken |= dict(output.broken)
        return output

    def notes(self) -> list[str]:
        """What was mended: packages that are not here, files that could not be imported."""
        notes = []
        if absent := sorted(name for name in self._missing if not _is_here(name)):
            names = ", ".join(absent)[:200]
            notes.append(
                f"Your code imports packages that the grader does not have: {names}. Stand-ins "
                "replaced them."
            )
        for module, reason in sorted(self._broken.items())[:20]:
            file = module.replace(".", "/")
            notes.append(f"Your file {file[:100]}.py cannot be imported: {reason[:300]}")
        return notes


def _is_here(package: str) -> bool:
    """Whether a package is installed: some are replaced all the same, which saves their import."""
    return package in STAND_INS and importlib.util.find_spec(package) is not None
