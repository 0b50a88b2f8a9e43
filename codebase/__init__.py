"""Variational autoencoders on MNIST and SVHN: densities, models, training and evaluation."""

import importlib
import sys

if sys.version_info < (3, 10):  # noqa: UP036 (pip refuses it, python run_vae.py does not)
    raise ImportError(f"Python {sys.version.split()[0]} is too old: expected Python 3.10 or newer")

from codebase.project import ROOT, UserError

__all__ = ["ROOT", "UserError", "load_run"]


def __getattr__(name: str):
    """Import `codebase.data` and others on first use, because importing torch takes seconds."""
    if name == "load_run":
        return importlib.import_module("codebase.runs.run").load_run
    if name in ("checkpoints", "data", "evaluate", "figures", "models", "train", "utils"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
