"""A catalogue of mistakes in the graded functions.

Each mistake has a sentence for the student and a function that makes it. If a wrong function has
the same outputs, the report shows the sentence; points never depend on that.
"""

from collections.abc import Callable

import torch

MISTAKES: dict[str, dict[str, Callable]] = {}  # by function: mistakes by their sentences
# fmt: off
WRONG_NOISE = {  # in place of sample_gaussian
    "You scale ε by v; scale it by √v, the standard deviation.":
        lambda m, v: m + v * torch.randn_like(m),
    "You share ε between rows; draw one for every row.":
        lambda m, v: m + v.sqrt() * torch.randn(m.shape[-1]),
    "You share ε between dimensions; draw one for each.":
        lambda m, v: m + v.sqrt() * torch.randn(*m.shape[:-1], 1),
    "You draw one number as ε; draw one for every element.":
        lambda m, v: m + v.sqrt() * torch.randn(1),
}
# fmt: on


def enter(
    functions: str,
    runs: dict[str, Callable],
    wrap: Callable[[Callable], Callable] = lambda run: run,
) -> None:
    """Add mistakes to the catalogue.

    Args:
        functions: names of the functions that contain the mistakes, separated by spaces
        runs: functions with one mistake each, keyed by sentence ("what you did; what to do")
        wrap: function that converts each of them to one with the correct function's arguments; a
            method's model comes first
    """
    for sentence, run in runs.items():
        wrapped = wrap(run)
        for function in functions.split():
            assert sentence not in MISTAKES.setdefault(function, {}), sentence
            MISTAKES[function][sentence] = wrapped


def zeros(count: int) -> Callable:
    """Return a function that takes any arguments and returns `count` zeros."""
    return lambda *args: torch.zeros(count).unbind()


from codebase.homework.mistakes import densities, elbo, iwae, labels  # noqa: E402, F401
