"""MNIST and SVHN as tensors in memory, and the homework's two fixed subsets.

A `source` is "mnist" or "svhn" for the real data set, "synthetic" for the digits that
`codebase.datasets.synthetic` draws, or "auto" for the real one if it is available.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codebase.datasets import download, synthetic
from codebase.datasets.download import DataError
from codebase.minibatches import Minibatches
from codebase.project import ROOT

if TYPE_CHECKING:
    from codebase.models.base import LatentVariableModel

DATA_DIR = ROOT / "data"
NUM_CLASSES = 10

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


class Images(NamedTuple):
    """The contents of a data set's files: x uint8 (n, x_dim), y int64 (n,)."""

    x: Tensor
    y: Tensor


class Data(NamedTuple):
    """The data for training and evaluating a model.

    batches: the training minibatches
    subset: (x, y): the homework's 100 images, (100, x_dim) in [0, 1], one-hot labels (100, 10)
    test: (x, y): the test set, (n, x_dim) in [0, 1], labels (n,); or (None, None)
    """

    batches: Minibatches
    subset: tuple[Tensor, Tensor]
    test: tuple


def get_mnist_data(
    device: torch.device | str,
    use_test_subset: bool = True,
    data_dir: Path | str = DATA_DIR,
    source: str = "mnist",
    batch_size: int = 97,
    binarised: bool = True,
    labels: str = "all",
) -> Data:
    """Return training minibatches, a fixed subset of 100 images, and the test set.

    Args:
        device: device for the tensors
        use_test_subset: bool: True for the 100-image evaluation subset, binarised once; False
            for the labelled images of the semi-supervised model, in grey levels
        data_dir: the folder that torchvision's MNIST uses
        source: "mnist", which is downloaded if missing, "synthetic", or "auto"
        batch_size: int: images in a minibatch
        binarised: bool: True for binary images, False for grey levels
        labels: "all": minibatches are (x, label); "none": (x,); "few": (x, xl, yl), with the 100
            labelled images of the semi-supervised model in each

    Returns:
        (train_loader, (xl, yl), (X_test, y_test)): minibatches, x (97, 784); the subset, (100, 784)
        with one-hot labels (100, 10); X_test (10000, 784) grey levels in [0, 1], y_test (10000,)
        labels

    Raises:
        DataError: a file is missing or damaged
    """
    source = find_or_download("mnist", source, data_dir)
    train, test = (read_mnist(split, data_dir, source) for split in ("train", "test"))
    xl, yl = (part.to(device) for part in labelled_subset(train))
    x, y = (part.to(device) for part in test_subset(test, binarised))
    batches = Minibatches(
        train.x.to(device),
        *([train.y.to(device)] if labels == "all" else []),
        batch_size=batch_size,
        binarised=binarised,
        labelled=(xl, yl) if labels == "few" else None,
    )
    x_test = (test.x.float() / 255).to(device)
    return Data(batches, (x, y) if use_test_subset else (xl, yl), (x_test, test.y.to(device)))


def get_svhn_data(
    device: torch.device | str,
    data_dir: Path | str = DATA_DIR,
    source: str = "svhn",
    batch_size: int = 100,
) -> Data:
    """Return training minibatches of SVHN's `extra` split, and its first 100 images.

    The homework holds out no SVHN images for a test set.

    Args:
        device: device for the tensors
        data_dir: the folder that torchvision's SVHN uses
        source: "svhn", which is downloaded if missing, "synthetic", or "auto"
        batch_size: int: images in a minibatch

    Returns:
        (train_loader, (x, y), (None, None)): minibatches of (x, y), x (100, 3072) in [0, 1], y
        (100, 10) one-hot; the first 100 images likewise

    Raises:
        DataError: the file is missing or damaged
    """
    images = read_svhn(data_dir, find_or_download("svhn", source, data_dir))
    x, y = images.x.to(device), one_hot(images.y).to(device)
    batches = Minibatches(x, y, batch_size=batch_size, binarised=False)
    return Data(batches, (x[:100].float() / 255, y[:100]), (None, None))


def to_evaluate(model: LatentVariableModel, source: str, data_dir: Path) -> Data:
    """Return the evaluation data for a model of any class, on the CPU."""
    if model.dataset == "svhn":
        return get_svhn_data("cpu", data_dir, source)
    binarised = model.likelihood.binary
    return get_mnist_data("cpu", data_dir=data_dir, source=source, binarised=binarised)


# The fixed subsets


def test_subset(test: Images, binarised: bool = True) -> tuple[Tensor, Tensor]:
    """Return the 100-image evaluation subset: x (100, 784), grey or binarised once; y one-hot."""
    index = subset_index(test.y, TEST_SUBSET)
    x = test.x[index].double() / 255
    if binarised:
        x = torch.from_numpy(np.random.RandomState(0).binomial(1, x.numpy()))
    return x.float(), one_hot(test.y[index])


def labelled_subset(train: Images) -> tuple[Tensor, Tensor]:
    """Return the 100 labelled images of the semi-supervised model: x (100, 784) grey, one-hot y."""
    index = subset_index(train.y, LABELLED_SUBSET)
    return train.x[index].float() / 255, one_hot(train.y[index])


def examples(data: Data) -> tuple[Tensor, Tensor]:
    """Return 100 images to show, with one-hot labels: the test set's first ten of each digit.

    Without a test set, return the evaluation subset.
    """
    images, labels = data.test
    if images is None or labels is None:
        return data.subset
    index = subset_index(labels, (range(10),) * NUM_CLASSES)
    return images[index], one_hot(labels[index])


def subset_index(labels: Tensor, positions: Sequence[Sequence[int]]) -> Tensor:
    """Return the indices of 100 images: for each class c, the images at positions[c] within it."""
    return torch.cat([(labels == c).nonzero()[list(p), 0] for c, p in enumerate(positions)])


def one_hot(labels: Tensor) -> Tensor:
    """Return labels (n,) as floats (n, 10)."""
    return F.one_hot(labels, NUM_CLASSES).float()


# Files


def find_or_download(dataset: str, source: str = "auto", data_dir: Path | str = DATA_DIR) -> str:
    """Return the source to read, and download a real data set (up to 1.3 GB) if it is missing.

    Args:
        dataset: "mnist" or "svhn"
        source: "auto", which is the real data set if available, else "synthetic"; the value of
            `dataset`, which is only the real one; or "synthetic"
        data_dir: the folder that torchvision's MNIST and SVHN use

    Returns:
        `dataset`, or "synthetic"

    Raises:
        DataError: `source` requires the real data set and it is unavailable, or its folder is
            not writable
    """
    data_dir = Path(data_dir)
    if source == "synthetic":
        return source
    missing = [name for name, path in download.locate(dataset, data_dir).items() if path is None]
    if not missing:
        return dataset
    try:
        answers = download.download(dataset, missing, data_dir)
    except OSError as error:
        raise _unwritable(data_dir, error) from None
    if answers is None:
        return dataset
    folder = download.folder_of(dataset, data_dir)
    reason = f"{dataset.upper()} is not in {folder} ({', '.join(missing)} missing)"
    reason += f", and could not be downloaded: {answers}"
    if source == "auto":
        print(reason.replace("; ", ";\n  "), file=sys.stderr)
        return "synthetic"
    raise DataError(
        f"{reason}; put the files there, name another --data_dir, or train on synthetic digits "
        "with --data synthetic"
    )


def read_mnist(split: str, data_dir: Path | str, source: str) -> Images:
    """Read MNIST's "train" or "test" images, or the synthetic digits that replace them.

    Raises:
        DataError: a file is missing, damaged or unreadable
    """
    prefix = {"train": "train", "test": "t10k"}[split]
    names = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
    if source == "synthetic":
        folder = Path(data_dir) / "synthetic" / "MNIST" / "raw"
        return _drawn(folder, names, synthetic.DIGITS_MD5, synthetic.draw_digits)
    return _idx_images(*(download.read("mnist", name, Path(data_dir)) for name in names))


def read_svhn(data_dir: Path | str, source: str) -> Images:
    """Read SVHN's `extra` images, or the synthetic SVHN-like digits that replace them.

    Raises:
        DataError: a file is missing, damaged or unreadable
    """
    if source == "synthetic":
        md5, folder = synthetic.HOUSE_NUMBERS_MD5, Path(data_dir) / "synthetic" / "SVHN"
        images = _drawn(folder, tuple(md5), md5, synthetic.draw_house_numbers)
        return Images(images.x.view(-1, 3072), images.y)  # one colour plane after another
    import scipy.io  # here, because only SVHN needs it

    [name] = download.SVHN_MD5
    arrays = scipy.io.loadmat(io.BytesIO(download.read("svhn", name, Path(data_dir))))
    x = np.ascontiguousarray(arrays["X"].transpose(3, 2, 0, 1))  # (row, column, colour, n)
    y = arrays["y"].astype(np.int64).squeeze() % 10  # 10 stands for the digit 0
    return Images(torch.from_numpy(x).flatten(1), torch.from_numpy(y))


def _drawn(folder: Path, names: Sequence[str], md5: dict[str, str], draw: Callable) -> Images:
    """Read the synthetic images; draw them if they are missing or damaged."""

    def read() -> Images:
        return _idx_images(*(download.read_checked(folder / name, md5[name]) for name in names))

    try:
        return read()
    except DataError:
        pass
    try:
        draw(folder)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return read()


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"{folder} cannot be written ({error.strerror or error}): make it writable, free "
        "space, or pass another --data_dir"
    )


def _idx_images(images: bytes, labels: bytes) -> Images:
    """Return the images and labels in two IDX files, whose headers have 16 and 8 bytes."""
    size = int(np.frombuffer(images, dtype=">u4", count=4)[2:].prod())
    x = torch.frombuffer(bytearray(images), dtype=torch.uint8, offset=16).view(-1, size)
    return Images(x, torch.frombuffer(bytearray(labels), dtype=torch.uint8, offset=8).long())
