"""What marking a function deals with: attempts, what was found about them, and marks."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from codebase.homework import cases, comparing
from codebase.homework.cases import Output
from codebase.homework.mistakes.catalogue import Mistake
from codebase.homework.problems import Problem
from codebase.homework.sandboxed.calling import Case
from codebase.homework.sandboxed.functions import Helpers

OTHER_ORDER = "You draw noise differently from the reference; you lose no points for that."
Run = Callable[[Case, Helpers | None], Output]
# One thread for all: a sandbox ends with the thread that has started it.
_BESIDE = ThreadPoolExecutor(1)


@dataclass(frozen=True)
class Finding:
    """Whether a part of a function is right, and if not, why."""

    part: str
    passed: bool
    reason: str = ""


@dataclass(frozen=True)
class Mark:
    """What a submission gets for a function.

    Args:
        problem: the function
        points: the most that it may get
        score: what it gets
        findings: findings about each part
        notes: what else the student should know
        mistakes: known mistakes whose outputs equal the submission's
        ended: whether its process, or its time, ended
    """

    problem: Problem
    points: float
    score: float
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    mistakes: tuple[Mistake, ...] = ()
    ended: bool = False

    @property
    def lost(self) -> list[str]:
        """The parts that are wrong."""
        return [finding.part for finding in self.findings if not finding.passed]

    @property
    def reasons(self) -> list[str]:
        """Why points were lost, a sentence each."""
        reasons = [finding.reason for finding in self.findings if not finding.passed]
        return list(dict.fromkeys(reason for reason in reasons if reason))


@dataclass(frozen=True)
class Attempt:
    """A submission's function with one choice of helper functions; each case runs once.

    Args:
        problem: the function
        cases: its test cases
        run: runs a case in the sandbox
        helpers: functions of this project in the place of the submission's; None: its own
        right: what it is compared with; None: this project's function
    """

    problem: Problem
    cases: dict[str, Case]
    run: Run
    helpers: Helpers | None = None
    right: Callable | None = None
    outputs: dict[Case, Output] = field(default_factory=dict)

    def __call__(self, name: str, dtype: str | None = None) -> tuple[Output, list]:
        """The outputs in a case, and the right ones, computed at the same time."""
        case = self.case(name, dtype)
        if case not in self.outputs:
            running = _BESIDE.submit(self.run, case, self.helpers)
            cases.reference(case, self.right)
            self.outputs[case] = running.result()
        return self.outputs[case], cases.reference(case, self.right)

    def case(self, name: str, dtype: str | None = None) -> Case:
        """A test case, in a dtype if one is given."""
        return replace(self.cases[name], dtype=dtype) if dtype else self.cases[name]

    @property
    def first(self) -> str:
        """The name of the case that decides whether anything works."""
        return next(iter(self.cases))

    def with_helpers(self, helpers: Helpers) -> "Attempt":
        """The same function with other helpers."""
        return replace(self, helpers=helpers, outputs={})

    def same(self, other: "Attempt") -> bool:
        """Whether two attempts have the same outputs, or fail in the same way."""
        (one, _), (two, _) = self(self.first), other(other.first)
        if one.calls is None or two.calls is None:
            return one.calls is two.calls and one.error == two.error
        dtype = self.case(self.first).dtype
        return comparing.same(one.calls, two.calls, dtype, gradients=True)


@dataclass(frozen=True)
class Checked:
    """An attempt with what is right about it.

    Args:
        attempt: the attempt
        findings: findings about each part
        notes: what else the student should know
    """

    attempt: Attempt
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def full(self) -> bool:
        """Whether all parts are right."""
        return all(finding.passed for finding in self.findings)

    @property
    def share(self) -> float:
        """The share of the points."""
        parts = self.attempt.problem.parts
        return sum(parts[finding.part] for finding in self.findings if finding.passed)

    @property
    def ended(self) -> bool:
        """Whether the function gave nothing because its process, or its time, ended."""
        return self.attempt(self.attempt.first)[0].ended


def listed(words: list[str]) -> str:
    """Join words as a list in a sentence."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
