"""A submission's function, found among its files: a broken file or package breaks no other.

The submission's own helper functions are used, or given ones in their place.
"""

import importlib
import importlib.abc
import importlib.machinery
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable

import torch
from torch import nn

from .calling import Case, Drawn

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STAND_INS = (  # packages that graded functions do not need, and that take long to import
    *("torchvision", "tensorboardX", "tensorboard", "tensorflow", "matplotlib", "IPython", "cv2"),
    "wandb",
)
GIVEN = ("utils", "likelihoods", "v1", "v2")  # modules of this project


class Absent(Exception):
    """What should be called is not there."""


class Modules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a submission's files.

    Args:
        package: "codebase" or "submission"
        sources: contents by paths below the package's parent, such as codebase/utils.py
        root: folder that has them as files, for code that looks for its neighbours
    """

    def __init__(self, package: str, sources: dict[str, str], root: str):
        self.package, self.sources, self.root = package, sources, root
        self.broken: dict[str, str] = {}  # file: what its import raised
        self.missing: list[str] = []  # packages that are not here

    def has(self, module: str) -> bool:
        """Whether there is a file for a module."""
        return module.replace(".", "/") + ".py" in self.sources

    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root != self.package:
            package = "tensorboard" if name.startswith("torch.utils.tensorboard") else root
            return self.stand_in(name, package) if package in STAND_INS and self.asks() else None
        stem = name.replace(".", "/")
        for file in (f"{stem}/__init__.py", f"{stem}.py"):
            if file in self.sources:
                is_package = file.endswith("__init__.py")
                spec = importlib.machinery.ModuleSpec(
                    name, self, origin=file, is_package=is_package
                )
                if is_package:
                    spec.submodule_search_locations = [f"{self.root}/{stem}"]
                return spec
        if any(file.startswith(stem + "/") for file in self.sources):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def asks(self) -> bool:
        """Whether the import under way is one of the submission's own, not a library's."""
        frame = sys._getframe(1)
        while frame is not None:
            file = frame.f_code.co_filename
            if "importlib" not in file and not file.startswith(HERE):
                return file in self.sources
            frame = frame.f_back
        return False

    def stand_in(self, name: str, package: str):
        """Return a stand-in's module spec; the package's name is kept in `missing`."""
        if package not in self.missing:
            self.missing.append(package)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        inside = spec.name.partition(".")[0] == self.package
        return None if inside else StandIn(spec.name)

    def exec_module(self, module):
        file = module.__spec__.origin
        if file is None or isinstance(module, StandIn):
            return
        module.__file__ = f"{self.root}/{file}"
        try:
            source = self.sources[file]
            lines = source.splitlines(keepends=True)
            linecache.cache[file] = (len(source), None, lines, file)  # for torch.jit.script
            exec(compile(source, file, "exec"), module.__dict__)
        except BaseException as error:
            self.broken[file] = describe(error, file)
            module.__dict__.setdefault("__getattr__", _instead_of(module.__name__))


def _instead_of(name: str) -> Callable:
    def missing(attribute):
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return StandIn(f"{name}.{attribute}")

    return missing


class Missing(importlib.abc.MetaPathFinder):
    """The last finder: stands in for missing packages that a submission imports."""

    def __init__(self, modules: Modules):
        self.modules = modules

    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root == self.modules.package or not self.modules.asks():
            return None
        return self.modules.stand_in(name, root)


class StandIn(types.ModuleType):
    """A stand-in for something missing; its attributes and return values are stand-ins too."""

    def __getattr__(self, name):
        if name.startswith("__") and name.endswith("__"):
            if name == "__path__":
                return []
            if name == "__version__":
                return "0"
            raise AttributeError(name)
        return StandIn(f"{self.__name__}.{name}")

    def __call__(self, *args, **options):
        if len(args) == 1 and callable(args[0]) and not options:
            return args[0]  # perhaps a decorator
        return self

    __iter__ = lambda self: iter(())  # noqa: E731
    __len__ = lambda self: 0  # noqa: E731
    __bool__ = lambda self: False  # noqa: E731
    __getitem__ = __or__ = __ror__ = lambda self, key: self  # noqa: E731
    __setitem__ = lambda self, key, value: None  # noqa: E731
    __enter__ = lambda self: self  # noqa: E731
    __exit__ = lambda self, *exception: None  # noqa: E731
    __mro_entries__ = lambda self, bases: (object,)  # noqa: E731


def describe(error: BaseException, file: str = "") -> str:
    """What was raised, and at which line of the submission, without this program's own lines."""
    if isinstance(error, Absent):
        return str(error)
    lines = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("/", "<"))
    ]
    if isinstance(error, SyntaxError) and error.filename:
        lines = [f"{error.filename}:{error.lineno}"]
    place = f" ({lines[-1]})" if lines else f" ({file})" if file else ""
    text = str(getattr(error, "msg", error) or error).strip().splitlines()
    version = ""
    if isinstance(error, SyntaxError):
        version = f"; the grader runs Python {sys.version_info.major}.{sys.version_info.minor}"
    return f"{type(error).__name__}{place}" + (f": {text[0][:300]}" if text else "") + version


def find(
    case: Case, drawn: Drawn, modules: Modules, helpers: dict | None
) -> tuple[Callable, nn.Module | None]:
    """Find a case's function, or the bound method and its model with the case's weights.

    Args:
        case: the case
        drawn: its tensors
        modules: the submission
        helpers: this project's functions in the place of the submission's: their `names`, the
            `sources` of the modules in GIVEN, and whether they also `constructed` the model

    Raises:
        Absent: it is not there
    """
    name = f"{modules.package}.utils"
    utils = importlib.import_module(name) if modules.has(name) else None
    ours, replaced = None, {}
    if helpers is not None:
        ours = _our_modules(helpers["sources"])
        utils = utils or sys.modules.setdefault(name, types.ModuleType(name))
        for one in helpers["names"]:
            replaced[id(utils.__dict__.get(one))] = getattr(ours.utils, one)
            setattr(utils, one, getattr(ours.utils, one))
    torch.set_default_dtype(torch.float32)  # an import may have changed it; models are float32
    if case.model:
        return _method(case, drawn, modules, ours, replaced, helpers)
    function = getattr(utils, case.function, None)
    if not callable(function) or isinstance(function, StandIn):
        raise Absent(_why(modules, name, f"there is no function {case.function} in utils.py"))
    return function, None


def _why(modules: Modules, name: str, absent: str) -> str:
    file = f"{name.replace('.', '/')}.py"
    broken = modules.broken.get(file)
    return f"{file.partition('/')[2]} cannot be imported: {broken}" if broken else absent


def calm() -> None:
    """Switch off threads and the compiler, so that a submission stays within its limits."""

    def compile(model=None, **options):
        return model if model is not None else lambda function: function

    torch.compile = compile
    torch.set_num_threads = torch.set_num_interop_threads = lambda count: None


def _our_modules(sources: dict[str, str]) -> types.SimpleNamespace:
    """This project's helpers from their sources: utils without what is asked for, and networks."""
    modules = {name: types.ModuleType(name) for name in GIVEN}
    modules["v1"].ut = modules["likelihoods"].ut = modules["utils"]
    modules["v2"].v1 = modules["v1"]
    for name, module in modules.items():
        exec(compile(sources[name], f"/{name}.py", "exec"), module.__dict__)
    return types.SimpleNamespace(**modules)


def _method(case: Case, drawn: Drawn, modules: Modules, ours, replaced: dict, helpers):
    """A bound method of the submission's model, with the case's weights; and the model."""
    name = f"{modules.package}.{case.file[:-3].replace('/', '.')}"
    if not modules.has(name):
        raise Absent(f"there is no file {case.file}")
    kind = importlib.import_module(name).__dict__.get(case.model)
    if not isinstance(kind, type):
        raise Absent(_why(modules, name, f"there is no class {case.model} in {case.file}"))
    for module in [m for n, m in sys.modules.items() if n.startswith(modules.package)]:
        for key, value in list(module.__dict__.items()):  # from codebase.utils import ...
            if id(value) in replaced and value is not None:
                setattr(module, key, replaced[id(value)])
    torch.set_default_dtype(torch.float32)
    if helpers is None or not helpers["constructed"]:
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
    model.beta = 1
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
