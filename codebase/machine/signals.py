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


def raise_on_signals() -> dict:
    """From now on a signal raises Interrupted in the main thread; a second one ends the process.

    Returns:
        the handlers that there were, by the signals' numbers
    """

    def handle(number, frame):
        signal.signal(number, signal.SIG_DFL)
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        return {}
    return {number: signal.signal(number, handle) for number in NUMBERS}


def restore(handlers: dict) -> None:
    """Set the handlers that `raise_on_signals` returned."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


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
        restore(self._before)

    def __exit__(self, *exception):
        restore(self._before)
