"""Import a submission: one broken file breaks nothing else, nor does a missing package."""

import importlib.abc
import importlib.machinery
import linecache
import os
import sys
import traceback
import types

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STAND_INS = (  # packages that graded functions do not need, and that take long to import
    *("torchvision", "tensorboardX", "tensorboard", "tensorflow", "matplotlib", "IPython", "cv2"),
    "wandb",
)


class Modules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a submission's files.

    Args:
        package: "codebase" or "submission"
        sources: contents by paths below the package's parent, such as codebase/utils.py
        root: folder that has them as files, for code that looks for its neighbours
    """

    def __init__(self, package: str, sources: dict[str, str], root: str):
        self.package, self.sources, self.root = package, sources, root
        self.broken = {}  # module: what its import raised
        self.missing = []  # packages that are not here
        self.replaced = {}  # by id: a function of the submission, and this project's

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
            self.broken[module.__name__] = describe(error, file)
            module.__dict__.setdefault("__getattr__", self._instead_of(module.__name__))

    def _instead_of(self, name):
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

    def __iter__(self):
        return iter(())

    def __len__(self):
        return 0

    def __bool__(self):
        return False

    def __getitem__(self, key):
        return self

    def __setitem__(self, key, value):
        pass

    def __or__(self, other):
        return self

    __ror__ = __or__

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def __mro_entries__(self, bases):
        return (object,)


class Absent(Exception):
    """What should be called is not there."""


def describe(error: BaseException, file: str = "") -> str:
    """What was raised, and at which line of the submission, without this program's own lines."""
    lines = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("/", "<"))
    ]
    if isinstance(error, SyntaxError) and error.filename:
        lines = [f"{error.filename}:{error.lineno}"]
    place = f" ({lines[-1]})" if lines else f" ({file})" if file else ""
    if isinstance(error, Absent):
        return str(error)
    text = str(getattr(error, "msg", error) or error).strip().splitlines()
    return f"{type(error).__name__}{place}" + (f": {text[0][:300]}" if text else "")
