"""Variational autoencoders on MNIST and SVHN: densities, models, training and evaluation."""

import importlib
import sys
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 (pip refuses it, python run_vae.py does not)
    raise ImportError(f"Python {sys.version.split()[0]} is too old: expected Python 3.10 or newer")

# data/, checkpoints/ and logs/ lie beside the run scripts, wherever those are called from.
ROOT = Path(__file__).resolve().parents[1]


class UserError(Exception):
    """A request that cannot be met. The message is one line: the cause and what to do."""


def load_run(run: "str | Path", step: "int | None" = None):
    """Load a trained model of any kind that the run scripts make, ready to evaluate, on the CPU.

        model = codebase.load_run("model=vae_z=10_run=0000")
        images = model.sample_sigmoid(16)

    Args:
        run: name of a run in checkpoints/ or, if there is none, in checkpoints/reference/;
            "reference/<name>" for the latter in any case; or path to its folder or to a file
            model-<step>.pt. The kind of model is read from run.json, or from the name if other
            people trained it
        step: iteration; None is the last one whose weights were saved

    Returns:
        the model, with its weights, which require no gradient

    Raises:
        UserError: there is no such run, or its weights are not what they should be
    """
    from codebase.runs import load

    return load.load_run(run, step)


def __getattr__(name: str):
    """Import `codebase.data` and the like when they are first used: torch takes seconds."""
    if name in ("checkpoints", "data", "evaluate", "figures", "models", "train", "utils"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
