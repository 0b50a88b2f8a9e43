"""Standard output and error that may be closed, full or cut off: a training outlives them."""

import os
import sys


class Stream:
    """A text stream whose failure is noted in `lost`, and after which nothing more is written."""

    def __init__(self, stream):
        self._stream = stream
        self.lost = None if stream is not None else "it is closed"

    def write(self, text: str) -> int:
        if self.lost is None:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        self.lost = getattr(error, "strerror", None) or str(error)
        # What is buffered still would be written at exit, and fail again.
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        except (OSError, ValueError):
            pass

    def isatty(self) -> bool:
        return self.lost is None and self._stream.isatty()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def keep_going() -> None:
    """From now on no failure of standard output or error ends what the process does.

    A closed descriptor is opened to nowhere: the next file would else get its number, and with it
    what libraries write to standard error.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, Stream):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # of a name that ASCII does not have
        setattr(sys, name, Stream(stream))


def loss_of_output() -> str | None:
    """Why standard output could not be written; None where it could."""
    sys.stdout.flush()
    return getattr(sys.stdout, "lost", None)
