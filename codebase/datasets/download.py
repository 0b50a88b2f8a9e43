"""A data set's files: checked when they are read, and downloaded if they are missing."""

import errno
import gzip
import hashlib
import http.client
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from codebase import UserError
from codebase.machine.files import one_line, read_file, write_atomically

NETWORK_TIMEOUT = 7  # seconds without an answer
DISK_TROUBLE = {
    errno.ENOSPC,
    getattr(errno, "EDQUOT", errno.ENOSPC),
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
}

# MD5 of the uncompressed files: archives that were compressed anew have other ones.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
SVHN_MD5 = {"extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7"}
LARGEST_FILE = 2 << 30  # bytes; SVHN's is 1.3 GB


class DataError(UserError):
    """The data set is missing, damaged or unreadable."""


def read_checked(path: Path, md5: str, packed: bool = False) -> bytearray | bytes:
    """Read a file, check its MD5, and return the bytes that were checked.

    Args:
        path: path of the file
        md5: MD5 of its contents
        packed: whether the file is a gzip archive of these contents

    Raises:
        DataError: it is missing, damaged or unreadable
    """
    try:
        content = read_file(path, LARGEST_FILE)
        content = gzip.decompress(content) if packed else content
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{path} is missing: put it there, point --data_dir to the folder that has it, or pass "
            "--data auto (download, else synthetic digits)"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        reason = one_line(error)
        raise DataError(f"{path} is damaged ({reason}): move it away and run again") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): fix that, or pass another --data_dir"
        ) from None
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(
            f"{path} is damaged, or of another data set ({len(content)} bytes, MD5 {found}, "
            f"expected {md5}): move it away and run again, or pass --data synthetic; for images of "
            "your own, see the README"
        )
    return content


def reason_it_is_missing(dataset: str, data_dir: Path) -> str | None:
    """Return None if the files are in data_dir after unpacking and downloading, else the reason.

    Args:
        dataset: "mnist", whose archives may lie in its folder, or "svhn"
        data_dir: folder of the data sets
    """
    folder, md5 = data_dir, SVHN_MD5
    if dataset == "mnist":
        folder, md5 = data_dir / "MNIST" / "raw", MNIST_MD5
        for name in md5:
            if not _exists(folder / name) and _exists(folder / f"{name}.gz"):
                content = read_checked(folder / f"{name}.gz", md5[name], packed=True)
                write_atomically(folder / name, content)
    missing = [name for name in md5 if not _exists(folder / name)]
    if not missing:
        return None
    reason = _download(dataset, missing, folder, md5)
    if reason is None:
        return None
    what = dataset.upper()
    if len(missing) < len(md5):
        what += f" ({', '.join(missing)})"
    return f"{what} is not in {folder}, and could not be downloaded: {reason}"


def _exists(path: Path) -> bool:
    """Return whether a path exists. An unreadable path counts: reading it raises the error."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _download(dataset: str, names: list[str], folder: Path, md5: dict[str, str]) -> str | None:
    """Download files, each from the first of torchvision's mirrors that gives it.

    Returns:
        None if every file was downloaded, else what each mirror answered for the first failure
    """
    try:
        from torchvision import datasets  # imported here: it takes nearly as long as torch
        from torchvision.datasets.utils import download_url
    except (ImportError, RuntimeError, OSError) as error:  # its operators register at import
        return (
            f"torchvision does not load ({one_line(error)}): python -m pip install --upgrade "
            "--force-reinstall torch torchvision"
        )
    if dataset == "mnist":
        mirrors, ending = list(datasets.MNIST.mirrors), ".gz"
    else:
        mirrors, ending = [datasets.SVHN.split_list["extra"][0].rpartition("/")[0] + "/"], ""
    silent = _silent([mirror + names[0] + ending for mirror in mirrors])
    answering = [mirror for mirror in mirrors if mirror + names[0] + ending not in silent]
    if not answering:
        return _said(silent)
    folder.mkdir(parents=True, exist_ok=True)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        for name in names:
            trouble = dict(silent)
            for url in (mirror + name + ending for mirror in answering):
                try:
                    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
                        download_url(url, temporary, name)
                        content = read_checked(Path(temporary, name), md5[name], ending == ".gz")
                        write_atomically(folder / name, content)
                    break
                except DataError:
                    trouble[url] = "it sent something other than the file"
                except Exception as error:  # whatever one mirror does, the next is asked
                    if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
                        raise
                    trouble[url] = one_line(error)
            else:
                return _said(trouble)
    finally:
        socket.setdefaulttimeout(timeout)
    return None


def _said(trouble: dict[str, str]) -> str:
    return "; ".join(f"{url}: {answer}" for url, answer in trouble.items())


def _silent(urls: list[str]) -> dict[str, str]:
    """Return the URLs that do not answer in time, with the reasons.

    Each is asked in its own thread, because a name look-up has no timeout.
    """
    found = dict.fromkeys(urls, f"no answer within {NETWORK_TIMEOUT} seconds")

    def ask(url: str) -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=NETWORK_TIMEOUT).close()
        except urllib.error.HTTPError:
            pass  # it answered; the download will show whether the file exists
        except (OSError, ValueError, http.client.HTTPException) as error:
            found[url] = one_line(getattr(error, "reason", error))
            return
        del found[url]

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + NETWORK_TIMEOUT + 2
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    return dict(found)
