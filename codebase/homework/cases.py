"""Test cases for the graded functions, and this project's outputs for them."""

import ast
import functools
import hashlib
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from codebase import utils
from codebase.homework.problems import Problem
from codebase.homework.sandboxed import calling
from codebase.homework.sandboxed.calling import Call, Case, Spec
from codebase.homework.sandboxed.functions import Helpers
from codebase.models import FSVAE, GMVAE, SSVAE, VAE, likelihoods
from codebase.models.nns import v1, v2

_ONE_AT_A_TIME = threading.Lock()  # torch has one generator for all threads
MODELS = {"VAE": VAE, "GMVAE": GMVAE, "SSVAE": SSVAE, "FSVAE": FSVAE}
SECONDS, MANY_SECONDS = 10, 40  # CPU time for a case; most take 0.1, with many draws 1
SET_NOISE = (0.83, -0.57)  # what draws are set to: two numbers tell ε from |ε|, ε² or ε + c
BATCHES = {"VAE": 7, "GMVAE": 7, "SSVAE": 4, "FSVAE": 4}
HARD_CODED = 100  # size of the evaluation subset; some functions work only for it
# (draws compared on average, images of each): narrow q(z|x), where gradients and constants show,
# and wide ones, where the noise itself shows.
NARROW = {"VAE": (120, 7), "GMVAE": (120, 7), "SSVAE": (32, 4), "FSVAE": (32, 4)}
WIDE = {"VAE": (500, 40), "GMVAE": (500, 40), "SSVAE": (64, 40), "FSVAE": (160, 40)}
WIDE_OF_WEIGHTS, WEIGHTS = (500, 10), 200
NARROW_SPREAD, WIDE_SPREAD = -6.0, 10.0  # variances of about 0.002 and 10
FEW = 24  # draws that expose a function that is right only when the grader sets the noise
IMPORTANCE_WEIGHTS = 3
SEEDS = 4


def seed_of(content: bytes) -> int:
    """Choose one of a few seeds by a submission's content, so that many share right outputs."""
    return int.from_bytes(hashlib.sha256(content).digest()[:6], "big") % SEEDS


def cases(problem: Problem, seed: int) -> dict[str, Case]:
    """Build the test cases of a function, by what they test.

    Args:
        problem: the function
        seed: seed of the arguments and weights

    Returns:
        "reference draws": few calls, with gradients, whose draws are the reference's if the
        function draws as its docstring says; "other sizes": other batches and numbers of weights;
        "set noise": the same calls with every draw set to a number; "narrow", "wide", "few wide",
        "weights" and "many draws": many calls, compared on average; "hard-coded": another size of
        the batch; "float32": "values" in float32; other keys: the part or note of that name
    """
    own = {
        "sample_gaussian": _sample_gaussian,
        "log_normal": _log_normal,
        "log_normal_mixture": _log_normal_mixture,
    }
    base = Case(problem.method, problem.model, problem.file, (), seed, seconds=SECONDS)
    if problem.model:
        return _bound(problem, base)
    return {
        name: replace(case, seed=seed + 97 * i)
        for i, (name, case) in enumerate(own[problem.function](base).items())
    }


def _sample_gaussian(base: Case) -> dict[str, Case]:
    m, v = Spec("normal", (9, 5)), Spec("positive", (9, 5))
    small = (Spec("normal", (8, 5)), Spec("positive", (8, 5)))
    return {
        "reference draws": replace(base, calls=(Call((m, v), repeat=2, gradients=2),)),
        "set noise": replace(base, calls=_with_set_noise(Call((m, v), gradients=1))),
        "many draws": replace(base, calls=(Call(small, 5000, 1000),), seconds=MANY_SECONDS),
        "a v of fewer elements": replace(
            base, calls=(Call((Spec("normal", (6, 4)), Spec("positive", (4,)))),)
        ),
    }


def _with_set_noise(*calls: Call) -> tuple[Call, ...]:
    return tuple(replace(call, noise=noise) for call in calls for noise in SET_NOISE)


def _log_normal(base: Case) -> dict[str, Case]:
    base = replace(base, dtype="float64")
    x, m, v = Spec("normal", (8, 6), 2.0), Spec("normal", (8, 6)), Spec("positive", (8, 6))
    far = (Spec("normal", (5, 4), 1e4), Spec("normal", (5, 4)), Spec("positive", (5, 4), 1e-6))
    zero, one = Spec("normal", (1,), 0.0), Spec("one-hot", (1,))  # as z_prior is
    several = (Spec("normal", (3, 4, 6)), Spec("normal", (3, 4, 6)), Spec("positive", (3, 4, 6)))
    mixture = (Spec("normal", (3, 1, 6)), Spec("normal", (3, 4, 6)), Spec("positive", (3, 4, 6)))
    plain = replace(base, calls=(Call((x, m, v), gradients=1),))
    return {
        "values": plain,
        "shapes": replace(base, calls=(Call(several), Call((x, zero, one)), Call(mixture))),
        "float32": replace(plain, dtype="float32"),
        "a v of one element": replace(base, calls=(Call((x, m, Spec("positive", (1,)))),)),
        "values far outside the training range": replace(base, calls=(Call(far),)),
    }


def _log_normal_mixture(base: Case) -> dict[str, Case]:
    z, m, v = Spec("normal", (8, 3)), Spec("normal", (8, 5, 3)), Spec("positive", (8, 5, 3))
    # Log densities of −100 to −10,000, too low for float32's exp.
    far, near = Spec("normal", (8, 3), 25.0), Spec("positive", (8, 5, 3), 0.5)
    shared = (z, Spec("normal", (1, 5, 3)), Spec("positive", (1, 5, 3)))
    plain = replace(base, calls=(Call((z, m, v), gradients=1),))
    return {
        "values": replace(plain, dtype="float64"),
        "extreme values": replace(base, calls=(Call((far, m, near)),)),
        "float32": plain,
        "m and v of shape (1, mix, dim)": replace(base, dtype="float64", calls=(Call(shared),)),
    }


def _bound(problem: Problem, base: Case) -> dict[str, Case]:
    model = _reference_model(problem.model, problem.options)
    weights = tuple(
        (name, tuple(parameter.shape), _scale(problem.model, name, parameter.shape))
        for name, parameter in model.named_parameters()
    )
    base = replace(base, constructor=problem.options, weights=weights)
    of_weights = "iwae" in problem.method

    def args(batch: int, iw: int = IMPORTANCE_WEIGHTS) -> tuple[Spec | int, ...]:
        if problem.model == "FSVAE":
            return (Spec("uniform", (batch, 3072)), Spec("one-hot", (batch, 10)))
        images = Spec("binary", (batch, 784))
        return (images, iw) if of_weights else (images,)

    batch = BATCHES[problem.model]
    plain = Call(args(batch), repeat=2, gradients=1)
    # A batch as large as iw, and other sizes, where a function may take one axis for the other.
    sizes = (Call(args(3, 3), 2000), *((Call(args(2, 5), 3000),) if of_weights else ()))
    (narrow, small), (wide, large) = NARROW[problem.model], WIDE[problem.model]
    if of_weights:  # which have iw rows for each image
        wide, large = WIDE_OF_WEIGHTS
    many = replace(base, seconds=MANY_SECONDS)
    steep = tuple(
        (name, shape, 10 * scale if name == "dec.net.4.weight" else scale)
        for name, shape, scale in weights
    )
    return {
        "reference draws": replace(base, calls=(plain,)),
        "other sizes": replace(base, calls=sizes),
        "set noise": replace(base, calls=_with_set_noise(replace(plain, repeat=1), *sizes)),
        "narrow": replace(
            many, calls=(Call(args(small), 5000, narrow, narrow // 2),), spread=NARROW_SPREAD
        ),
        "wide": replace(
            many, calls=(Call(args(large), 7000, wide),), spread=WIDE_SPREAD, weights=steep
        ),
        "few wide": replace(
            many, calls=(Call(args(large), 7000, FEW),), spread=WIDE_SPREAD, weights=steep
        ),
        "weights": replace(many, calls=(replace(plain, repeat=WEIGHTS, gradients=0),)),
        "hard-coded": replace(base, calls=(Call(args(HARD_CODED), gradients=1),)),
    }


def _scale(model: str, name: str, shape: torch.Size) -> float:
    """The scale of random weights, chosen so that every weight and log k show in the terms."""
    if name == "z_pre":
        return 0.8
    if name.endswith("bias"):
        return 0.1
    of = {"cls.net.4.weight": 6}.get(name, 1.2)
    if name == "dec.net.4.weight":
        of = {"SSVAE": 0.3, "FSVAE": 0.05}.get(model, 0.1)
    if shape[-1] in (784 + 10, 3072 + 10):
        of = 4  # a label is one input of so many, and must show
    return of / shape[-1] ** 0.5


@functools.cache
def _reference_model(kind: str, options: tuple) -> torch.nn.Module:
    return MODELS[kind](**dict(options))


@functools.lru_cache(maxsize=16384)
def reference(case: Case, function: Callable | None = None) -> list[list[dict]]:
    """Call this project's function, or a given one, with a case; outputs are cached.

    Args:
        case: see `cases`
        function: takes the arguments of the case's function, the model first if it is a method
    """
    return outputs(case, function)


@functools.lru_cache(maxsize=3)  # of 30 MB for FSVAE
def drawn(case: Case) -> calling.Drawn:
    """A case's tensors, which the right function and all mistakes share."""
    return calling.draw(case)


def outputs(case: Case, function: Callable | None = None) -> list[list[dict]]:
    """Call this project's function, or a given one, with a case; outputs are not cached."""
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        tensors = drawn(case)
        if not case.model:
            return calling.outputs(case, tensors, function or getattr(utils, case.function))
        model = _reference_model(case.model, case.constructor)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(tensors.weights[name])
        method = getattr(model, case.function)
        if function is not None:
            method = functools.partial(function, model)
        return calling.outputs(case, tensors, method, model)


# This project's helpers, for a submission whose own ones are wrong

NOT_HELPERS = {"__getattr__", "__dir__", "sample_laplace", "log_laplace", "kl_laplace"}
# What may be given as a helper with a graded function: those that have been marked before it. The
# functions come in this order and before all methods, so that a submission that keeps or sends what
# it is given as a helper gains nothing.
MARKED_BEFORE = {
    "sample_gaussian": set(),
    "log_normal": {"sample_gaussian"},
    "log_normal_mixture": {"sample_gaussian", "log_normal"},
}


@functools.cache
def helpers_for(problem: Problem) -> Helpers:
    """Collect the sources of utils and networks, without the graded function and later ones.

    A method's helpers are all functions of utils; no bound of a model is among them.
    """
    tree = ast.parse(inspect.getsource(utils))
    later = MARKED_BEFORE.keys() - MARKED_BEFORE.get(problem.function, MARKED_BEFORE.keys())
    body = []
    for node in tree.body:
        name = getattr(node, "name", None)
        if name is None and isinstance(node, ast.Assign):
            name = node.targets[0].id
        private = not problem.model and str(name).startswith("_")  # parts of later functions
        if name not in NOT_HELPERS | later and name != "_ELSEWHERE" and not private:
            body.append(node)
    tree.body = body
    names = [n.name for n in body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    nets = {
        net.__name__.rpartition(".")[2]: "\n".join(
            line
            for line in inspect.getsource(net).splitlines()
            if not line.startswith("from codebase")
        )
        for net in (likelihoods, v1, v2)
    }
    return Helpers(tuple(names), {"utils": ast.unparse(tree)} | nets)


@dataclass(frozen=True)
class Output:
    """What a submission's function gave in a case.

    Args:
        calls: see `calling.outputs`; None: it gave nothing
        error: why it gave nothing
        kind: the error's class; "Ended" for a process or a time that ended
        printed: what the submission printed
        missing: packages that it imports and that are not here
        broken: modules that could not be imported, and why
        cpu: CPU time in seconds
    """

    calls: list[list[dict]] | None
    error: str = ""
    kind: str = ""
    printed: str = ""
    missing: tuple[str, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    cpu: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether its process, or its time, ended."""
        return self.kind == "Ended"

    @property
    def said(self) -> str:
        """Why it gave nothing, in a sentence; empty if it gave something."""
        error = self.error[:400].rstrip(".")
        if self.kind == "NotImplementedError":
            return "You have not written it yet (NotImplementedError)."
        if self.ended:
            return f"Your code gave no output: {error}."
        if self.kind == "Absent":
            return f"It cannot be called: {error}."
        return f"Your code raises {error}." if error else ""
