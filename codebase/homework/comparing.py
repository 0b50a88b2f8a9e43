"""Comparing numbers: what differs, whether it may, and in what words to say so."""

import functools
import math

import torch

from codebase.homework import cases

# Differences that are no mistakes, relative to 1 + the right value. Correct solutions of other
# forms differ by up to 2e-7 in float32, and by 4e-8 in float64, where log 2π is a float32.
TOLERANCE = {"float32": 5e-6, "float64": 1e-6}
SLOPE_TOLERANCE = 5e-4  # sums over up to 3 million weights in float32: up to 3e-5
STANDARD_ERRORS = 5
LARGEST = 1e15  # beyond which sums of squares lose their meaning
# A term may vary from draw to draw three times as much as the right terms do. Noise without a bound
# would hide any mistake in its standard error.
MOST_NOISE = 3


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


def shapes(found: list, right: list) -> str:
    """What is wrong with the shapes of a function's results."""
    for one, other in calls(found, right):
        shape = one["shapes"][0] if one["shapes"] else None
        if len(one["shapes"]) != 1 or shape != other["shapes"][0]:
            returned = tuple(shape) if len(one["shapes"]) == 1 else f"{len(one['shapes'])} results"
            return f"The shape is {returned}; {tuple(other['shapes'][0])} is wanted."
    return ""


def difference(found: list, right: list, dtype: str) -> str:
    """What is wrong with the values of a function's results."""
    if reason := shapes(found, right):
        return reason
    for one, other in calls(found, right):
        for value, wanted in zip(one["values"][0], other["values"][0], strict=True):
            if not close(value, wanted, TOLERANCE[dtype]):
                return f"A value is {value:.6g} and should be {wanted:.6g}."
    return ""


def calls(found: list, right: list):
    """The results of a function beside the right ones, call by call."""
    return zip(sum(found, []), sum(right, []), strict=True)


def finite(found: list) -> bool:
    """Whether all values of a function's results are."""
    return all(
        math.isfinite(value) for calls in found for call in calls for value in call["values"][0]
    )


def gradient_of_inputs(found: list, right: list, wrong: bool) -> str:
    """What is wrong with the gradients of a function's inputs."""
    for one, other in calls(found, right):
        for name, wanted in other["gradients"].items():
            slopes = (one.get("gradients") or {}).get(name)
            argument = ("the first", "the second", "the third")[int(name)]
            if not slopes or (any(wanted) and not any(slopes)):
                return f"There is no gradient for {argument} argument."
            if not all(map(math.isfinite, slopes)):
                return f"The gradient for {argument} argument is not finite."
            if not wrong and not all(
                close(slope, value, SLOPE_TOLERANCE)
                for slope, value in zip(slopes, wanted, strict=True)
            ):
                return f"The gradient for {argument} argument is wrong."
    return ""


def gradient_of_draws(question: dict, found: list, wrong: bool) -> str:
    """What is wrong with the gradients of z = m + √v·ε, at the draws that were returned."""
    for call, results in zip(_arguments(question), found, strict=True):
        m, v = (argument.double() for argument in call)
        for result in results:
            slopes = result.get("gradients") or {}
            if any(not slopes.get(name) or not any(slopes[name]) for name in "01"):
                return "No gradient reaches the mean, or the variance: nothing would be trained."
            if wrong:
                continue
            z = torch.tensor(result["values"][0], dtype=torch.float64).view_as(m)
            weights = torch.linspace(0.5, 1.5, z.numel(), dtype=torch.float64).view_as(m)
            for name, wanted in (("0", weights), ("1", weights * (z - m) / (2 * v))):
                slope = torch.tensor(slopes[name], dtype=torch.float64).view_as(m)
                if not torch.allclose(slope, wanted, SLOPE_TOLERANCE, SLOPE_TOLERANCE):
                    return "The gradient with respect to the mean or the variance is wrong."
    return ""


def _arguments(question: dict) -> list[list[torch.Tensor]]:
    return cases.worker.draw(torch, question)["args"]


def distribution(question: dict, found, right, error: str) -> str:
    """What is wrong with many draws as draws from N(m, diag v): mean, variances, shape, order."""
    from scipy.stats import kstest  # here: it takes 0.9 s, and few submissions are asked this

    if error:
        return error
    if reason := shapes(found, right):
        return reason
    m, v = torch.broadcast_tensors(*(a.double() for a in _arguments(question)[0]))
    z = torch.tensor([call["values"][0] for call in found[0]], dtype=torch.float64)
    noise = (z - m.flatten()) / v.flatten().sqrt()  # (draws, elements): N(0, I)
    n = len(noise)
    if not noise.isfinite().all():
        return "Some draws are not finite."
    several = STANDARD_ERRORS + 1  # of so many tests, one may well exceed 5
    mean, total = noise.mean(0), noise.numel()
    if (mean.abs() > several / n**0.5).any() or abs(mean.mean()) > STANDARD_ERRORS / total**0.5:
        return "The mean of its draws is not m."
    covariance = noise.T @ noise / n
    off = covariance - covariance.diag().diag()
    each, ratio = covariance.diag() - 1, covariance.diag().mean()
    if (each.abs() > several * (2 / n) ** 0.5).any() or abs(ratio - 1) > STANDARD_ERRORS * (
        2 / total
    ) ** 0.5:
        return f"The variance of its draws is not v, but about {ratio:.2g} times v."
    if (off.abs() > several / n**0.5).any():
        return "Its elements share their noise: each needs a draw of its own."
    following = (noise[1:] * noise[:-1]).mean().abs()
    if following > STANDARD_ERRORS / noise.numel() ** 0.5:
        return "Its draws repeat themselves."
    heavy = abs(noise.pow(4).mean() - 3) > STANDARD_ERRORS * (96 / total) ** 0.5
    if heavy or kstest(noise.flatten().numpy(), "norm").pvalue < 1e-7:
        return "Its draws are not normal."
    return ""


# Means of draws


def usual_noise(right: list) -> dict[str, float]:
    """How much terms, and slopes by their networks, may vary from draw to draw."""
    values = torch.tensor([[v[0] for v in call["values"]] for call in right[0]]).double()
    noise = {"terms": MOST_NOISE * values.std(0).max().item()}
    slopes = [call["gradients"] for call in right[0] if call.get("gradients")]
    for group in slopes[0]:
        values = torch.tensor([slope.get(group, 0.0) for slope in slopes]).double()
        noise[group] = MOST_NOISE * values.std().item()
    return noise


def mean(name: str, values: list[float], right: list[float], most_noise: float, errors) -> str:
    """What is wrong with the mean of draws, beside the mean of right draws."""
    values, right = (torch.tensor(v, dtype=torch.float64) for v in (values, right))
    if not (values.abs() < LARGEST).all():  # nan, too
        return f"{name} is not finite for some draws."
    mean, wanted = values.mean().item(), right.mean().item()
    spread = values.std().item()
    least = TOLERANCE["float32"] * (1 + abs(wanted))
    if not spread <= most_noise + least:
        return f"{name} varies by ±{spread:.3g} from draw to draw; up to {most_noise:.3g} is usual."
    error = math.sqrt((spread**2 + right.std().item() ** 2) / len(values))
    if not abs(mean - wanted) <= errors * error + least:
        return f"{name} is {mean:.6g} on average and should be {wanted:.6g} ± {error:.2g}."
    return ""


# Equality


def same(found: list, answers: list, dtype: str, gradients: bool) -> bool:
    """Whether two answers to a question have the same numbers, but for rounding.

    Args:
        found, answers: results of each call, see `worker.ask`
        dtype: in which the question is asked
        gradients: whether those are to be the same, too
    """
    for one, other in calls(found, answers):
        if one["shapes"] != other["shapes"]:
            return False
        for values, wanted in zip(one["values"], other["values"], strict=True):
            if not all(
                close(a, b, TOLERANCE[dtype]) or (math.isnan(a) and math.isnan(b))
                for a, b in zip(values, wanted, strict=True)
            ):
                return False
        if gradients and not _same_gradients(one.get("gradients"), other.get("gradients")):
            return False
    return True


def _same_gradients(found: dict | None, wanted: dict | None) -> bool:
    found, wanted = found or {}, wanted or {}
    for name in found.keys() | wanted.keys():
        pair = [gradients.get(name) or 0.0 for gradients in (found, wanted)]
        one, other = (value if isinstance(value, list) else [value] for value in pair)
        if len(one) != len(other):
            return False
        if not all(map(functools.partial(close, tolerance=SLOPE_TOLERANCE), one, other)):
            return False
    return True
