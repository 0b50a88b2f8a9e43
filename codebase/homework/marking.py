"""Mark a function by comparing its outputs with a correct function's outputs for the same noise."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch

from codebase.homework import cases
from codebase.homework.forms import FORMS
from codebase.homework.mistakes import MISTAKES
from codebase.homework.problems import Question
from codebase.homework.sandbox import Output
from codebase.homework.sandboxed import Case, Spec

# Differences that are not mistakes, relative to 1 + the right value. Correct solutions of other
# forms differ by up to 2e-7.
TOLERANCE = 5e-6
GRADIENT_TOLERANCE = 5e-4  # sums over up to 3 million weights in float32: up to 3e-5
# Limit for means over draws: a right function exceeds it in one of 1.7 million comparisons.
STANDARD_ERRORS = 5
NARROWEST = 50  # a mean over so many draws squared is narrower than any that students take
WIDEST = 12  # times the usual spread, of means whose noise all rows and dimensions share
LARGEST = 1e15  # beyond which sums of squares lose their meaning
RESEMBLES = 0.8  # correlation of values with the right ones
UNLIKE = "None of your values is right, so the other parts earn nothing."
SAME_NOISE = "You draw the same noise at every call; draw new noise each time."
NOISE_REASONS = (
    "Your result depends on fewer draws of noise than it should; draw noise for every image, "
    "dimension and sample.",
    "You do not compute z = m + √v·ε; compute it, with one ε for each element.",
)
WITH = {
    "shapes": "With three axes, or m and v that broadcast with x: ",
    "extreme values": "With points far from all components, or with one point: ",
}
Run = Callable[[Case, Mapping[str, str] | None], Output]
Form = tuple[Callable, int]  # a right function, and the sign of its noise: see `cases.outputs`


@dataclass(frozen=True)
class Mark:
    """The mark of a submission for a question.

    Args:
        question: the question
        points: maximum score
        score: the score
        lost: the parts that are wrong
        said: sentences for the student
        mistakes: the sentences that name a known mistake
    """

    question: Question
    points: float
    score: float
    lost: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    mistakes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """A function's output in a case, compared with correct functions' outputs.

    Args:
        problem: the function
        plan: the case
        found: the function's output
        reasons: what is wrong, keyed by part; empty if the part is correct
    """

    problem: Question
    plan: cases.Plan
    found: Output
    reasons: Mapping[str, str] = field(default_factory=dict)

    def pairs(self, group: str, form: Form) -> Iterator[tuple[Any, Any]]:
        """Yield each output of a group of calls, or its error, paired with the correct output."""
        right = cases.outputs(self.plan.case, *form)
        for i in self.plan.groups.get(group, ()):
            one = self.found.calls[i]
            for j, other in enumerate(right[i]):
                yield (one if isinstance(one, str) else one[j]), other

    def wrong(self, group: str, form: Form, check: Callable[[dict, dict], str]) -> str:
        """Return the first error of a group's calls, or what a check says of its outputs."""
        pairs = self.pairs(group, form)
        told = (one if isinstance(one, str) else check(one, right) for one, right in pairs)
        return next(filter(None, told), "")

    def outputs(self, group: str) -> list[dict]:
        """Return the outputs of a group's successful calls."""
        calls = (self.found.calls[i] for i in self.plan.groups.get(group, ()))
        return [output for one in calls if isinstance(one, list) for output in one]

    @property
    def own(self) -> Form:
        """This project's function."""
        return FORMS[self.problem.key][0], 1

    @property
    def settable(self) -> bool:
        """Whether the function draws with torch, so its noise was set and differentiated."""
        outputs = self.outputs("set")
        return bool(outputs) and all(
            one["drawn"][0] and any(any(term) for term in one["noise"]) for one in outputs
        )

    @property
    def hidden(self) -> str:
        """A term whose noise does not show, because it is detached; empty if there is none."""
        outputs, terms = self.outputs("set"), self.problem.terms
        drawn = [i for i, term in enumerate(terms) if term in _drawn(self.problem)]
        shown = {i for one in outputs for i, sums in enumerate(one["noise"]) if any(sums)}
        return next((terms[i] for i in drawn if i not in shown), "")

    @property
    def several(self) -> bool:
        """Whether more than two z are drawn; equal draws do not show how they are combined."""
        pairs = [pair for pair in self.pairs("set", self.own) if isinstance(pair[0], dict)]
        return any(one["drawn"][0] > 2 * right["drawn"][0] for one, right in pairs)

    @property
    def lost(self) -> tuple[str, ...]:
        """The wrong parts; all parts if every value is wrong and unlike the correct values."""
        wrong = {part for part, reason in self.reasons.items() if reason}
        if wrong.issuperset(self.problem.terms) and not self._resembles():
            wrong.update(self.problem.parts)
        return tuple(part for part in self.problem.parts if part in wrong)

    @property
    def share(self) -> float:
        """The share of the points that the function earns."""
        lost = self.lost
        return sum(share for part, share in self.problem.parts.items() if part not in lost)

    def _resembles(self) -> bool:
        """Return whether wrong values correlate with the correct ones."""
        if not self.found.calls:
            return False
        one, right = next(self.pairs(next(iter(self.plan.groups)), self.own))
        if isinstance(one, str) or one["shapes"] != right["shapes"]:
            return False
        found, expected = one["values"][0], right["values"][0]
        if self.problem.model:  # three constants may be like the terms; gradients are not
            names = [name for name in right["gradients"] if not name.startswith("kl + rec")]
            pairs = [pair for pair in self.pairs("set", self.own) if pair[1]["gradients"]]
            found, expected = (
                [(pair[k]["gradients"].get(name) or [0.0])[0] for pair in pairs for name in names]
                for k in (0, 1)
            )
        return _correlation(found, expected) >= RESEMBLES


def mark(
    problem: Question,
    points: float,
    run: Run,
    earlier: Mapping[str, Mark] = MappingProxyType({}),
    seed: int = 0,
) -> Mark:
    """Mark a submission's function, with the submission's helper functions or this project's.

    Args:
        problem: the function
        points: maximum score
        run: function that runs a case in the submission's sandbox
        earlier: marks of the functions that were marked before, keyed by name
        seed: seed for arguments and weights of cases that average over draws
    """
    before = [one for name, one in earlier.items() if "." not in name]
    own = check(problem, run, seed)
    other = check(problem, run, seed, cases.helpers_for(problem), own) if own.lost else own
    helped = other.share > own.share + 1e-9
    best = other if helped else own
    notes = []
    if helped:
        wrong = ", ".join(one.question.key for one in before if one.lost)
        whose = f"your helper functions ({wrong})" if wrong else "your other functions"
        raised = [one for one in own.found.calls if isinstance(one, str)]
        right = "Another error" if best.lost else "This function is right. An error"
        if raised and problem.model and not wrong:  # each may be right by itself
            why = f"{raised[0]} It does not fit the functions that it calls; change one of them."
            best = replace(best, reasons={**best.reasons, "sizes": why})
        else:
            notes.append(f"{right} comes from {whose}; you lose no points for it here.")
    if len(best.lost) == len(problem.parts) and not all(best.reasons.values()):
        notes.append(UNLIKE)
    mistakes = named(best) if best.lost else ()
    reasons = [best.reasons[part] for part in best.lost if best.reasons.get(part)]
    told = tuple(dict.fromkeys((*mistakes, *reasons, *notes)))
    score = round(points * best.share, 2)
    return Mark(problem, points, score, best.lost, told, mistakes)


def check(
    problem: Question,
    run: Run,
    seed: int,
    helpers: Mapping[str, str] | None = None,
    before: Given | None = None,
) -> Given:
    """Check all parts of a function.

    Args:
        problem: the function
        run: function that runs a case in the submission's sandbox
        seed: seed for arguments and weights of cases that average over draws
        helpers: this project's functions, which replace the submission's own
        before: the result without helpers, which is returned if the helpers change nothing
    """

    def give(kind: str) -> Given:
        plan = cases.plan(problem, kind, seed if kind == "average" else None)
        return Given(problem, plan, run(plan.case, helpers))

    given = give("first")
    if before is not None and before.found.calls == given.found.calls:
        return before
    if not given.found.calls:
        reasons = dict.fromkeys(problem.parts, given.found.error)
    elif problem.model:
        reasons = _check_bound(given, give)
    elif problem.key == "sample_gaussian":
        reasons = _check_draws(given, give)
    else:
        reasons = _check_density(given)
    return replace(given, reasons=reasons)


# Numbers


def close(found: float, right: float, tolerance: float = TOLERANCE) -> bool:
    """Return whether two numbers differ by at most a tolerance, relative to 1 + |right|."""
    if found == right:
        return True
    finite = math.isfinite(found) and math.isfinite(right)
    return finite and abs(found - right) <= tolerance * (1 + abs(right))


def _correlation(one: list[float], other: list[float]) -> float:
    """Return the correlation of two lists of numbers; 0 if it is undefined."""
    values = torch.tensor([one, other], dtype=torch.float64)
    found = torch.corrcoef(values)[0, 1].item() if values.isfinite().all() else 0.0
    return found if math.isfinite(found) else 0.0


def _all_close(found: list[float], right: list[float], tolerance: float = TOLERANCE) -> bool:
    return len(found) == len(right) and all(
        close(a, b, tolerance) or (math.isnan(a) and math.isnan(b))
        for a, b in zip(found, right, strict=True)
    )


def _value(problem: Question, i: int, one: dict, right: dict, only_shape: bool = False) -> str:
    """Return what is wrong with the shape or value of a term, or of a function's only result."""
    shape, expected = right["shapes"][i], right["values"][i]
    if not problem.model:
        if one["shapes"] != [shape]:
            found = f"a tensor of shape {tuple(one['shapes'][0])}" if one["shapes"] else "nothing"
            found = found if len(one["shapes"]) < 2 else f"{len(one['shapes'])} results"
            return f"You return {found}; return shape {tuple(shape)}."
        for a, b in zip(one["values"][0], expected, strict=True):
            if not (math.isfinite(a) if only_shape else close(a, b)):
                return f"One of your values is {_shown(a, b)}."
        return ""
    name = problem.terms[i]
    if i >= len(one["values"]):
        return f"You return only {len(one['values'])} values; return {name} too."
    values, shape = one["values"][i], one["shapes"][i]
    if len(values) != 1:
        return f"Your {name} has shape {tuple(shape)}; return a scalar, the mean over the batch."
    if not close(values[0], expected[0]):
        return f"Your {name} is {_shown(values[0], expected[0])}."
    return ""


def _shown(found: float, right: float) -> str:
    """Format a wrong and a correct value, with too few digits to copy the correct one."""
    if f"{found:.4g}" == f"{right:.4g}":
        return f"{found:.6g}, which is slightly off"
    return f"{found:.4g}; it should be {right:.4g}"


def _noise(i: int, one: dict, right: dict, several: bool) -> str:
    """Return what is wrong with the draws that a term depends on.

    For every correct function, the derivatives with respect to the draws are the same numbers, up
    to their order, because each element of z has its own draw. A mean over n draws of z divides
    each derivative, and the sum of their squares, by n.
    """
    if "noise" not in right or not any(right["noise"][i]) or not any(one["noise"][i]):
        return ""  # one that is detached does not show its draws
    if not all(map(math.isfinite, one["noise"][i])):
        return NOISE_REASONS[1]
    (total, absolute, squares), expected = one["noise"][i], right["noise"][i]
    most = max(one["drawn"][0] / right["drawn"][0], 1) if several else 1
    parts = expected[2] / squares if squares > 1e-30 else 0.0
    tolerance = GRADIENT_TOLERANCE * expected[1]
    if (
        abs(total - expected[0]) <= tolerance
        and abs(absolute - expected[1]) <= tolerance
        and abs(parts - round(parts)) <= 4 * GRADIENT_TOLERANCE * parts
        and 1 <= round(parts) <= most
    ):
        return ""
    if squares > expected[2] * (1 + GRADIENT_TOLERANCE):
        return NOISE_REASONS[0]
    return NOISE_REASONS[1]


def _gradient(what: str, one: dict, right: dict, wrong: bool = False, loss: bool = False) -> str:
    """Return what is wrong with gradients.

    Args:
        what: the name of the value
        one, right: the submission's output, and the correct one
        wrong: whether the value is wrong; then gradients need only be nonzero
        loss: whether these are the gradients of kl + rec, which models without beta do not have
    """
    for name, expected in right["gradients"].items():
        if name.startswith("kl + rec") is not loss or loss and name not in one["gradients"]:
            continue
        given = one["gradients"].get(name, [])
        where = f"argument {int(name) + 1}" if name.isdigit() else name.removeprefix("kl + rec: ")
        why = "; the loss is beta·kl + rec, so do not detach them" if loss else ""
        if any(expected) and not any(given):
            return f"Your {what} has no gradient for {where}{why or '; it would not be trained'}."
        if not all(map(math.isfinite, given)):
            return f"Your {what}'s gradient for {where} is not finite."
        exact = wrong or _all_close(given or [0.0], expected, GRADIENT_TOLERANCE)
        if not exact and any([*given, *expected]):
            why = why or "; perhaps you detach something"
            return f"Your {what}'s gradient for {where} is wrong{why}."
    return ""


# Densities and draws


def _check_density(given: Given) -> dict[str, str]:
    """Check log_normal or log_normal_mixture."""
    reasons: dict[str, str] = {}
    for part in given.plan.groups:
        # If a part is wrong, other parts only need the right shape.
        check = partial(_value, given.problem, 0, only_shape=any(reasons.values()))
        reason = given.wrong(part, given.own, check)
        if reason and reason not in reasons.values():
            reason = WITH.get(part, "") + reason
        reasons[part] = reason
    check = partial(_gradient, "result", wrong=bool(reasons["values"]))
    return reasons | {"gradient": given.wrong("values", given.own, check)}


def _check_draws(given: Given, give: Callable) -> dict[str, str]:
    """Check sample_gaussian."""
    [(one, right), (again, _)] = given.pairs("random", given.own)
    if isinstance(one, str):
        return dict.fromkeys(given.problem.parts, one)
    of, exact = ("random", given.own), False  # at other draws, gradients need only be nonzero
    if one["shapes"] != right["shapes"]:
        wrong = _value(given.problem, 0, one, right)
    elif given.settable or one["values"] == again["values"]:
        wrong, form = _of_term(given, 0, "set")
        wrong = wrong or (SAME_NOISE if one["values"] == again["values"] else "")
        of, exact = ("set", form or given.own), not wrong
    else:
        wrong = _on_average(give("average"), ("many",))["draws"]
    return {"draws": wrong, "gradient": given.wrong(*of, partial(_gradient, "z", wrong=not exact))}


# Bounds


def _check_bound(given: Given, give: Callable) -> dict[str, str]:
    """Check a bound: each of its terms, the gradient of the first, and other sizes."""
    problem = given.problem
    random, _ = next(given.pairs("random", given.own))
    kept = _kept(given)
    if isinstance(random, str):
        reasons = dict.fromkeys(problem.parts, random)
    else:
        # Exactly, if the noise is set; on average, if it cannot be, or if equal draws hide it.
        reasons = _of_noise(given, give) if given.settable or kept else {}
        if not reasons or given.several or given.hidden and not reasons[given.hidden]:
            kind = "several" if reasons and not given.hidden else "average"
            average = _on_average(give(kind), ("wide", "narrow", "weights"))
            combined = {term: reasons.get(term) or average[term] for term in problem.terms}
            reasons = (reasons or average) | combined
        reasons |= {term: reasons[term] or SAME_NOISE for term in kept}
        reasons |= _overflow(given, reasons)
    small = _of_group(given, "set")
    if any(small[term] for term in problem.terms) and _may_be_for_a_hundred(given):
        hundred = give("hundred")
        if hundred.found.calls and hundred.settable:
            other = _of_group(hundred, "set")
            other |= dict.fromkeys(_kept(hundred), SAME_NOISE)
            average = _on_average(hundred, ("weights",))
            other |= {term: other[term] or average[term] for term in problem.terms}
            if sum(map(bool, other.values())) < sum(map(bool, small.values())):
                told = f"Your bound is right only for batches of {cases.HUNDRED}; use x.shape[0]."
                return other | {"sizes": told}
    return reasons


def _may_be_for_a_hundred(given: Given) -> bool:
    """Return whether a call fails, or a term is divided by 100 instead of the batch size."""
    share = cases.BATCHES[given.problem.model] / cases.HUNDRED
    return any(
        isinstance(one, str)
        or any(
            len(a) == 1 and close(a[0], b[0] * share, GRADIENT_TOLERANCE)
            for a, b in zip(one["values"], right["values"], strict=False)
        )
        for one, right in given.pairs("set", given.own)
    )


def _kept(given: Given) -> list[str]:
    """Return the random terms that have the same value for two seeds."""
    (one, right), (other, another) = given.pairs("random", given.own)
    if isinstance(one, str):
        return []
    return [
        term
        for i, term in enumerate(given.problem.terms)
        if (i == 0 or term in _drawn(given.problem))
        and right["values"][i] != another["values"][i]
        and one["values"][i : i + 1] == other["values"][i : i + 1]
    ]


def _of_noise(given: Given, give: Callable) -> dict[str, str]:
    """Return what is wrong with each part of a bound, from outputs with set noise."""
    problem = given.problem
    reasons = _of_group(given, "set")
    right = [i for i, term in enumerate(problem.terms) if not reasons[term]]
    if "rows" in given.plan.groups:
        rows = [one["drawn"][1] for one in given.outputs("rows")]
        iws = [given.plan.case.calls[i].args[1] for i in given.plan.groups["rows"]]
        told = {}
        if len(rows) == len(iws) and all(
            n and n % iw == 0 for n, iw in zip(rows, iws, strict=True)
        ):
            told = {i: _of_term(given, i, "rows")[0] for i in right}
        elsewhere = not told or not any(told.values()) and _of_term(given, 0, "layouts")[0]
        if right and elsewhere and (0 in right or reasons[problem.terms[0]] in NOISE_REASONS):
            # Draws in another layout: equal ones, or an image's alone, do not show all mistakes.
            average = _on_average(give("weights"), ("weights",))
            told = {i: average[problem.terms[i]] for i in right}
        reasons |= {problem.terms[i]: reason for i, reason in told.items()}
        right = [i for i in right if not told.get(i)]
    sizes = (_of_sizes(given, i) for i in right)
    return reasons | {
        "sizes": next(filter(None, sizes), "" if right else reasons[problem.terms[0]])
    }


def _of_sizes(given: Given, i: int) -> str:
    """Return for which batch size and iw a term is wrong, and what is wrong."""
    for call in given.plan.groups["sizes"]:
        plan = given.plan._replace(groups={"sizes": range(call, call + 1)})
        if reason := _of_term(replace(given, plan=plan), i, "sizes")[0]:
            images, *iw = given.plan.case.calls[call].args
            count = images.shape[0] if isinstance(images, Spec) else 0
            weights = f" and iw = {iw[0]}" if iw and isinstance(iw[0], int) else ""
            return f"With {count} images{weights}: {reason}"
    return ""


def _of_group(given: Given, group: str) -> dict[str, str]:
    """Return what is wrong with each term and the gradient, in a group of calls with set noise."""
    found = [_of_term(given, i, group) for i in range(len(given.problem.terms))]
    told = [reason for reason, _ in found]
    if told[-1] in NOISE_REASONS:  # of a z that has the wrong noise: it costs rec and the bound
        told[1:-1] = ["" if reason in NOISE_REASONS else reason for reason in told[1:-1]]
        told[0] = told[0] or told[-1]
    reasons = dict(zip(given.problem.terms, told, strict=True))
    check = partial(_gradient, "bound", wrong=bool(told[0]))
    gradient = given.wrong(group, found[0][1] or given.own, check)
    if not any(told[1:]):  # the VAE's loss is made of kl and rec: they must train it as well
        (kl, _), (_, sign) = (found[i][1] or given.own for i in (1, -1))  # a closed KL has no sign
        check = partial(_gradient, "kl + rec", loss=True)
        gradient = gradient or given.wrong(group, (kl, sign), check)
    return reasons | {"gradient": gradient, "sizes": ""}


def _drawn(problem: Question) -> tuple[str, ...]:
    """Return the terms whose derivatives show the number of draws; IWAE's kl and rec are means."""
    return ("niwae",) if problem.terms[0] == "niwae" else ("rec", "draws")


def _of_term(given: Given, i: int, group: str) -> tuple[str, Form | None]:
    """Return the correct form that a term matches, or why it matches none."""
    problem, first = given.problem, ""
    of_weights = problem.terms[i] == "niwae"
    several = bool(problem.model) and not of_weights  # draws of z, whose mean is right, too
    # Of an IWAE bound, the noise is that of the bound; of an ELBO, that of each term.
    looked_at = group == "set" and (i > 0) == ("elbo" in problem.method)

    def check(one: dict, right: dict) -> str:
        reason = _value(problem, i, one, right)
        return reason or (_noise(i, one, right, several) if looked_at else "")

    for sign in (1, -1) if of_weights or not problem.model else (1, -1, 0):
        for function in FORMS[problem.key]:
            reason = given.wrong(group, (function, sign), check)
            if not reason:
                return "", (function, sign)
            first = first or reason
    return first, None


def _overflow(given: Given, reasons: dict[str, str]) -> dict[str, str]:
    """Return which term is not finite if the decoder's output is far from 0."""
    for one in given.outputs("steep"):
        for i, term in reversed(list(enumerate(given.problem.terms))):
            values = one["values"][i] if i < len(one["values"]) else []
            if not reasons[term] and not all(map(math.isfinite, values)):
                told = "use log_bernoulli_with_logits, which does not overflow"
                return {term: f"Your {term} is {values[0]:g} where logits are far from 0; {told}."}
    return {}


# Means over draws


def _on_average(given: Given, groups: tuple[str, ...]) -> dict[str, str]:
    """Return what is wrong with each term and the gradient, averaged over many draws."""
    if not given.found.calls:
        return dict.fromkeys(given.problem.parts, given.found.error)
    reasons = dict.fromkeys(given.problem.parts, "")
    for i, term in enumerate(given.problem.terms):
        told = [
            next(filter(None, (_of_means(given, i, group, form) for group in groups)), "")
            for form in FORMS[given.problem.key]
        ]
        reasons[term] = "" if "" in told else told[0]
    for group in groups if given.problem.model else ():
        pairs = [pair for pair in given.pairs(group, given.own) if pair[1]["gradients"]]
        for name in pairs[0][1]["gradients"] if pairs else ():
            if name.startswith("kl + rec") or any(isinstance(one, str) for one, _ in pairs):
                continue
            expected = [right["gradients"][name][0] for _, right in pairs]
            values = [(one["gradients"].get(name) or [0.0])[0] for one, _ in pairs]
            if any(expected) and not any(values):
                reasons["gradient"] = f"Your bound has no gradient for {name}."
            elif not reasons[given.problem.terms[0]]:
                why = _mean(f"Your bound's gradient for {name}", values, expected)
                reasons["gradient"] = reasons["gradient"] or why
    return reasons


def _of_means(given: Given, i: int, group: str, form: Callable) -> str:
    pairs = list(given.pairs(group, (form, 1)))
    if any(isinstance(one, str) for one, _ in pairs):
        return str(pairs[0][0])
    if given.problem.model:
        if any(
            len(one["values"][i : i + 1]) != 1 or len(one["values"][i]) != 1 for one, _ in pairs
        ):
            return f"Your {given.problem.terms[i]} is not a scalar."
        found, right = ([pair[k]["values"][i][0] for pair in pairs] for k in (0, 1))
        of_means = given.problem.terms[0] == "niwae" and i > 0  # see `_drawn`
        return _mean(f"Your {given.problem.terms[i]}", found, right, of_means) if pairs else ""
    if any(one["shapes"] != right["shapes"] for one, right in pairs):
        return "Your z has another shape than m."
    own, ours = (_moments(given, [pair[k]["values"][0] for pair in pairs]) for k in (0, 1))
    told = (_mean(f"The {name} of your ε", own[name], ours[name]) for name in own)
    return next(filter(None, told), "")


def _moments(given: Given, draws: list[list[float]]) -> dict[str, list[float]]:
    """Return moments of ε, averaged over its elements, for each of many draws of z = m + √v·ε."""
    m, v = (arg.double() for arg in cases.drawn(given.plan.case).args[0])
    noise = (torch.tensor(draws, dtype=torch.float64).view(-1, *m.shape) - m) / v.sqrt()
    found = {
        "mean": noise,
        "variance": noise.square(),
        "covariance between rows": noise[:, 1:] * noise[:, :-1],
        "covariance between dimensions": noise[..., 1:] * noise[..., :-1],
        "fourth moment": noise.pow(4),
    }
    return {name: value.flatten(1).mean(1).tolist() for name, value in found.items()}


def _mean(name: str, values: list[float], right: list[float], only: bool = False) -> str:
    """Return what is wrong with a mean over draws and, unless `only` is true, with its spread."""
    found, other = (torch.tensor(v, dtype=torch.float64) for v in (values, right))
    if not (found.abs() < LARGEST).all():  # nan, too
        return f"{name} is not finite for some draws."
    mean, expected, spread = found.mean().item(), other.mean().item(), found.std().item()
    usual, least = other.std().item(), TOLERANCE * (1 + abs(expected))
    # Too wide a spread is noise that images or dimensions share, and would hide any mistake in its
    # standard error; a narrow one may be a mean over several draws.
    centred = other - other.mean()
    kurtosis = (centred.pow(4).mean() / centred.square().mean().clamp(min=1e-150) ** 2).item()
    excess = 1 + STANDARD_ERRORS * math.sqrt((max(3.0, kurtosis) - 1) / len(values))
    if not only and usual > least and spread < usual / NARROWEST:
        return f"{name} hardly varies between draws; it should vary by ±{usual:.3g}."
    widest = usual * (WIDEST if only else excess) + least
    if not spread <= widest:
        return f"{name} varies by ±{spread:.3g} between draws; it should vary by ±{usual:.3g}."
    error = math.sqrt((spread**2 + usual**2) / len(values))
    if not abs(mean - expected) <= STANDARD_ERRORS * error + least:
        return f"{name} is {mean:.6g} on average; it should be {expected:.6g} ± {error:.2g}."
    return ""


# Names


def named(given: Given) -> tuple[str, ...]:
    """Return the sentences of known mistakes with the same outputs, or the same terms."""
    problem, (case, groups), calls = given.problem, given.plan, given.found.calls
    if not calls or isinstance(calls[0], str):
        return ()
    first = case._replace(calls=case.calls[:1])
    known = MISTAKES[problem.key]
    outputs = {sentence: cases.outputs(first, run)[0] for sentence, run in known.items()}
    right = cases.outputs(case, *given.own)
    every = [i for group in groups for i in groups[group]]
    settable = [i for i in every if i not in groups.get("random", ())]
    for some, gradients in ((every, True), (settable, True), (settable, False)):
        found = []
        for sentence, output in outputs.items():
            if not _same(calls[0], output, gradients):
                continue
            whole = cases.outputs(case, known[sentence])
            if all(_same(calls[i], whole[i], gradients) for i in some) and not all(
                _same(right[i], whole[i], gradients) for i in some
            ):
                found.append(sentence)
        if found:
            return (" Or: ".join(found[:2]),)
    return _by_term(given, outputs, right[0][0]) if problem.model else ()


def _by_term(given: Given, outputs: dict, right: Any) -> tuple[str, ...]:
    """Return a mistake for each wrong term except the bound, if no mistake explains everything."""
    problem, found, lost = given.problem, [], given.lost
    [one, *_] = given.outputs(next(iter(given.plan.groups)))
    bound = problem.terms[0] not in lost
    for i, term in enumerate(problem.terms):
        if i == 0 or term not in lost or i >= len(one["values"]):
            continue
        for sentence, output in outputs.items():
            other = None if isinstance(output, str) else output[0]
            if (
                other
                and i < len(other["values"])
                and _all_close(one["values"][i], other["values"][i])
                and not _all_close(right["values"][i], other["values"][i])
                and _all_close(right["values"][0], other["values"][0]) == bound
            ):
                found.append(sentence)
                break
    return tuple(dict.fromkeys(found))


def _same(found: list[dict] | str, outputs: list[dict] | str, gradients: bool) -> bool:
    """Return whether two functions' outputs in a call agree up to rounding."""
    if isinstance(found, str) or isinstance(outputs, str):
        return isinstance(found, str) and isinstance(outputs, str)
    for one, other in zip(found, outputs, strict=True):
        if one["shapes"] != other["shapes"] or not all(
            map(_all_close, one["values"], other["values"])
        ):
            return False
        names = one["gradients"].keys() | other["gradients"].keys() if gradients else ()
        for name in names:
            a, b = ((output["gradients"].get(name) or [0.0]) for output in (one, other))
            if name in one["gradients"] or not name.startswith("kl + rec"):
                size = max(len(a), len(b))
                a, b = (x if any(x) else [0.0] * size for x in (a, b))
                if not _all_close(a, b, GRADIENT_TOLERANCE):
                    return False
        noise = [output.get("noise", ()) if gradients else () for output in (one, other)]
        for a, b in zip(*noise, strict=True):
            tolerance = 2 * GRADIENT_TOLERANCE * (b[1] + b[2])
            if not all(abs(p - q) <= tolerance for p, q in zip(a, b, strict=True)):
                return False
    return True
