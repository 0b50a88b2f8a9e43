"""A catalogue of mistakes: what students write instead, and one sentence for each.

Each is a function that runs in the place of the right one; of a method, the model comes first. If a
submission's numbers equal a mistake's, its report says the sentence.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """A mistake.

    Args:
        function: of which
        name: short, for tables
        sentence: for the student
        loses: the parts of the function's points that it loses
        run: what the student wrote
    """

    function: str
    name: str
    sentence: str
    loses: frozenset[str]
    run: Callable


MISTAKES: dict[str, list[Mistake]] = {}
FUNCTIONS = {
    "sample": ("sample_gaussian",),
    "normal": ("log_normal",),
    "mixture": ("log_normal_mixture",),
    "vae": ("VAE.negative_elbo_bound",),
    "gmvae": ("GMVAE.negative_elbo_bound",),
    "elbo": ("VAE.negative_elbo_bound", "GMVAE.negative_elbo_bound"),
    "iwae": ("VAE.negative_iwae_bound", "GMVAE.negative_iwae_bound"),
    "vae iwae": ("VAE.negative_iwae_bound",),
    "gmvae iwae": ("GMVAE.negative_iwae_bound",),
    "ssvae": ("SSVAE.negative_elbo_bound",),
    "fsvae": ("FSVAE.negative_elbo_bound",),
}


def mistake(functions: str, name: str, loses: str, sentence: str):
    """Enter a function in the catalogue.

    Args:
        functions: see `FUNCTIONS`
        name, sentence: see `Mistake`
        loses: parts, with "." between them; with "|" between the functions where those differ
    """

    def enter(run):
        for i, function in enumerate(FUNCTIONS[functions]):
            parts = frozenset(loses.split("|")[i if "|" in loses else 0].split("."))
            entry = Mistake(function, name, sentence, parts, run)
            MISTAKES.setdefault(function, []).append(entry)
        return run

    return enter


def count() -> int:
    """How many mistakes there are."""
    return sum(map(len, MISTAKES.values()))
