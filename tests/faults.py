"""Ends a process, or fills its disk, at its n-th operation on files: SQLite's way of testing.

`install` replaces Python's functions on files by ones that count. What the main thread does is the
same in every run of one command, so that each of its operations can be the one that fails. Writes
to one file in a row count as one.
"""

import builtins
import errno
import io
import os
import threading
from pathlib import Path

ENDED = 137  # exit status of a process that ended at a fault, as after SIGKILL
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


def install(root: Path, at: int, kind: str, trace: Path | None = None) -> None:
    """Make the process fail at an operation on files below a folder.

    Args:
        root: the folder
        at: number of the operation, from 1 on; 0 never fails
        kind: "end" ends the process before the operation, a write in its middle; "full" lets it and
            all that write after it fail as on a full disk
        trace: file that gets a line for each operation
    """
    Faults(str(root), at, kind, trace).install()


class Faults:
    def __init__(self, root: str, at: int, kind: str, trace: Path | None):
        self.root, self.at, self.kind, self.trace = root, at, kind, trace
        self.count, self.last = 0, None
        self.open = os.open

    def operation(self, name: str, path, needs_space: bool) -> bool:
        """Count an operation. Returns whether it is the one that fails."""
        path = path if isinstance(path, int) else os.fspath(path)
        if isinstance(path, str) and os.path.isabs(path) and not path.startswith(self.root):
            return False
        if threading.current_thread() is threading.main_thread() and (name, path) != self.last:
            self.last = name, path
            self.count += 1
            if self.trace is not None:
                descriptor = self.open(self.trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                where = path if isinstance(path, int) else Path(path).name
                posix_write(descriptor, f"{self.count} {name} {where}\n".encode())
                os.close(descriptor)
        if not self.at or self.count < self.at:
            return False
        if self.kind == "end":
            return self.count == self.at and threading.current_thread() is threading.main_thread()
        return needs_space

    def fail(self) -> None:
        if self.kind == "end":
            os._exit(ENDED)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def install(self) -> None:
        for name in ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "chmod", "fsync"):
            needs_space = name in ("mkdir", "fsync")
            setattr(os, name, self._wrapped(name, getattr(os, name), needs_space))
        os_open, builtin_open, fdopen = os.open, builtins.open, os.fdopen

        def counted_os_open(path, flags, *rest, **options):
            if flags & WRITING and self.operation("open", path, True):
                self.fail()
            return os_open(path, flags, *rest, **options)

        def counted_open(file, mode="r", *rest, **options):
            if not set(mode) & set("wax+"):
                return builtin_open(file, mode, *rest, **options)
            if self.operation("open", file, True):
                self.fail()
            return Writing(self, file, builtin_open(file, mode, *rest, **options))

        def counted_fdopen(descriptor, mode="r", *rest, **options):
            file = fdopen(descriptor, mode, *rest, **options)
            return Writing(self, descriptor, file) if "w" in mode else file

        os.open, os.fdopen = counted_os_open, counted_fdopen
        builtins.open = io.open = counted_open

    def _wrapped(self, name, function, needs_space):
        def counted(path, *rest, **options):
            if self.operation(name, path, needs_space):
                self.fail()
            return function(path, *rest, **options)

        return counted


class Writing:
    """A file that is open for writing, whose writes count."""

    def __init__(self, faults, path, file):
        self._faults, self._path, self._file = faults, path, file

    def write(self, content):
        if self._faults.operation("write", self._path, True):
            self._file.write(content[: len(content) // 2])
            self._file.flush()
            self._faults.fail()
        return self._file.write(content)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *exception):
        return self._file.__exit__(*exception)

    def __iter__(self):
        return iter(self._file)


posix_write = os.write
