"""Handlers of Ctrl-C and SIGTERM: one raises an exception, one notes the signal for training."""

import signal
import threading

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived.

    Args:
        number: of the signal
        where: the progress so far, for the message
    """

    def __init__(self, number: int, where: str = ""):
        super().__init__(f"interrupted {where}".strip())
        self.number = number


def raise_on_signals() -> dict:
    """Make a signal raise Interrupted in the main thread; the same one again ends the process.

    Returns:
        the previous handlers, by the signals' numbers
    """

    def handle(number, frame):
        signal.signal(number, signal.SIG_DFL)
        raise Interrupted(number)

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # only the main thread may set handlers
        return {}
    return {number: signal.signal(number, handle) for number in NUMBERS}


def restore(handlers: dict) -> None:
    """Set the handlers that `raise_on_signals` returned."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Signals:
    """Note the first SIGINT or SIGTERM in `number`; the second goes to the previous handler."""

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
