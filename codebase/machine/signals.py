"""Ctrl-C and SIGTERM: an exception at any moment, or a note that training looks at."""

import os
import signal
import threading

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interruption(BaseException):
    """SIGINT or SIGTERM arrived."""

    def __init__(self, number: int):
        super().__init__("interrupted")
        self.number = number


def _raise(number, frame):
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise Interruption(number)


def end_quietly_on_signals() -> None:
    """While packages are imported: end at once, without a traceback."""
    for number in NUMBERS:
        signal.signal(number, lambda number, frame: os._exit(128 + number))


def raise_on_signals() -> None:
    """From now on a signal raises Interruption, wherever the main thread is."""
    for number in NUMBERS:
        signal.signal(number, _raise)


class Signals:
    """Notes the first SIGINT or SIGTERM in `number`; a second one acts as it did before."""

    def __enter__(self):
        self.number = None
        self._before = {}
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may set handlers
        for number in NUMBERS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, frame):
        self.number = number
        self._restore()

    def _restore(self):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *exception):
        self._restore()
