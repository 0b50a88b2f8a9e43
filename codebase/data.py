"""MNIST and SVHN as tensors in memory, minibatches drawn from them, and the two fixed subsets.

Reading is torchvision's; this module finds or downloads the files, checks them, and keeps the
images as bytes. A `source` is "mnist" or "svhn" for the real data set, "synthetic" for the digits
that `codebase.synthetic` draws, or "auto" for the real one if it can be had at all.
"""

import errno
import hashlib
import http.client
import os
import queue
import shutil
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file

from codebase import ROOT, UserError, synthetic

DATA_DIR = ROOT / "data"
NUM_CLASSES = 10
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
# The homework's fixed subsets: for each digit, ten positions within its class, in file order.
TEST_SUBSET = (
    (684, 559, 629, 192, 835, 763, 707, 359, 9, 723),
    (277, 599, 1094, 600, 314, 705, 551, 87, 174, 849),
    (537, 845, 72, 777, 115, 976, 755, 448, 850, 99),
    (984, 177, 755, 797, 659, 147, 910, 423, 288, 961),
    (265, 697, 639, 544, 543, 714, 244, 151, 675, 510),
    (459, 882, 183, 28, 802, 128, 128, 53, 550, 488),
    (756, 273, 335, 388, 617, 42, 442, 543, 888, 257),
    (57, 291, 779, 430, 91, 398, 611, 908, 633, 84),
    (203, 324, 774, 964, 47, 639, 131, 972, 868, 180),
    (1000, 846, 143, 660, 227, 954, 791, 719, 909, 373),
)
LABELLED_SUBSET = (
    (2732, 2607, 1653, 3264, 4931, 4859, 5827, 1033, 4373, 5874),
    (5924, 3468, 6458, 705, 2599, 2135, 2222, 2897, 1701, 537),
    (2893, 2163, 5072, 4851, 2046, 1871, 2496, 99, 2008, 755),
    (797, 659, 3219, 423, 3337, 2745, 4735, 544, 714, 2292),
    (151, 2723, 3531, 2930, 1207, 802, 2176, 2176, 1956, 3622),
    (3560, 756, 4369, 4484, 1641, 3114, 4984, 4353, 4071, 4009),
    (2105, 3942, 3191, 430, 4187, 2446, 2659, 1589, 2956, 2681),
    (4180, 2251, 4420, 4870, 1071, 4735, 6132, 5251, 5068, 1204),
    (3918, 1167, 1684, 3299, 2767, 2957, 4469, 560, 5425, 1605),
    (5795, 1472, 3678, 256, 3762, 5412, 1954, 816, 2435, 1634),
)


class DataError(UserError):
    """The data set is missing, damaged or unreadable."""


# Minibatches


class Minibatches:
    """Minibatches of images in memory, reshuffled every epoch: an iterable of tuples of tensors.

    images: uint8 tensor: (n, x_dim): grey levels or colours; a minibatch has them divided by 255
    targets: tensors: (n, ...): what else each minibatch holds of its images, such as labels
    batch_size: int: the last minibatch of an epoch has what is left
    binarised: bool: draw each pixel afresh from a Bernoulli at every use
    labelled: (xl, yl): a labelled subset to add, whole, to every minibatch
    replicates: int: where not None, every tensor gains a first dimension of this size, along which
        the order of the images and the draws are independent

    All draws come from torch's global generators. `state_dict` and `load_state_dict` keep the
    position in the epoch, so that a resumed run sees the images that an uninterrupted one would.
    """

    def __init__(
        self,
        images: Tensor,
        *targets: Tensor,
        batch_size: int = 97,
        binarised: bool = True,
        labelled: tuple[Tensor, Tensor] | None = None,
        replicates: int | None = None,
    ):
        self.images, self.targets = images, targets
        self.batch_size, self.binarised, self.labelled = batch_size, binarised, labelled
        self.replicates = replicates
        self._left = torch.empty(0, dtype=torch.int64)  # of the order of the epoch under way
        self._resumed = None

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        left, self._resumed = self._resumed, None
        if left is None:
            left = self._new_order()
        order = left.to(self.images.device)  # once an epoch: a copy makes the host wait
        for start in range(0, order.shape[-1], self.batch_size):
            stop = start + self.batch_size
            self._left = left[..., stop:]
            yield self.minibatch(order[..., start:stop])

    def _new_order(self) -> Tensor:
        n = len(self.images)
        if self.replicates is None:
            return torch.randperm(n)
        return torch.stack([torch.randperm(n) for _ in range(self.replicates)])

    def minibatch(self, index: Tensor) -> tuple[Tensor, ...]:
        """The minibatch of the images at these positions: (batch,), or (replicates, batch)."""
        # index_select copies whole rows: 9 μs, where images[index] takes 56 byte by byte.
        x = self.images.index_select(0, index.flatten()).unflatten(0, index.shape)
        x = x.float() / 255
        batch = (binarise(x) if self.binarised else x, *(t[index] for t in self.targets))
        if self.labelled is None:
            return batch
        xl, yl = (t.expand(*index.shape[:-1], *t.shape) for t in self.labelled)
        return *batch, binarise(xl) if self.binarised else xl, yl

    def replicated(self, replicates: int) -> "Minibatches":
        """The same minibatches for several models at once: see `replicates`."""
        return Minibatches(
            self.images,
            *self.targets,
            batch_size=self.batch_size,
            binarised=self.binarised,
            labelled=self.labelled,
            replicates=replicates,
        )

    def without_labels(self, labelled: tuple[Tensor, Tensor] | None = None) -> "Minibatches":
        """Minibatches of the images alone: (x,), or (x, xl, yl) with a labelled subset."""
        return Minibatches(
            self.images,
            batch_size=self.batch_size,
            binarised=self.binarised,
            labelled=labelled,
        )

    def state_dict(self) -> dict[str, Tensor]:
        return {"left": self._left.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._resumed = state["left"] if state["left"].numel() else None


def binarise(p: Tensor) -> Tensor:
    """x ~ Bernoulli(p) for each pixel, as floats. p: tensor of any shape: values in [0, 1]

    A uniform draw compared with p takes 0.19 ms for a minibatch on two cores; `torch.bernoulli`,
    which draws the same way one element at a time, 0.71 ms.
    """
    return torch.rand_like(p).lt_(p)


def one_hot(labels: Tensor) -> Tensor:
    """Labels (n,) as floats (n, 10)."""
    return F.one_hot(labels, NUM_CLASSES).float()


# The data sets


def find(dataset: str, source: str = "auto", data_dir: Path | str = DATA_DIR) -> str:
    """The source to read: the real data set, downloaded where it is not there, or "synthetic".

    dataset: "mnist" or "svhn"
    source: "auto" for the real one if at all possible, else "synthetic"; `dataset` for the real one
        and no other; or "synthetic"
    data_dir: the folder that torchvision's MNIST and SVHN use

    Raises DataError where `source` demands the real one and it cannot be had, and where its folder
    cannot be read or written.
    """
    if source == "synthetic":
        return source
    data_dir = Path(data_dir)
    if dataset == "mnist":
        kind, folder, md5 = datasets.MNIST, data_dir / "MNIST" / "raw", MNIST_MD5
        urls = [mirror + kind.resources[0][0] for mirror in kind.mirrors]
    else:
        url, name, file_md5 = datasets.SVHN.split_list["extra"]
        kind, folder, md5, urls = datasets.SVHN, data_dir, {name: file_md5}, [url]
    missing = [name for name in md5 if not _exists(folder / name)]
    if not missing:
        return dataset
    reason = _download(kind, folder.relative_to(data_dir), data_dir, md5, urls)
    if reason is None:
        return dataset
    trouble = f"{', '.join(missing)} not in {folder}, and no download: {reason}"
    if source == "auto":
        print(f"{dataset.upper()}: {trouble}", file=sys.stderr)
        return "synthetic"
    raise DataError(
        f"--data {dataset}: {trouble}; put the files there, name another --data_dir, or take "
        "--data synthetic"
    )


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): mend its permissions") from None
    return True


def _download(
    kind: type, folder: Path, data_dir: Path, md5: dict[str, str], urls: list[str]
) -> str | None:
    """Have torchvision download a data set. Returns None, or the reason why it could not.

    It writes to a folder of its own, whose files are checked and then renamed into place: whatever
    happens, and however many do this at once, no part of a file is taken for a whole one.
    """
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
            if kind is datasets.MNIST:
                kind(temporary, download=True)
            else:
                kind(temporary, split="extra", download=True)
            (data_dir / folder).mkdir(parents=True, exist_ok=True)
            for name in md5:
                check_file(Path(temporary) / folder / name, md5[name])
                os.replace(Path(temporary) / folder / name, data_dir / folder / name)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:
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


def get_mnist_data(
    device: torch.device | str,
    use_test_subset: bool = True,
    data_dir: Path | str = DATA_DIR,
    source: str = "mnist",
    batch_size: int = 97,
    binarised: bool = True,
    train_set: bool = True,
) -> tuple[Minibatches, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training minibatches, a fixed subset of 100 images, and the test set.

    device: where the tensors are put
    use_test_subset: True for the likelihood test subset, binarised once; False for the labelled
        images of the semi-supervised model, in grey levels
    data_dir: the folder that torchvision's MNIST uses
    source: "mnist", which is downloaded if it is not there, "synthetic", or "auto": see `find`
    batch_size: images in a minibatch
    binarised: False leaves the grey levels everywhere, for a model of them
    train_set: False leaves the training images unread, for an evaluation on the test subset: there
        are no minibatches then

    Returns (train_loader, (xl, yl), (X_test, y_test)): minibatches of (x, label), x (97, 784)
    binarised; the subset (100, 784) with one-hot labels (100, 10); X_test (10000, 784) grey levels
    in [0, 1], y_test (10000,) labels. Raises DataError where a file is missing or damaged.
    """
    source = find("mnist", source, data_dir)
    test_x, test_y = _read_digits(Path(data_dir), source, train=False)
    train_x, train_y = test_x[:0], test_y[:0]
    if train_set or not use_test_subset:
        train_x, train_y = _read_digits(Path(data_dir), source, train=True)
    if use_test_subset:
        index = subset_index(test_y, TEST_SUBSET)
        xl, yl = test_x[index].double() / 255, test_y[index]
        if binarised:
            xl = torch.from_numpy(np.random.RandomState(0).binomial(1, xl.numpy()))
    else:
        index = subset_index(train_y, LABELLED_SUBSET)
        xl, yl = train_x[index].double() / 255, train_y[index]
    xl = xl.float()
    loader = Minibatches(
        train_x.to(device), train_y.to(device), batch_size=batch_size, binarised=binarised
    )
    subset = xl.to(device), one_hot(yl).to(device)
    return loader, subset, (test_x.to(device).float() / 255, test_y.to(device))


def get_svhn_data(
    device: torch.device | str,
    data_dir: Path | str = DATA_DIR,
    source: str = "svhn",
    batch_size: int = 100,
) -> tuple[Minibatches, tuple[Tensor, Tensor], tuple[None, None]]:
    """Training minibatches of SVHN's `extra` split, and its first 100 images.

    device: where the tensors are put
    data_dir: the folder that torchvision's SVHN uses
    source: "svhn", which is downloaded if it is not there, "synthetic", or "auto": see `find`
    batch_size: images in a minibatch

    Returns (train_loader, (x, y), (None, None)): minibatches of (x, y), x (100, 3072) in [0, 1],
    y (100, 10) one-hot; the first 100 images likewise. The homework holds no SVHN images back for a
    test. Raises DataError where the file is missing or damaged.
    """
    source = find("svhn", source, data_dir)
    images, labels = _read_house_numbers(Path(data_dir), source)
    images, labels = images.to(device), one_hot(labels).to(device)
    loader = Minibatches(images, labels, batch_size=batch_size, binarised=False)
    return loader, (images[:100].float() / 255, labels[:100]), (None, None)


def examples(
    subset: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor] | tuple[None, None], binary: bool
) -> tuple[Tensor, Tensor]:
    """100 images to show, with one-hot labels: the test set's first ten of each digit.

    Where there is no test set, the subset.
    """
    images, labels = test
    if images is None:
        return subset
    index = subset_index(labels, (range(10),) * NUM_CLASSES)
    return binarise(images[index]) if binary else images[index], one_hot(labels[index])


def subset_index(labels: Tensor, positions: tuple[tuple[int, ...], ...]) -> Tensor:
    """The index of each position within its class: labels (n,), class by class → (100,)."""
    return torch.cat([(labels == c).nonzero()[list(p), 0] for c, p in enumerate(positions)])


def _read_digits(data_dir: Path, source: str, train: bool) -> tuple[Tensor, Tensor]:
    """uint8 images (n, 784) and labels (n,) of MNIST, or of the synthetic digits in its place."""
    if source == "synthetic":
        data_dir, md5 = synthetic.make_digits(data_dir), synthetic.DIGITS_MD5
    else:
        md5 = MNIST_MD5
    prefix = "train" if train else "t10k"
    for name in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
        check_file(data_dir / "MNIST" / "raw" / name, md5[name])
    mnist = datasets.MNIST(data_dir, train=train)
    return mnist.data.flatten(1), mnist.targets


def _read_house_numbers(data_dir: Path, source: str) -> tuple[Tensor, Tensor]:
    """uint8 images (n, 3072) and labels (n,) of SVHN, or of the synthetic digits in its place."""
    if source == "synthetic":
        folder = synthetic.make_house_numbers(data_dir)
        for name, md5 in synthetic.HOUSE_NUMBERS_MD5.items():
            check_file(folder / name, md5)
        planes = read_image_file(folder / "train-images-idx3-ubyte")  # a colour plane after another
        return planes.view(-1, 3072), read_label_file(folder / "train-labels-idx1-ubyte")
    _, name, md5 = datasets.SVHN.split_list["extra"]
    check_file(data_dir / name, md5)
    svhn = datasets.SVHN(data_dir, split="extra")
    return torch.from_numpy(np.ascontiguousarray(svhn.data)).flatten(1), torch.from_numpy(
        svhn.labels
    )


def check_file(path: Path, md5: str) -> None:
    """Raise DataError unless the file is there, readable and unaltered."""
    try:
        with open(path, "rb") as file:
            found = hashlib.md5(usedforsecurity=False)
            while chunk := file.read(1 << 20):
                found.update(chunk)
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing: put it there, point --data_dir to the folder that has it, or take "
            "--data auto (download, else synthetic digits)"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): mend its permissions") from None
    if found.hexdigest() != md5:
        size = path.stat().st_size
        raise DataError(
            f"{path} is damaged ({size} bytes, MD5 {found.hexdigest()}, not {md5}): delete it and "
            "run again, or take --data synthetic"
        )
