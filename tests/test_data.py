"""MNIST and SVHN, the fixed subsets, the synthetic digits, and files that are not sound."""

import functools
import gzip
import hashlib
import http.server
import shutil
import socket
import threading

import numpy as np
import pytest
import scipy.io
import torch
from conftest import contents
from torchvision import datasets

from codebase import data
from codebase.datasets import download, synthetic
from codebase.datasets.download import DataError

MNIST_FILES = sorted(download.MNIST_MD5)


# The fixed subsets


def test_the_positions_of_the_fixed_subsets():
    """All of them, without the images: digests of what the homework published."""
    digests = {
        data.TEST_SUBSET: "aa73d6e9401d1387305e118ecb8ea287",
        data.LABELLED_SUBSET: "a527a9c8d42f21b5056af89963ab99e0",
    }
    for positions, digest in digests.items():
        assert hashlib.md5(repr(positions).encode()).hexdigest() == digest


def test_the_fixed_subsets(mnist_dir):
    state = np.random.get_state()[1].copy()
    loader, (x, y), (test_x, test_y) = data.get_mnist_data("cpu", data_dir=mnist_dir)
    assert (np.random.get_state()[1] == state).all()
    assert x.shape == (100, 784) and x.sum() == 10_257 and set(x.unique().tolist()) == {0, 1}
    assert torch.equal(y, torch.eye(10).repeat_interleave(10, 0))
    assert test_x.shape == (10_000, 784) and 0 <= test_x.min() and test_x.max() == 1
    assert test_y[:5].tolist() == [7, 2, 1, 0, 4]
    fours = test_x[test_y == 4]
    grey = fours[[265, 697, 639]]
    assert ((x[40:43] > 0) <= (grey > 0)).all()  # no pixel drawn where there is no ink
    assert len(loader) == 619
    batch, labels = next(iter(loader))
    assert batch.shape == (97, 784) and labels.shape == (97,)

    _, (xl, yl), _ = data.get_mnist_data("cpu", use_test_subset=False, data_dir=mnist_dir)
    assert xl.shape == (100, 784) and len(xl.unique()) > 100  # grey levels
    assert torch.equal(yl, y)
    train = datasets.MNIST(mnist_dir, train=True)
    eights = train.data[train.targets == 8]
    assert torch.equal(xl[80:83], eights[[3918, 1167, 1684]].flatten(1) / 255)


def test_grey_levels_for_a_gaussian_likelihood(whole_data):
    test = data.read_mnist("test", whole_data, "synthetic")
    grey, labels = data.test_subset(test, binarised=False)
    binary, same_labels = data.test_subset(test)
    assert len(grey.unique()) > 50 and set(binary.unique().tolist()) == {0, 1}
    assert torch.equal(labels, same_labels) and ((binary > 0) <= (grey > 0)).all()


# SVHN, by torchvision's own reader on a small file in its format


def test_svhn(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (32, 32, 3, 250), dtype=np.uint8)
    labels = generator.integers(1, 11, (250, 1)).astype(np.uint8)  # 10 stands for the digit 0
    path = tmp_path / "extra_32x32.mat"
    scipy.io.savemat(path, {"X": pixels, "y": labels})
    [(name, md5)] = download.SVHN_MD5.items()
    assert [name, md5] == datasets.SVHN.split_list["extra"][1:]
    monkeypatch.setitem(download.SVHN_MD5, name, hashlib.md5(path.read_bytes()).hexdigest())
    assert data.find_or_download("svhn", "auto", tmp_path) == "svhn"
    loader, (x, y), _ = data.get_svhn_data("cpu", tmp_path)
    torch.testing.assert_close(
        x[7].view(3, 32, 32), torch.from_numpy(pixels[..., 7]).permute(2, 0, 1) / 255
    )
    assert torch.equal(y[:100].argmax(1), torch.from_numpy(labels[:100, 0] % 10).long())
    batch_x, batch_y = next(iter(loader))
    assert batch_x.shape == (100, 3072) and batch_y.shape == (100, 10) and len(loader) == 3
    assert len(batch_x.unique()) > 100  # not binarised


# The synthetic digits


def test_synthetic_digits_are_the_same_everywhere(whole_data, tmp_path):
    """The checksums hold for every machine; files that are damaged are drawn again."""
    raw = whole_data / "synthetic" / "MNIST" / "raw"
    for folder, digests in (
        (raw, synthetic.DIGITS_MD5),
        (whole_data / "synthetic" / "SVHN", synthetic.HOUSE_NUMBERS_MD5),
    ):
        for name, md5 in digests.items():
            assert hashlib.md5((folder / name).read_bytes()).hexdigest() == md5
    again = tmp_path / "synthetic" / "MNIST" / "raw"
    shutil.copytree(raw, again)
    (again / "t10k-labels-idx1-ubyte").write_bytes(b"damaged")
    data.read_mnist("test", tmp_path, "synthetic")
    assert contents(again) == contents(raw)


def test_synthetic_digits_have_mnists_form(whole_data):
    """And they are digits: the nearest class mean is right three times in four."""
    for train, counts in zip((True, False), synthetic.COUNTS.values(), strict=True):
        mnist = datasets.MNIST(whole_data / "synthetic", train=train)
        assert mnist.data.shape == (sum(counts), 28, 28)
        assert tuple(mnist.targets.bincount().tolist()) == counts
        assert mnist.data.max() == 255 and len(mnist.data.unique()) == 256
        assert 0.1 < mnist.data.float().mean() / 255 < 0.25
        if train:
            x = mnist.data.flatten(1).float()
            means = torch.stack([x[mnist.targets == digit].mean(0) for digit in range(10)])
    nearest = torch.cdist(mnist.data.flatten(1).float(), means).argmin(1)
    assert (nearest == mnist.targets).float().mean() > 0.7
    _, (x, y), (x_test, y_test) = data.get_mnist_data("cpu", True, whole_data, "synthetic")
    assert x_test.shape == (10_000, 784) and (x_test.min(), x_test.max()) == (0, 1)
    assert torch.equal(y_test, mnist.targets)
    assert x.shape == (100, 784) and torch.equal(y, torch.eye(10).repeat_interleave(10, 0))


def test_synthetic_house_numbers(whole_data):
    loader, (x, y), _ = data.get_svhn_data("cpu", whole_data, "synthetic")
    assert loader.images.shape == (synthetic.NUM_HOUSE_NUMBERS, 3072)
    assert x.shape == (100, 3072) and y.shape == (100, 10)
    colours = loader.images[:500].view(500, 3, -1).float()
    assert colours.mean((0, 2)).sub(colours.mean()).abs().max() < 25  # no colour is preferred
    assert (colours.amax(2) - colours.amin(2)).min() > 20  # each has something to see


# Finding data, and damage to it


def test_auto_prefers_the_real_data(mnist_dir):
    for source, found in (("auto", "mnist"), ("mnist", "mnist"), ("synthetic", "synthetic")):
        assert data.find_or_download("mnist", source, mnist_dir) == found


@pytest.fixture
def some_mnist(tmp_path, monkeypatch):
    """A folder with ten images in MNIST's format, which count as the real ones."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MNIST_FILES:
        shape = (10, 28, 28) if "images" in name else (10,)
        header = np.array([0x0800 + len(shape), *shape], dtype=">u4")
        content = header.tobytes() + np.arange(np.prod(shape), dtype=np.uint8).tobytes()
        (raw / name).write_bytes(content)
        monkeypatch.setitem(download.MNIST_MD5, name, hashlib.md5(content).hexdigest())
    return raw


DAMAGES = {
    "truncated": lambda content: content[:-3],
    "longer": lambda content: content + b"\x00",
    "a pixel": lambda content: content[:-1] + b"\xff",
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_found(some_mnist, damage):
    name, folder = MNIST_FILES[0], some_mnist.parents[1]
    content = DAMAGES[damage]((some_mnist / name).read_bytes())
    (some_mnist / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is damaged, or of another data set.*move it away"):
        data.read_mnist("test", folder, "mnist")
    assert (some_mnist / name).read_bytes() == content
    data.read_mnist("train", folder, "mnist")  # the others are good


PLACES = {
    "torchvision's": "MNIST/raw/{name}",
    "archives": "MNIST/raw/{name}.gz",
    "in the folder itself": "{name}",
    "Kaggle's names": "{dotted}",
    "Kaggle's folders": "{name}/{name}",
    "dotted archives": "MNIST/raw/{dotted}.gz",
}


@pytest.mark.parametrize("place", PLACES)
def test_files_are_found_where_people_put_them(place, some_mnist, tmp_path):
    folder = tmp_path / "by hand"
    for name in MNIST_FILES:
        path = folder / PLACES[place].format(name=name, dotted=name.replace("-idx", ".idx"))
        path.parent.mkdir(parents=True, exist_ok=True)
        content = (some_mnist / name).read_bytes()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    before = contents(folder)
    assert data.find_or_download("mnist", "mnist", folder) == "mnist"
    assert data.read_mnist("train", folder, "mnist").y.tolist() == list(range(10))
    assert contents(folder) == before
    path.write_bytes(b"\x1f\x8b and no more")
    with pytest.raises(DataError, match=f"{path} is damaged"):
        data.read_mnist("train", folder, "mnist")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataError, match=f"{file}.* cannot be written .*another --data_dir"):
        data.find_or_download("mnist", "auto", file)
    with pytest.raises(DataError, match=f"{file}.* cannot be written .*another --data_dir"):
        data.read_mnist("test", file, "synthetic")


# Downloading, from a server of the tests' own


class Mirror(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *message):
        pass


# What a mirror does with its archives, and what is said of it. A page with status 200 for whatever
# is asked is how a domain that was given up answers.
TROUBLES = {
    "page": (lambda archive: b"<html>for sale</html>", "it sent something other than the file"),
    "half": (lambda archive: archive[:-10], "it sent something other than the file"),
    "other": (lambda archive: gzip.compress(b"other"), "it sent something other than the file"),
    "404": (lambda archive: None, "HTTP Error 404"),
    "refused": (None, "Connection refused"),
    "silent": (None, "timed out"),
}


@pytest.fixture
def mirror(some_mnist, tmp_path):
    """A function that makes a mirror of MNIST with some trouble; returns its address."""
    servers, sockets = [], []

    def make(trouble: str) -> str:
        change, _ = TROUBLES.get(trouble, (lambda archive: archive, ""))
        if change is None:
            sockets.append(socket.socket())
            sockets[-1].bind(("127.0.0.1", 0))
            if trouble == "silent":
                sockets[-1].listen()
            return f"http://127.0.0.1:{sockets[-1].getsockname()[1]}/"
        folder = tmp_path / trouble
        folder.mkdir()
        for name in MNIST_FILES:
            content = change(gzip.compress((some_mnist / name).read_bytes()))
            if content is not None:
                (folder / f"{name}.gz").write_bytes(content)
        handler = functools.partial(Mirror, directory=str(folder))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield make
    for server in servers:
        server.shutdown()
    for one in sockets:
        one.close()


def test_each_file_is_had_from_the_first_mirror_that_has_it(
    mirror, some_mnist, tmp_path, monkeypatch
):
    """Whatever the others do; one good mirror lacks one file."""
    monkeypatch.setattr(download, "NETWORK_TIMEOUT", 0.3)
    mirrors = [mirror(trouble) for trouble in ("good", *TROUBLES, "better")]
    (tmp_path / "good" / "train-images-idx3-ubyte.gz").unlink()
    monkeypatch.setattr(datasets.MNIST, "mirrors", mirrors)
    empty = tmp_path / "empty"
    assert data.find_or_download("mnist", "auto", empty) == "mnist"
    assert contents(empty / "MNIST" / "raw") == contents(some_mnist)


def test_if_no_mirror_gives_a_file_each_ones_answer_is_said(mirror, tmp_path, monkeypatch, capsys):
    """An error is one line; a notice has a line for each mirror's answer."""
    monkeypatch.setattr(download, "NETWORK_TIMEOUT", 0.3)
    mirrors = {trouble: mirror(trouble) for trouble in TROUBLES}
    monkeypatch.setattr(datasets.MNIST, "mirrors", list(mirrors.values()))
    empty = tmp_path / "empty"
    assert data.find_or_download("mnist", "auto", empty) == "synthetic"
    said = capsys.readouterr().err
    notice = said[said.index(f"MNIST is not in {empty}") :].splitlines()
    for line, (trouble, url) in zip(notice, mirrors.items(), strict=True):
        assert f"{url}train-images-idx3-ubyte.gz: " in line and TROUBLES[trouble][1] in line
    with pytest.raises(DataError, match="HTTP Error 404") as caught:
        data.find_or_download("mnist", "mnist", empty)
    assert len(str(caught.value).splitlines()) == 1 and contents(empty) == {}
    assert data.find_or_download("svhn", "auto", empty) == "synthetic"
