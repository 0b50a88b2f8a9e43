"""Write files atomically."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it, flush it to disk, and rename it.

    If the process is killed, the file has all of its old contents or all of its new contents.

    Raises:
        OSError: the file cannot be written; the old contents are unchanged
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:50]}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # which would name the temporary file, or none
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message; the error's class if it has no message."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
