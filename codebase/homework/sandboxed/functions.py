"""Find the function that a case is about, with its own helper functions or given ones."""

import importlib
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from .calling import Case, Drawn
from .importing import Absent, Modules, StandIn

GIVEN = ("utils", "likelihoods", "v1", "v2")  # modules of this project


@dataclass(frozen=True)
class Helpers:
    """This project's helper functions, for a submission whose own ones are wrong.

    Args:
        names: functions of utils.py that are put in the place of the submission's
        sources: the modules in GIVEN, without what the submission should write
        constructed: whether the model also gets this project's networks and attributes, in the
            place of what its constructor does
    """

    names: tuple[str, ...]
    sources: dict[str, str]
    constructed: bool = False


def find(
    case: Case, drawn: Drawn, modules: Modules, helpers: Helpers | None
) -> tuple[Callable, nn.Module | None]:
    """Find the function, or the bound method and its model.

    Raises:
        Absent: it is not there
    """
    ours = None if helpers is None else _our_modules(helpers)
    name = f"{modules.package}.utils"
    utils = importlib.import_module(name) if modules.has(name) else None
    if ours is not None:
        utils = _replace(modules, utils, ours, helpers.names)
    torch.set_default_dtype(torch.float32)  # an import may have changed it; models are float32
    if case.model:
        return _method(case, drawn, modules, ours, helpers)
    function = getattr(utils, case.function, None)
    if not callable(function) or isinstance(function, StandIn):
        why = f"there is no function {case.function} in utils.py"
        raise Absent(modules.broken.get(name, why))
    return function, None


def calm() -> None:
    """Switch off threads and the compiler, so that a submission stays within its limits."""

    def compile(model=None, **options):
        return model if model is not None else lambda function: function

    torch.compile = compile
    torch.set_num_threads = torch.set_num_interop_threads = lambda count: None


def _our_modules(helpers: Helpers) -> types.SimpleNamespace:
    """This project's helpers from their sources: utils without what is asked for, and networks."""
    modules = {name: types.ModuleType(name) for name in GIVEN}
    modules["v1"].ut = modules["likelihoods"].ut = modules["utils"]
    modules["v2"].v1 = modules["v1"]
    for name, module in modules.items():
        exec(compile(helpers.sources[name], f"/{name}.py", "exec"), module.__dict__)
    return types.SimpleNamespace(**modules)


def _replace(modules: Modules, utils, ours, names: tuple[str, ...]):
    """Put this project's helpers in the place of the submission's, wherever it looks for them."""
    if utils is None:
        utils = types.ModuleType(f"{modules.package}.utils")
        sys.modules[utils.__name__] = utils
    for name in names:
        theirs = utils.__dict__.get(name)
        if theirs is not None:
            modules.replaced[id(theirs)] = (theirs, getattr(ours.utils, name))
        setattr(utils, name, getattr(ours.utils, name))
    return utils


def _method(case: Case, drawn: Drawn, modules: Modules, ours, helpers: Helpers | None):
    """A bound method of the submission's model, with the case's weights; and the model."""
    name = f"{modules.package}.{case.file[:-3].replace('/', '.')}"
    if not modules.has(name):
        raise Absent(f"there is no file {case.file}")
    module = importlib.import_module(name)
    kind = module.__dict__.get(case.model)
    if not isinstance(kind, type):
        why = f"there is no class {case.model} in {case.file}"
        raise Absent(modules.broken.get(name, why))
    if ours is not None:
        for module in [m for n, m in sys.modules.items() if n.startswith(modules.package)]:
            for key, value in list(module.__dict__.items()):  # from codebase.utils import ...
                if id(value) in modules.replaced:
                    setattr(module, key, modules.replaced[id(value)][1])
    torch.set_default_dtype(torch.float32)
    if helpers is None or not helpers.constructed:
        model = kind(**dict(case.constructor))
    else:
        if not issubclass(kind, nn.Module):  # its base class is in a file that cannot be imported
            kind = type(kind.__name__, (kind, nn.Module), {})
        model = kind.__new__(kind)
        _construct(model, case, ours)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for key, value in drawn.weights.items():
            if key not in own or own[key].shape != value.shape:
                found = tuple(own[key].shape) if key in own else "nothing"
                raise Absent(f"the model's {key} is {found}, not {tuple(value.shape)}")
            own[key].copy_(value)
    if not callable(getattr(model, case.function, None)):
        raise Absent(f"there is no method {case.function} in the class {case.model}")
    return getattr(model, case.function), model


def _construct(model: nn.Module, case: Case, ours) -> None:
    """Give a model that was not constructed the parts that the homework's constructors give it."""
    nn.Module.__init__(model)
    kind, options = case.model, dict(case.constructor)
    z_dim = {"SSVAE": 64, "FSVAE": 10}.get(kind, options.get("z_dim"))
    y_dim = 10 if kind in ("SSVAE", "FSVAE") else 0
    nets = ours.v2 if kind == "FSVAE" else ours.v1
    model.likelihood = ours.likelihoods.BERNOULLI
    if kind == "FSVAE":
        model.likelihood = ours.likelihoods.Gaussian(0.1)
    model.name, model.z_dim, model.y_dim = kind.lower(), z_dim, y_dim
    model.k, model.gen_weight, model.class_weight = options.get("k"), 1, 100
    model.enc, model.dec = nets.Encoder(z_dim, y_dim), nets.Decoder(z_dim, y_dim)
    if kind == "SSVAE":
        model.cls = nets.Classifier(y_dim)
    constant = {"requires_grad": False}
    if kind == "GMVAE":
        model.z_pre = nn.Parameter(torch.zeros(1, 2 * model.k, z_dim))
        model.pi = nn.Parameter(torch.ones(model.k) / model.k, **constant)
        return
    model.z_prior_m = nn.Parameter(torch.zeros(1), **constant)
    model.z_prior_v = nn.Parameter(torch.ones(1), **constant)
    if not isinstance(getattr(type(model), "z_prior", None), property):
        model.z_prior = (model.z_prior_m, model.z_prior_v)
