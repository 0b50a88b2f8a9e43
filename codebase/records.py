"""What a run leaves in logs/<name>/ beside its pictures: TensorBoard events and results.json."""

import contextlib
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from codebase import ROOT
from codebase.checkpoints import write_atomically

LOGS = ROOT / "logs"


def write_results(name: str, results: dict) -> Path:
    """Write logs/<name>/results.json; return its path."""
    path = LOGS / name / "results.json"
    write_atomically(path, (json.dumps(results, indent=2, default=str) + "\n").encode())
    return path


def read_results(name: str) -> dict | None:
    """What logs/<name>/results.json holds; None where there is no such file, or not a whole one."""
    try:
        return json.loads((LOGS / name / "results.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


class Events:
    """TensorBoard events of one run, by tensorboardX. Trouble with them never ends the run.

    name: str: the folder in logs/
    from_step: int: events of this step and later ones, of an interrupted run, are superseded
    """

    def __init__(self, name: str, from_step: int = 0):
        from tensorboardX import SummaryWriter  # here: 0.14 s that an evaluation can do without

        self._writer = None
        with self._or_none():
            # A queue long enough for everything between two looks at the thread that empties it:
            # that thread ends at the first write that fails, and a full queue would block for ever.
            self._writer = SummaryWriter(str(LOGS / name), max_queue=1000, purge_step=from_step)
            self._thread = self._writer.file_writer.event_writer._worker
            threading.excepthook = _quiet_in(self._thread, threading.excepthook)

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

    def close(self) -> None:
        with self._or_none():
            if self._writer is not None:
                self._writer.close()
        self._writer = None

    @contextlib.contextmanager
    def _or_none(self):
        try:
            yield
        except OSError as error:
            self._writer = None
            print(f"warning: no more TensorBoard events: {error}", file=sys.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


def _quiet_in(thread: threading.Thread, otherwise: Callable) -> Callable:
    """A threading.excepthook without the traceback of a failed write in this thread."""

    def hook(unhandled):
        if unhandled.thread is not thread or not isinstance(unhandled.exc_value, OSError):
            otherwise(unhandled)

    return hook
