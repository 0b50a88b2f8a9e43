"""The homework's seventeen questions, their points, and their parts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codebase.project import UserError


@dataclass(frozen=True, eq=False)
class Question:
    """A question, or a part of a question that is marked separately.

    Args:
        number: number of the homework's problem and question
        kind: "code", "report" (values of a trained model), "picture" or "text"
        points: maximum score
        title: the function to write, or a short name
        parts: shares of the points, keyed by part (of a report: by value); they add up to 1
        bonus: whether its points are bonus points
        key: its name in files of points and grades; of a function, its name, with its class. A
            question with several parts has several keys
        group: of a report, the run's name without its number
    """

    number: str
    kind: str
    points: float
    title: str
    parts: Mapping[str, float] = field(default_factory=dict)
    bonus: bool = False
    key: str = ""
    group: str = ""

    def __post_init__(self):
        own = self.title if self.kind == "code" else self.number
        object.__setattr__(self, "key", self.key or own)

    @property
    def method(self) -> str:
        """The function's name without its class."""
        return self.key.rpartition(".")[2]

    @property
    def model(self) -> str:
        """The method's class; empty for a function."""
        return self.key.rpartition(".")[0]

    @property
    def file(self) -> str:
        """Path of the function's file, relative to the package."""
        return f"models/{self.model.lower()}.py" if self.model else "utils.py"

    @property
    def terms(self) -> list[str]:
        """The names of a bound's results: the bound, then its terms."""
        return [part for part in self.parts if part not in LESSER]


LESSER = ("gradient", "sizes", "shapes", "extreme values")  # they count if something else is right
ELBO = {"nelbo": 0.3, "kl": 0.2, "rec": 0.2, "gradient": 0.2, "sizes": 0.1}
IWAE = {"niwae": 0.5, "kl": 0.1, "rec": 0.1, "gradient": 0.2, "sizes": 0.1}
SSVAE = {"nelbo": 0.25, "kl_z": 0.15, "kl_y": 0.15, "rec": 0.15, "gradient": 0.2, "sizes": 0.1}
FSVAE = {"nelbo": 0.3, "kl_z": 0.2, "rec": 0.2, "gradient": 0.2, "sizes": 0.1}
DRAWS = {"draws": 0.7, "gradient": 0.3}
DENSITY = {"values": 0.6, "shapes": 0.2, "gradient": 0.2}
MIXTURE = {"values": 0.6, "extreme values": 0.2, "gradient": 0.2}
BOUNDS = dict.fromkeys(("NELBO", "KL", "Rec"), 1 / 3)
WEIGHTED = dict.fromkeys(("IWAE-1", "IWAE-10", "IWAE-100", "IWAE-1000"), 1 / 4)
VAE_RUN, GMVAE_RUN = "model=vae_z=10", "model=gmvae_z=10_k=500"
SSVAE_RUNS = ("model=ssvae_gw=000_cw=100", "model=ssvae_gw=001_cw=100")
QUESTIONS = (
    Question("1.1", "code", 6, "sample_gaussian", DRAWS),
    Question("1.2", "code", 6, "VAE.negative_elbo_bound", ELBO),
    Question("1.3", "report", 3, "the VAE's bounds", BOUNDS, group=VAE_RUN),
    Question("1.4", "picture", 3, "200 digits from the VAE"),
    Question("1.5", "text", 3, "the role of β"),
    Question("2.1", "code", 4, "log_normal", DENSITY),
    Question("2.1", "code", 5, "log_normal_mixture", MIXTURE),
    Question("2.1", "code", 7, "GMVAE.negative_elbo_bound", ELBO),
    Question("2.2", "report", 3, "the GMVAE's bounds", BOUNDS, group=GMVAE_RUN),
    Question("2.3", "picture", 3, "200 digits from the GMVAE"),
    Question("3.1", "text", 6, "proof that IWAE's bound is tighter"),
    Question("3.2", "code", 6, "VAE.negative_iwae_bound", IWAE),
    Question("3.3", "report", 3, "the VAE's IWAE bounds", WEIGHTED, group=VAE_RUN),
    Question("3.4", "code", 3, "GMVAE.negative_iwae_bound", IWAE),
    Question(
        "3.4", "report", 3, "the GMVAE's IWAE bounds", WEIGHTED, False, "3.4 report", GMVAE_RUN
    ),
    Question(
        "4.1", "report", 1, "accuracy without the bound", {"accuracy": 1}, group=SSVAE_RUNS[0]
    ),
    Question("4.2", "code", 15, "SSVAE.negative_elbo_bound", SSVAE),
    Question("4.3", "report", 3, "accuracy with the bound", {"accuracy": 1}, group=SSVAE_RUNS[1]),
    Question("5.1", "text", 3, "derivation of the FSVAE's bound", bonus=True),
    Question("5.2", "code", 4, "FSVAE.negative_elbo_bound", FSVAE, bonus=True),
    Question("5.2", "picture", 2, "200 house numbers, class by class", {}, True, "5.2 picture"),
)
PROBLEMS = tuple(question for question in QUESTIONS if question.kind == "code")
REPORTS = tuple(question for question in QUESTIONS if question.kind == "report")
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
    known = {**dict.fromkeys(question.number for question in QUESTIONS), **BY_KEY}
    for key, points in content.items():
        if key not in known or type(points) not in (int, float) or not 0 <= points < 1e6:
            raise UserError(
                f"--points {path}: {key!r:.60} has {points!r:.40}, expected points from 0 to "
                f"1,000,000 of one of {', '.join(known)}"
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
