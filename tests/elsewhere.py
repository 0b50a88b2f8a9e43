"""Hides what Windows lacks, and nothing else, from a process that is about to run a command."""

import contextlib
import importlib
import os
import signal
import sys

import filelock

from codebase import figures
from codebase.models import VAE

MODULES = ("resource", "fcntl", "pwd", "grp", "termios", "syslog", "readline")
OF_OS = (
    *("fork", "geteuid", "getuid", "getegid", "getgid", "setuid", "setgid", "sched_getaffinity"),
    *("mkfifo", "fchmod", "fchown", "chown", "killpg", "setsid", "nice", "getloadavg", "uname"),
    *("O_NONBLOCK", "O_NOFOLLOW"),
)
SIGNALS = ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def hide_posix() -> None:
    """Hide modules, functions of os and signals; and say that this is Windows.

    os.name stays: Python's own pathlib and subprocess would use functions that are not here.
    """
    for name in ("tensorboardX", "torchvision", "scipy.stats"):  # other packages know Windows
        importlib.import_module(name)
    figures.png(figures.sample_sheet(VAE()), "x")
    for name in MODULES:
        sys.modules[name] = None
    for module, names in ((os, OF_OS), (signal, SIGNALS)):
        for name in names:
            delattr(module, name)
    filelock.FileLock = lambda path, **_: contextlib.nullcontext()  # it uses Windows' own there
    sys.platform = "win32"
