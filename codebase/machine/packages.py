"""Importing torch: its settings, and one line if the installed packages cannot run the project."""

import gc
import importlib
import importlib.util
import os

from codebase import UserError

OLDEST_TORCH = (2, 6)
NEEDED = ("numpy", "scipy", "tqdm", "tensorboardX", "filelock", "matplotlib", "torchvision")
# How often a waiting thread of GNU's OpenMP looks before it sleeps. By default it spins for longer
# than a neighbour's time slice if the thread that it waits for has been descheduled.
SPINS = {"GOMP_SPINCOUNT": "100000"}
OF_OPENMP = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # a user's own settings win
INSTALL = "python -m pip install --upgrade -r requirements.txt"


def load() -> None:
    """Import torch, with its settings, and look whether the other packages are there.

    torch is loaded with the garbage collector off, and its modules stay out of the collector's
    sight: to look through them, while they load and again at exit, takes 0.8 of 3 seconds.

    Raises:
        UserError: something is missing, too old or broken
    """
    for name in ("torch", *NEEDED):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"the package {name} is missing: {INSTALL}")
    if not any(name in os.environ for name in OF_OPENMP):
        os.environ.update(SPINS)
    gc.disable()
    try:
        version = importlib.import_module("torch").__version__
    except (ImportError, OSError) as error:
        raise UserError(f"torch does not load ({error!s:.200}): {INSTALL}") from None
    finally:
        gc.enable()
    gc.freeze()
    if tuple(int(part) for part in version.split("+")[0].split(".")[:2]) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise UserError(f"torch {version} is too old, expected {oldest} or newer: {INSTALL}")
