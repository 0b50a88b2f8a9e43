"""A data set's files: their contents, once they are known to be what they should be."""

import hashlib
from pathlib import Path

from codebase import UserError
from codebase.machine.files import read_file

LARGEST_FILE = 2 << 30  # bytes; SVHN's is 1.3 GB


class DataError(UserError):
    """The data set is missing, damaged or unreadable."""


class NotTheFile(DataError):
    """A file is missing, or its contents are not what they should be."""


def read_checked(path: Path, md5: str) -> bytearray:
    """A file's contents: the very bytes that were found to have this checksum.

    Raises:
        NotTheFile: it is missing or damaged
        DataError: it cannot be read
    """
    try:
        content = read_file(path, LARGEST_FILE)
    except (FileNotFoundError, NotADirectoryError):
        raise NotTheFile(
            f"{path} is missing: put it there, point --data_dir to the folder that has it, or take "
            "--data auto (download, else synthetic digits)"
        ) from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): mend that, or take another --data_dir"
        ) from None
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise NotTheFile(
            f"{path} is damaged ({len(content)} bytes, MD5 {found}, not {md5}): delete it and run "
            "again, or take --data synthetic"
        )
    return content
