"""Progress bars: on a terminal tqdm's, elsewhere a line a minute."""

import sys

from tqdm import tqdm

LINE_EVERY = 60  # seconds, where there is no terminal
LINE_FORMAT = "{desc}: {n_fmt} of {total_fmt} {unit}, {elapsed}, {remaining} left{postfix}"


def bar(**options) -> tqdm:
    """tqdm's bar; where standard error is no terminal, lines of text."""
    if not sys.stderr.isatty():
        options |= {
            "file": _Lines(sys.stderr),
            "mininterval": LINE_EVERY,
            "maxinterval": LINE_EVERY,
            "miniters": 1,
            "bar_format": LINE_FORMAT,
            "leave": True,
            "position": 0,
        }
    return tqdm(**options)


class _Lines:
    """A file for tqdm, which rewrites its line: here each text is a line of its own."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> None:
        text = text.strip("\r\n\x1b[A ")
        if text:
            self._stream.write(text + "\n")

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str):
        return getattr(self._stream, name)
