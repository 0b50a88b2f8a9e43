"""Naming the helpers at fault if a function is right, or better, with this project's helpers."""

from collections.abc import Mapping
from dataclasses import replace

from codebase.homework import cases, comparing
from codebase.homework.marks import OTHER_ORDER, Checked, Mark, listed

NO_FIT_DEDUCTION = 0.2  # share of the points, if right functions do not fit together


def helpers_at_fault(own: Checked, best: Checked, earlier: Mapping[str, Mark]) -> tuple[str, float]:
    """Name the helpers at fault in a sentence, with a factor for the points.

    Args:
        own: the function with the submission's helpers
        best: the function with this project's helpers
        earlier: marks of the submission's functions that were marked before
    """
    attempt, problem = best.attempt, best.attempt.problem
    helpers, right_calls = attempt.helpers, attempt(attempt.first)[0].calls
    dtype = attempt.case(attempt.first).dtype

    def right_with(names) -> bool:
        found = attempt.with_helpers(replace(helpers, names=tuple(names)))
        calls = found(found.first)[0].calls
        return calls is not None and comparing.same(calls, right_calls, dtype, gradients=True)

    constructed = helpers.constructed
    right = [name for name, mark in earlier.items() if not mark.lost]
    drawn = earlier.get("sample_gaussian")
    if not constructed and drawn and OTHER_ORDER in drawn.notes and right_with(["sample_gaussian"]):
        return f"sample_gaussian: {OTHER_ORDER}", 1.0
    names = cases.helpers_for(problem).names
    wrong = [name for name, mark in earlier.items() if mark.lost and name in names]
    looked_at = wrong if wrong and right_with(wrong) else names
    at_fault = [  # helpers with which it is wrong, though all others are this project's
        name
        for name in looked_at
        if name not in right and not right_with(other for other in looked_at if other != name)
    ]
    if not at_fault and not constructed:  # two are wrong, and replacing either is enough
        at_fault = [name for name in looked_at if name not in right and right_with([name])]
    if constructed:
        at_fault.insert(0, "the model's constructor or a network in models/nns/")
    if not at_fault and all(name in right for name in cases.MARKED_BEFORE):
        output = own.attempt(own.attempt.first)[0]
        if output.calls is not None:
            return "Your helper functions draw or round differently; you lose no points.", 1.0
        return (
            f"{output.said} Your helper functions are right, but they do not accept what you pass "
            f"here; pass what their docstrings say (−{NO_FIT_DEDUCTION:.0%}).",
            1 - NO_FIT_DEDUCTION,
        )
    comes = f"comes from {listed(at_fault or ['utils.py'])}, so you lose no points for it here."
    return f"{'This function is correct. The' if best.full else 'One'} error {comes}", 1.0


def replaced(hanging: tuple[str, ...]) -> str:
    """Say that this project's helpers replaced some that give no output."""
    gives = "gives" if len(hanging) == 1 else "give"
    return (
        f"This was graded with the reference's {listed(list(hanging))}, because yours {gives} no "
        "output; you lose no points for that here."
    )
