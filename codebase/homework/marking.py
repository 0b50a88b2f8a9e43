"""Marking a function: with its own helper functions, or this project's if they give more points."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from codebase.homework import blame, cases, naming
from codebase.homework.checks import check, hard_coded, resembles
from codebase.homework.marks import Attempt, Finding, Mark, Run
from codebase.homework.problems import Problem

HARD_CODED_DEDUCTION = 0.2  # share of the points, if only one batch size works
LESSER = ("gradient", "shapes", "extreme values")  # parts that are worth nothing by themselves


def mark(
    problem: Problem,
    points: float,
    seed: int,
    run: Run,
    earlier: Mapping[str, Mark] = MappingProxyType({}),
) -> Mark:
    """Mark a function of a submission.

    Args:
        problem: the function
        points: the most that it may get
        seed: seed of the arguments and weights
        run: runs a test case in the submission's sandbox
        earlier: marks of the submission's functions that were marked before
    """
    attempt = Attempt(problem, cases.cases(problem, seed), run)
    given = cases.helpers_for(problem)
    hanging = tuple(name for name, mark in earlier.items() if mark.ended and not mark.problem.model)
    if hanging and problem.model:  # nobody waits for them again
        attempt = attempt.with_helpers(replace(given, names=hanging))
    own = best = check(attempt)
    for helpers in (given, replace(given, constructed=True)) if problem.model else (given,):
        if best.full or best.ended:
            break
        other = attempt.with_helpers(helpers)
        if not other.same(attempt) and not other.same(best.attempt):
            better = check(other)
            best = better if better.share > best.share + 1e-9 else best
    notes, factor = [], 1.0
    if best is not own:
        sentence, factor = blame.helpers_at_fault(own, best, earlier)
        notes.append(sentence)
    elif hanging and problem.model:
        notes.append(blame.replaced(hanging))
    if not best.full and problem.model and not best.ended and hard_coded(best.attempt):
        factor *= 1 - HARD_CODED_DEDUCTION
        best = replace(best, findings=tuple(Finding(part, True) for part in problem.parts))
        notes.append(
            f"You hard-code batches of {cases.HARD_CODED}; use x.shape[0] "
            f"(−{HARD_CODED_DEDUCTION:.0%})."
        )
    mistakes = () if best.full else naming.named(best, given)
    values = [finding.passed for finding in best.findings if finding.part not in LESSER]
    if not mistakes and not any(values) and not resembles(best.attempt):
        best = replace(best, findings=tuple(replace(f, passed=False) for f in best.findings))
    score = round(points * best.share * factor, 2)
    notes = (*notes, *best.notes)
    return Mark(problem, points, score, best.findings, notes, mistakes, best.ended)
