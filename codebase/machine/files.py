"""Files that are written whole or not at all, and read only if they are files."""

import contextlib
import errno
import glob
import os
import stat
import tempfile
from pathlib import Path

from codebase import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, flush it to disk, and rename it.

    Whenever the process is killed, the path holds its old contents or its new, never a part.

    Raises:
        OSError: the folder or the disk refuses; the old contents are untouched
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # a temporary file's 0600 would shut others out
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


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
    """root/name.

    Raises:
        UserError: the name, or a link there, leads out of the root; or the name is hidden
    """
    folder = root / name
    try:
        inside = folder.resolve().parent == root.resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name of 5,000 letters, a NUL
        inside = False
    if len(name.encode(errors="replace")) > 200:  # files beside it have longer names, up to 255
        raise UserError(f"{name!r:.40} is too long for the name of a run: omit flags, or rename it")
    if not name or name.startswith(".") or not inside:
        raise UserError(f"{name!r:.200} leads out of {root}, or is hidden there: use a plain name")
    return folder


def one_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
