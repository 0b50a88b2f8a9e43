"""Find the known mistake that gives the submission's outputs."""

from collections.abc import Iterable

from codebase.homework import cases, comparing
from codebase.homework.marks import Attempt, Checked
from codebase.homework.mistakes import MISTAKES, Mistake
from codebase.homework.sandboxed.calling import Case
from codebase.homework.sandboxed.functions import Helpers


def named(checked: Checked, given: Helpers) -> tuple[Mistake, ...]:
    """Find the mistakes whose outputs are the function's; empty if there are none.

    Args:
        checked: the function
        given: this project's helpers
    """
    attempt = checked.attempt
    if not attempt.problem.model:
        parts = [name for name in attempt.cases if name in attempt.problem.parts]
        names = tuple(dict.fromkeys([attempt.first, *parts]))
        more = ("set noise",) if attempt.problem.function == "sample_gaussian" else names[:1]
        return _equal_in_any(attempt, [names, more])
    found = _equal_in_any(attempt, CHOICES)
    if not found and not checked.ended and attempt.helpers is None:
        helped = attempt.with_helpers(given)  # another mistake, in a helper, may hide this one
        found = _equal_in_any(helped, CHOICES)
    return found or _on_average(attempt) or _by_term(checked)


CHOICES = [("reference draws", "other sizes"), ("reference draws",), ("set noise",)]


def _equal_in_any(attempt: Attempt, choices: list[tuple[str, ...]]) -> tuple[Mistake, ...]:
    for gradients in (True, False):
        for names in choices:
            if found := equal(attempt, names, gradients):
                return found
    return ()


def equal(attempt: Attempt, names: Iterable[str], gradients: bool) -> tuple[Mistake, ...]:
    """Find the mistakes with the function's values, and gradients, in some cases."""
    found = {name: attempt(name)[0].calls for name in names}
    if any(calls is None for calls in found.values()):
        return ()
    if "set noise" in found and not comparing.draws(found["set noise"]):
        return ()
    named = []
    for mistake in MISTAKES[attempt.problem.function]:
        if not gradients and mistake.loses == {"gradient"}:
            continue
        shows = False  # a mistake that does not show in these cases is not named
        for name in found:
            case = attempt.case(name)
            outputs = _outputs(mistake, case)
            if outputs is None or not comparing.same(found[name], outputs, case.dtype, gradients):
                break
            shows |= not comparing.same(outputs, cases.reference(case), case.dtype, gradients)
        else:
            named += [mistake] if shows else []
    return tuple(named)


def _hidden(attempt: Attempt) -> list[Mistake]:
    """Find the mistakes that do not show if all draws are set to one number."""
    case = attempt.case("set noise")
    right = cases.reference(case)
    return [
        mistake
        for mistake in MISTAKES[attempt.problem.function]
        for outputs in [_outputs(mistake, case)]
        if outputs is not None and comparing.same(outputs, right, case.dtype, gradients=True)
    ]


def _on_average(attempt: Attempt) -> tuple[Mistake, ...]:
    """Find mistakes that show only in random draws and have the same means over many of them."""
    found = attempt("set noise")[0].calls
    if found is None or not comparing.draws(found):
        return ()
    same = comparing.same(found, cases.reference(attempt.case("set noise")), "float32", True)
    output = attempt("weights")[0] if same else None
    if output is None or output.calls is None:
        return ()
    terms, named = attempt.problem.terms, []
    for mistake in _hidden(attempt):
        expected = _outputs(mistake, attempt.case("weights"))
        if expected and not any(comparing.means(terms, output.calls, expected)[0].values()):
            named.append(mistake)
    return tuple(named)


def _outputs(mistake: Mistake, case: Case) -> list | None:
    """A mistake's outputs in a case; None if it gives none."""
    try:
        return cases.reference(case, mistake.run)
    except (RuntimeError, IndexError, ValueError):
        return None


def _by_term(checked: Checked) -> tuple[Mistake, ...]:
    """If no single mistake explains everything, find one for each wrong term except the bound."""
    attempt = checked.attempt
    wrong = {finding.part for finding in checked.findings if not finding.passed}
    terms = attempt.problem.terms
    for name in ("reference draws", "set noise"):
        named = []
        found, right = attempt(name)[0].calls, cases.reference(attempt.case(name))
        for i, term in enumerate(terms):
            if found is None or i == 0 or term not in wrong:
                continue
            for mistake in MISTAKES[attempt.problem.function]:
                outputs = _outputs(mistake, attempt.case(name))
                if (
                    outputs is not None
                    and term in mistake.loses <= {terms[0], term}
                    and _same_term(i, found, outputs)
                    and not _same_term(i, right, outputs)  # the mistake shows there
                ):
                    named.append(mistake)
                    break
        if named:
            return tuple(dict.fromkeys(named))
    return ()


def _same_term(i: int, found: list, outputs: list) -> bool:
    return all(
        i < len(one["values"])
        and one["shapes"][i] == other["shapes"][i]
        and comparing.close(
            one["values"][i][0], other["values"][i][0], comparing.TOLERANCE["float32"]
        )
        for one, other in comparing.pairs(found, outputs)
    )
