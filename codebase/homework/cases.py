"""Questions that a submission is asked, and this project's answers to them."""

import ast
import functools
import hashlib
import inspect
import json
import threading

import torch

from codebase import utils
from codebase.homework import worker
from codebase.homework.problems import Problem
from codebase.models import FSVAE, GMVAE, SSVAE, VAE, likelihoods
from codebase.models.nns import v1, v2

_ONE_AT_A_TIME = threading.Lock()  # torch has one generator for all threads
MODELS = {"VAE": VAE, "GMVAE": GMVAE, "SSVAE": SSVAE, "FSVAE": FSVAE}
SECONDS, MANY_SECONDS = 10, 40  # for a question; most take 0.1, with many draws 1
EXACT = 2  # draws that are compared one by one
FEW = 12  # draws that show what is grossly wrong
# Draws whose means are compared: of any q(z|x), and where it is narrow; fewer of large models.
DRAWS = {"VAE": (160, 120), "GMVAE": (160, 120), "SSVAE": (60, 24), "FSVAE": (60, 20)}
MANY_GRADIENTS, CALM_GRADIENTS = 20, 40  # of these, those with gradients
BATCH, WIRED_BATCH = 7, 100
IMPORTANCE_WEIGHTS = 3
SEEDS = 8


def seed_of(content: bytes) -> int:
    """One of a few seeds, by a submission's content: each one's right answers serve many."""
    return int.from_bytes(hashlib.sha256(content).digest()[:6], "big") % SEEDS


def questions(problem: Problem, seed: int) -> dict[str, dict]:
    """The questions about a function, by what they find out.

    Args:
        problem: the function
        seed: of what it is given

    Returns:
        "exact" asks for few calls, with gradients; "many" for enough calls to compare expectations,
        "calm many" where q(z|x) is so narrow that gradients differ little from draw to draw;
        "wired" for a batch of 100; the others are about the parts of their names
    """
    own = {
        "sample_gaussian": _about_sample_gaussian,
        "log_normal": _about_log_normal,
        "log_normal_mixture": _about_log_normal_mixture,
    }
    about = own[problem.function]() if not problem.model else _about_method(problem)
    base = {
        "function": problem.function,
        "model": problem.model,
        "method": problem.method,
        "file": problem.file,
        "constructor": problem.constructor,
        "helpers": None,
        "dtype": "float32",
    }
    return {
        name: base
        | {"seed": seed + 97 * i, "seconds": MANY_SECONDS if "many" in name else SECONDS}
        | question
        for i, (name, question) in enumerate(about.items())
    }


def _of(kind: str, *shape: int, **more) -> dict:
    return {"kind": kind, "shape": list(shape)} | more


def _calls(*all_args: list, seed: int = 1000, **more) -> dict:
    return {"calls": [{"seed": seed, "args": args} | more for args in all_args]}


def _about_sample_gaussian() -> dict[str, dict]:
    m, v = _of("normal", 9, 5), _of("positive", 9, 5)
    small = [_of("normal", 8, 5), _of("positive", 8, 5)]
    return {
        "exact": _calls([m, v], repeat=EXACT, gradients=EXACT),
        "broadcasting": _calls(
            [_of("normal", 6, 3), _of("positive", 1)], [_of("normal", 6, 4), _of("positive", 4)]
        ),
        "many": _calls(small, seed=5000, repeat=1000),
        "many broadcasting": _calls([_of("normal", 3, 2), _of("positive", 1)], repeat=400),
    }


def _about_log_normal() -> dict[str, dict]:
    x, m, v = _of("normal", 8, 6, scale=2), _of("normal", 8, 6), _of("positive", 8, 6)
    far = [_of("normal", 5, 4, scale=1e4), _of("normal", 5, 4), _of("positive", 5, 4, scale=1e-6)]
    return {
        "exact": _calls([x, m, v], gradients=1) | {"dtype": "float64"},
        "extreme values": _calls(far) | {"dtype": "float64"},
        "broadcasting": _calls(
            [x, _of("normal", 1), _of("positive", 1)],
            [_of("normal", 3, 1, 6), _of("normal", 4, 6), _of("positive", 4, 6)],
        )
        | {"dtype": "float64"},
        "single": _calls([x, m, v], gradients=1),
    }


def _about_log_normal_mixture() -> dict[str, dict]:
    z, m, v = _of("normal", 8, 3), _of("normal", 8, 5, 3), _of("positive", 8, 5, 3)
    shared = [z, _of("normal", 1, 5, 3), _of("positive", 1, 5, 3)]
    far = [_of("normal", 8, 3, scale=200), _of("normal", 8, 5, 3), _of("positive", 8, 5, 3)]
    return {
        "exact": _calls([z, m, v], shared, gradients=1) | {"dtype": "float64"},
        "extreme values": _calls(far) | {"dtype": "float64"},
        "single": _calls([z, m, v], shared, gradients=1),
    }


def _about_method(problem: Problem) -> dict[str, dict]:
    model = _reference_model(problem.model, tuple(sorted(problem.constructor.items())))
    weights = {
        name: (list(parameter.shape), _scale(problem.model, name, parameter.shape))
        for name, parameter in model.named_parameters()
    }

    def args(batch: int) -> list:
        if problem.model == "FSVAE":
            batch = 4 if batch == BATCH else batch  # of 3072 pixels
            return [_of("uniform", batch, 3072), _of("one-hot", batch, 10)]
        images = _of("binary", batch, 784)
        return [images, IMPORTANCE_WEIGHTS] if "iwae" in problem.method else [images]

    more = {"weights": weights}
    many, calm = DRAWS[problem.model]
    return {
        "exact": _calls(args(BATCH), gradients=1) | more,
        "few many": _calls(args(BATCH), seed=4000, repeat=FEW, gradients=2) | more,
        "many": _calls(args(BATCH), seed=5000, repeat=many, gradients=MANY_GRADIENTS) | more,
        "calm many": _calls(args(BATCH), seed=7000, repeat=calm, gradients=CALM_GRADIENTS)
        | more
        | {"calm": True},
        "wired": _calls(args(WIRED_BATCH), gradients=1) | more,
    }


def _scale(model: str, name: str, shape: torch.Size) -> float:
    """Of random weights: every term depends on all of them, and log k exceeds a bound's noise."""
    if name == "z_pre":
        return 0.8
    if name.endswith("bias"):
        return 0.1
    of = {"cls.net.4.weight": 6}.get(name, 1.2)
    if name == "dec.net.4.weight":
        of = {"SSVAE": 0.3, "FSVAE": 0.01}.get(model, 0.1)
    if shape[-1] in (784 + 10, 3072 + 10):
        of = 4  # a label is one input of so many, and is to be seen
    return of / shape[-1] ** 0.5


@functools.cache
def _reference_model(kind: str, options: tuple) -> torch.nn.Module:
    return MODELS[kind](**dict(options))


def reference(question: dict, function=None) -> list[list[dict]]:
    """The right answer to a question; or that of another function in the place of the right one.

    Args:
        question: see `questions`
        function: takes what the question's function takes, the model first where it is a method
    """
    key = json.dumps(question | {"helpers": None})
    if function is not None:
        return _answer(question, function)
    return _right_answer(key)


@functools.lru_cache(maxsize=2048)
def _right_answer(key: str) -> list[list[dict]]:
    return _answer(json.loads(key), None)


@functools.lru_cache(maxsize=3)  # of 30 MB for FSVAE
def _drawn(key: str) -> dict:
    """A question's tensors, which the right answer and those of all mistakes share."""
    return worker.draw(torch, json.loads(key))


def _answer(question: dict, function) -> list[list[dict]]:
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        drawn = _drawn(json.dumps(question | {"helpers": None}))
        if not question["model"]:
            right = getattr(utils, question["method"])
            return worker.ask(torch, question, drawn, function or right)
        model = _reference_model(question["model"], tuple(sorted(question["constructor"].items())))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(drawn["weights"][name])
        method = getattr(model, question["method"])
        if function is not None:
            method = functools.partial(function, model)
        return worker.ask(torch, question, drawn, method, model)


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
def helpers_for(problem: Problem) -> dict:
    """Sources of utils and networks, without the function that is asked for and later ones.

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
    return {"utils": ast.unparse(tree), "names": names} | nets
