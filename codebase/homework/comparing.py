"""Comparing numbers: what differs, whether it may, and in what words to say so."""

import functools
import math
from collections.abc import Iterator

import torch

from codebase.homework import cases
from codebase.homework.sandboxed.calling import Case

# Differences that are not mistakes, relative to 1 + the right value. Correct solutions of other
# forms differ by up to 2e-7 in float32, and by 4e-8 in float64, where log 2π is a float32.
TOLERANCE = {"float32": 5e-6, "float64": 1e-6}
GRADIENT_TOLERANCE = 5e-4  # sums over up to 3 million weights in float32: up to 3e-5
# Limit for means over draws: a right function exceeds it in one of 1.7 million comparisons.
STANDARD_ERRORS = 5
LARGEST = 1e15  # beyond which sums of squares lose their meaning
NEGLIGIBLE = 1e-6  # derivatives, relative to the largest, that count as none


# Values


def close(found: float, right: float, tolerance: float) -> bool:
    """Whether two numbers differ by no more than a tolerance, relative to 1 + the right one."""
    if found == right:
        return True
    return (
        math.isfinite(found)
        and math.isfinite(right)
        and abs(found - right) <= tolerance * (1 + abs(right))
    )


def pairs(found: list, right: list) -> Iterator[tuple[dict, dict]]:
    """The outputs of a function beside the right ones, call by call."""
    return zip(sum(found, []), sum(right, []), strict=True)


def shapes(found: list, right: list) -> str:
    """Say what is wrong with the shapes of a function's outputs."""
    for one, other in pairs(found, right):
        shape = one["shapes"][0] if one["shapes"] else None
        if len(one["shapes"]) != 1 or shape != other["shapes"][0]:
            returned = (
                f"a tensor of shape {tuple(shape)}"
                if len(one["shapes"]) == 1
                else f"{len(one['shapes'])} results"
            )
            return f"You return {returned}; return shape {tuple(other['shapes'][0])}."
    return ""


def difference(found: list, right: list, dtype: str) -> str:
    """Say what is wrong with the values of a function's outputs."""
    if reason := shapes(found, right):
        return reason
    for one, other in pairs(found, right):
        for value, expected in zip(one["values"][0], other["values"][0], strict=True):
            if not close(value, expected, TOLERANCE[dtype]):
                return f"One of your values is {value:.6g}; it should be {expected:.6g}."
    return ""


def resembles(found: list, right: list) -> bool:
    """Whether wrong values still vary as the right ones do: their correlation is at least 0.8."""
    if shapes(found, right):
        return False
    values = [[], []]
    for one, other in pairs(found, right):
        values[0] += one["values"][0]
        values[1] += other["values"][0]
    values = torch.tensor(values, dtype=torch.float64)
    return bool(values.isfinite().all() and torch.corrcoef(values)[0, 1] >= 0.8)


def gradient_of_inputs(found: list, right: list, wrong: bool) -> str:
    """Say what is wrong with the gradients of a function's arguments."""
    for one, other in pairs(found, right):
        for name, expected in other["gradients"].items():
            gradient = (one.get("gradients") or {}).get(name)
            argument = ("first", "second", "third")[int(name)]
            if not gradient or (any(expected) and not any(gradient)):
                return f"Your result has no gradient for the {argument} argument."
            if not all(map(math.isfinite, gradient)):
                return f"Your gradient for the {argument} argument is not finite."
            if not wrong and not all(
                close(value, expected, GRADIENT_TOLERANCE)
                for value, expected in zip(gradient, expected, strict=True)
            ):
                return f"Your gradient for the {argument} argument is wrong."
    return ""


def gradient_of_draws(case: Case, found: list, wrong: bool) -> str:
    """Say what is wrong with the gradients of z = m + √v·ε, at the draws that were returned."""
    for (m, v), outputs in zip(cases.drawn(case).args, found, strict=True):
        m, v = m.double(), v.double()
        for output in outputs:
            gradients = output.get("gradients") or {}
            if any(not gradients.get(name) or not any(gradients[name]) for name in "01"):
                return "Your z has no gradient for the mean or the variance; nothing would train."
            if wrong:
                continue
            z = torch.tensor(output["values"][0], dtype=torch.float64).view_as(m)
            weights = torch.linspace(0.5, 1.5, z.numel(), dtype=torch.float64).view_as(m)
            for name, expected in (("0", weights), ("1", weights * (z - m) / (2 * v))):
                gradient = torch.tensor(gradients[name], dtype=torch.float64).view_as(m)
                if not torch.allclose(gradient, expected, GRADIENT_TOLERANCE, GRADIENT_TOLERANCE):
                    return "Your gradient for the mean or the variance is wrong."
    return ""


# A bound's terms


def terms(names: list[str], found: list, right: list) -> dict[str, str]:
    """Say what is wrong with the value of each term; empty for those that are right."""
    told = dict.fromkeys(names, "")
    for one, other in pairs(found, right):
        for i, name in enumerate(names):
            told[name] = told[name] or _term(name, i, one, other["values"][i][0])
    return told


def _term(name: str, i: int, output: dict, right: float) -> str:
    if i >= len(output["values"]):
        return f"You do not return {name}, only {len(output['values'])} of the values."
    values, shape = output["values"][i], output["shapes"][i]
    if len(values) != 1:
        return f"Your {name} has shape {tuple(shape)}; return a scalar, the mean over the batch."
    if not close(values[0], right, TOLERANCE["float32"]):
        return f"Your {name} is {values[0]:.6g}; it should be {right:.6g}."
    return ""


def gradient_of_bound(found: list, right: list, wrong: bool) -> str:
    """Say what is wrong with the gradient of a bound, by the networks that it trains.

    Args:
        found, right: outputs
        wrong: whether the bound's value is wrong; its gradient then only has to be there
    """
    for one, other in pairs(found, right):
        gradients = one.get("gradients") or {}
        for group, expected in other.get("gradients", {}).items():
            if expected != 0 and not gradients.get(group):  # None, 0, or not there
                return f"Your bound has no gradient for {group}; it would not be trained."
            value = gradients.get(group) or 0.0
            if not math.isfinite(value):
                return f"Your bound's gradient for {group} is not finite."
            if not wrong and not close(value, expected, GRADIENT_TOLERANCE):
                return f"Your bound's gradient for {group} is wrong: perhaps you detach something."
    return ""


def repeated(found: list, right: list) -> str:
    """Say what is wrong with outputs that are the same for two seeds, although draws differ."""
    for outputs, expected in zip(found, right, strict=True):
        for i, other in enumerate(expected[1:], 1):
            if other["values"] != expected[0]["values"] and len(outputs) > i:
                same = outputs[i]["values"] == outputs[0]["values"]
                if same:
                    return "You draw the same noise at every call; draw new noise each time."
    return ""


# Noise


def draws(found: list) -> bool:
    """Whether a function made draws that `calling.SetNoise` has set."""
    return any(one.get("drawn") for outputs in found for one in outputs)


def differentiates_noise(found: list) -> bool:
    """Whether a function's outputs are differentiable with respect to the draws that were set."""
    return any(any(term) for outputs in found for one in outputs for term in one.get("noise", ()))


def noise(i: int, found: list, right: list, shared: int = 0, several: bool = True) -> str:
    """Say what is wrong with the draws that a term depends on, whose values were all set.

    The derivatives with respect to the draws are the same numbers, in any order, for every right
    function: each element of z has a draw of its own. A mean over several draws of z divides each
    into as many parts.

    Args:
        i: the term
        found, right: outputs
        shared: size of the first axis of the right draws, along which one may be shared
        several: whether a mean over several draws is right
    """
    for one, other in pairs(found, right):
        expected = torch.tensor(other["noise"][i], dtype=torch.float64)
        if not expected.any():
            continue
        given = one.get("noise", ())
        numbers = torch.tensor(given[i] if i < len(given) else [], dtype=torch.float64)
        several_draws = max(len(numbers) // len(expected), 1) if several else 1
        choices = [expected.repeat(several_draws) / several_draws]
        if shared:
            choices.append(expected.view(shared, -1).sum(0))
        if not any(_same_numbers(numbers, choice) for choice in choices):
            count, right_count = (_count(numbers), _count(expected))
            if count < right_count:
                return (
                    f"Your result depends on fewer draws of noise than expected ({count}, expected "
                    f"{right_count}); draw noise for every image, dimension and sample."
                )
            return "You do not compute z = m + √v·ε; compute it, with one ε for each element."
    return ""


def _count(numbers: torch.Tensor) -> int:
    largest = numbers.abs().max() if len(numbers) else 0
    return int((numbers.abs() > NEGLIGIBLE * largest).sum())


def _same_numbers(found: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two sets of numbers are the same but for zeros and rounding."""
    size = max(len(found), len(right))
    if not found.isfinite().all():
        return False
    one, other = (
        torch.nn.functional.pad(numbers, (0, size - len(numbers))).sort().values
        for numbers in (found, right)
    )
    tolerance = GRADIENT_TOLERANCE * right.abs().max()
    return bool(((one - other).abs() <= tolerance).all())


def distribution(case: Case, found: list, right: list) -> str:
    """Say what is wrong with many draws as draws from N(m, diag v)."""
    from scipy.stats import kstest  # imported here: it takes 0.9 s, and few submissions need it

    if reason := shapes(found, right):
        return reason
    m, v = (argument.double().flatten() for argument in cases.drawn(case).args[0])
    z = torch.tensor([output["values"][0] for output in found[0]], dtype=torch.float64)
    standard = (z - m) / v.sqrt()  # (draws, elements): N(0, I)
    if not standard.isfinite().all():
        return "Some of your draws are not finite."
    n, several = len(standard), STANDARD_ERRORS + 1  # one of so many tests may well exceed 5
    if (standard.mean(0).abs() > several * standard.std(0).clamp(min=1) / n**0.5).any():
        return "The mean of your draws is not m."
    covariance = standard.T @ standard / n
    variance = covariance.diag()
    error = (2 / n) ** 0.5
    if ((variance - 1).abs() > several * error).any() or (
        abs(variance.mean() - 1) > STANDARD_ERRORS * error / len(m) ** 0.5
    ):
        return f"The variance of your draws is {variance.mean():.2g}·v; it should be v."
    if ((covariance - variance.diag()).abs() > several / n**0.5).any():
        return "Your elements share their noise; draw noise for each of them."
    if kstest(standard.flatten().numpy(), "norm").pvalue < 1e-7:
        return "Your draws are not normal."
    return ""


# Means over draws


def means(names: list[str], found: list, right: list) -> tuple[dict[str, str], str]:
    """Say what is wrong with each term, and the bound's gradient, on average over draws."""
    found, right = found[0], right[0]
    told = {}
    for i, name in enumerate(names):
        if all(i < len(one["values"]) and len(one["values"][i]) == 1 for one in found):
            values = [one["values"][i][0] for one in found]
            expected = [one["values"][i][0] for one in right]
            told[name] = _mean(f"Your {name}", values, expected)
        else:
            told[name] = f"Your {name} is not a scalar."
    gradient = ""
    differentiated = [pair for pair in zip(found, right, strict=True) if pair[1].get("gradients")]
    for group in differentiated[0][1]["gradients"] if differentiated else ():
        values = [(one.get("gradients") or {}).get(group) or 0.0 for one, _ in differentiated]
        expected = [other["gradients"].get(group, 0.0) for _, other in differentiated]
        if any(expected) and not any(values):
            gradient = f"Your bound has no gradient for {group}; it would not be trained."
        gradient = gradient or _mean(f"Your bound's gradient for {group}", values, expected)
    return told, gradient


def _mean(name: str, values: list[float], right: list[float]) -> str:
    """Say what is wrong with a mean over draws, or with how the draws spread around it."""
    values, right = (torch.tensor(v, dtype=torch.float64) for v in (values, right))
    if not (values.abs() < LARGEST).all():  # nan, too
        return f"{name} is not finite for some draws."
    mean, expected, spread = values.mean().item(), right.mean().item(), values.std().item()
    usual, least = right.std().item(), TOLERANCE["float32"] * (1 + abs(expected))
    # Too wide a spread is noise that images or dimensions share, and would hide any mistake in its
    # standard error; a narrow one may be a mean over several draws.
    excess = 1 + STANDARD_ERRORS * _error_of_spread(right)
    if not spread <= usual * excess + least:
        return f"{name} varies by ±{spread:.3g} between draws; it should vary by ±{usual:.3g}."
    error = math.sqrt((spread**2 + usual**2) / len(values))
    if not abs(mean - expected) <= STANDARD_ERRORS * error + least:
        return f"{name} is {mean:.6g} on average; it should be {expected:.6g} ± {error:.2g}."
    return ""


def _error_of_spread(values: torch.Tensor) -> float:
    """The standard error of the ratio of two standard deviations, each of len(values) draws."""
    centred = values - values.mean()
    variance = centred.square().mean().clamp(min=1e-300)
    kurtosis = max(3.0, (centred.pow(4).mean() / variance**2).item())
    return math.sqrt(2 * (kurtosis - 1) / (4 * len(values)))


# Equality


def same(found: list, outputs: list, dtype: str, gradients: bool) -> bool:
    """Whether two outputs of a case have the same numbers, but for rounding.

    Args:
        found, outputs: outputs, see `calling.outputs`
        dtype: dtype of the case
        gradients: whether those are compared, too
    """
    for one, other in pairs(found, outputs):
        if one["shapes"] != other["shapes"]:
            return False
        for values, expected in zip(one["values"], other["values"], strict=True):
            if not all(
                close(a, b, TOLERANCE[dtype]) or (math.isnan(a) and math.isnan(b))
                for a, b in zip(values, expected, strict=True)
            ):
                return False
        if gradients and not _same_gradients(one.get("gradients"), other.get("gradients")):
            return False
        for i, expected in enumerate(other.get("noise", ())):
            given = one.get("noise", ())
            numbers = torch.tensor(given[i] if i < len(given) else [], dtype=torch.float64)
            expected = torch.tensor(expected, dtype=torch.float64)
            if numbers.any() != expected.any() or (
                expected.any() and not _same_numbers(numbers, expected)
            ):
                return False
    return True


def _same_gradients(found: dict | None, expected: dict | None) -> bool:
    found, expected = found or {}, expected or {}
    for name in found.keys() | expected.keys():
        pair = [gradients.get(name) or 0.0 for gradients in (found, expected)]
        one, other = (value if isinstance(value, list) else [value] for value in pair)
        if len(one) != len(other):
            return False
        if not all(map(functools.partial(close, tolerance=GRADIENT_TOLERANCE), one, other)):
            return False
    return True
