"""Test cases, and code that calls functions with them, in the sandbox and in the grader.

This code returns numbers, which are compared outside the sandbox, so it needs no correct outputs.
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

MOST_VALUES = 4096  # numbers of a result that are compared
MOST_TERMS = 8
NORMAL = (torch.randn, torch.randn_like, torch.normal, torch.Tensor.normal_)
BETA = 2.5  # of a model that has one; the bounds do not have it
OUTPUT, MEAN_OUTPUT = "dec.net.4.weight", "enc.net.4.bias"  # weights that a call may change


class Spec(NamedTuple):
    """A random tensor: "normal", "positive", "binary", "uniform" or "one-hot", times a scale."""

    kind: str
    shape: tuple[int, ...]
    scale: float = 1.0


class Call(NamedTuple):
    """A call of a function.

    Args:
        args: its arguments
        seed: seed of torch's generator; each repetition adds 1 to it
        repeat: number of repetitions, in one process and with one model
        gradients: number of repetitions, from the first, that are differentiated
        noise: value of every standard normal draw; None: torch's generator draws
        rows: whether each row of draws has its own value, see `SetNoise`
        steep: factor for the decoder's last weights, and so for its output
        spread: number added to the encoder's bias for the variances
    """

    args: tuple[Spec | int, ...]
    seed: int = 1000
    repeat: int = 1
    gradients: int = 0
    noise: float | None = None
    rows: bool = False
    steep: float = 1.0
    spread: float = 0.0


class Case(NamedTuple):
    """Calls of one function of a submission, in one process.

    Args:
        function: name of the function or method
        model: name of the method's class; empty for a function in utils.py
        file: file of the function, below the package
        calls: the calls
        seed: seed of the arguments and weights
        constructor: arguments of the model
        weights: names, shapes and scales of the model's parameters
        seconds: limit on the CPU time
    """

    function: str
    model: str
    file: str
    calls: tuple[Call, ...]
    seed: int
    constructor: tuple[tuple[str, int], ...] = ()
    weights: tuple[tuple[str, tuple[int, ...], float], ...] = ()
    seconds: float = 10.0

    @classmethod
    def read(cls, message: list) -> "Case":
        """Convert a case from JSON."""
        case = cls(*message)
        calls = tuple(
            Call(tuple(Spec(*arg) if isinstance(arg, list) else arg for arg in call[0]), *call[1:])
            for call in case.calls
        )
        return case._replace(calls=calls)


class Drawn(NamedTuple):
    """A case's tensors: the arguments of each call, weights, and directions of derivatives."""

    args: list[list[Any]]
    weights: dict[str, Tensor]
    directions: dict[str, Tensor]


def draw(case: Case) -> Drawn:
    """Draw a case's tensors from its seed."""
    generator = torch.Generator().manual_seed(case.seed)

    def tensor(spec: Spec | int) -> Tensor | int:
        if not isinstance(spec, Spec):
            return spec
        shape = tuple(spec.shape)
        if spec.kind in ("normal", "positive"):
            value = torch.randn(shape, generator=generator)
            value = value.exp() if spec.kind == "positive" else value
        elif spec.kind == "binary":
            value = (torch.rand(shape, generator=generator) < 0.15).float()  # as in MNIST
        elif spec.kind == "uniform":
            value = torch.rand(shape, generator=generator)
        else:
            index = torch.randint(0, shape[-1], shape[:-1], generator=generator)
            value = nn.functional.one_hot(index, shape[-1]).float()
        return value * spec.scale

    weights, directions = {}, {}
    for name, shape, scale in case.weights:
        weights[name] = torch.randn(tuple(shape), generator=generator) * scale
        directions[name] = torch.randn(tuple(shape), generator=generator) / shape[-1] ** 0.5
    args = [[tensor(spec) for spec in call.args] for call in case.calls]
    return Drawn(args, weights, directions)


class SetNoise(torch.overrides.TorchFunctionMode):
    """Set every standard normal draw, and keep the draws for derivatives.

    If all draws are the same number, a function's outputs do not depend on the order of its draws.
    If each row of draws has its own number, an image's importance weights differ, but a correct
    bound is the same for every layout and order of the rows. Derivatives with respect to the draws
    show which draws a term depends on.

    Args:
        value: the number
        rows: whether each row of draws has its own number, with the sign of `value`
    """

    def __init__(self, value: float, rows: bool):
        super().__init__()
        self.value, self.rows = value, rows
        self.draws: list[Tensor] = []
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func not in NORMAL or not result.is_floating_point():
            return result
        with torch.enable_grad():
            noise = torch.full_like(result, self.value)
            if self.rows and result.dim():
                size = result.numel() // result.shape[-1]
                step = torch.arange(self.count, self.count + size, dtype=result.dtype)
                step = (step * 0.618034 % 1 * 4 - 2) * (1 if self.value > 0 else -1)
                noise = step.repeat_interleave(result.shape[-1]).view(result.shape)
                self.count += size
            noise.requires_grad_(True)
            self.draws.append(noise)
            if func in (torch.randn, torch.randn_like):
                return noise.clone()
            given = list(args[1:] if func is torch.Tensor.normal_ else args)
            mean = given[0] if given else kwargs.get("mean", 0.0)
            deviation = given[1] if len(given) > 1 else kwargs.get("std", 1.0)
            mean, deviation = (torch.as_tensor(value).detach() for value in (mean, deviation))
            z = (mean + deviation * noise).to(result.dtype)  # it trains neither: see torch.normal
            return result.copy_(z) if func is torch.Tensor.normal_ else z


def outputs(
    case: Case, drawn: Drawn, function: Callable, model: nn.Module | None, describe: Callable
) -> list[list[dict] | dict]:
    """Call a function as a case specifies.

    Args:
        case: the case
        drawn: its tensors
        function: the function
        model: the model, if the function is a method
        describe: function that describes an exception

    Returns:
        for each call, a dict of `error` and `kind` if it raises an error, else a list with a dict
        per repetition:
        `values`, `shapes`: the flattened terms and their shapes;
        `gradients`: the first term's gradients by argument; for a method, its derivatives along
        each network's direction, by network, and kl + rec's if the loss uses them;
        `noise`: sums of each term's derivatives w.r.t. the draws, of absolute values, of squares;
        `drawn`: the number of draws, and the number of rows if every draw is a row of z
    """
    found: list[list[dict] | dict] = []
    for call, args in zip(case.calls, drawn.args, strict=True):
        try:
            _set(model, drawn.weights, call)
            of_loss = case.function == "negative_elbo_bound" and hasattr(model, "beta")
            found.append(
                [
                    _output(call, i, args, drawn, function, model, of_loss)
                    for i in range(call.repeat)
                ]
            )
        except Exception as error:
            found.append({"error": describe(error), "kind": type(error).__name__})
    return found


def _set(model: Any, weights: dict[str, Tensor], call: Call) -> None:
    """Set the model's weights for a call."""
    if model is None:
        return
    parameters = dict(model.named_parameters())
    output, bias = weights[OUTPUT], weights[MEAN_OUTPUT].clone()
    bias[len(bias) // 2 :] += call.spread
    with torch.no_grad():
        parameters[OUTPUT].copy_(output * call.steep)
        parameters[MEAN_OUTPUT].copy_(bias)
    if hasattr(model, "beta"):
        model.beta = BETA


def _output(call: Call, i: int, args, drawn: Drawn, function, model, of_loss: bool) -> dict:
    differentiated = i < call.gradients
    args = [arg.clone() if isinstance(arg, Tensor) else arg for arg in args]
    leaves = [arg for arg in args if isinstance(arg, Tensor)]
    if differentiated and model is None:
        for leaf in leaves:
            leaf.requires_grad_(True)
    # torch.manual_seed takes 1 ms: it seeds all devices, and keeps a stack trace for idle ones.
    torch.default_generator.manual_seed(call.seed + i)
    noise = None if call.noise is None else SetNoise(call.noise, call.rows)
    graph = torch.enable_grad() if differentiated or noise else torch.no_grad()
    with graph, noise or contextlib.nullcontext():
        result = function(*args)
    if result is None:
        raise TypeError(f"{function.__name__} returns None; return the result")
    terms = list(result) if isinstance(result, tuple | list) else [result]
    terms = [term if isinstance(term, Tensor) else torch.tensor(term) for term in terms]
    terms = terms[:MOST_TERMS]
    found: dict[str, Any] = {
        "values": [term.detach().double().flatten()[:MOST_VALUES].tolist() for term in terms],
        "shapes": [list(term.shape) for term in terms],
        "gradients": {},
    }
    if differentiated and model is None:
        for i, grad in enumerate(_derivatives(terms[0], leaves)):
            found["gradients"][str(i)] = grad.double().flatten()[:MOST_VALUES].tolist()
    elif differentiated:
        found["gradients"] = _along(terms[0], drawn.directions, model)
        if of_loss and [term.numel() for term in terms[1:]] == [1, 1]:
            loss = _along(terms[1] + terms[2], drawn.directions, model)
            found["gradients"] |= {f"kl + rec: {group}": along for group, along in loss.items()}
    if noise is not None:
        z_dim, draws = getattr(model, "z_dim", None), noise.draws
        in_rows = all(draw.dim() > 0 and draw.shape[-1] == z_dim for draw in draws)
        found["noise"] = [_by_noise(term, draws) for term in terms]
        found["drawn"] = [sum(draw.numel() for draw in draws), noise.count if in_rows else 0]
    return found


def _derivatives(term: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Differentiate a weighted sum of a term's elements, with different weights."""
    if not term.requires_grad or not inputs:
        return [torch.zeros_like(one) for one in inputs]
    weights = torch.linspace(0.5, 1.5, term.numel(), dtype=term.dtype).view(term.shape)
    total = (term * weights).sum() if term.numel() > 1 else term.sum()
    return list(torch.autograd.grad(total, inputs, retain_graph=True, materialize_grads=True))


def _along(term: Tensor, directions: dict[str, Tensor], model: nn.Module) -> dict[str, list[float]]:
    """Return derivatives along each network's direction."""
    own = {name: p for name, p in model.named_parameters() if name in directions}
    own = {name: parameter for name, parameter in own.items() if parameter.requires_grad}
    found: dict[str, float] = {}
    for name, grad in zip(own, _derivatives(term, list(own.values())), strict=True):
        group = name.partition(".")[0]
        along = torch.dot(grad.flatten().float(), directions[name].flatten()).item()
        found[group] = found.get(group, 0.0) + along
    return {group: [along] for group, along in found.items()}


def _by_noise(term: Tensor, draws: list[Tensor]) -> list[float]:
    """Sum a term's derivatives w.r.t. the draws, their absolute values and their squares."""
    grads = (grad.double().flatten() for grad in _derivatives(term, draws))
    one = torch.cat([torch.zeros(1), *grads])
    return [one.sum().item(), one.abs().sum().item(), one.square().sum().item()]
