"""Weights and training states on disk, written atomically and checked when they are read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codebase.machine.files import write_atomically
from codebase.project import ROOT, UserError, steps_in, weights_file

if TYPE_CHECKING:
    from codebase.models.base import LatentVariableModel

CHECKPOINTS = ROOT / "checkpoints"
REFERENCE = "reference"  # folder of the weights that come with the project
STATE_FILE = "training-state.pt"
WRAPPERS = ("model", "state_dict", "model_state_dict")  # keys under which others save weights
PREFIXES = ("module.", "_orig_mod.")  # of torch's DataParallel and torch.compile


class CheckpointError(UserError):
    """A checkpoint is missing or damaged, or does not fit the model."""


def save_model_by_name(model: LatentVariableModel, global_step: int) -> Path:
    """Write checkpoints/<model.name>/model-<global_step>.pt, a state_dict; return its path."""
    path = weights_file(run_folder(model.name), global_step)
    write_weights(model, path)
    return path


def load_model_by_name(
    model: LatentVariableModel, global_step: int, device: torch.device | str | None = None
) -> None:
    """Load checkpoints/<model.name>/model-<global_step>.pt into the model.

    Args:
        model: model to load into; its name selects the folder
        global_step: int: iteration
        device: device to move the model to; None: do not move it

    Raises:
        CheckpointError: the file is missing or damaged, or its weights do not fit the model; the
            model is unchanged
    """
    load_weights(model, weights_file(run_folder(model.name), global_step))
    if device is not None:
        model.to(device)


def run_folder(name: str) -> Path:
    """Return checkpoints/<name>.

    Raises:
        UserError: the name is not a plain file name, or is "reference"
    """
    if name in ("", REFERENCE) or name.startswith(".") or Path(name).name != name:
        raise UserError(f"{name!r:.200} cannot be the name of a run: use a plain, other name")
    return CHECKPOINTS / name


def reference_folder(name: str) -> Path:
    """Return checkpoints/reference/<name>, a folder of weights that the project includes."""
    return CHECKPOINTS / REFERENCE / run_folder(name).name


# Weights


def write_weights(model: LatentVariableModel, path: Path) -> None:
    """Write a model's state_dict to a file."""
    write_state(path, {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()})


def load_weights(model: LatentVariableModel, path: Path) -> None:
    """Load a file's weights into the model.

    Weights may be nested in a dictionary, under a key such as "state_dict". Their names may have
    the prefixes of DataParallel ("module.") and torch.compile ("_orig_mod."), in either order.

    Raises:
        CheckpointError: the file is missing or damaged, or its weights do not fit the model; the
            model is unchanged
    """
    if not path.exists():
        there = ", ".join(map(str, steps_in(path.parent)))
        advice = f"pass a saved iteration (--iter_max {there})" if there else "train first"
        raise CheckpointError(f"{path} does not exist: {advice}")
    state = read_state(path)
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    while isinstance(state, dict) and state and all(str(k).startswith(PREFIXES) for k in state):
        state = {str(key).partition(".")[2]: value for key, value in state.items()}
    check_weights(state, model, str(path))
    model.load_state_dict(state)


def check_weights(state, model: LatentVariableModel, where: str) -> None:
    """Check that a file's content is a state_dict of this model.

    Args:
        state: the file's content
        model: the model
        where: str: name of the file in error messages

    Raises:
        CheckpointError: a tensor is missing, unexpected, of the wrong shape, or not finite
    """
    if not isinstance(state, dict):
        raise CheckpointError(f"{where} holds a {type(state).__name__}, expected a state_dict")
    expected, found = (
        {str(key): tuple(getattr(value, "shape", ())) for key, value in one.items()}
        for one in (model.state_dict(), state)
    )
    for key in [*expected, *found]:
        if expected.get(key) != found.get(key):
            shapes = [one.get(key, "none") for one in (found, expected)]
            raise CheckpointError(
                f"{where} does not fit {type(model).__name__}: {key!r:.60} has shape {shapes[0]}, "
                f"expected {shapes[1]}: it is from a different model or other flags"
            )
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor) or not tensor.isfinite().all():
            raise CheckpointError(f"{where} is refused: {key} has non-finite values")


# Files that torch writes


def write_state(path: Path, state: dict) -> None:
    """Write a dictionary of tensors and numbers."""
    buffer = io.BytesIO()  # torch.save into the file itself would hide a full disk's OSError
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def read_state(path: Path):
    """Load a PyTorch file onto the CPU, without executing anything in it.

    Raises:
        CheckpointError: the file is damaged, or holds more than tensors
    """
    content = path.read_bytes()
    file = io.BytesIO(content)
    try:
        if zipfile.is_zipfile(file):  # torch itself compares no checksums
            with zipfile.ZipFile(file) as archive:
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(damaged)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception:  # a damaged file may make the unpickler raise anything
        raise CheckpointError(
            f"{path} is refused: it is damaged, or not what torch.save(model.state_dict(), path) "
            f"writes, which holds only tensors (it begins with {content[:24]!r})"
        ) from None
