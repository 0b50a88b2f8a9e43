"""A catalogue of mistakes in the graded functions.

Each mistake has a sentence for the student and a function that makes it. If a wrong function has
the same outputs, the report shows the sentence; points never depend on that.
"""

from collections.abc import Callable

import torch

MISTAKES: dict[str, dict[str, Callable]] = {}  # by function: mistakes by their sentences
WRONG_NOISE = {  # of sample_gaussian, or in its place
    "You scale ε by v; scale it by √v, the standard deviation.":
        lambda m, v: m + v * torch.randn_like(m),
    "You share ε between rows; draw one for every row.":
        lambda m, v: m + v.sqrt() * torch.randn(m.shape[-1]),
    "You share ε between dimensions; draw one for every dimension.":
        lambda m, v: m + v.sqrt() * torch.randn(*m.shape[:-1], 1),
    "You draw one number as ε; draw one for every element.":
        lambda m, v: m + v.sqrt() * torch.randn(1),
}


def enter(
    functions: str,
    runs: dict[str, Callable],
    wrap: Callable[[Callable], Callable] = lambda run: run,
) -> None:
    """Add mistakes to the catalogue.

    Args:
        functions: names of the functions that contain the mistakes, separated by spaces
        runs: functions with one mistake each, keyed by sentence ("what you did; what to do"); the
            FSVAE's sentences have p(x|y, z) for p(x|z), and q(z|x, y) for q(z|x)
        wrap: function that converts each of them to one with the correct function's arguments; a
            method's model comes first
    """
    for sentence, run in runs.items():
        wrapped = wrap(run)
        for function in functions.split():
            told = sentence
            if function.startswith("FSVAE"):
                told = told.replace("(x|z)", "(x|y, z)").replace("(z|x)", "(z|x, y)")
            assert told not in MISTAKES.setdefault(function, {}), told
            MISTAKES[function][told] = wrapped


def zeros(count: int) -> Callable:
    """Return a function that takes any arguments and returns `count` zeros."""
    return lambda *args: torch.zeros(count).unbind()


from codebase.homework.mistakes import densities, elbo, iwae, ssvae  # noqa: E402, F401
