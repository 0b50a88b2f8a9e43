"""What the homework asks for: the graded functions, their points, and the parts of each."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from codebase import UserError
from codebase.machine.files import read_file


@dataclass(frozen=True, eq=False)
class Problem:
    """A function that students write.

    Args:
        function: its name, with its class where it is a method
        file: where it is written, below the package
        number: of the homework's problem and part, for order
        title: of the homework's problem
        points: for the whole function
        summary: what it gives, without its equation
        parts: what is marked, with shares of the points that add up to 1
        constructor: arguments of the model in tests
        bonus: whether its points come on top
    """

    function: str
    file: str
    number: str
    title: str
    points: float
    summary: str
    parts: dict[str, float]
    constructor: dict[str, int | str] | None = None
    bonus: bool = False

    @property
    def method(self) -> str:
        """The name without its class."""
        return self.function.rpartition(".")[2]

    @property
    def heading(self) -> str:
        """The homework's problem: its number and title."""
        return f"{self.number.partition('.')[0]}. {self.title}"

    @property
    def options(self) -> tuple[tuple[str, int | str], ...]:
        """The arguments of the model in tests, in order."""
        return tuple(sorted((self.constructor or {}).items()))

    @property
    def terms(self) -> list[str]:
        """The names of what a bound returns: the bound, then its terms."""
        return [part for part in self.parts if part != "gradient"]

    @property
    def model(self) -> str:
        """The class; empty for a function."""
        return self.function.rpartition(".")[0]


VAE_TERMS = {"nelbo": 0.3, "kl": 0.25, "rec": 0.25, "gradient": 0.2}
IWAE_TERMS = {"niwae": 0.5, "kl": 0.15, "rec": 0.15, "gradient": 0.2}
SSVAE_TERMS = {"nelbo": 0.25, "kl_z": 0.2, "kl_y": 0.15, "rec": 0.2, "gradient": 0.2}
FSVAE_TERMS = {"nelbo": 0.3, "kl_z": 0.25, "rec": 0.25, "gradient": 0.2}

PROBLEMS = (
    Problem(
        "sample_gaussian",
        "utils.py",
        "1.1",
        "Variational autoencoder",
        6,
        "Draw from a Gaussian so that gradients reach its mean and variance.",
        {"draws": 0.7, "gradient": 0.3},
    ),
    Problem(
        "VAE.negative_elbo_bound",
        "models/vae.py",
        "1.2",
        "Variational autoencoder",
        6,
        "The negative ELBO and its two terms.",
        VAE_TERMS,
        {"z_dim": 3},
    ),
    Problem(
        "log_normal",
        "utils.py",
        "2.1",
        "Mixture of Gaussians as the prior",
        4,
        "The log density of a Gaussian with a diagonal covariance.",
        {"values": 0.6, "shapes": 0.2, "gradient": 0.2},
    ),
    Problem(
        "log_normal_mixture",
        "utils.py",
        "2.2",
        "Mixture of Gaussians as the prior",
        5,
        "The log density of a uniformly weighted mixture of Gaussians.",
        {"values": 0.6, "extreme values": 0.2, "gradient": 0.2},
    ),
    Problem(
        "GMVAE.negative_elbo_bound",
        "models/gmvae.py",
        "2.3",
        "Mixture of Gaussians as the prior",
        7,
        "The negative ELBO and its two terms; KL is estimated at the draw of z.",
        VAE_TERMS,
        {"z_dim": 3, "k": 3},
    ),
    Problem(
        "VAE.negative_iwae_bound",
        "models/vae.py",
        "3.1",
        "Importance-weighted bound",
        6,
        "The negative importance-weighted bound, and the means of its two terms.",
        IWAE_TERMS,
        {"z_dim": 3},
    ),
    Problem(
        "GMVAE.negative_iwae_bound",
        "models/gmvae.py",
        "3.2",
        "Importance-weighted bound",
        3,
        "The negative importance-weighted bound, and the means of its two terms.",
        IWAE_TERMS,
        {"z_dim": 3, "k": 3},
    ),
    Problem(
        "SSVAE.negative_elbo_bound",
        "models/ssvae.py",
        "4.1",
        "Semi-supervised learning",
        15,
        "The negative ELBO of an image without a label, and its three terms.",
        SSVAE_TERMS,
        {},
    ),
    Problem(
        "FSVAE.negative_elbo_bound",
        "models/fsvae.py",
        "5.1",
        "Style and content (bonus)",
        6,
        "The negative ELBO of an image given its label, and its two terms.",
        FSVAE_TERMS,
        {},
        bonus=True,
    ),
)
BY_FUNCTION = {problem.function: problem for problem in PROBLEMS}
POINTS = {problem.function: problem.points for problem in PROBLEMS}
LARGEST_FILE = 1 << 20  # bytes


def read_points(path: Path) -> dict[str, float]:
    """Read points from a JSON object of functions and points; other functions keep the homework's.

    Raises:
        UserError: the file cannot be read, or names no such function, or no such points
    """
    try:
        content = json.loads(read_file(path, LARGEST_FILE))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--points {path}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f'--points {path}: expected an object such as {{"log_normal": 4}}')
    for function, points in content.items():
        if function not in BY_FUNCTION:
            known = ", ".join(BY_FUNCTION)
            raise UserError(f"--points {path}: {function!r:.60} is not one of {known}")
        if type(points) not in (int, float) or not 0 <= points < 1e6 or math.isnan(points):
            raise UserError(
                f"--points {path}: the points of {function} must be at least 0, got {points!r:.40}"
            )
    return {problem.function: content.get(problem.function, problem.points) for problem in PROBLEMS}
