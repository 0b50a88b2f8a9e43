"""The folders of a run: who may change them, and how one run replaces another."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import filelock

from codebase import UserError, checkpoints
from codebase.machine import files
from codebase.runs import records

PATIENCE = 600  # seconds to wait for an evaluation, which takes some


@contextlib.contextmanager
def training_lock(name: str) -> Iterator[None]:
    """Held while a run is trained.

    Raises:
        UserError: another process holds it
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.lock(_lock_file(name, "training")))
        except filelock.Timeout:
            raise UserError(
                f"{name} is being trained by another process: wait for it, or take another --run"
            ) from None
        yield


@contextlib.contextmanager
def evaluation_lock(name: str) -> Iterator[None]:
    """Held while a run is evaluated, and while it is replaced: the one waits for the other.

    Raises:
        UserError: another process has held it for minutes
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.lock(_lock_file(name, "evaluation"), PATIENCE))
        except filelock.Timeout:
            raise UserError(
                f"{name} has been evaluated by another process for {PATIENCE} seconds: end that one"
            ) from None
        yield


def _lock_file(name: str, what: str) -> Path:
    checkpoints.run_folder(name)  # refuses names that lead elsewhere
    return checkpoints.CHECKPOINTS / ".locks" / f"{name}.{what}"


def set_aside(name: str) -> None:
    """Make room for a new run. What is there is kept until the new one is finished.

    It is moved to checkpoints/.replaced and logs/.replaced. Where it is itself an unfinished run
    that replaces another, that other one is kept, and it is deleted.
    """
    weights, logs = checkpoints.run_folder(name), records.logs_folder(name)
    old_weights, old_logs = (_replaced(root, name) for root in (weights.parent, logs.parent))
    if not weights.exists() and not logs.exists():
        return
    with evaluation_lock(name):
        if not weights.exists():  # the logs alone are there: perhaps a move was interrupted
            _delete(logs, logs.parent) if old_logs.exists() else _move(logs, old_logs)
        elif old_weights.exists() and _is_unfinished(name):
            _delete(weights, weights.parent)
            _delete(logs, logs.parent)
        else:
            _delete(old_weights, weights.parent)
            _delete(old_logs, logs.parent)
            _move(weights, old_weights)
            _move(logs, old_logs)


def forget_what_was_set_aside(name: str) -> None:
    """Delete the run that a finished one has replaced."""
    for root in (checkpoints.CHECKPOINTS, records.LOGS):
        _delete(_replaced(root, name), root)


def _replaced(root: Path, name: str) -> Path:
    return root / ".replaced" / name


def _is_unfinished(name: str) -> bool:
    folder = checkpoints.run_folder(name)
    results = records.read_results(name)
    done = results is not None and results["iterations"] in checkpoints.steps_in(folder)
    return not done and (folder / records.RECORD_FILE).exists()


def _move(folder: Path, place: Path) -> None:
    if folder.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)


def _delete(folder: Path, root: Path) -> None:
    """Delete a folder: at once by its name, then what is in it, and what a killed process left."""
    if folder.exists():
        folder.rename(root / f".trash-{uuid.uuid4().hex}")
    for trash in root.glob(".trash-*"):
        shutil.rmtree(trash, ignore_errors=True)
