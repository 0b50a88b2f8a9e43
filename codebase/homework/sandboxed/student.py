"""Find a submission's function. A broken file or package does not break other files."""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import nn

from .calling import Case, Drawn

# Packages that graded functions do not need, and that take long to import.
SLOW = ("torchvision", "matplotlib", "tensorboard", "tensorboardX", "tensorflow", "wandb", "cv2")


class Absent(Exception):
    """The function to call is missing."""


class StandIn(MagicMock):
    """A stand-in for a missing or broken module, or for one of its attributes."""

    __path__: list[str] = []
    __version__ = "0"

    def __call__(self, *args, **options):
        decorated = len(args) == 1 and callable(args[0]) and not options
        return args[0] if decorated else super().__call__(*args, **options)


class Modules(MetaPathFinder, Loader):
    """Imports the files of a submission, and stand-ins for packages that are not installed.

    Args:
        root: the folder of its files
        package: "codebase" or "submission"

    Attributes:
        broken: import errors, keyed by file
        missing: packages that are not installed
    """

    def __init__(self, root: str, package: str):
        self.root, self.package = root, package
        self.broken: dict[str, str] = {}
        self.missing: list[str] = []

    def install(self) -> None:
        """Install this finder for the process's imports."""
        execute = SourceFileLoader.exec_module

        def exec_module(loader, module):
            try:
                execute(loader, module)
            except BaseException as error:
                if not loader.path.startswith(self.root):
                    raise
                file = os.path.relpath(loader.path, self.root)
                self.broken[file] = self.describe(error, file)
                module.__dict__.setdefault("__getattr__", instead)

        def instead(name):
            if name.startswith("__"):
                raise AttributeError(name)
            return StandIn()

        SourceFileLoader.exec_module = exec_module  # type: ignore[method-assign]
        sys.path.insert(0, self.root)
        sys.meta_path.append(self)
        for name in (*SLOW, "torch.utils.tensorboard"):
            spec = ModuleSpec(name, self, is_package=True)
            sys.modules[name] = importlib.util.module_from_spec(spec)

    def find_spec(self, name, path=None, target=None):
        """Find a stand-in for a slow package, or for a missing one that the submission imports."""
        package, frame = name.partition(".")[0], sys._getframe(1)
        while frame is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        mine = frame is not None and frame.f_code.co_filename.startswith(self.root)
        if package in SLOW or mine and package != self.package:
            self.missing += [] if package in (*SLOW, *self.missing) else [package]
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        """Return a stand-in for a module."""
        return StandIn()

    def exec_module(self, module):
        """Do nothing: a stand-in has no code to run."""

    def describe(self, error: BaseException, file: str = "") -> str:
        """Return a description of an error, with the submission's line that raised it."""
        if isinstance(error, Absent):
            return str(error)
        lines = [
            f"{os.path.relpath(frame.filename, self.root)}:{frame.lineno}"
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename.startswith(self.root)
        ]
        version = ""
        if isinstance(error, SyntaxError) and error.filename:
            lines = [f"{os.path.relpath(error.filename, self.root)}:{error.lineno}"]
            version = f"; the grader runs Python {sys.version_info.major}.{sys.version_info.minor}"
        place = f" ({lines[-1]})" if lines else f" ({file})" if file else ""
        text = str(getattr(error, "msg", error) or error).replace(f"{self.root}/", "")
        first = (text.strip().splitlines() or [""])[0][:300]
        return f"{type(error).__name__}{place}" + (f": {first}" if first else "") + version


def find(case: Case, drawn: Drawn, modules: Modules) -> tuple[Callable, nn.Module | None]:
    """Find a case's function, or the bound method and its model with the case's weights.

    Args:
        case: the case
        drawn: its tensors
        modules: the submission

    Raises:
        Absent: the function is missing
        ValueError: the networks have other sizes than the homework's
    """
    name = f"{modules.package}.{case.file[:-3].replace('/', '.')}"
    if not os.path.exists(os.path.join(modules.root, modules.package, case.file)):
        raise Absent(f"there is no file {case.file}")
    # Some models can only be imported after utils.py, which imports them.
    owner = [importlib.import_module(one) for one in (f"{modules.package}.utils", name)][-1]
    torch.set_default_dtype(torch.float32)  # an import may have changed it; models are float32
    wanted = case.model or case.function
    found: Any = owner.__dict__.get(wanted)
    a_class = isinstance(found, type) and issubclass(found, nn.Module)
    if not (a_class if case.model else callable(found) and not isinstance(found, StandIn)):
        broken = modules.broken.get(f"{modules.package}/{case.file}")
        told = f"{case.file} cannot be imported: {broken}"
        raise Absent(told if broken else f"there is no {wanted} in {case.file}")
    if not case.model:
        return found, None
    model = found(**dict(case.constructor))
    own = dict(model.named_parameters())
    with torch.no_grad():
        for key, value in drawn.weights.items():
            if key not in own or own[key].shape != value.shape:
                shape = tuple(own[key].shape) if key in own else "none"
                raise ValueError(f"{key} has shape {shape}, expected {tuple(value.shape)}")
            own[key].copy_(value)
    if not callable(getattr(model, case.function, None)):
        raise Absent(f"there is no method {case.function} in the class {case.model}")
    return getattr(model, case.function), model


def calm() -> None:
    """Switch off threads and the compiler, so that a submission stays within its limits."""

    def compile(model=None, **options):
        return model if model is not None else lambda function: function

    torch.compile = compile
    for name in ("set_num_threads", "set_num_interop_threads"):
        setattr(torch, name, lambda count: None)
