"""What runs leave behind on disk beside weights and pictures.

checkpoints/<name>/run.json, written before the first weights, says what determines them; no later
command changes it. logs/<name>/results.json has the figures; TensorBoard's events lie beside it.
"""

import contextlib
import datetime
import json
import platform
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from codebase import ROOT, UserError, checkpoints
from codebase.machine.files import child_folder, one_line, read_file, write_atomically
from codebase.runs.experiment import Run

LOGS = ROOT / "logs"
RECORD_FILE = "run.json"
RESULTS_FILE = "results.json"
LARGEST_FILE = 1 << 20  # bytes
NOT_RECORDED = "not recorded"  # of weights without a record, which other people trained


class RecordError(UserError):
    """A record is damaged, or of another run."""


# The record of a run: its identity


@dataclass(frozen=True)
class Record:
    """What is written before a run's first weights.

    Args:
        run: its identity
        together: numbers of the runs that are trained with it as one ensemble, its own among them;
            empty where it is trained alone
    """

    run: Run
    together: tuple[int, ...] = ()


def write_record(record: Record, device: torch.device) -> None:
    """Write checkpoints/<name>/run.json."""
    content = {"run": record.run.identity(), "together": list(record.together)}
    content |= circumstances(device)
    write_json(checkpoints.run_folder(record.run.name) / RECORD_FILE, content)


def read_record(folder: Path) -> Record | None:
    """The record in a run's folder; None where there is none.

    Raises:
        RecordError: it is damaged
    """
    path = folder / RECORD_FILE
    content = read_json(path)
    if content is None:
        return None
    together = content.get("together")
    try:
        if not isinstance(content.get("run"), dict):
            raise ValueError("it describes no run")
        if not isinstance(together, list) or not all(type(n) is int for n in together):
            raise ValueError("together is no list of numbers")
        return Record(Run.from_identity(content["run"]), tuple(together))
    except ValueError as error:
        raise RecordError(f"{path} is damaged ({error}): {_WAYS_OUT}") from None


_WAYS_OUT = "delete it to evaluate the weights as not recorded, or take --overwrite 1 to train anew"


def circumstances(device: torch.device) -> dict:
    """When, on what and with what versions: what may change the last digits of figures."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


# Results


def logs_folder(name: str) -> Path:
    """logs/<name>.

    Raises:
        UserError: the name, or a link there, leads out of logs/
    """
    return child_folder(LOGS, name)


def evaluation_folder(name: str, step: int) -> Path:
    """logs/<name>/evaluation-<step>: of an evaluation after training, which replaces nothing."""
    return child_folder(logs_folder(name), f"evaluation-{step:05d}")


def reference_logs_folder(name: str) -> Path:
    """logs/reference/<name>: of evaluations of the weights that come with the project."""
    return child_folder(LOGS / checkpoints.REFERENCE, name)


def results(run: Run, step: int, figures: dict[str, float], device: torch.device) -> dict:
    """The figures of a run's weights, as results.json has them."""
    return {
        "name": run.name,
        "data": run.data,
        "seed": run.seed,
        "iterations": step,
        "trained": run.identity(),
        **circumstances(device),
        "figures": figures,
    }


def write_results(folder: Path, results: dict) -> Path:
    """Write results.json into a folder; return its path."""
    path = folder / RESULTS_FILE
    write_json(path, results)
    return path


def read_results(name: str) -> dict | None:
    """What logs/<name>/results.json holds; None where there is no such file, or not a sound one."""
    try:
        results = read_json(logs_folder(name) / RESULTS_FILE)
    except UserError:
        return None
    if results is None or not _is_sound(results):
        return None
    return results


def _is_sound(results: dict) -> bool:
    figures = results.get("figures")
    if type(results.get("iterations")) is not int or not isinstance(figures, dict) or not figures:
        return False
    if not all(type(value) in (int, float) and abs(value) < 1e300 for value in figures.values()):
        return False
    if results.get("trained") == NOT_RECORDED:
        return isinstance(results.get("name"), str)
    return run_of(results) is not None


def run_of(results: dict) -> Run | None:
    """The run whose results these are; None where it is not recorded."""
    try:
        return Run.from_identity(results["trained"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def finished(run: Run, iterations: int) -> dict | None:
    """The results of a run that was trained so far and evaluated, else None."""
    results = read_results(run.name)
    if results is None or results["iterations"] != iterations or run_of(results) != run:
        return None
    return results


# JSON


def write_json(path: Path, content: dict) -> None:
    """Write an object, atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict | None:
    """The object in a file; None where there is no file.

    Raises:
        RecordError: it cannot be read, or holds something else
    """
    try:
        content = json.loads(read_file(path, LARGEST_FILE))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged ({one_line(error)}): {_WAYS_OUT}") from None
    if not isinstance(content, dict):
        raise RecordError(f"{path} is damaged (it holds no object): {_WAYS_OUT}")
    return content


# TensorBoard


class Events:
    """TensorBoard events of one run, by tensorboardX. Trouble with them never ends the run.

    Args:
        folder: where they are written
        from_step: int: events of this step and later ones, of an interrupted run, are superseded
    """

    def __init__(self, folder: Path, from_step: int = 0):
        from tensorboardX import SummaryWriter  # here: 0.14 s that an evaluation can do without

        self._folder, self._writer = folder, None
        threading.excepthook = _without_traceback(threading.excepthook)
        with self._or_none():
            # A queue long enough for everything between two looks at the thread that empties it:
            # that thread ends at the first write that fails, and a full queue would block for ever.
            self._writer = SummaryWriter(str(folder), max_queue=1000, purge_step=from_step)
            self._thread = self._writer.file_writer.event_writer._worker
            self._queue = self._writer.file_writer.event_writer._event_queue

    def scalars(self, step: int, scalars: dict[str, float]) -> None:
        """Record each tag's value."""
        for tag, value in scalars.items():
            self.add(lambda writer, tag=tag, value=value: writer.add_scalar(tag, value, step))

    def add(self, record: Callable) -> None:
        """Call record(writer) with the SummaryWriter, unless writing has failed before."""
        with self._or_none():
            if self._writer is not None:
                if not self._thread.is_alive():
                    raise OSError("the last events could not be written")
                record(self._writer)

    def hyperparameters(self, values: dict, metrics: dict[str, float]) -> None:
        """What TensorBoard's hparams tab compares: it wants a file of its own, with the metrics."""
        from tensorboardX.summary import hparams

        with Events(self._folder / "hparams") as events:
            for summary in hparams(values, metrics):
                events.add(lambda writer, summary=summary: writer.file_writer.add_summary(summary))
            events.scalars(0, metrics)

    def close(self) -> None:
        with self._or_none():
            if self._writer is not None:
                self._writer.close()  # returns when that thread has written everything, or died
                self._queue.cancel_join_thread()
        self._writer = None

    @contextlib.contextmanager
    def _or_none(self):
        try:
            yield
        except OSError as error:
            if self._writer is not None:
                # Nothing reads the queue any more: the process's end would wait for it for ever.
                self._queue.cancel_join_thread()
            self._writer = None
            print(f"warning: no more TensorBoard events: {error}", file=sys.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def _without_traceback(otherwise: Callable) -> Callable:
    """A threading.excepthook that says nothing of tensorboardX's threads: `Events.add` does."""

    def hook(unhandled):
        if not type(unhandled.thread).__module__.startswith("tensorboardX"):
            otherwise(unhandled)

    return hook
