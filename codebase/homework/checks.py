"""Checking the parts of a function: its outputs beside the right ones."""

from dataclasses import replace

from codebase.homework import comparing, naming
from codebase.homework.alternatives import ALTERNATIVES
from codebase.homework.cases import Output
from codebase.homework.marks import OTHER_ORDER, Attempt, Checked, Finding


def check(attempt: Attempt) -> Checked:
    """Check all parts of a function."""
    output, _ = attempt(attempt.first)
    if output.calls is None and not output.ended and "float32" in attempt.cases:
        output, _ = attempt("float32")
    if output.calls is None:
        parts = attempt.problem.parts
        return Checked(attempt, tuple(Finding(part, False, output.said) for part in parts))
    kind = _check_bound if attempt.problem.model else _check_density
    if attempt.problem.function == "sample_gaussian":
        kind = _check_draws
    reasons, notes = kind(attempt)
    findings = (Finding(part, not reason, reason) for part, reason in reasons.items())
    return Checked(attempt, tuple(findings), tuple(notes))


def resembles(attempt: Attempt) -> bool:
    """Whether a function's values vary as the right ones do; a bound has too few."""
    output, right = attempt(attempt.first)
    return (
        not attempt.problem.model and not output.said and comparing.resembles(output.calls, right)
    )


def hard_coded(attempt: Attempt) -> bool:
    """Whether a bound is right for a batch of 100, and wrong for a smaller one."""
    output, right = attempt("hard-coded")
    if output.calls is None or any(_bounds_reasons(attempt, output, right).values()):
        return False
    small, right = attempt("reference draws")
    if small.calls is None:
        return True
    terms = comparing.terms(attempt.problem.terms, small.calls, right)
    return any(terms.values()) and not comparing.repeated(small.calls, right)


# The parts of a function: what is wrong with each, empty if nothing is


def _check_density(attempt: Attempt) -> tuple[dict[str, str], list[str]]:
    """log_normal and log_normal_mixture. float32 is enough."""
    notes, dtype = [], None
    output, right = attempt("values")
    wrong = output.said or comparing.difference(output.calls, right, "float64")
    gradient = output.said or comparing.gradient_of_inputs(output.calls, right, bool(wrong))
    single, single_right = attempt("float32")
    if not wrong and not gradient:
        wrong = single.said or comparing.difference(single.calls, single_right, "float32")
    else:
        if not single.said and not comparing.difference(single.calls, single_right, "float32"):
            if wrong:
                notes.append("Your values are right in float32, but not to 1e-6 in float64.")
                dtype = "float32"
            wrong = ""
            gradient = comparing.gradient_of_inputs(single.calls, single_right, False)
    reasons = {"values": wrong}
    for name in attempt.cases:
        if name in ("values", "float32"):
            continue
        output, right = attempt(name, dtype)
        reason = output.said
        if not reason and wrong:  # wrong anyway: only shapes and finiteness count
            finite = all(_finite(one) for outputs in output.calls for one in outputs)
            reason = comparing.shapes(output.calls, right) or (
                "" if finite else "Your values are not finite."
            )
        elif not reason:
            tolerance = attempt.case(name, dtype).dtype
            reason = comparing.difference(output.calls, right, tolerance)
        if name in attempt.problem.parts:
            reasons[name] = reason and f"With {PARTS[name]}: {reason}"
        elif reason and not wrong:
            notes.append(f"With {name}: {reason} You lose no points for that.")
    return reasons | {"gradient": gradient}, notes


PARTS = {
    "shapes": "three axes, or with m and v that broadcast with x",
    "extreme values": "points far from all components",
}


def _finite(output: dict) -> bool:
    return all(abs(value) < float("inf") for value in output["values"][0])


def _check_draws(attempt: Attempt) -> tuple[dict[str, str], list[str]]:
    """sample_gaussian: the reference draws, or others of the same distribution."""
    notes = []
    found, right = attempt("reference draws")
    wrong = comparing.difference(found.calls, right, "float32")
    if wrong and not comparing.shapes(found.calls, right):
        wrong = comparing.repeated(found.calls, right) or _other_draws_of_z(attempt)
        if not wrong:
            notes.append(OTHER_ORDER)
    case = attempt.case("reference draws")
    gradient = comparing.gradient_of_draws(case, found.calls, bool(wrong))
    if not wrong:
        output, right = attempt("a v of fewer elements")
        reason = output.said or comparing.shapes(output.calls, right)
        if not reason and not notes and comparing.difference(output.calls, right, "float32"):
            reason = "Your elements share their noise."
        if reason:
            notes.append(
                f"With a v of fewer elements than m: {reason} You lose no points for that."
            )
    return {"draws": wrong, "gradient": gradient}, notes


def _other_draws_of_z(attempt: Attempt) -> str:
    """Say what is wrong with draws that are not the reference's."""
    found, right = attempt("set noise")
    reason = ""
    if found.calls is not None and comparing.draws(found.calls):
        reason = comparing.difference(found.calls, right, "float32")
        reason = reason or comparing.noise(0, found.calls, right, several=False)
    found, right = attempt("many draws")
    case = attempt.case("many draws")
    return found.said or comparing.distribution(case, found.calls, right) or reason


def _bounds_reasons(attempt: Attempt, output: Output, right: list) -> dict[str, str]:
    """Say what is wrong with each part of a bound in a case."""
    terms = attempt.problem.terms
    reasons = comparing.terms(terms, output.calls, right)
    wrong = bool(reasons[terms[0]])
    return reasons | {"gradient": comparing.gradient_of_bound(output.calls, right, wrong)}


def _check_bound(attempt: Attempt) -> tuple[dict[str, str], list[str]]:
    """A bound: each of its terms, and the gradient of the first."""
    reasons, notes = _compared(attempt)
    divergences = [term for term in ("kl", "kl_z") if reasons.get(term)]
    for other in ALTERNATIVES.get(attempt.problem.function, ()) if divergences else ():
        better, more = _compared(replace(attempt, right=other))
        if not any(better[term] for term in divergences):
            return better, more
    return reasons, notes


def _compared(attempt: Attempt) -> tuple[dict[str, str], list[str]]:
    found, right = attempt("reference draws")
    reasons = _bounds_reasons(attempt, found, right)
    bound, *others = attempt.problem.terms
    wrong = [term for term in attempt.problem.terms if reasons[term]]
    if not reasons[bound] or not any(reasons[term] for term in others):  # the reference draws
        return reasons if wrong else _other_sizes(attempt, reasons), []
    if known := naming.equal(attempt, ("reference draws",), gradients=True):
        loses = frozenset().union(*(mistake.loses for mistake in known))
        better = reasons | {term: "" for term in wrong if term not in loses}
    elif repeated := comparing.repeated(found.calls, right):
        return reasons | {term: repeated for term in wrong}, []
    else:
        better = _other_draws(attempt, reasons)
    other = [term for term in wrong if not better[term]]
    return better, [f"{', '.join(other)}: {OTHER_ORDER}"] if other else []


def _other_sizes(attempt: Attempt, reasons: dict[str, str]) -> dict[str, str]:
    """Say what is wrong with a bound for other sizes of the batch, and numbers of weights."""
    output, right = attempt("other sizes")
    if output.said:
        return reasons | {attempt.problem.terms[0]: f"With another batch size: {output.said}"}
    told = comparing.terms(attempt.problem.terms, output.calls, right)
    return reasons | {term: told[term] and f"With other sizes: {told[term]}" for term in told}


def _other_draws(attempt: Attempt, reasons: dict[str, str]) -> dict[str, str]:
    """Say what is wrong with a bound whose draws are not the reference's.

    Every draw is set to a number, so that order does not matter. Noise that does not come from
    torch's normal draws cannot be set: it is compared on average. Importance weights are compared
    on average too, because equal draws make them equal. A few random draws expose a function that
    is right only when the grader sets the noise.
    """
    found, right = attempt("set noise")
    if found.calls is None or not comparing.draws(found.calls):
        return _on_average(attempt, reasons)
    told = _bounds_reasons(attempt, found, right)
    if known := naming.equal(attempt, ("set noise",), gradients=True):
        loses = frozenset().union(*(mistake.loses for mistake in known))
        return {part: reasons[part] or told[part] if part in loses else "" for part in told}
    bound, *terms = attempt.problem.terms
    weighted = attempt.problem.method == "negative_iwae_bound"
    shared = 10 if attempt.problem.model == "SSVAE" else 0  # labels: z of each has its own q
    differentiates = comparing.differentiates_noise(found.calls)
    if differentiates:
        noise = comparing.noise(len(terms), found.calls, right, shared)  # of rec
        told["rec"] = told["rec"] or noise
        if weighted:
            noise = noise or comparing.noise(0, found.calls, right, shared, several=False)
        told[bound] = told[bound] or noise
    if not any(told[term] for term in (bound, *terms)):
        few = ("few wide", "weights") if weighted else ("few wide",)
        average = _on_average(attempt, reasons, few if differentiates else MANY)
        told = {part: told[part] or average[part] for part in told}
    return told


MANY = ("wide", "narrow")


def _on_average(attempt: Attempt, reasons: dict[str, str], names=MANY) -> dict[str, str]:
    """Say what is wrong with a bound on average over many draws, in some cases."""
    found, _ = attempt("reference draws")
    if len({str(one["values"]) for one in found.calls[0]}) == 1:
        return reasons  # it does not draw at all
    told, terms = dict.fromkeys(reasons, ""), attempt.problem.terms
    for name in names:
        output, right = attempt(name)
        if output.calls is None:
            return reasons
        of_terms, gradient = comparing.means(terms, output.calls, right)
        for term in terms:
            told[term] = told[term] or (of_terms[term] if reasons[term] else "")
        told["gradient"] = told["gradient"] or gradient
        if all(told[term] for term in terms if reasons[term]):
            break
    if told[terms[0]]:  # a wrong bound's gradient only has to be there
        told["gradient"] = reasons["gradient"]
    return told
