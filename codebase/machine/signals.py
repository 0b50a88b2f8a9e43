"""Ctrl-C and SIGTERM: an exception at any moment, or a note that training looks at."""

import signal
import threading

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived.

    Args:
        number: of the signal
        where: how far the work had come
    """

    def __init__(self, number: int, where: str = ""):
        super().__init__(f"interrupted {where}".strip())
        self.number = number


def raise_on_signals() -> None:
    """From now on a signal raises Interrupted in the main thread; a second one ends the process."""

    def handle(number, frame):
        signal.signal(number, signal.SIG_DFL)
        raise Interrupted(number)

    if threading.current_thread() is threading.main_thread():  # others may set no handlers
        for number in NUMBERS:
            signal.signal(number, handle)


class Signals:
    """Notes the first SIGINT or SIGTERM in `number`; a second one acts as it did before."""

    def __enter__(self):
        self.number = None
        self._before = {}
        if threading.current_thread() is threading.main_thread():
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
