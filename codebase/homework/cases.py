"""Test cases for the graded functions, and the outputs of correct functions and mistakes."""

import ast
import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from codebase import utils
from codebase.homework import sandboxed
from codebase.homework.problems import PROBLEMS, Question
from codebase.homework.sandboxed import Call, Case, Spec
from codebase.models import FSVAE, GMVAE, SSVAE, VAE
from codebase.models.nns import v1, v2

MODELS = {"VAE": VAE, "GMVAE": GMVAE, "SSVAE": SSVAE, "FSVAE": FSVAE}
OPTIONS = {"VAE": (("z_dim", 3),), "GMVAE": (("z_dim", 3), ("k", 5))}
SECONDS, MANY_SECONDS = 10, 40  # CPU time for a case; most take 0.1, with many draws 1
NOISE = (0.83, -0.57)  # what draws are set to: two numbers tell ε from |ε|, ε² or ε + c
IW = 4  # even, as antithetic draws need it
BATCHES = {"VAE": 7, "GMVAE": 7, "SSVAE": 4, "FSVAE": 4}
HUNDRED = 100  # size of the training's batches; some functions work only for it
# (images, draws) that are compared on average: with narrow q(z|x), where gradients and constants
# show, and with wide ones, where the noise itself shows.
NARROW = {"VAE": (7, 120), "GMVAE": (7, 120), "SSVAE": (4, 32), "FSVAE": (4, 32)}
WIDE = {"VAE": (40, 500), "GMVAE": (40, 500), "SSVAE": (40, 64), "FSVAE": (40, 160)}
WIDE_WEIGHTS, WEIGHTS = (10, 500), 200
NARROW_SPREAD, WIDE_SPREAD, WIDE_STEEP = -6.0, 10.0, 10.0  # variances of about 0.002 and 10
# With which logits are up to 6, where clipping shows, and 1e-8 inside a logarithm does not.
LARGE = {"VAE": 8.0, "GMVAE": 8.0, "SSVAE": 2.5, "FSVAE": 8.0}
OVERFLOW = 300.0  # with which some logits are above 88, where exp overflows in float32
SEED = 0  # of arguments and weights: all submissions share the right outputs
LOCK = threading.Lock()  # of torch's generator, and of the models


class Plan(NamedTuple):
    """A case, and the indices of its calls, grouped by what they test."""

    case: Case
    groups: dict[str, range]


def plan(problem: Question, kind: str = "first", seed: int | None = None) -> Plan:
    """Build a test case for a function.

    Args:
        problem: the function
        kind: "first" sets the draws to one number, then to one number per row, then leaves them
            random; this is enough for most functions; "hundred" has a batch of 100, the only size
            for which some functions work; "average" has many draws, for noise that cannot be set or
            is hidden; "several" has fewer, for functions that combine several draws; "weights" has
            only those calls of "average" that test the importance weights
        seed: seed for arguments and weights; None: a fixed seed
    """
    groups = _densities(problem) if not problem.model else _bound(problem, kind)
    if not problem.model and kind == "average":
        small = (Spec("normal", (8, 5)), Spec("positive", (8, 5)))
        groups = {"many": [Call(small, repeat=1000)]}
    calls: list[Call] = []
    places = {}
    for name, group in groups.items():
        places[name] = range(len(calls), len(calls) + len(group))
        calls += group
    case = Case(
        problem.method, problem.model, problem.file, tuple(calls), SEED if seed is None else seed
    )
    case = case._replace(seconds=SECONDS if kind in ("first", "hundred") else MANY_SECONDS)
    if problem.model:
        options = OPTIONS.get(problem.model, ())
        model = _model(problem.model, options)
        weights = tuple(
            (name, tuple(parameter.shape), _scale(problem.model, name, parameter.shape))
            for name, parameter in model.named_parameters()
        )
        case = case._replace(constructor=options, weights=weights)
    return Plan(case, places)


def _set(*calls: Call) -> list[Call]:
    return [call._replace(noise=noise) for call in calls for noise in NOISE]


def _densities(problem: Question) -> dict[str, list[Call]]:
    normal, positive = (functools.partial(Spec, kind) for kind in ("normal", "positive"))
    if problem.key == "sample_gaussian":
        m_and_v = (normal((9, 5)), positive((9, 5)))
        same = Call(m_and_v, gradients=1)
        large = same._replace(noise=2.6)  # beyond which nobody clips ε
        return {"set": [*_set(same), large], "random": [same._replace(repeat=2)]}
    if problem.key == "log_normal_mixture":
        args = (normal((8, 3)), normal((8, 5, 3)), positive((8, 5, 3)))
        # Log densities of −100 to −10,000, too low for float32's exp.
        far = (normal((8, 3), scale=25.0), normal((8, 5, 3)), positive((8, 5, 3), scale=0.5))
        other = (normal((3, 2)), normal((3, 7, 2)), positive((3, 7, 2)))
        one = (normal((1, 3)), normal((1, 5, 3)), positive((1, 5, 3)))
        values = [Call(args, gradients=1), Call(other)]
        return {"values": values, "extreme values": [Call(far), Call(one)]}
    x, m, v = normal((8, 6), scale=2.0), normal((8, 6)), positive((8, 6))
    near = (normal((4, 3), scale=0.1), normal((4, 3), scale=0.1), positive((4, 3), scale=0.01))
    prior = (x, normal((1,), scale=0.0), Spec("one-hot", (1,)))  # mean 0, variance 1
    several = (normal((3, 4, 6)), normal((3, 4, 6)), positive((3, 4, 6)))
    mixture = (normal((3, 1, 6)), normal((3, 4, 6)), positive((3, 4, 6)))
    return {
        "values": [Call((x, m, v), gradients=1), Call(near)],
        "shapes": [Call(several), Call(prior), Call(mixture)],
    }


def _bound(problem: Question, kind: str) -> dict[str, list[Call]]:
    name, weighted = problem.model, "iwae" in problem.method

    def args(batch: int, iw: int = IW) -> tuple[Spec | int, ...]:
        if name == "FSVAE":
            return (Spec("uniform", (batch, 3072)), Spec("one-hot", (batch, 10)))
        images = Spec("binary", (batch, 784))
        return (images, iw) if weighted else (images,)

    if kind == "hundred":
        found = {"set": _set(Call(args(HUNDRED), gradients=1))}
        found["random"] = [Call(args(HUNDRED), repeat=2)]
        return found | ({"weights": [Call(args(HUNDRED), repeat=40)]} if weighted else {})
    if kind == "several":
        batch, many = WIDE_WEIGHTS if weighted else WIDE[name]
        return {"wide": [Call(args(batch), min(many, 125), spread=WIDE_SPREAD, steep=WIDE_STEEP)]}
    weights = {"weights": [Call(args(BATCHES[name]), WEIGHTS)]} if weighted else {}
    if kind == "weights":
        return weights
    if kind == "average":
        (narrow, several), (wide, many) = NARROW[name], WIDE[name]
        if weighted:  # which have iw rows for each image
            wide, many = WIDE_WEIGHTS
        found = {
            "wide": [Call(args(wide), many, spread=WIDE_SPREAD, steep=WIDE_STEEP)],
            "narrow": [Call(args(narrow), several, several // 2, spread=NARROW_SPREAD)],
        }
        return found | weights
    plain = Call(args(BATCHES[name]))
    # A batch as large as iw, and other sizes, where a function may take one axis for the other.
    sizes = [Call(args(3, 4)), Call(args(1))]
    if weighted:
        sizes += [Call(args(4, 4)), Call(args(2, 6)), Call(args(3, 1))]
    large = plain._replace(noise=2.4, steep=LARGE[name])
    found = {"set": [*_set(plain._replace(gradients=1)), large], "sizes": _set(*sizes)}
    if weighted:
        rows = [Call(args(*size), noise=n, rows=True) for size, n in (((1, 6), 1), ((1, 30), -1))]
        found |= {"rows": rows, "layouts": [Call(args(2, 6), noise=1, rows=True)]}
    if name != "FSVAE":
        found["steep"] = [plain._replace(noise=NOISE[0], steep=OVERFLOW)]
    return found | {"random": [plain._replace(repeat=2)]}


def _scale(model: str, name: str, shape: torch.Size) -> float:
    """Return the scale of random weights, chosen so that each weight visibly affects the terms."""
    if name == "z_pre":
        return 0.8
    if name.endswith("bias"):
        return 0.1
    of = {"cls.net.4.weight": 6}.get(name, 1.2)
    if name == sandboxed.OUTPUT:
        of = {"SSVAE": 0.3, "FSVAE": 0.05}.get(model, 0.1)
    if shape[-1] in (784 + 10, 3072 + 10):
        of = 4  # a label is one input of so many, and must show
    return of / shape[-1] ** 0.5


@functools.cache
def _model(kind: str, options: tuple) -> torch.nn.Module:
    return MODELS[kind](**dict(options))


@functools.lru_cache(maxsize=3)  # of 30 MB for FSVAE
def drawn(case: Case) -> sandboxed.Drawn:
    """Draw a case's tensors, which correct functions and mistakes share."""
    return sandboxed.draw(case)


@functools.lru_cache(maxsize=16384)
def outputs(case: Case, function: Callable, sign: int = 1) -> list[list[dict] | str]:
    """Run a case with a correct function, or with one that makes a mistake.

    Args:
        case: the case
        function: function with the arguments of the case's function; for a method, the model is
            the first argument
        sign: factor that multiplies the set noise, 1 or −1; 0: average the outputs for both

    Returns:
        see `sandboxed.outputs`; for a call that raises an error, the error's text
    """
    if not sign:
        both = (outputs(case, function, one) for one in (1, -1))
        return [_mean(*pair) for pair in zip(*both, strict=True)]
    calls = tuple(
        call if call.noise is None else call._replace(noise=sign * call.noise)
        for call in case.calls
    )
    with LOCK, torch.random.fork_rng(devices=[]):
        tensors, model = drawn(case), None
        if case.model:
            model = _model(case.model, case.constructor)
            model.load_state_dict(tensors.weights, strict=False)  # all but the fixed prior
        bound = functools.partial(function, model) if model else function
        found = sandboxed.outputs(case._replace(calls=calls), tensors, bound, model, str)
    for one in (output for call in found if isinstance(call, list) for output in call):
        for sums in one.get("noise", ()):  # with respect to the draws that the submission made
            sums[0] *= sign
    return [one if isinstance(one, list) else one["error"] for one in found]


def _mean(one: list[dict] | str, other: list[dict] | str) -> list[dict] | str:
    """Average outputs for z = m + √v·ε and z = m − √v·ε, without derivatives w.r.t. ε."""
    if isinstance(one, str) or isinstance(other, str):
        return one

    def mean(a, b):
        return [(p + q) / 2 for p, q in zip(a, b, strict=True)]

    return [
        {
            "values": list(map(mean, a["values"], b["values"])),
            "shapes": a["shapes"],
            "gradients": {k: mean(a["gradients"][k], b["gradients"][k]) for k in a["gradients"]},
        }
        for a, b in zip(one, other, strict=True)
    ]


# This project's helpers, for a submission whose own ones are wrong

GRADED = [problem.key for problem in PROBLEMS if not problem.model]  # as they are marked


@functools.cache
def helpers_for(problem: Question) -> Mapping[str, str]:
    """Collect utils.py without this and later graded functions; for a method, also the networks.

    Returns:
        sources keyed by path relative to the package, excluding the models' bounds
    """
    # Not this function, which would replace the submission's, nor later ones, which could be used
    # in its place.
    later = GRADED[GRADED.index(problem.key) :] if problem.key in GRADED else []
    tree, body = ast.parse(inspect.getsource(utils)), []
    for node in tree.body:
        name = getattr(node, "name", "")
        private = not problem.model and name.startswith("_")  # parts of later functions
        if name not in ("__getattr__", "__dir__", *later) and not private:
            body.append(node)
    tree.body = body
    nets = {f"models/nns/{net.__name__[-2:]}.py": inspect.getsource(net) for net in (v1, v2)}
    return {"utils.py": ast.unparse(tree)} | (nets if problem.model else {})
