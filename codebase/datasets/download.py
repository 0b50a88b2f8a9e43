"""The real data sets: whether their files are there, and torchvision's download where not."""

import errno
import http.client
import os
import queue
import shutil
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from codebase.datasets.checked import DataError, read_checked

NETWORK_TIMEOUT = 7  # seconds without an answer; a dead network meets it four times at most
DISK_TROUBLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
}

# MD5 of the uncompressed files: torchvision checks the archives alone, and those only at download.
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
SVHN_MD5 = {"extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7"}


def reason_it_is_missing(dataset: str, data_dir: Path) -> str | None:
    """None where the files of "mnist" or "svhn" are in data_dir, or now are; else why not."""
    folder, md5 = data_dir, SVHN_MD5
    if dataset == "mnist":
        folder, md5 = data_dir / "MNIST" / "raw", MNIST_MD5
    missing = [name for name in md5 if not _exists(folder / name)]
    if not missing:
        return None
    reason = _download(dataset, folder.relative_to(data_dir), data_dir, md5)
    if reason is None:
        return None
    return f"{', '.join(missing)} not in {folder}, and no download: {reason}"


def _exists(path: Path) -> bool:
    """Whether there is something. What cannot be looked at shows its trouble when it is read."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _download(dataset: str, folder: Path, data_dir: Path, md5: dict[str, str]) -> str | None:
    """Have torchvision download a data set. Returns None, or the reason why it could not.

    It writes to a folder of its own, whose files are checked and then renamed into place: whatever
    happens, and however many do this at once, no part of a file is taken for a whole one.
    """
    from torchvision import datasets  # here: it takes nearly as long to import as torch

    if dataset == "mnist":
        urls = [mirror + datasets.MNIST.resources[0][0] for mirror in datasets.MNIST.mirrors]
    else:
        urls = [datasets.SVHN.split_list["extra"][0]]
    archives = list((data_dir / folder).glob("*.gz"))  # brought by hand, perhaps
    reason = None if len(archives) >= len(md5) else _unreachable(urls)
    if reason is not None:
        return reason
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=".download-") as temporary:
            (Path(temporary) / folder).mkdir(parents=True, exist_ok=True)
            for archive in archives:
                shutil.copy(archive, Path(temporary) / folder)
            if dataset == "mnist":
                datasets.MNIST(temporary, download=True)
            else:
                datasets.SVHN(temporary, split="extra", download=True)
            (data_dir / folder).mkdir(parents=True, exist_ok=True)
            for name in md5:
                read_checked(Path(temporary) / folder / name, md5[name])
                os.replace(Path(temporary) / folder / name, data_dir / folder / name)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException, DataError) as error:
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            raise  # not the network's
        return (str(error) or type(error).__name__).splitlines()[-1]
    finally:
        socket.setdefaulttimeout(timeout)
    return None


def _unreachable(urls: list[str]) -> str | None:
    """None once any of the servers answers; else, after the timeout at most, the reason.

    A thread for each asks, because looking up a name has no timeout of its own.
    """
    answers = queue.SimpleQueue()

    def ask(url: str) -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=NETWORK_TIMEOUT).close()
            answers.put(None)
        except urllib.error.HTTPError as error:
            answers.put(f"{url}: {error}")
        except (OSError, http.client.HTTPException) as error:
            answers.put(f"{url}: {getattr(error, 'reason', error)}")

    for url in urls:
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    reason = None
    deadline = time.monotonic() + NETWORK_TIMEOUT + 2
    for _ in urls:
        try:
            reason = answers.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            return reason or f"no answer within {NETWORK_TIMEOUT} seconds"
        if reason is None:
            return None
    return reason
