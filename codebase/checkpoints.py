"""Weights and training states on disk: written whole or not at all, trusted only once checked."""

import io
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from codebase import ROOT, UserError
from codebase.machine.files import child_folder, one_line, read_file, write_atomically

CHECKPOINTS = ROOT / "checkpoints"
REFERENCE = "reference"  # folder of the weights that come with the project
STATE_FILE = "training-state.pt"
LARGEST_FILE = 1 << 30  # bytes, packed or unpacked; the homework's largest has 14 million
WRAPPERS = ("model", "state_dict", "model_state_dict")  # keys under which others save weights
PREFIXES = ("module.", "_orig_mod.")
NOT_WEIGHTS = {  # what downloads leave in place of weights
    b"version https://git-lfs": "a Git LFS pointer, not the weights: run git lfs pull",
    b"<!doctype html": "a web page, not the weights: download the file itself",
    b"<html": "a web page, not the weights: download the file itself",
}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
ANY = object()  # see check_form


class CheckpointError(UserError):
    """A checkpoint is missing, or is not what the model needs."""


def save_model_by_name(model: torch.nn.Module, global_step: int) -> Path:
    """Write checkpoints/<model.name>/model-<global_step>.pt, a state_dict; return its path."""
    path = file_of(run_folder(model.name), global_step)
    write_weights(model, path)
    return path


def load_model_by_name(
    model: torch.nn.Module, global_step: int, device: torch.device | str | None = None
) -> None:
    """Load checkpoints/<model.name>/model-<global_step>.pt into the model.

    Args:
        model: model to load into; its name selects the folder
        global_step: int: iteration
        device: where to put the model; None leaves it where it is

    Raises:
        CheckpointError: the file is missing or damaged, or does not hold the weights of such a
            model; the model is unchanged
    """
    load_weights(model, file_of(run_folder(model.name), global_step))
    if device is not None:
        model.to(device)


# Folders and files


def run_folder(name: str) -> Path:
    """checkpoints/<name>.

    Raises:
        UserError: the name leads out of checkpoints/, or to the reference weights
    """
    if name == REFERENCE:
        raise UserError(f"{CHECKPOINTS / name} is for the reference weights: use another name")
    return child_folder(CHECKPOINTS, name)


def reference_folder(name: str) -> Path:
    """checkpoints/reference/<name>: weights that come with the project.

    Raises:
        UserError: the name leads out of that folder
    """
    return child_folder(CHECKPOINTS / REFERENCE, name)


def file_of(folder: Path, step: int) -> Path:
    """The file of an iteration's weights: model-<step, 5 digits>.pt."""
    return folder / f"model-{step:05d}.pt"


def step_of(path: Path) -> int | None:
    """The iteration of a file of weights; None for any other file."""
    match = re.fullmatch(r"model-([0-9]{5,})\.pt", path.name)
    return match and int(match[1])


def steps_in(folder: Path) -> list[int]:
    """The iterations whose weights lie in a folder, in order."""
    found = map(step_of, folder.glob("model-*.pt"))
    return sorted(step for step in found if step is not None)


# Training states: what a resumed run needs in addition to the weights


def save_training_state(name: str, state: dict) -> None:
    """Write the training state of the run, in place of the last one."""
    _save(run_folder(name) / STATE_FILE, state)


def load_training_state(name: str) -> dict | None:
    """Load the run's training state, its tensors on the CPU; None if there is none.

    Raises:
        CheckpointError: the file is damaged, or holds something else
    """
    path = run_folder(name) / STATE_FILE
    if not path.exists():
        return None
    state = _load(path, limit=1 << 40)  # it is your own, and three times as large as weights
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a training state")
    return state


def check_form(found, own, where: str = "its state") -> None:
    """Compare what a file holds with what a new run would save.

    Args:
        found: dictionaries and lists of tensors and numbers
        own: what a new run would save; ANY matches anything
        where: str: name for messages

    Raises:
        CheckpointError: keys, lengths, types, shapes or dtypes differ, or a number is not finite
    """
    if own is ANY:
        return
    if isinstance(own, Tensor):
        if not isinstance(found, Tensor) or found.layout != torch.strided or found.is_meta:
            raise CheckpointError(f"{where} is a {type(found).__name__}, not a tensor")
        if (found.shape, found.dtype) != (own.shape, own.dtype):
            raise CheckpointError(
                f"{where} has shape {tuple(found.shape)} and {found.dtype}, expected "
                f"{tuple(own.shape)} and {own.dtype}: it is from a different model or other flags"
            )
        if not found.isfinite().all():
            raise CheckpointError(f"{where} is not finite everywhere")
    elif not isinstance(found, dict if isinstance(own, dict) else type(own)):
        raise CheckpointError(f"{where} is a {type(found).__name__}, expected {type(own).__name__}")
    elif isinstance(own, dict):
        for key in own:
            if key not in found:
                raise CheckpointError(f"{where} lacks {key!r}")
            check_form(found[key], own[key], f"{where}: {key}")
    elif isinstance(own, list):
        if len(found) != len(own):
            raise CheckpointError(f"{where} has {len(found)} parts, expected {len(own)}")
        for i, (one, other) in enumerate(zip(found, own, strict=True)):
            check_form(one, other, f"{where}[{i}]")


# Reading and writing


def write_weights(model: torch.nn.Module, path: Path) -> None:
    """Write a model's state_dict to a file."""
    _save(path, {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()})


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a file's weights into the model.

    Weights may be wrapped, in a dictionary under "state_dict" or the like, and by DataParallel
    ("module." before each key) or torch.compile ("_orig_mod.").

    Raises:
        CheckpointError: the file is missing or damaged, or does not hold the weights of such a
            model; the model is unchanged
    """
    if not path.exists():
        steps = steps_in(path.parent)
        if not steps:
            raise CheckpointError(f"{path} does not exist: train first")
        there = ", ".join(map(str, steps))
        raise CheckpointError(f"{path} does not exist: pass a saved iteration (--iter_max {there})")
    state = _load(path)
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    for prefix in PREFIXES:
        if isinstance(state, dict) and all(str(key).startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    model.load_state_dict(check_weights(state, model, str(path)))


def check_weights(state, model: torch.nn.Module, where: str) -> dict[str, Tensor]:
    """Return a state_dict for the model: the file's tensors, contiguous, in the model's dtypes.

    Args:
        state: what a file holds
        model: what it should fit
        where: str: the file, for messages

    Raises:
        CheckpointError: it is not the state_dict of such a model
    """
    if not isinstance(state, dict):
        raise CheckpointError(f"{where} holds a {type(state).__name__}, expected a state_dict")
    kind, expected = type(model).__name__, model.state_dict()
    if missing := sorted(expected.keys() - state.keys())[:3]:
        there = ", ".join(repr(key)[:40] for key in list(state)[:3]) or "nothing"
        raise CheckpointError(
            f"{where} lacks {', '.join(map(repr, missing))} of {kind}; it holds {there}"
        )
    if extra := sorted(map(str, state.keys() - expected.keys()))[:3]:
        raise CheckpointError(f"{kind} has no {', '.join(map(repr, extra))}, which {where} holds")
    weights = {}
    for key, own in expected.items():
        tensor = state[key]
        fits = isinstance(tensor, Tensor) and tensor.shape == own.shape and not tensor.is_meta
        if fits and tensor.dtype in FLOATS:
            tensor = tensor.to(own.dtype)
        check_form(tensor, own, f"{where}: {key}")
        weights[key] = tensor.contiguous()
    return weights


def _save(path: Path, state: dict) -> None:
    buffer = io.BytesIO()  # torch.save into the file itself would hide a full disk's OSError
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def _load(path: Path, limit: int | None = None):
    """Load what a file holds, on the CPU. Nothing in it is executed.

    Raises:
        CheckpointError: it cannot be read, is damaged, or would run code
    """
    try:
        limit = limit or LARGEST_FILE
        content = read_file(path, limit)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    for start, reason in NOT_WEIGHTS.items():
        if content[:200].lstrip().lower().startswith(start):
            raise CheckpointError(f"{path} is refused: it is {reason}")
    if content.startswith(b"PK"):  # otherwise it may be of torch's format before 1.6
        content = _verified(content, path, limit)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise  # which is not the file's fault
    except Exception as error:  # whatever a damaged or hostile file makes the unpickler raise
        reason = "it is damaged, or not a PyTorch file"
        if "weights_only" in str(error):
            reason = "it would run code, or holds things other than tensors"
        raise CheckpointError(f"{path} is refused: {reason}") from None


def _verified(content: bytes, path: Path, limit: int) -> bytes:
    """Return a zip file whose records have been checked against their checksums, packed anew.

    torch verifies no checksums. If a certain bit of a directory entry is set,
    torch even reads its record as an empty folder, so one flipped bit would silently replace a
    tensor. Packing the file anew makes
    torch read exactly the bytes that were checked.

    Raises:
        CheckpointError: the file is damaged, or too large
    """
    buffer = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(buffer, "w") as anew:
            records = archive.infolist()
            if sum(record.file_size for record in records) > limit:
                raise CheckpointError(f"{path} is refused: unpacked it exceeds {limit:,} bytes")
            for record in records:
                anew.writestr(record.filename, archive.read(record))
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # each way to compress has errors of its own
        raise CheckpointError(f"{path} is damaged: {one_line(error)}") from None
    return buffer.getvalue()
