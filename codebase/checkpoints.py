"""Weights and training states on disk: written whole or not at all, trusted only once checked."""

import io
import warnings
import zipfile
import zlib
from pathlib import Path

import torch
from torch import Tensor

from codebase import ROOT, UserError
from codebase.machine.files import child_folder, read_file, write_atomically

CHECKPOINTS = ROOT / "checkpoints"
REFERENCE = "reference"  # folder of the weights that come with the project
STATE_FILE = "training-state.pt"
LARGEST_FILE = 1 << 30  # bytes, packed or unpacked; the homework's largest has 25 million
DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)


class CheckpointError(UserError):
    """A checkpoint is missing, or is not what the model needs."""


class CheckpointMissing(CheckpointError):
    """There is no such checkpoint."""


def save_model_by_name(model: torch.nn.Module, global_step: int) -> Path:
    """Write checkpoints/<model.name>/model-<global_step>.pt, a state_dict; return its path."""
    path = model_path(model.name, global_step)
    write_weights(model, path)
    return path


def load_model_by_name(
    model: torch.nn.Module, global_step: int, device: torch.device | str | None = None
) -> None:
    """Load checkpoints/<model.name>/model-<global_step>.pt into the model.

    Args:
        model: whose name and weights
        global_step: int: iteration
        device: where to put the model; None leaves it where it is

    Raises:
        CheckpointError: the file is missing, damaged, or holds not the weights of such a model; the
            model is unchanged
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


# Folders and files


def run_folder(name: str) -> Path:
    """checkpoints/<name>.

    Raises:
        UserError: the name leads out of checkpoints/, or to the reference weights
    """
    if name == REFERENCE:
        raise UserError(f"{CHECKPOINTS / name} is for the reference weights: take another name")
    return child_folder(CHECKPOINTS, name)


def reference_folder(name: str) -> Path:
    """checkpoints/reference/<name>: weights that come with the project, which nothing overwrites.

    Raises:
        UserError: the name leads out of that folder
    """
    return child_folder(CHECKPOINTS / REFERENCE, name)


def model_path(name: str, global_step: int) -> Path:
    """checkpoints/<name>/model-<global_step, 5 digits>.pt."""
    return run_folder(name) / f"model-{global_step:05d}.pt"


def saved_steps(name: str) -> list[int]:
    """The iterations whose weights lie in checkpoints/<name>/."""
    return steps_in(run_folder(name))


def steps_in(folder: Path) -> list[int]:
    """The iterations whose weights lie in a folder."""
    stems = [path.stem.removeprefix("model-") for path in folder.glob("model-*.pt")]
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdecimal())


# Training states: what a resumed run needs beside the weights


def save_training_state(name: str, state: dict) -> None:
    """Write the one training state of the run, in place of the last."""
    _save(run_folder(name) / STATE_FILE, state)


def load_training_state(name: str) -> dict | None:
    """The run's training state, its tensors on the CPU; None where there is none.

    What is in it is checked where it is used.

    Raises:
        CheckpointError: the file is damaged, or holds something else
    """
    path = run_folder(name) / STATE_FILE
    if not path.exists():
        return None
    state = _load(path)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no training state but a {type(state).__name__}")
    return state


# Reading and writing


def write_weights(model: torch.nn.Module, path: Path) -> None:
    """Write a model's state_dict to a file."""
    _save(path, {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()})


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a file's weights into the model.

    Raises:
        CheckpointError: the file is damaged, or holds not the weights of such a model; the model is
            unchanged
    """
    state = _load(path)
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    model.load_state_dict(check_weights(state, model, str(path)))


def check_weights(state, model: torch.nn.Module, where: str) -> dict[str, Tensor]:
    """A state_dict for the model, of the model's own dtypes.

    Args:
        state: what a file holds
        model: what it should fit
        where: str: the file, for messages

    Raises:
        CheckpointError: it is not the state_dict of such a model
    """
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"{where} holds no state_dict but a {type(state).__name__}")
    expected = model.state_dict()
    for what, keys in (
        ("lacks", expected.keys() - state.keys()),
        ("has no place for", state.keys() - expected.keys()),
    ):
        if keys:
            subject = where if what == "lacks" else f"{type(model).__name__}, for {where},"
            raise CheckpointError(f"{subject} {what} {', '.join(map(repr, sorted(keys)[:3]))}")
    return {key: check_tensor(state[key], own, f"{where}: {key}") for key, own in expected.items()}


def check_tensor(tensor: Tensor, own: Tensor, where: str) -> Tensor:
    """A tensor in the shape and dtype of the model's own, on the CPU, in memory of its own.

    Args:
        tensor: what a file holds
        own: tensor: what it will replace
        where: str: the file and the key, for messages

    Raises:
        CheckpointError: it is no such tensor, not finite, or its values would not survive
    """
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or tensor.is_nested:
        raise CheckpointError(f"{where} is no dense tensor but a {type(tensor).__name__}")
    if tensor.dtype not in DTYPES or tensor.device.type != "cpu":
        found = f"dtype {tensor.dtype} on {tensor.device}"
        raise CheckpointError(f"{where} has {found}, which are not those of weights in a file")
    if tensor.shape != own.shape:
        found, needed = tuple(tensor.shape), tuple(own.shape)
        raise CheckpointError(
            f"{where} has shape {found}, the model needs {needed}: the weights of another model, "
            "or of other flags"
        )
    result = tensor.to(own.dtype).contiguous()
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
    """What a file holds, on the CPU. Nothing in it is executed.

    Raises:
        CheckpointError: it cannot be read, is damaged, or would run code
    """
    try:
        content = read_file(path, LARGEST_FILE)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    if content.startswith(b"PK"):  # otherwise it may be of torch's format before 1.6
        content = _verified(content, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes the unpickler raise
        if "weights_only" in str(error):
            reason = "it would run code, or holds other things than tensors"
        else:
            reason = "it is damaged or no file of PyTorch's"
        raise CheckpointError(f"{path} is refused: {reason}") from None


def _verified(content: bytes, path: Path) -> bytes:
    """The records of a zip file, which have their checksums, packed anew.

    torch looks at no checksum, and takes a record whose directory entry has a certain bit for an
    empty folder: a flipped bit would become a weight. Packed anew, it reads what was checked.

    Raises:
        CheckpointError: the file is damaged, or too large
    """
    buffer = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(buffer, "w") as anew:
            records = archive.infolist()
            if sum(record.file_size for record in records) > LARGEST_FILE:
                raise CheckpointError(
                    f"{path} is refused: unpacked it exceeds {LARGEST_FILE:,} bytes"
                )
            if len({record.filename for record in records}) < len(records):
                raise CheckpointError(f"{path} is damaged: two of its records have one name")
            for record in records:
                anew.writestr(record.filename, archive.read(record))
    except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    return buffer.getvalue()
