"""Weights and training states on disk: written whole or not at all, trusted only once checked."""

import io
import os
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor

from codebase import ROOT, UserError

CHECKPOINTS = ROOT / "checkpoints"
STATE_FILE = "training-state.pt"


class CheckpointError(UserError):
    """A checkpoint is missing, or is not what the model needs."""


class CheckpointMissing(CheckpointError):
    """There is no such checkpoint."""


def save_model_by_name(model: torch.nn.Module, global_step: int) -> Path:
    """Write checkpoints/<model.name>/model-<global_step>.pt, a state_dict; return its path."""
    path = model_path(model.name, global_step)
    state = {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()}
    _save(path, state)
    return path


def load_model_by_name(
    model: torch.nn.Module, global_step: int, device: torch.device | str | None = None
) -> None:
    """Load checkpoints/<model.name>/model-<global_step>.pt into the model.

    device: where to put the model; None leaves it where it is

    Raises CheckpointError, the model unchanged, where the file is missing, damaged, or not the
    weights of such a model.
    """
    path = model_path(model.name, global_step)
    if not path.exists():
        steps = saved_steps(model.name)
        there = f"iterations {steps} are there" if steps else "nor does any other iteration's"
        raise CheckpointMissing(
            f"{path} does not exist; {there}: train first, or take an --iter_max that is there"
        )
    load_weights(model, path)
    if device is not None:
        model.to(device)


def saved_steps(name: str) -> list[int]:
    """The steps whose weights lie in checkpoints/<name>/."""
    stems = [path.stem.removeprefix("model-") for path in run_folder(name).glob("model-*.pt")]
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def run_folder(name: str) -> Path:
    """checkpoints/<name>. Raises CheckpointError for a name that leads out of checkpoints/."""
    folder = CHECKPOINTS / name
    if not name or folder.resolve().parent != CHECKPOINTS.resolve():
        raise CheckpointError(f"model name {name!r} leads out of {CHECKPOINTS}: take a plain name")
    return folder


def model_path(name: str, global_step: int) -> Path:
    """checkpoints/<name>/model-<global_step, 5 digits>.pt."""
    return run_folder(name) / f"model-{global_step:05d}.pt"


def remove_run(name: str) -> None:
    """Delete all weights and the training state of a run."""
    for path in run_folder(name).glob("*.pt"):
        path.unlink()


def remove_leftovers(name: str) -> None:
    """Delete the temporary files that a killed process left behind."""
    for path in run_folder(name).glob(".*.tmp"):
        path.unlink(missing_ok=True)


# Training states: what a resumed run needs beside the weights


def save_training_state(name: str, state: dict) -> None:
    """Write the one training state of the run, in place of the last."""
    _save(run_folder(name) / STATE_FILE, state)


def load_training_state(name: str) -> dict | None:
    """The run's training state, its tensors on the CPU; None where there is none."""
    path = run_folder(name) / STATE_FILE
    if not path.exists():
        return None
    state = _load(path)
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise CheckpointError(f"{path} holds no training state but {_describe(state)}")
    return state


def remove_training_state(name: str) -> None:
    """Delete the training state of a run that is complete."""
    (run_folder(name) / STATE_FILE).unlink(missing_ok=True)


# Reading and writing


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, flush it to disk, and rename it.

    Whenever the process is killed, the path holds its old contents or its new, never a part. Raises
    OSError, the old contents untouched, where the folder or the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # a temporary file's 0600 would shut others out
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a file's weights into the model. Raises CheckpointError, the model unchanged."""
    state = _load(path)
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"{path} holds no state_dict but {_describe(state)}")
    expected = model.state_dict()
    for what, keys in (
        ("lacks", expected.keys() - state.keys()),
        ("has no place for", state.keys() - expected.keys()),
    ):
        if keys:
            subject = path if what == "lacks" else f"{type(model).__name__}, for {path},"
            raise CheckpointError(f"{subject} {what} {', '.join(map(repr, sorted(keys)[:3]))}")
    converted = {}
    for key, own in expected.items():
        converted[key] = _converted(state[key], own, f"{path}: {key}")
    model.load_state_dict(converted)


def _converted(tensor: Tensor, own: Tensor, where: str) -> Tensor:
    """The tensor in the model's dtype. Raises CheckpointError if its values would not survive."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_quantized:
        raise CheckpointError(f"{where} is no dense tensor but {_describe(tensor)}")
    if tensor.shape != own.shape:
        found, needed = tuple(tensor.shape), tuple(own.shape)
        raise CheckpointError(
            f"{where} has shape {found}, the model needs {needed}: the weights of another model, "
            "or of other flags"
        )
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise CheckpointError(f"{where} has dtype {tensor.dtype}, which is no dtype of weights")
    tensor = tensor.to("cpu")
    result = tensor.to(own.dtype)
    if not result.isfinite().all():
        raise CheckpointError(f"{where} is not finite everywhere")
    if not tensor.is_floating_point() and not torch.equal(result.to(tensor.dtype), tensor):
        raise CheckpointError(f"{where} holds integers that {own.dtype} cannot represent")
    return result


def _save(path: Path, state: dict) -> None:
    buffer = io.BytesIO()  # torch.save into the file itself would hide a full disk's OSError
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def _load(path: Path):
    """What a file holds, on the CPU. Raises CheckpointError; nothing in it is executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # whatever a damaged or hostile file makes the unpickler raise
        if "weights_only" in str(error):
            reason = "it would run code, or holds other things than tensors"
        else:
            reason = "it is damaged or no file of PyTorch's"
        raise CheckpointError(f"{path} is refused: {reason}") from None


def _describe(value) -> str:
    return f"a {type(value).__name__}"
