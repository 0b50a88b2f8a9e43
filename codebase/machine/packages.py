"""One line, with the command that mends it, where the installed packages cannot run the project."""

import gc
import importlib
import importlib.util
import sys
from typing import NoReturn

from codebase.machine.signals import end_quietly_on_signals

OLDEST_TORCH = (2, 6)
PRESENT = ("numpy", "scipy", "tqdm", "tensorboardX", "filelock", "torch", "torchvision")
INSTALL = "python -m pip install --upgrade -r requirements.txt"


def check() -> None:
    """Look for what the commands need; where it is not there, print a line and exit with 1."""
    end_quietly_on_signals()
    if sys.version_info < (3, 10):
        _end(f"Python {sys.version.split()[0]} is too old: take Python 3.10 or newer")
    for name in PRESENT:
        if importlib.util.find_spec(name) is None:
            _end(f"the package {name} is missing: {INSTALL}")
    load("tqdm")
    load("torch")


def load(name: str) -> None:
    """Import a package; where it does not work, print a line and exit with 1.

    It is loaded with the garbage collector off, and torch's modules stay out of the collector's
    sight: to look through them, while they load and again at exit, takes 0.8 of 3 seconds.
    """
    gc.disable()
    try:
        package = importlib.import_module(name)
    except ModuleNotFoundError as error:
        _end(f"the package {error.name} is missing: {INSTALL}")
    except Exception as error:  # torchvision's operators register at import, with any error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        _end(f"{name} does not load ({reason}): {_mend(name, error)}")
    finally:
        gc.enable()
    version = getattr(package, "__version__", "")
    if name == "torch" and _numbers(version) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        _end(f"torch {version} is too old, {oldest} the oldest that works: {INSTALL}")
    if "triton" not in sys.modules:  # which comes with torchvision; frozen, it warns at exit
        gc.freeze()


def _end(trouble: str) -> NoReturn:
    sys.exit(f"error: {trouble}")


def _mend(name: str, error: Exception) -> str:
    words = str(error).lower()
    if isinstance(error, MemoryError) or "memory" in words or "map segment" in words:
        return "this process may use too little memory (ulimit -v shows how much)"
    if isinstance(error, OSError) and error.filename and "site-packages" not in error.filename:
        return f"{error.filename} is needed, and an environment variable may name it"
    if name == "tqdm":
        return "an environment variable TQDM_... has a value that it cannot read"
    if name == "torchvision":
        return (
            "it was built for another torch; python -m pip install --upgrade --force-reinstall "
            "torch torchvision"
        )
    return INSTALL


def _numbers(version: str) -> "tuple[int, ...]":
    return tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
