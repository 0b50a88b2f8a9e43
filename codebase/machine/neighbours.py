"""Beside a busy process: OpenMP's threads stop spinning while others want their processors.

A thread that has done its part of a parallel region spins for a while, because the next region
mostly begins within microseconds and waking a sleeping thread takes longer. Where the thread that
it waits for has been put aside for another process, it spins for all of that process's time slice:
beside two busy loops on two cores a VAE trained at 2 to 25 % of its rate alone. Without spinning it
trains at a third to a half there, but only half as fast alone. So a thread of this module looks at
how long the process has waited for a processor, and switches. (Threads that keep to a processor
each trained at a quarter.)

GNU's OpenMP reads how long to spin only once, but spins a thousandth of it while the process has
more OpenMP threads than there are processors. Idle teams of threads, which some threads of Python
hold, make it so, and no figure changes: the team that computes stays as large as it was.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

EVERY = 0.2  # seconds between two looks
BUSY, QUIET = 0.25, 0.1  # seconds of waiting a second, of all threads together
PATIENCE = 3  # quiet looks after which the threads spin again
MOST_HOLDERS = 64
ITS_OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_DYNAMIC", "OMP_THREAD_LIMIT")
TASKS = Path("/proc/self/task")


def seconds_waited() -> float:
    """How long this process's threads were ready to run while others had the processors.

    Raises:
        OSError, ValueError, IndexError: the system does not tell
    """
    waited = 0
    for task in TASKS.iterdir():
        try:
            waited += int((task / "schedstat").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):  # the thread has just ended
            pass
    return waited / 1e9


def holders_needed() -> int:
    """How many threads, each with an idle team, make more OpenMP threads than processors."""
    threads, processors = torch.get_num_threads(), len(os.sched_getaffinity(0))
    return (processors - threads) // (threads - 1) + 1


class Watch(threading.Thread):
    """Switches spinning off while the processors are wanted by others.

    Args:
        waited: tells the seconds of waiting so far
        count: of the threads that hold idle teams
    """

    def __init__(self, waited: Callable[[], float], count: int):
        super().__init__(name="neighbours", daemon=True)
        self._waited, self._count = waited, count
        self._release: threading.Event | None = None  # set to end the holders; None: no holders
        self._quiet = 0
        self._last = waited()

    @property
    def spins(self) -> bool:
        return self._release is None

    def look(self, seconds: float) -> None:
        """Compare the waiting since the last look, so many seconds ago, and switch."""
        now = self._waited()
        share, self._last = (now - self._last) / seconds, now
        self._quiet = self._quiet + 1 if share < QUIET else 0
        if self.spins and share > BUSY:
            self._hold()
        elif not self.spins and self._quiet >= PATIENCE:
            self.let_go()

    def _hold(self) -> None:
        self._release = threading.Event()
        for _ in range(self._count):
            threading.Thread(target=_hold_a_team, args=(self._release,), daemon=True).start()

    def let_go(self) -> None:
        if self._release is not None:
            self._release.set()
        self._release = None

    def run(self) -> None:
        then = time.perf_counter()
        while True:
            time.sleep(EVERY)
            now = time.perf_counter()
            self.look(now - then)
            then = now


def _hold_a_team(release: threading.Event) -> None:
    torch.zeros(1 << 18).add_(1)  # large enough for all threads; the team stays with this thread
    release.wait()


_watch: Watch | None = None


def watch() -> Watch | None:
    """Begin to watch, once, where GNU's OpenMP is used and its user has not set it up otherwise."""
    global _watch
    if _watch is not None or any(name in os.environ for name in ITS_OWN):
        return _watch
    if torch.get_num_threads() < 2 or not hasattr(os, "sched_getaffinity"):
        return None
    try:
        if "libgomp" not in Path("/proc/self/maps").read_text():
            return None
        count = holders_needed()
        if not 0 < count <= MOST_HOLDERS:
            return None
        _watch = Watch(seconds_waited, count)
    except (OSError, ValueError, IndexError):
        return None
    _watch.start()
    return _watch
