"""Test cases, and calling functions with them: the same code in the sandbox and in the grader.

It returns numbers and has no reference outputs: they are compared outside the sandbox.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MOST_VALUES = 4096  # numbers of a result that are compared
MOST_NOISE = 16_384  # draws: SSVAE has 2,560 for each draw of z that a student averages over
MOST_TERMS = 8
NORMAL = (torch.randn, torch.randn_like, torch.normal, torch.Tensor.normal_)


@dataclass(frozen=True)
class Spec:
    """A random tensor.

    Args:
        kind: "normal", "positive", "binary", "uniform" or "one-hot"
        shape: its shape
        scale: factor of its elements
    """

    kind: str
    shape: tuple[int, ...]
    scale: float = 1.0


@dataclass(frozen=True)
class Call:
    """A call of a function.

    Args:
        args: its arguments
        seed: seed of torch's generator; each repetition adds 1 to it
        repeat: number of repetitions, in one process and with one model
        gradients: number of repetitions, from the first, that are differentiated
        noise: what every standard normal draw is set to; None: torch's generator draws
    """

    args: tuple[Spec | int, ...]
    seed: int = 1000
    repeat: int = 1
    gradients: int = 0
    noise: float | None = None


@dataclass(frozen=True)
class Case:
    """A test case: calls of one function of a submission, in one process.

    Args:
        function: name of the function or method
        model: name of its class; empty for a function of utils.py
        file: file of the function, below the package
        calls: the calls
        seed: seed of the arguments and weights
        dtype: dtype of the arguments
        constructor: arguments of the model
        weights: names, shapes and scales of the model's parameters
        spread: what is added to the encoder's bias for the variances
        seconds: limit on the CPU time
    """

    function: str
    model: str
    file: str
    calls: tuple[Call, ...]
    seed: int
    dtype: str = "float32"
    constructor: tuple[tuple[str, int | str], ...] = ()
    weights: tuple[tuple[str, tuple[int, ...], float], ...] = ()
    spread: float = 0.0
    seconds: float = 10.0

    @classmethod
    def read(cls, message: dict) -> "Case":
        """Read a case from `dataclasses.asdict`, through JSON."""
        calls = []
        for call in message["calls"]:
            args = [Spec(**arg) if isinstance(arg, dict) else arg for arg in call["args"]]
            calls.append(Call(**call | {"args": tuple(args)}))
        return cls(**message | {"calls": tuple(calls)})


@dataclass(frozen=True)
class Drawn:
    """A case's tensors: arguments by call; weights, and directions to differentiate along."""

    args: list[list[Tensor | int]]
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
            value = torch.randn(shape, generator=generator, dtype=torch.float64)
            value = value.exp() if spec.kind == "positive" else value
        elif spec.kind == "binary":
            value = (torch.rand(shape, generator=generator) < 0.15).double()  # as in MNIST
        elif spec.kind == "uniform":
            value = torch.rand(shape, generator=generator, dtype=torch.float64)
        else:
            index = torch.randint(0, shape[-1], shape[:-1], generator=generator)
            value = nn.functional.one_hot(index, shape[-1]).double()
        return (value * spec.scale).to(getattr(torch, case.dtype))

    args = [[tensor(spec) for spec in call.args] for call in case.calls]
    weights, directions = {}, {}
    for name, shape, scale in case.weights:
        normal = torch.randn(tuple(shape), generator=generator, dtype=torch.float32)
        weights[name] = normal * scale
        direction = torch.randn(tuple(shape), generator=generator, dtype=torch.float32)
        directions[name] = direction / shape[-1] ** 0.5
        if name == "enc.net.4.bias":
            weights[name][shape[0] // 2 :] += case.spread
    return Drawn(args, weights, directions)


class SetNoise(torch.overrides.TorchFunctionMode):
    """Set every standard normal draw to one number, and keep the draws for derivatives.

    The outputs of a function are then the same in whatever order it draws. Their derivatives with
    respect to the draws show which draws each term depends on, and how strongly.

    Args:
        value: the number
    """

    def __init__(self, value: float):
        super().__init__()
        self.value, self.draws = value, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func not in NORMAL or not result.is_floating_point():
            return result
        with torch.enable_grad():
            noise = torch.full_like(result, self.value, requires_grad=True)
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
    case: Case, drawn: Drawn, function: Callable, model: nn.Module | None = None
) -> list[list[dict]]:
    """Call a function as a case says.

    Returns:
        for each call, for each repetition: `values`, the terms flattened; `shapes`; `gradients`, by
        names: of a model, derivatives of the first term along each network's direction; of a
        function, by its arguments; `noise`, by terms: derivatives with respect to the draws; and
        `drawn`: the number of draws
    """
    return [
        [_output(call, i, args, drawn.directions, function, model) for i in range(call.repeat)]
        for call, args in zip(case.calls, drawn.args, strict=True)
    ]


def _output(call: Call, i: int, args, directions, function, model) -> dict:
    differentiated = i < call.gradients
    args = [arg.clone() if isinstance(arg, Tensor) else arg for arg in args]
    leaves = [arg for arg in args if isinstance(arg, Tensor) and arg.is_floating_point()]
    if differentiated and model is None:
        for leaf in leaves:
            leaf.requires_grad_(True)
    # torch.manual_seed takes 1 ms: it seeds all devices, and keeps a stack trace for idle ones.
    torch.default_generator.manual_seed(call.seed + i)
    mode = contextlib.nullcontext() if call.noise is None else SetNoise(call.noise)
    graph = torch.enable_grad() if differentiated or call.noise is not None else torch.no_grad()
    with graph, mode:
        result = function(*args)
    terms = list(result) if isinstance(result, tuple | list) else [result]
    terms = [term if isinstance(term, Tensor) else torch.tensor(term) for term in terms]
    terms = terms[:MOST_TERMS]
    found = {
        "values": [term.detach().double().flatten()[:MOST_VALUES].tolist() for term in terms],
        "shapes": [list(term.shape) for term in terms],
    }
    if differentiated:
        found["gradients"] = _gradients(terms[0], leaves, directions, model)
    if call.noise is not None:
        found["noise"] = [_by_noise(term, mode.draws) for term in terms]
        found["drawn"] = sum(draw.numel() for draw in mode.draws)
    return found


def _summed(term: Tensor) -> Tensor:
    """A scalar in which each element of a term has a weight of its own."""
    weights = torch.linspace(0.5, 1.5, term.numel(), dtype=term.dtype).view(term.shape)
    return (term * weights).sum()


def _gradients(term: Tensor, leaves: list[Tensor], directions, model) -> dict:
    """Gradients of a term, as numbers; None for what it does not depend on."""
    if not term.requires_grad:
        return {}
    if model is None:
        grads = torch.autograd.grad(_summed(term), leaves, allow_unused=True, retain_graph=True)
        return {
            str(i): None if grad is None else grad.double().flatten()[:MOST_VALUES].tolist()
            for i, grad in enumerate(grads)
        }
    parameters = dict(model.named_parameters())
    names = [name for name in directions if name in parameters and parameters[name].requires_grad]
    wanted = [parameters[name] for name in names]
    grads = torch.autograd.grad(term.mean(), wanted, allow_unused=True, retain_graph=True)
    found = {}
    for name, grad in zip(names, grads, strict=True):
        group = name.partition(".")[0]
        if grad is not None:
            along = torch.dot(grad.flatten().float(), directions[name].flatten()).item()
            found[group] = found.get(group, 0.0) + along
    return found


def _by_noise(term: Tensor, draws: list[Tensor]) -> list[float]:
    """Derivatives of a term with respect to the draws that it depends on."""
    if not term.requires_grad or not draws:
        return []
    scalar = term.sum() if term.numel() == 1 else _summed(term)
    grads = torch.autograd.grad(scalar, draws, allow_unused=True, retain_graph=True)
    found = [grad.double().flatten() for grad in grads if grad is not None]
    return torch.cat(found)[:MOST_NOISE].tolist() if found else []
