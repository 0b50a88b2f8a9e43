"""Files that other people wrote: read only if they are files, and not too large."""

import contextlib
import errno
import glob
import os
import stat
from pathlib import Path

from codebase.project import UserError


def read_file(path: Path, limit: int) -> bytearray:
    """Read an ordinary file of at most `limit` bytes.

    Raises:
        OSError: there is no such file, it cannot be read, it is larger, or it is something else: a
            folder, a device, or a pipe, which would keep its reader waiting for ever
    """
    if path.is_dir():  # which Windows cannot open
        raise OSError(errno.EISDIR, "it is a folder", str(path))
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not an ordinary file", str(path))
        if status.st_size > limit:
            reason = f"it has {status.st_size:,} bytes, expected at most {limit:,}"
            raise OSError(errno.EFBIG, reason, str(path))
        content = bytearray(status.st_size)
        del content[file.readinto(content) :]  # the file may have shrunk
        return content


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Delete the temporary files that a killed process left in a folder, of one name or all."""
    for path in folder.glob(f".{glob.escape(name)}*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


def child_folder(root: Path, name: str) -> Path:
    """Return root/name.

    Raises:
        UserError: the name, or a link there, leads out of the root; or the name is hidden
    """
    folder = root / name
    try:
        inside = folder.resolve().parent == root.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name of 5,000 letters, a NUL
        inside = False
    if len(name.encode(errors="replace")) > 200:  # files beside it have longer names, up to 255
        raise UserError(f"{name!r:.40} is too long for a name: rename it")
    if not name or name.startswith(".") or not inside:
        raise UserError(f"{name!r:.200} leads out of {root}, or is hidden there: use a plain name")
    return folder
