"""Grading a submission: each function is asked in a sandbox, and marked outside of it."""

import hashlib
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from codebase import ROOT
from codebase.homework import cases, marking, sandbox
from codebase.homework.marking import Finding, Mark
from codebase.homework.problems import PROBLEMS
from codebase.homework.submission import Submission

SECONDS = 240  # for a submission; a right one takes 3
ORDER = sorted(PROBLEMS, key=lambda problem: bool(problem.model))  # see `cases.helpers_for`


@dataclass(frozen=True)
class Graded:
    """A submission's marks.

    Args:
        name: of the submission
        package: "codebase" or "submission"
        marks: of all functions, in the homework's order
        notes: about the submission as a whole
        printed: what its code printed
        seconds: that each function took
    """

    name: str
    package: str
    marks: tuple[Mark, ...]
    notes: tuple[str, ...]
    printed: str
    seconds: dict[str, float]

    @property
    def score(self) -> float:
        """Points, with the bonus."""
        return round(sum(mark.score for mark in self.marks), 2)

    @property
    def bonus(self) -> float:
        """Those points that are a bonus."""
        return round(sum(mark.score for mark in self.marks if mark.problem.bonus), 2)

    @property
    def of(self) -> float:
        """The most points, without the bonus."""
        return sum(mark.points for mark in self.marks if not mark.problem.bonus)


def grade(handed_in: Submission, points: dict[str, float], kind: str) -> Graded:
    """Grade a submission.

    Args:
        handed_in: see `submission.read`
        points: for each function
        kind: of sandbox
    """
    seed = cases.seed_of(handed_in.digest.encode())
    marks, seconds = {}, {}
    with sandbox.Sandbox(kind, handed_in.package, handed_in.sources) as box:
        asking = _Asking(box.ask)
        box.ready()
        for problem in ORDER:
            begun = time.monotonic()
            marks[problem.function] = marking.mark(
                problem, points[problem.function], seed, asking, marks
            )
            seconds[problem.function] = time.monotonic() - begun
    in_order = tuple(marks[problem.function] for problem in PROBLEMS)
    notes = (*handed_in.notes, *asking.notes(handed_in.package))
    return Graded(handed_in.name, handed_in.package, in_order, notes, asking.printed, seconds)


def unreadable(name: str, points: dict[str, float], reason: str) -> Graded:
    """What a submission gets that holds no code that could be asked anything."""
    marks = []
    for problem in PROBLEMS:
        findings = tuple(Finding(part, False) for part in problem.parts)
        marks.append(Mark(problem, points[problem.function], 0, findings, ()))
    return Graded(name, "", tuple(marks), (reason,), "", dict.fromkeys(points, 0.0))


def key_of(handed_in: Submission, points: dict[str, float], *settings) -> str:
    """What the marks depend on: the code, the points, settings, and the grader itself."""
    parts = [handed_in.digest, repr(sorted(points.items())), repr(settings)]
    homework, package = Path(__file__).parent, ROOT / "codebase"
    right = [package / "utils.py", *sorted((package / "models").rglob("*.py"))]
    for path in [*sorted(homework.rglob("*.py")), *right]:
        parts.append(hashlib.sha256(path.read_bytes()).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class _Asking:
    """Asks a sandbox, until the submission's time is used up, and keeps what is said besides."""

    def __init__(self, ask: Callable[[dict], dict]):
        self._ask, self._left = ask, float(SECONDS)
        self.printed, self._missing, self._broken = "", set(), {}

    def __call__(self, question: dict) -> dict:
        if self._left <= 0:
            return {"error": f"the submission's {SECONDS} seconds are used up", "kind": "Ended"}
        begun = time.monotonic()
        answer = self._ask(question)
        self._left -= time.monotonic() - begun
        if question["helpers"] is None:  # else it could print the helpers that it was given
            self._listen(answer)
        return answer

    def _listen(self, answer: dict) -> None:
        printed = answer.get("printed")
        if isinstance(printed, str) and printed not in self.printed:
            self.printed = (self.printed + printed)[:20_000]
        missing = answer.get("missing")
        if isinstance(missing, list):
            self._missing |= {word for word in missing if isinstance(word, str)}
        broken = answer.get("broken")
        if isinstance(broken, dict):
            self._broken |= {k: v for k, v in broken.items() if isinstance(v, str)}

    def notes(self, package: str) -> list[str]:
        """What was mended: packages that are not here, files that could not be imported."""
        notes = []
        if absent := sorted(name for name in self._missing if not _is_here(name)):
            names = ", ".join(absent)[:200]
            notes.append(f"imports {names}, which is not here: a stand-in took its place")
        for module, reason in sorted(self._broken.items())[:20]:
            file = module.replace(".", "/")
            notes.append(f"{file[:100]} could not be imported whole: {reason[:300]}")
        return notes


def _is_here(package: str) -> bool:
    """Whether a package is installed: some are replaced all the same, which saves their import."""
    return package in sandbox.worker.STAND_INS and importlib.util.find_spec(package) is not None
