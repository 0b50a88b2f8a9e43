"""Find a data set's files under their usual names, check them, or download them."""

import gzip
import hashlib
import socket
import tempfile
import zlib
from pathlib import Path

from codebase.machine.files import one_line, write_atomically
from codebase.project import UserError

NETWORK_TIMEOUT = 7  # seconds without an answer
# MD5 of the uncompressed files: archives that were compressed anew have other ones.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
SVHN_MD5 = {"extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7"}
MD5 = {"mnist": MNIST_MD5, "svhn": SVHN_MD5}


class DataError(UserError):
    """The data set is missing, damaged or unreadable."""


def folder_of(dataset: str, data_dir: Path) -> Path:
    """Return the folder in which torchvision keeps a data set's files."""
    return data_dir / "MNIST" / "raw" if dataset == "mnist" else data_dir


def locate(dataset: str, data_dir: Path) -> dict[str, Path | None]:
    """Return the paths of a data set's files, keyed by torchvision's file names; None if missing.

    A file may also be directly in data_dir. Kaggle uses names such as train-images.idx3-ubyte,
    some archives put each file into a folder with the same name, and downloads end in .gz.
    """
    found: dict[str, Path | None] = {}
    for name in MD5[dataset]:
        written = (name, name.replace("-idx", ".idx"))
        places = [
            folder / way
            for folder in (folder_of(dataset, data_dir), data_dir)
            for one in written
            for way in (one, f"{one}.gz", f"{one}/{one}")
        ]
        found[name] = next((path for path in places if path.is_file()), None)
    return found


def read(dataset: str, name: str, data_dir: Path) -> bytes:
    """Read a data set's file, given torchvision's name for the file.

    Raises:
        DataError: the file is missing, damaged or unreadable
    """
    path = locate(dataset, data_dir)[name]
    if path is None:
        raise DataError(
            f"{folder_of(dataset, data_dir) / name} is missing: put it there, point --data_dir to "
            "the folder that has it, or pass --data auto (download, else synthetic digits)"
        )
    return read_checked(path, MD5[dataset][name])


def read_checked(path: Path, md5: str) -> bytes:
    """Read a file, unpack it if its name ends in .gz, and check the MD5 of its contents.

    Raises:
        DataError: the file is missing, damaged or unreadable
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged ({one_line(error)}): move it away") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): fix that, or pass another --data_dir"
        ) from None
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(
            f"{path} is damaged, or of another data set ({len(content)} bytes, MD5 {found}, "
            f"expected {md5}): move it away, or pass --data synthetic; for images of your own, see "
            "codebase/runs/README.md"
        )
    return content


def download(dataset: str, names: list[str], data_dir: Path) -> str | None:
    """Download files, each from the first of torchvision's mirrors that has it.

    Returns:
        None if every file was downloaded, else each mirror's error for the first file that failed

    Raises:
        OSError: the folder cannot be written
    """
    try:
        from torchvision import datasets  # imported here: it takes nearly as long as torch
        from torchvision.datasets.utils import download_url
    except (ImportError, RuntimeError) as error:  # its operators register at import
        return f"torchvision does not load ({one_line(error)}): pip install -U torch torchvision"
    if dataset == "mnist":
        mirrors, ending = datasets.MNIST.mirrors, ".gz"
    else:
        mirrors, ending = [datasets.SVHN.split_list["extra"][0].rpartition("/")[0] + "/"], ""
    folder, timeout = folder_of(dataset, data_dir), socket.getdefaulttimeout()
    folder.mkdir(parents=True, exist_ok=True)
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        for name in names:
            answers = []
            for url in (f"{mirror}{name}{ending}" for mirror in mirrors):
                with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
                    try:
                        download_url(url, temporary, name + ending)
                        content = read_checked(Path(temporary, name + ending), MD5[dataset][name])
                    except DataError:
                        answers.append(f"{url}: it sent something other than the file")
                    except Exception as error:  # whatever one mirror does, the next is asked
                        answers.append(f"{url}: {one_line(error)}")
                    else:
                        write_atomically(folder / name, content)
                        break
            else:
                return "; ".join(answers)
    finally:
        socket.setdefaulttimeout(timeout)
    return None
