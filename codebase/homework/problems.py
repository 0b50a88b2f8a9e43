"""The homework's seventeen questions, their points, and their parts."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codebase.project import UserError


@dataclass(frozen=True, eq=False)
class Question:
    """A question, or a part of a question that is marked separately.

    Args:
        number: number of the homework's problem and question
        kind: "code", "report", "picture" or "text"
        points: maximum score
        title: a short name
        bonus: whether its points are bonus points
        key: its name in files of points and grades; a question with several parts has several keys
        parts: shares of the points, keyed by part; they add up to 1
    """

    number: str
    kind: str
    points: float
    title: str
    bonus: bool = False
    key: str = ""
    parts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if not self.key:
            object.__setattr__(self, "key", self.number)


@dataclass(frozen=True, eq=False, kw_only=True)
class Report(Question):
    """Reported values of a trained model, marked by evaluating its weights.

    Args:
        group: the run's name without its number
        metrics: names of the values
        function: the graded function that computes them; empty if there is none
    """

    group: str
    metrics: tuple[str, ...]
    function: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem(Question):
    """A function that students write.

    Args:
        file: path of the function's file, relative to the package
        summary: description of its result, without the equation
        options: arguments of the model in tests
    """

    file: str
    summary: str
    options: tuple[tuple[str, int], ...] = ()

    @property
    def function(self) -> str:
        """The function's name; for a method, with its class."""
        return self.key

    @property
    def method(self) -> str:
        """The function's name without its class."""
        return self.function.rpartition(".")[2]

    @property
    def model(self) -> str:
        """The method's class; empty for a function."""
        return self.function.rpartition(".")[0]

    @property
    def terms(self) -> list[str]:
        """The names of a bound's results: the bound, then its terms."""
        return [part for part in self.parts if part not in LESSER]


LESSER = ("gradient", "sizes", "shapes", "extreme values")  # they count if something else is right
ELBO = {"nelbo": 0.3, "kl": 0.2, "rec": 0.2, "gradient": 0.2, "sizes": 0.1}
IWAE = {"niwae": 0.5, "kl": 0.1, "rec": 0.1, "gradient": 0.2, "sizes": 0.1}
SSVAE = {"nelbo": 0.25, "kl_z": 0.15, "kl_y": 0.15, "rec": 0.15, "gradient": 0.2, "sizes": 0.1}
FSVAE = {"nelbo": 0.3, "kl_z": 0.2, "rec": 0.2, "gradient": 0.2, "sizes": 0.1}
ELBO_SUMMARY = "The negative ELBO and its two terms."
IWAE_SUMMARY = "The negative importance-weighted bound, and the means of its two terms."
BOUNDS = ("NELBO", "KL", "Rec")
WEIGHTED = ("IWAE-1", "IWAE-10", "IWAE-100", "IWAE-1000")
VAE_RUN, GMVAE_RUN = "model=vae_z=10", "model=gmvae_z=10_k=500"


def _function(number, function, points, parts, summary, bonus=False, **options) -> Problem:
    model = function.rpartition(".")[0]
    file = f"models/{model.lower()}.py" if model else "utils.py"
    of_model = tuple(options.items())
    return Problem(
        *(number, "code", points, function, bonus, function, parts),
        **{"file": file, "summary": summary, "options": of_model},
    )


def _report(number, points, title, group, metrics, function="", key="") -> Report:
    parts = dict.fromkeys(metrics, 1 / len(metrics))
    more = {"group": group, "metrics": metrics, "function": function}
    return Report(number, "report", points, title, False, key, parts, **more)


QUESTIONS = (
    _function(
        *("1.1", "sample_gaussian", 6, {"draws": 0.7, "gradient": 0.3}),
        "Draw from a Gaussian so that gradients reach its mean and variance.",
    ),
    _function("1.2", "VAE.negative_elbo_bound", 6, ELBO, ELBO_SUMMARY, z_dim=3),
    _report("1.3", 3, "the VAE's bounds", VAE_RUN, BOUNDS, "VAE.negative_elbo_bound"),
    Question("1.4", "picture", 3, "200 digits from the VAE"),
    Question("1.5", "text", 3, "the role of β"),
    _function(
        *("2.1", "log_normal", 4, {"values": 0.6, "shapes": 0.2, "gradient": 0.2}),
        "The log density of a Gaussian with a diagonal covariance.",
    ),
    _function(
        *("2.1", "log_normal_mixture", 5, {"values": 0.6, "extreme values": 0.2, "gradient": 0.2}),
        "The log density of a uniformly weighted mixture of Gaussians.",
    ),
    _function(
        *("2.1", "GMVAE.negative_elbo_bound", 7, ELBO),
        "The negative ELBO and its two terms; KL is estimated at the draw of z.",
        **{"z_dim": 3, "k": 3},
    ),
    _report("2.2", 3, "the GMVAE's bounds", GMVAE_RUN, BOUNDS, "GMVAE.negative_elbo_bound"),
    Question("2.3", "picture", 3, "200 digits from the GMVAE"),
    Question("3.1", "text", 6, "proof that IWAE's bound is tighter"),
    _function("3.2", "VAE.negative_iwae_bound", 6, IWAE, IWAE_SUMMARY, z_dim=3),
    _report("3.3", 3, "the VAE's IWAE bounds", VAE_RUN, WEIGHTED, "VAE.negative_iwae_bound"),
    _function("3.4", "GMVAE.negative_iwae_bound", 3, IWAE, IWAE_SUMMARY, z_dim=3, k=3),
    _report(
        *("3.4", 3, "the GMVAE's IWAE bounds", GMVAE_RUN, WEIGHTED),
        *("GMVAE.negative_iwae_bound", "3.4 report"),
    ),
    _report("4.1", 1, "accuracy without the bound", "model=ssvae_gw=000_cw=100", ("accuracy",)),
    _function(
        *("4.2", "SSVAE.negative_elbo_bound", 15, SSVAE),
        "The negative ELBO of an image without a label, and its three terms.",
    ),
    _report("4.3", 3, "accuracy with the bound", "model=ssvae_gw=001_cw=100", ("accuracy",)),
    Question("5.1", "text", 3, "derivation of the FSVAE's bound", bonus=True),
    _function(
        *("5.2", "FSVAE.negative_elbo_bound", 4, FSVAE),
        *("The negative ELBO of an image given its label, and its two terms.", True),
    ),
    Question("5.2", "picture", 2, "200 house numbers, class by class", True, "5.2 picture"),
)
PROBLEMS = tuple(question for question in QUESTIONS if isinstance(question, Problem))
REPORTS = tuple(question for question in QUESTIONS if isinstance(question, Report))
BY_KEY = {question.key: question for question in QUESTIONS}
POINTS = {question.key: question.points for question in QUESTIONS}


def read_points(path: Path | None) -> dict[str, float]:
    """Read points from a JSON file; questions that it omits keep the homework's points.

    Args:
        path: JSON file with points keyed by function ("log_normal"), part ("3.4 report") or
            question ("2.1"); the parts of a question share its points in the homework's
            proportions. None: the homework's points

    Returns:
        points, keyed by `Question.key`

    Raises:
        UserError: the file cannot be read, names an unknown question or has invalid points
    """
    if path is None:
        return dict(POINTS)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
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


def totals(points: Mapping[str, float]) -> tuple[float, float]:
    """Return two sums: points without the bonus, and bonus points."""
    bonus = sum(points[question.key] for question in QUESTIONS if question.bonus)
    return sum(points[question.key] for question in QUESTIONS) - bonus, bonus
