"""What the homework asks: seventeen questions, their points, and what is marked of each."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from codebase.homework.files import read_file
from codebase.project import UserError


@dataclass(frozen=True, eq=False)
class Question:
    """A question, or a part of one that is marked by itself.

    Args:
        number: number of the homework's problem and question
        kind: "code", "report", "picture" or "text"
        points: the most that it may get
        title: what it asks for, in a few words
        bonus: whether its points come on top
        key: its name in files of points and grades; a question that has several parts has several
        parts: what is marked, with shares of the points that add up to 1
    """

    number: str
    kind: str
    points: float
    title: str
    bonus: bool = False
    key: str = ""
    parts: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if not self.key:
            object.__setattr__(self, "key", self.number)


@dataclass(frozen=True, eq=False, kw_only=True)
class Report(Question):
    """Values that a student reports of a trained model, marked with the weights.

    Args:
        group: the run's name without its number
        metrics: the values
        function: which computes them in the student's code, if it is graded
    """

    group: str
    metrics: tuple[str, ...]
    function: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem(Question):
    """A function that students write.

    Args:
        file: file that it is written in, below the package
        summary: what it gives, without its equation
        constructor: arguments of the model in tests
    """

    file: str
    summary: str
    constructor: dict[str, int | str] | None = None

    @property
    def function(self) -> str:
        """The name; of a method, with its class."""
        return self.key

    @property
    def method(self) -> str:
        """The name without its class."""
        return self.function.rpartition(".")[2]

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


def _function(number, function, points, file, summary, parts, constructor=None, bonus=False):
    return Problem(
        number,
        "code",
        points,
        function,
        bonus,
        function,
        parts,
        file=file,
        summary=summary,
        constructor=constructor,
    )


def _report(number, points, title, group, metrics, function="", key=""):
    parts = dict.fromkeys(metrics, 1 / len(metrics))
    return Report(
        number,
        "report",
        points,
        title,
        False,
        key,
        parts,
        group=group,
        metrics=metrics,
        function=function,
    )


BOUNDS = ("NELBO", "KL", "Rec")
IWAE = ("IWAE-1", "IWAE-10", "IWAE-100", "IWAE-1000")
ELBO_SUMMARY = "The negative ELBO and its two terms."
IWAE_SUMMARY = "The negative importance-weighted bound, and the means of its two terms."
VAE_RUN, GMVAE_RUN = "model=vae_z=10", "model=gmvae_z=10_k=500"
VAE_FILE, GMVAE_FILE = "models/vae.py", "models/gmvae.py"

QUESTIONS = (
    _function(
        "1.1",
        "sample_gaussian",
        6,
        "utils.py",
        "Draw from a Gaussian so that gradients reach its mean and variance.",
        {"draws": 0.7, "gradient": 0.3},
    ),
    _function(
        "1.2",
        "VAE.negative_elbo_bound",
        6,
        VAE_FILE,
        ELBO_SUMMARY,
        VAE_TERMS,
        {"z_dim": 3},
    ),
    _report("1.3", 3, "the VAE's bounds", VAE_RUN, BOUNDS, "VAE.negative_elbo_bound"),
    Question("1.4", "picture", 3, "200 digits of the VAE"),
    Question("1.5", "text", 3, "the role of β"),
    _function(
        "2.1",
        "log_normal",
        4,
        "utils.py",
        "The log density of a Gaussian with a diagonal covariance.",
        {"values": 0.6, "shapes": 0.2, "gradient": 0.2},
    ),
    _function(
        "2.1",
        "log_normal_mixture",
        5,
        "utils.py",
        "The log density of a uniformly weighted mixture of Gaussians.",
        {"values": 0.6, "extreme values": 0.2, "gradient": 0.2},
    ),
    _function(
        "2.1",
        "GMVAE.negative_elbo_bound",
        7,
        GMVAE_FILE,
        "The negative ELBO and its two terms; KL is estimated at the draw of z.",
        VAE_TERMS,
        {"z_dim": 3, "k": 3},
    ),
    _report("2.2", 3, "the GMVAE's bounds", GMVAE_RUN, BOUNDS, "GMVAE.negative_elbo_bound"),
    Question("2.3", "picture", 3, "200 digits of the GMVAE"),
    Question("3.1", "text", 6, "proof that IWAE's bound is tighter"),
    _function(
        "3.2",
        "VAE.negative_iwae_bound",
        6,
        VAE_FILE,
        IWAE_SUMMARY,
        IWAE_TERMS,
        {"z_dim": 3},
    ),
    _report("3.3", 3, "the VAE's IWAE bounds", VAE_RUN, IWAE, "VAE.negative_iwae_bound"),
    _function(
        "3.4",
        "GMVAE.negative_iwae_bound",
        3,
        GMVAE_FILE,
        IWAE_SUMMARY,
        IWAE_TERMS,
        {"z_dim": 3, "k": 3},
    ),
    _report(
        "3.4",
        3,
        "the GMVAE's IWAE bounds",
        GMVAE_RUN,
        IWAE,
        "GMVAE.negative_iwae_bound",
        "3.4 report",
    ),
    _report("4.1", 1, "accuracy without the bound", "model=ssvae_gw=000_cw=100", ("accuracy",)),
    _function(
        "4.2",
        "SSVAE.negative_elbo_bound",
        15,
        "models/ssvae.py",
        "The negative ELBO of an image without a label, and its three terms.",
        SSVAE_TERMS,
        {},
    ),
    _report("4.3", 3, "accuracy with the bound", "model=ssvae_gw=001_cw=100", ("accuracy",)),
    Question("5.1", "text", 3, "derivation of the FSVAE's bound", bonus=True),
    _function(
        "5.2",
        "FSVAE.negative_elbo_bound",
        4,
        "models/fsvae.py",
        "The negative ELBO of an image given its label, and its two terms.",
        FSVAE_TERMS,
        {},
        bonus=True,
    ),
    Question("5.2", "picture", 2, "200 house numbers, class by class", True, "5.2 picture"),
)
PROBLEMS = tuple(question for question in QUESTIONS if isinstance(question, Problem))
REPORTS = tuple(question for question in QUESTIONS if isinstance(question, Report))
BY_FUNCTION = {problem.function: problem for problem in PROBLEMS}
BY_KEY = {question.key: question for question in QUESTIONS}
POINTS = {question.key: question.points for question in QUESTIONS}
LARGEST_FILE = 1 << 20  # bytes


def read_points(path: Path | None) -> dict[str, float]:
    """Read points from a JSON object; questions that are not in it keep the homework's.

    Args:
        path: path of an object of points by function ("log_normal"), by part ("3.4 report"), or by
            question ("2.1"), whose parts share them as they share the homework's; None: the
            homework's points

    Returns:
        points by `Question.key`

    Raises:
        UserError: the file cannot be read, names an unknown question or has invalid points
    """
    if path is None:
        return dict(POINTS)
    try:
        content = json.loads(read_file(path, LARGEST_FILE))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--points {path}: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f'--points {path}: expected an object such as {{"log_normal": 4}}')
    numbers = dict.fromkeys(question.number for question in QUESTIONS)
    for key, points in content.items():
        if key not in BY_KEY and key not in numbers:
            known = ", ".join({**numbers, **BY_KEY})
            raise UserError(f"--points {path}: {key!r:.60} is not one of {known}")
        if type(points) not in (int, float) or not 0 <= points < 1e6 or math.isnan(points):
            raise UserError(
                f"--points {path}: the points of {key} must be at least 0 and less than 1,000,000, "
                f"got {points!r:.40}"
            )
    found = {}
    for question in QUESTIONS:
        whole = sum(part.points for part in QUESTIONS if part.number == question.number)
        share = content.get(question.number, whole) * question.points / whole
        found[question.key] = content.get(question.key, round(share, 2))
    return found


def totals(points: dict[str, float]) -> tuple[float, float]:
    """Add up points by key: without the bonus, and the bonus."""
    bonus = sum(points[question.key] for question in QUESTIONS if question.bonus)
    return sum(points[question.key] for question in QUESTIONS) - bonus, bonus
