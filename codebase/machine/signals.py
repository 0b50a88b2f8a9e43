"""Handlers of Ctrl-C and SIGTERM: one raises an exception, one notes the signal for training."""

import signal
import threading

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived.

    Args:
        number: number of the signal
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
    return _set(handle)


def end_on_signals() -> dict:
    """Make a signal end the process at once: an exception inside an import may be swallowed.

    Returns:
        the previous handlers, by the signals' numbers
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return _set(signal.SIG_DFL)


def _set(handler) -> dict:
    """Set a handler, except for signals that the parent process has chosen to ignore."""
    heard = [number for number in NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def restore(handlers: dict) -> None:
    """Set the handlers that `raise_on_signals` or `end_on_signals` returned."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Signals:
    """Note the first SIGINT or SIGTERM in `number`; the second goes to the previous handler."""

    def __enter__(self):
        self.number = None
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = _set(self._note)
        return self

    def _note(self, number, frame):
        self.number = number
        restore(self._before)

    def __exit__(self, *exception):
        restore(self._before)
