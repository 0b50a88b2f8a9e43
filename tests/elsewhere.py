"""Hides what Windows lacks, and nothing else, from a process that is about to run a command."""

import builtins
import io
import os
import signal
import sys

import filelock

MODULES = ("resource", "fcntl", "pwd", "grp", "termios", "syslog", "readline")
OF_OS = (
    *("fork", "forkpty", "geteuid", "getuid", "getegid", "getgid", "setuid", "setgid", "getppid"),
    *("sched_getaffinity", "sched_setaffinity", "mkfifo", "fchmod", "fchown", "chown", "killpg"),
    *("setsid", "wait3", "wait4", "nice", "getloadavg", "O_NONBLOCK", "O_NOFOLLOW", "uname"),
)
SIGNALS = (
    *("SIGALRM", "SIGBUS", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT"),
    *("SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGXCPU"),
)


class Lock:
    """A lock of the kind that filelock has on every system, without waiting."""

    def __init__(self, path, timeout=-1):
        self.path = path

    def acquire(self):
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            raise filelock.Timeout(str(self.path)) from None

    def release(self):
        os.unlink(self.path)

    def __enter__(self):
        self.acquire()

    def __exit__(self, *error):
        self.release()


def hide_posix() -> None:
    """Hide modules, functions of os, signals and /proc; and say that this is Windows.

    os.name stays: Python's own pathlib and subprocess would use functions that are not here.
    """
    for name in MODULES:
        sys.modules[name] = None
    for module, names in ((os, OF_OS), (signal, SIGNALS)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    for module, name in (
        *((os, name) for name in ("open", "stat", "lstat", "listdir", "scandir", "readlink")),
        *((module, "open") for module in (builtins, io)),
    ):
        setattr(module, name, _without_proc(getattr(module, name)))
    filelock.FileLock = Lock  # which uses Windows' own locks there
    sys.platform = "win32"


def _without_proc(function):
    def call(path=".", *rest, **options):
        if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith("/proc"):
            raise FileNotFoundError(2, "No such file or directory", os.fsdecode(path))
        return function(path, *rest, **options)

    return call
