"""A run: the flags that determine its weights, and its files run.json and results.json.

checkpoints/<name>/run.json, written before the first weights, says how the model was built and
trained; no later command changes it. logs/<name>/results.json has the metrics.
"""

import contextlib
import datetime
import json
import platform
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock
import torch

from codebase import ROOT, UserError, checkpoints, models
from codebase.machine.files import child_folder, one_line, read_file, write_atomically

LOGS = ROOT / "logs"
RUN_FILE, RESULTS_FILE = "run.json", "results.json"
LARGEST_FILE = 1 << 20  # bytes
NOT_RECORDED = "not recorded"  # of weights without a run.json, which other people trained
_SCALARS = (int, float, str)
WAYS_OUT = "delete it to evaluate the weights without it, or pass --overwrite 1 to train anew"


@dataclass(frozen=True)
class Run:
    """One training of one model, known by its name.

    Args:
        name: its folder in checkpoints/ and logs/
        flags: the flags that determine its weights, by their names; empty for weights that other
            people trained
        model: class and arguments of its model, see `codebase.models.build`; empty if there is no
            run.json: the run is new, or other people trained it
    """

    name: str
    flags: Mapping[str, int | float | str]
    model: Mapping

    @property
    def folder(self) -> Path:
        return checkpoints.run_folder(self.name)

    @property
    def logs(self) -> Path:
        return logs_folder(self.name)

    @property
    def is_synthetic(self) -> bool:
        return self.flags.get("data") == "synthetic"

    def build(self) -> torch.nn.Module:
        """The model with initial weights."""
        try:
            return models.build(self.name, self.model)
        except ValueError as error:
            raise UserError(f"{self.name}: its {RUN_FILE} does not fit: {error}") from None

    def write(self, device: torch.device) -> None:
        """Write run.json."""
        content = {"name": self.name, "model": dict(self.model), "flags": dict(self.flags)}
        write_json(self.folder / RUN_FILE, content | circumstances(device))

    def finished(self, iterations: int) -> dict | None:
        """Return its results if it was trained with these flags to exactly this iteration."""
        results = read_results(self.name)
        if results is None or results["iterations"] != iterations:
            return None
        return results if results["trained"] == dict(self.flags) else None

    def results(self, step: int, metrics: dict[str, float], device: torch.device) -> dict:
        """The metrics of its weights, as results.json has them."""
        return {
            "name": self.name,
            "data": self.flags.get("data"),
            "seed": self.flags.get("seed"),
            "iterations": step,
            "trained": dict(self.flags) or NOT_RECORDED,
            **circumstances(device),
            "figures": metrics,
        }


def read_run(folder: Path) -> Run | None:
    """Read the run.json in a run's folder; None if there is none.

    Raises:
        UserError: it is damaged, or of a run of another name
    """
    path = folder / RUN_FILE
    content = read_json(path)
    if content is None:
        return None
    if not all(isinstance(content.get(key), dict) for key in ("model", "flags")):
        raise UserError(
            f"{path} is not a description of a run, or an older version wrote it: {WAYS_OUT}"
        )
    if content.get("name") != folder.name:
        raise UserError(
            f"{path} belongs to {content.get('name')!r:.200}: rename the folder to that, delete "
            "the file to evaluate the weights without it, or pass --overwrite 1 to train anew"
        )
    return Run(folder.name, content["flags"], content["model"])


def group_of(name: str) -> str:
    """A run's name without its number, which its replicates share."""
    return re.sub(r"_run=[0-9]+", "", name)


def has_begun(folder: Path) -> bool:
    """Whether a folder holds a run: its run.json, or weights."""
    return bool(checkpoints.steps_in(folder)) or (folder / RUN_FILE).exists()


def circumstances(device: torch.device) -> dict:
    """When, on what and with what versions: what may change the last digits of metrics."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


# Folders of logs, and results


def logs_folder(name: str) -> Path:
    """logs/<name>.

    Raises:
        UserError: the name, or a link there, leads out of logs/
    """
    return child_folder(LOGS, name)


def evaluation_folder(name: str, step: int) -> Path:
    """logs/<name>/evaluation-<step>: of an evaluation after training, which replaces nothing."""
    return child_folder(logs_folder(name), f"evaluation-{step:05d}")


def read_results(name: str) -> dict | None:
    """Read logs/<name>/results.json; None if there is no such file, or it is invalid."""
    try:
        results = read_json(logs_folder(name) / RESULTS_FILE)
    except UserError:
        return None
    if results is None or results.get("name") != name:  # which may be a copied folder's
        return None
    metrics, trained = results.get("figures"), results.get("trained")
    sound = type(results.get("iterations")) is int and isinstance(metrics, dict) and metrics
    sound = sound and all(type(v) in (int, float) and abs(v) < 1e300 for v in metrics.values())
    flags = isinstance(trained, dict) and all(isinstance(v, _SCALARS) for v in trained.values())
    return results if sound and (flags or trained == NOT_RECORDED) else None


def write_json(path: Path, content: dict) -> None:
    """Write an object, atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict | None:
    """Read the object in a file; None if there is no file.

    Raises:
        UserError: it cannot be read, or holds something else
    """
    try:
        content = json.loads(read_file(path, LARGEST_FILE))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): {WAYS_OUT}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (it is not an object): {WAYS_OUT}")
    return content


# Who may change a run

LOCKS = {  # seconds to wait for another process, and the message after that
    "training": (0, "is being trained by another process: wait for it, or pass another --run"),
    # Evaluation and replacement both hold this one, so one waits for the other.
    "evaluation": (
        600,
        "is still being evaluated after 600 seconds, by another process: wait, or end that process",
    ),
}


@contextlib.contextmanager
def locked(name: str, what: str) -> Iterator[None]:
    """Hold a run's lock. The system releases it when the process ends.

    Args:
        name: name of the run
        what: "training" or "evaluation"

    Raises:
        UserError: another process holds it
        OSError: its file cannot be created
    """
    wait, otherwise = LOCKS[what]
    path = checkpoints.run_folder(name).parent / ".locks" / f"{name}.{what}"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(wait)
    except filelock.Timeout:
        raise UserError(f"{name} {otherwise}") from None
    except NotImplementedError:
        raise UserError(f"the file system of {path.parent} has no locks: use another one") from None
    try:
        yield
    finally:
        lock.release()


# How one run replaces another


def set_aside(name: str) -> None:
    """Move the existing run to .replaced, in checkpoints/ and logs/, until the new run is finished.

    An existing run that is an unfinished replacement is deleted instead, and the run that it was
    replacing is kept.
    """
    weights, logs = checkpoints.run_folder(name), logs_folder(name)
    old_weights, old_logs = (_replaced(root, name) for root in (weights.parent, logs.parent))
    if not weights.exists() and not logs.exists():
        return
    with locked(name, "evaluation"):
        if not weights.exists():  # only logs are there: perhaps a move was interrupted
            _delete(logs, logs.parent) if old_logs.exists() else _move(logs, old_logs)
        elif old_weights.exists() and not _is_finished(name):
            _delete(weights, weights.parent)
            _delete(logs, logs.parent)
        else:
            _delete(old_weights, weights.parent)
            _delete(old_logs, logs.parent)
            _move(weights, old_weights)
            _move(logs, old_logs)


def forget_what_was_set_aside(name: str) -> None:
    """Delete the run that a finished one has replaced."""
    for root in (checkpoints.CHECKPOINTS, LOGS):
        _delete(_replaced(root, name), root)


def _replaced(root: Path, name: str) -> Path:
    return root / ".replaced" / name


def _is_finished(name: str) -> bool:
    folder, results = checkpoints.run_folder(name), read_results(name)
    steps = checkpoints.steps_in(folder)
    if results is not None and results["iterations"] in steps:
        return True
    return bool(steps) and not (folder / RUN_FILE).exists()  # weights that other people trained


def _move(folder: Path, place: Path) -> None:
    if folder.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)


def _delete(folder: Path, root: Path) -> None:
    """Rename a folder to a trash name, then delete all trash, also what killed processes left."""
    if folder.exists():
        folder.rename(root / f".trash-{uuid.uuid4().hex}")
    for trash in root.glob(".trash-*"):
        shutil.rmtree(trash, ignore_errors=True)
