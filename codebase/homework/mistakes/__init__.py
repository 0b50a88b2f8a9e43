"""A catalogue of mistakes that students make: a file for each kind of function."""

from codebase.homework.mistakes import densities, elbo, iwae, labels  # noqa: F401  they enter it
from codebase.homework.mistakes.catalogue import MISTAKES, Mistake, count, without_code

__all__ = ["MISTAKES", "Mistake", "count", "without_code"]
