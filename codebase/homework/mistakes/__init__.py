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
    """Enter mistakes in the catalogue.

    Args:
        functions: names of the functions in which they are made
        runs: functions with the mistake, keyed by sentence ("what you did; what to do")
        wrap: turns each into a function that takes the same arguments as the right function; for a
            method, the model comes first
    """
    for sentence, run in runs.items():
        wrapped = wrap(run)
        for function in functions.split():
            assert sentence not in MISTAKES.setdefault(function, {}), sentence
            MISTAKES[function][sentence] = wrapped


def zeros(count: int) -> Callable:
    """Return a function of any arguments that returns zeros in place of its values."""
    return lambda *args: torch.zeros(count).unbind()


from codebase.homework.mistakes import densities, elbo, iwae, labels  # noqa: E402, F401
