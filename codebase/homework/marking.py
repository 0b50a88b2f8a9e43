"""Marking a function: its numbers beside this project's, part by part, and why they differ."""

import functools
import json
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MappingProxyType

from codebase.homework import cases, comparing
from codebase.homework.mistakes import MISTAKES, Mistake
from codebase.homework.problems import Problem

GROSSLY = 8  # standard errors over few draws, whose own deviation is not well known
NETWORKS = ("terms", "enc", "dec", "cls", "z_pre")
LESSER = ("gradient", "broadcasting", "extreme values")  # parts that are no values
OTHER_ORDER = "Its draws come in another order than randn_like's: no points are lost."
WIRED_DEDUCTION = 0.2  # of the points, where only one size of batch works


@dataclass(frozen=True)
class Finding:
    """Whether a part of a function is right, and if not, why."""

    part: str
    passed: bool
    reason: str = ""


@dataclass(frozen=True)
class Judgement:
    """All parts of a function, for one choice of helpers."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    asked: "_Asked"
    timed_out: bool = False

    @property
    def full(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def share(self, problem: Problem) -> float:
        """Of the points."""
        return sum(problem.parts[finding.part] for finding in self.findings if finding.passed)


@dataclass(frozen=True)
class Mark:
    """What a submission gets for a function.

    Args:
        problem: the function
        points: the most that it may get
        score: what it gets
        findings: of each part
        notes: what the student is to know besides
        mistakes: of the catalogue, those whose numbers the submission's are
        ended: whether it gave no answer, for its time or its process had ended
    """

    problem: Problem
    points: float
    score: float
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    mistakes: tuple[Mistake, ...] = ()
    ended: bool = False

    @property
    def lost(self) -> list[str]:
        """The parts that are wrong."""
        return [finding.part for finding in self.findings if not finding.passed]

    @property
    def reasons(self) -> list[str]:
        """Why points were lost, a sentence each."""
        reasons = [finding.reason for finding in self.findings if not finding.passed]
        return list(dict.fromkeys(reason for reason in reasons if reason))


def mark(
    problem: Problem,
    points: float,
    seed: int,
    ask: Callable[[dict], dict],
    earlier: Mapping[str, Mark] = MappingProxyType({}),
) -> Mark:
    """Mark a function of a submission.

    Args:
        problem: the function
        points: the most that it may get
        seed: of the inputs
        ask: gives the submission's answer to a question, see `worker.answer`
        earlier: marks of the submission's functions that have been marked before
    """
    own = _Asked(cases.questions(problem, seed), ask)
    hang = [name for name, mark in earlier.items() if mark.ended and not mark.problem.model]
    if hang and problem.model:  # nobody waits for them again
        own = own.with_our_helpers(problem, names=hang)
    best, notes, factor = None, [], 1.0
    if problem.model and not _right_at_once(problem, own):
        ours = own.with_our_helpers(problem)
        if own("exact")[0] != ours("exact")[0] and _right_at_once(problem, ours):
            best, notes = _judge(problem, ours), [_fault(problem, own, ours, earlier)]
    best = best or _judge(problem, own)
    if not best.full and not best.timed_out:
        best, notes = _with_our_helpers(problem, own, best, earlier)
    if not best.full and problem.model and not best.timed_out and _wired(problem, best.asked):
        factor = 1 - WIRED_DEDUCTION
        parts = tuple(Finding(part, True) for part in problem.parts)
        best = replace(best, findings=parts, notes=())
        size = cases.WIRED_BATCH
        notes.append(
            f"It is right for batches of {size} alone: that size is wired in. Take it from x "
            f"(−{WIRED_DEDUCTION:.0%})."
        )
    elif hang and best.full and not notes and problem.model:
        notes = [
            f"It was asked with this project's {_listed(hang)}, for the submission's gives no "
            "answer: no points are lost here for that."
        ]
    mistakes = () if best.full else tuple(_named(problem, best))
    if not mistakes and not best.full and problem.model and not best.timed_out:
        ours = own.with_our_helpers(problem)  # another mistake, in a helper, may hide this one
        if ours("exact")[0]:
            mistakes = tuple(_named(problem, replace(best, asked=ours)))
    values = [finding.passed for finding in best.findings if finding.part not in LESSER]
    if not mistakes and not any(values):  # a gradient, or a shape, is worth nothing by itself
        lost = tuple(replace(finding, passed=False) for finding in best.findings)
        best = replace(best, findings=lost)
    score = round(points * best.share(problem) * factor, 2)
    notes = (*notes, *best.notes)
    return Mark(problem, points, score, best.findings, notes, mistakes, best.timed_out)


# One thread for all: a sandbox ends with the thread that has started it.
_BESIDE = ThreadPoolExecutor(1)


class _Asked:
    """Asks each question once."""

    def __init__(self, questions: dict[str, dict], ask: Callable[[dict], dict]):
        self.questions, self.answers, self._ask = questions, {}, ask

    def __call__(self, name: str) -> tuple[list | None, list, str]:
        """The submission's results, the right ones, and why there are none."""
        question = self.questions[name]
        if name in self.answers:
            right = cases.reference(question)
        else:  # both at once
            asked = _BESIDE.submit(self._ask, question)
            right = cases.reference(question)
            self.answers[name] = asked.result()
        answer = self.answers[name]
        return answer.get("calls"), right, _said(answer)

    def in_float32(self, name: str) -> tuple[list | None, list, str]:
        """The same, where the question is asked in float32."""
        single = f"{name} in float32"
        self.questions = self.questions | {single: self.questions[name] | {"dtype": "float32"}}
        return self(single)

    def with_our_helpers(
        self, problem: Problem, furnish: bool = False, names: list[str] | None = None
    ) -> "_Asked":
        """The same questions, with helpers of this project: those of some names, or all."""
        helpers = cases.helpers_for(problem)
        given = helpers | {"furnish": furnish}
        if names is not None:
            given["names"] = names
        changed = {name: asked | {"helpers": given} for name, asked in self.questions.items()}
        return _Asked(changed, self._ask)


def _said(answer: dict) -> str:
    """Why a function gave no answer."""
    error = str(answer.get("error", ""))[:400]
    if answer.get("kind") == "NotImplementedError":
        return "It is not written yet (NotImplementedError)."
    if answer.get("kind") == "Ended":
        return f"It gave no answer: {error}."
    if answer.get("kind") == "Absent":
        return f"It cannot be asked: {error}."
    return f"It ends with {error}." if error else ""


# Whose fault it is


def _right_at_once(problem: Problem, asked: _Asked) -> bool:
    """Whether a bound is right with the contract's draws."""
    found, right, error = asked("exact")
    if error or not found:
        return False
    terms, gradient = _exact_terms(problem, found, right)
    return gradient is None and not any(terms.values())


def _with_our_helpers(problem, own: _Asked, judged, earlier) -> tuple[Judgement, list[str]]:
    """The better of two judgements: with the submission's helpers, and with this project's."""
    best, notes, tried = judged, [], [own]
    for furnish in (False, True) if problem.model else (False,):
        ours = own.with_our_helpers(problem, furnish)
        if any(_same(ours, other) for other in tried):
            continue  # other helpers change nothing
        tried.append(ours)
        better = _judge(problem, ours)
        if better.share(problem) > best.share(problem) + 1e-9:
            best, notes = better, [_fault(problem, own, ours, earlier, furnish, better.full)]
        if best.full:
            break
    return best, notes


def _same(one: _Asked, other: _Asked) -> bool:
    """Whether a function gives the same numbers, or fails in the same way."""
    (found, _, error), (calls, _, other_error) = one("exact"), other("exact")
    if found is None or calls is None:
        return found is calls and error == other_error
    return comparing.same(found, calls, one.questions["exact"]["dtype"], gradients=True)


def _by_itself(at_fault: list[str], right: bool) -> str:
    """Who is at fault, where the function itself is right, and where it is not."""
    verb = "is" if len(at_fault) == 1 else "are"
    who = f"{_listed(at_fault)} {verb} at fault"
    return (
        f"{'It is right by itself: ' if right else ''}{who}, and no points are lost here for that."
    )


def _fault(problem: Problem, own: _Asked, ours: _Asked, earlier, furnish=False, full=True) -> str:
    """A sentence: which helpers are to blame."""
    wanted, _, _ = ours("exact")
    dtype = own.questions["exact"]["dtype"]

    def right_with(*names: str) -> bool:
        calls, _, _ = own.with_our_helpers(problem, furnish, list(names))("exact")
        return calls is not None and comparing.same(calls, wanted, dtype, gradients=True)

    right = [name for name, mark in earlier.items() if not mark.lost]
    drawn = earlier.get("sample_gaussian")
    if not furnish and drawn and OTHER_ORDER in drawn.notes and right_with("sample_gaussian"):
        return "sample_gaussian draws in another order than the contract's: no points are lost."
    names = cases.helpers_for(problem)["names"]
    wrong = [name for name, mark in earlier.items() if mark.lost and name in names]
    if wrong and right_with(*wrong):
        names = wrong  # no other helper needs to be looked at
    at_fault = [  # those with which it is wrong, though all others are this project's
        name
        for name in names
        if name not in right and not right_with(*(other for other in names if other != name))
    ]
    if not at_fault and not furnish:  # two of them, either of which mends it
        at_fault = [name for name in names if name not in right and right_with(name)]
    if furnish:
        at_fault.insert(0, "the model's constructor, or a network in models/nns/,")
    if not at_fault and all(name in right for name in cases.MARKED_BEFORE):
        return "Its helpers draw or round in another way than the contract's: no points are lost."
    return _by_itself(at_fault or ["utils.py"], full)


def _wired(problem: Problem, asked: _Asked) -> bool:
    """Whether it is right for a batch of 100, and for no other size."""
    found, right, error = asked("wired")
    if error or not found:
        return False
    terms, gradient = _exact_terms(problem, found, right)
    return gradient is None and not any(terms.values())


# The parts of a function


def _judge(problem: Problem, asked: _Asked) -> Judgement:
    found, _, error = asked("exact")
    ended = asked.answers["exact"].get("kind") == "Ended"
    if not found and not ended and "single" in asked.questions:
        found, _, _ = asked("single")
    if not found:
        findings = tuple(Finding(part, False, error) for part in problem.parts)
        return Judgement(findings, (), asked, timed_out=ended)
    judge = _judge_method if problem.model else _judge_values
    if problem.function == "sample_gaussian":
        judge = _judge_draws
    findings, notes = judge(problem, asked)
    return Judgement(tuple(findings), tuple(notes), asked)


def _judge_values(problem: Problem, asked: _Asked) -> tuple[list[Finding], list[str]]:
    """A deterministic function: values, then what only some values show, then the gradient."""
    notes = []
    found, right, error = asked("exact")
    wrong = error or comparing.difference(found, right, "float64")
    gradient = comparing.gradient_of_inputs(found, right, bool(wrong)) if found else error
    if wrong or gradient:  # perhaps it computes in float32 alone
        single, single_right, error = asked("single")
        trouble = error or comparing.difference(single, single_right, "float32")
        if single and not trouble:
            if wrong:
                notes.append("It is right in float32 but not in float64, to 1e-6.")
            wrong, gradient = "", comparing.gradient_of_inputs(single, single_right, False)
    findings = [Finding("values", not wrong, wrong)]
    dtype = "float32" if notes else "float64"
    for part in [part for part in problem.parts if part in LESSER and part != "gradient"]:
        found, right, error = asked.in_float32(part) if notes else asked(part)
        reason = error or (
            comparing.shapes(found, right) if wrong else comparing.difference(found, right, dtype)
        )
        if not reason and wrong and not comparing.finite(found):
            reason = "nan or inf"
        findings.append(Finding(part, not reason, reason and f"{part}: {reason}"))
    findings.append(Finding("gradient", not gradient, gradient))
    return findings, notes


def _judge_draws(problem: Problem, asked: _Asked) -> tuple[list[Finding], list[str]]:
    """sample_gaussian: the contract's draws; else draws of the same distribution."""
    notes = []
    found, right, error = asked("exact")
    wrong = error or comparing.difference(found, right, "float32")
    if wrong and found and not comparing.shapes(found, right):
        wrong = comparing.distribution(asked.questions["many"], *asked("many"))
        if not wrong:
            notes.append(OTHER_ORDER)
    broadcast, broadcast_right, error = asked("broadcasting")
    narrow = error or comparing.shapes(broadcast, broadcast_right)
    if not narrow and not wrong and comparing.difference(broadcast, broadcast_right, "float32"):
        narrow = comparing.distribution(
            asked.questions["many broadcasting"], *asked("many broadcasting")
        )
    gradient = (
        comparing.gradient_of_draws(asked.questions["exact"], found, bool(wrong))
        if found
        else error
    )
    return [
        Finding("draws", not wrong, wrong),
        Finding("broadcasting", not narrow, narrow and f"broadcasting: {narrow}"),
        Finding("gradient", not gradient, gradient),
    ], notes


def _judge_method(problem: Problem, asked: _Asked) -> tuple[list[Finding], list[str]]:
    """A bound: each of its terms, and the gradient of the first."""
    found, right, _ = asked("exact")
    terms, gradient = _exact_terms(problem, found, right)
    wrong = [term for term in terms if terms[term]]
    other = []  # terms that differ from the contract's draws alone
    if wrong and wrong != [next(iter(terms))]:  # else its parts are of the contract's draws
        if known := _equal(problem, asked.questions, {"exact": found}, gradients=True):
            loses = frozenset().union(*(mistake.loses for mistake in known))
            other = [term for term in wrong if term not in loses]
        else:
            terms, gradient = _on_average(problem, asked, terms, gradient)
            other = [term for term in wrong if not terms[term]]
        terms |= dict.fromkeys(other, "")
    notes = []
    if other:
        notes = [
            f"{_listed(other)}: other draws than the contract's, right on average; no points are "
            "lost."
        ]
    findings = [Finding(term, not reason, reason) for term, reason in terms.items()]
    return [*findings, Finding("gradient", not gradient, gradient or "")], notes


def _on_average(problem: Problem, asked: _Asked, terms: dict, gradient) -> tuple[dict, str | None]:
    """What is wrong with each term, and the gradient, over many draws of one's own order.

    A few draws tell what is grossly wrong. What is not is compared over many, and then where q(z|x)
    is narrow.
    """
    wrong = [term for term in terms if terms[term]]
    few, right, _ = asked("few many")
    if few is None:
        return terms, gradient
    rough, _ = _mean_terms(problem, few, right, dict.fromkeys(NETWORKS, math.inf), GROSSLY)
    if all(rough[term] for term in wrong):
        return terms | {term: rough[term] for term in wrong}, gradient
    noise, told, on_average = {}, dict.fromkeys(wrong, ""), None
    for name in ("many", "calm many"):
        found, right, _ = asked(name)
        if found is None:
            return terms, gradient
        noise = noise or comparing.usual_noise(right)
        means, slopes = _mean_terms(problem, found, right, noise)
        told = {term: told[term] or means[term] for term in wrong}
        on_average = on_average or slopes
        if all(told.values()):
            break
    bound = next(iter(terms))  # a wrong one's gradient needs only to be there
    return terms | told, gradient if told.get(bound, "exact") else on_average


def _exact_terms(problem, found, right) -> tuple[dict[str, str], str | None]:
    """What is wrong with each term, with the contract's draws; and with the gradient."""
    names = [part for part in problem.parts if part != "gradient"]
    terms = dict.fromkeys(names, "")
    for one, other in zip(found[0], right[0], strict=True):
        for i, name in enumerate(names):
            if not terms[name]:
                terms[name] = _term(name, i, one, other["values"][i][0])
    gradient = None
    for one, other in zip(found[0], right[0], strict=True):
        gradient = gradient or _slopes(one, other, wrong=bool(terms[names[0]]))
    return terms, gradient


def _term(name: str, i: int, result: dict, right: float) -> str:
    if i >= len(result["values"]):
        return f"{name} is not returned: {len(result['values'])} values are."
    values, shape = result["values"][i], result["shapes"][i]
    if len(values) != 1:
        return f"{name} has shape {tuple(shape)}; a scalar is wanted, the mean over the batch."
    if not comparing.close(values[0], right, comparing.TOLERANCE["float32"]):
        return f"{name} is {values[0]:.6g} and should be {right:.6g}."
    return ""


def _slopes(result: dict, right: dict, wrong: bool) -> str | None:
    """What is wrong with the gradient of a bound, by the networks that it trains."""
    found, wanted = result.get("gradients") or {}, right["gradients"]
    for group, slope in wanted.items():
        if slope != 0 and not found.get(group):  # None, 0, or not there
            return f"No gradient of the bound reaches {group}: it would not be trained."
        value = found.get(group) or 0.0
        if not math.isfinite(value):
            return f"The gradient for {group} is not finite."
        if not wrong and not comparing.close(value, slope, comparing.SLOPE_TOLERANCE):
            return f"The gradient for {group} is wrong: something is detached, or computed twice."
    return None


def _mean_terms(
    problem, many, right, noise, errors=comparing.STANDARD_ERRORS
) -> tuple[dict[str, str], str | None]:
    """What is wrong with each term's mean over many draws, and with the mean gradient."""
    names = [part for part in problem.parts if part != "gradient"]
    found, right = many[0], right[0]
    terms = dict.fromkeys(names, "")
    for i, name in enumerate(names):
        if all(i < len(call["values"]) and len(call["values"][i]) == 1 for call in found):
            values = [call["values"][i][0] for call in found]
            wanted = [call["values"][i][0] for call in right]
            terms[name] = comparing.mean(name, values, wanted, noise["terms"], errors)
        else:
            terms[name] = f"{name} is not a scalar."
    gradient = None
    pairs = [pair for pair in zip(found, right, strict=True) if pair[1].get("gradients")]
    for group in pairs[0][1]["gradients"]:
        slopes = [(call.get("gradients") or {}).get(group) or 0.0 for call, _ in pairs]
        wanted = [call["gradients"].get(group, 0.0) for _, call in pairs]
        if any(wanted) and not any(slopes):
            gradient = f"No gradient of the bound reaches {group}: it would not be trained."
        reason = comparing.mean(f"The gradient for {group}", slopes, wanted, noise[group], errors)
        gradient = gradient or reason or None
    return terms, gradient


# Which mistake it is


def _named(problem: Problem, judged: Judgement) -> list[Mistake]:
    """The catalogue's mistakes whose numbers a submission's are."""
    names = ["exact", *(name for name in problem.parts if name in judged.asked.questions)]
    found = {name: judged.asked.answers.get(name, {}).get("calls") for name in names}
    if any(calls is None for calls in found.values()):
        return []
    for gradients in (True, False):
        if same := _equal(problem, judged.asked.questions, found, gradients):
            return same
    return _named_by_term(problem, judged, found["exact"]) if problem.model else []


def _equal(problem: Problem, questions, found: dict[str, list], gradients: bool) -> list[Mistake]:
    """The mistakes that give a submission's values, and gradients, to all its questions."""
    return [
        mistake
        for mistake in MISTAKES[problem.function]
        if (gradients or mistake.loses != {"gradient"})
        and all(
            answer is not None
            and comparing.same(found[name], answer, questions[name]["dtype"], gradients)
            for name in found
            for answer in [_mistaken(mistake, questions[name])]
        )
    ]


def _mistaken(mistake: Mistake, question: dict) -> list | None:
    """A mistake's answer; None where it gives none."""
    return _mistakes_answer(mistake, json.dumps(question | {"helpers": None}))


@functools.lru_cache(maxsize=16384)
def _mistakes_answer(mistake: Mistake, question: str) -> list | None:
    try:
        return cases.reference(json.loads(question), mistake.run)
    except (RuntimeError, IndexError, ValueError):
        return None


def _named_by_term(problem, judged, found) -> list[Mistake]:
    """Where no mistake explains all: one for each wrong term but the bound, which is their sum."""
    terms = [part for part in problem.parts if part != "gradient"]
    wrong = {finding.part for finding in judged.findings if not finding.passed}
    named = []
    for i, term in enumerate(terms):
        if i == 0 or term not in wrong:
            continue
        for mistake in MISTAKES[problem.function]:
            answer = _mistaken(mistake, judged.asked.questions["exact"])
            if (
                answer is not None
                and mistake.loses <= {terms[0], term}
                and all(
                    i < len(one["values"])
                    and one["shapes"][i] == other["shapes"][i]
                    and comparing.close(
                        one["values"][i][0], other["values"][i][0], comparing.TOLERANCE["float32"]
                    )
                    for one, other in comparing.calls(found, answer)
                )
            ):
                named.append(mistake)
                break
    return named


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
