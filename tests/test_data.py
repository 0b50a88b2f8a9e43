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
from torchvision.datasets.mnist import read_image_file

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
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(download.MD5, "svhn", {name: md5})
    monkeypatch.setattr(download, "SVHN_MD5", {name: md5})
    assert data.find_or_download("svhn", "auto", tmp_path) == "svhn"
    loader, (x, y), _ = data.get_svhn_data("cpu", tmp_path)
    torch.testing.assert_close(
        x[7].view(3, 32, 32), torch.from_numpy(pixels[..., 7]).permute(2, 0, 1) / 255
    )
    assert torch.equal(y[:100].argmax(1), torch.from_numpy(labels[:100, 0] % 10).long())
    batch_x, batch_y = next(iter(loader))
    assert batch_x.shape == (100, 3072) and batch_y.shape == (100, 10) and len(loader) == 3
    assert len(batch_x.unique()) > 100  # not binarised

    with open(path, "r+b") as file:
        file.seek(1000)
        file.write(b"\x00\x01")
    with pytest.raises(DataError, match="damaged"):
        data.get_svhn_data("cpu", tmp_path)


# The synthetic digits


def test_synthetic_digits_are_the_same_everywhere(whole_data):
    """The checksums hold for every machine."""
    folder = whole_data / "synthetic" / "MNIST" / "raw"
    for name, md5 in synthetic.DIGITS_MD5.items():
        assert hashlib.md5((folder / name).read_bytes()).hexdigest() == md5
    for name, md5 in synthetic.HOUSE_NUMBERS_MD5.items():
        path = whole_data / "synthetic" / "SVHN" / name
        assert hashlib.md5(path.read_bytes()).hexdigest() == md5


def test_synthetic_digits_have_mnists_form(whole_data):
    for train, counts in zip((True, False), synthetic.COUNTS.values(), strict=True):
        mnist = datasets.MNIST(whole_data / "synthetic", train=train)
        assert mnist.data.shape == (sum(counts), 28, 28)
        assert tuple(mnist.targets.bincount().tolist()) == counts
        assert mnist.data.max() == 255 and len(mnist.data.unique()) == 256
        assert 0.1 < mnist.data.float().mean() / 255 < 0.25
    (_, (x, y), (x_test, y_test)), (_, (labelled, _), _) = (
        data.get_mnist_data("cpu", subset, whole_data, "synthetic") for subset in (True, False)
    )
    assert x_test.shape == (10_000, 784) and (x_test.min(), x_test.max()) == (0, 1)
    assert torch.equal(y_test, mnist.targets)
    assert x.shape == labelled.shape == (100, 784) and torch.equal(y.argmax(1), digits_in_order())


def digits_in_order():
    return torch.arange(10).repeat_interleave(10)


def test_a_simple_classifier_reads_the_synthetic_digits(whole_data):
    """They are digits: the nearest class mean is right three times in four, on test images."""
    train = datasets.MNIST(whole_data / "synthetic", train=True)
    test = datasets.MNIST(whole_data / "synthetic", train=False)
    x, y = train.data.flatten(1).float(), train.targets
    means = torch.stack([x[y == digit].mean(0) for digit in range(10)])
    nearest = torch.cdist(test.data.flatten(1).float(), means).argmin(1)
    assert (nearest == test.targets).float().mean() > 0.7


def test_synthetic_house_numbers(whole_data):
    loader, (x, y), _ = data.get_svhn_data("cpu", whole_data, "synthetic")
    assert loader.images.shape == (synthetic.NUM_HOUSE_NUMBERS, 3072)
    assert x.shape == (100, 3072) and y.shape == (100, 10)
    colours = loader.images[:500].view(500, 3, -1).float()
    assert colours.mean((0, 2)).sub(colours.mean()).abs().max() < 25  # no colour is preferred
    assert (colours.amax(2) - colours.amin(2)).min() > 20  # each has something to see
    raw = whole_data / "synthetic" / "SVHN" / "train-images-idx3-ubyte"
    assert torch.equal(read_image_file(raw).view(-1, 3072), loader.images)


# Finding data, and damage to it


@pytest.fixture
def no_network(monkeypatch):
    def down(*arguments, **options):
        raise OSError("network down")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", down)


def test_auto_prefers_the_real_data(mnist_dir, no_network):
    assert data.find_or_download("mnist", "auto", mnist_dir) == "mnist"
    assert data.find_or_download("mnist", "mnist", mnist_dir) == "mnist"
    assert data.find_or_download("mnist", "synthetic", mnist_dir) == "synthetic"


def test_without_a_network(tmp_path, no_network, capsys):
    """An error is one line; a notice has a line for each mirror's answer."""
    for dataset in ("mnist", "svhn"):
        assert data.find_or_download(dataset, "auto", tmp_path) == "synthetic"
        with pytest.raises(DataError) as caught:
            data.find_or_download(dataset, dataset, tmp_path)
        for message in (str(caught.value), capsys.readouterr().err):
            assert f"{dataset.upper()} is not in {tmp_path}" in message
            lines = 1 if message == str(caught.value) else message.count("network down")
            assert "network down" in message and len(message.strip().splitlines()) == lines
    assert contents(tmp_path) == {}


@pytest.fixture
def some_mnist(tmp_path, monkeypatch):
    """A folder with ten images in MNIST's format, which count as the real ones."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    md5 = {}
    for prefix in ("train", "t10k"):
        images, labels = np.arange(10 * 784, dtype=np.uint8), np.arange(10, dtype=np.uint8)
        for name, shape, values in (
            (f"{prefix}-images-idx3-ubyte", (10, 28, 28), images),
            (f"{prefix}-labels-idx1-ubyte", (10,), labels),
        ):
            header = np.array([0x0800 + len(shape), *shape], dtype=">u4")
            content = header.tobytes() + values.tobytes()
            (raw / name).write_bytes(content)
            md5[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(download.MD5, "mnist", md5)
    return raw


@pytest.mark.parametrize("name", MNIST_FILES)
@pytest.mark.parametrize("damage", ["truncated", "count", "pixel", "empty", "longer"])
def test_damaged_files_are_found(some_mnist, name, damage, no_network):
    path = some_mnist / name
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[:-3]
    elif damage == "count":
        content[7] -= 1
    elif damage == "pixel":
        content[-1] ^= 1
    elif damage == "empty":
        content = b""
    else:
        content += b"\x00"
    path.write_bytes(content)
    split, other = ("train", "test") if name.startswith("train") else ("test", "train")
    with pytest.raises(DataError, match=f"{name} is damaged, or of another data set.*move it away"):
        data.read_mnist(split, some_mnist.parents[1], "mnist")
    assert path.read_bytes() == content
    data.read_mnist(other, some_mnist.parents[1], "mnist")  # the others are good


def test_damaged_synthetic_digits_are_drawn_again(whole_data, tmp_path, monkeypatch):
    """They come out the same, on another number of threads and in other blocks, too."""
    shutil.copytree(whole_data / "synthetic" / "MNIST", tmp_path / "synthetic" / "MNIST")
    path = tmp_path / "synthetic" / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        monkeypatch.setattr(synthetic, "BLOCK", 100)
        data.read_mnist("test", tmp_path, "synthetic")
    finally:
        torch.set_num_threads(threads)
    drawn, kept = (folder / "synthetic" / "MNIST" for folder in (tmp_path, whole_data))
    assert contents(drawn) == contents(kept)


PLACES = {
    "torchvision's": "MNIST/raw/{name}",
    "archives": "MNIST/raw/{name}.gz",
    "in the folder itself": "{name}",
    "Kaggle's names": "{dotted}",
    "Kaggle's folders": "{name}/{name}",
    "dotted archives": "MNIST/raw/{dotted}.gz",
}


@pytest.mark.parametrize("place", PLACES)
def test_files_are_found_where_people_put_them(place, some_mnist, tmp_path, no_network):
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
        for split in ("train", "test"):
            data.read_mnist(split, folder, "mnist")


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


@pytest.fixture
def served(some_mnist, tmp_path, monkeypatch):
    """A function that serves a folder, and MNIST's archives in the folder that it is given."""
    for scheme in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(scheme, raising=False)
    servers = []

    def serve(folder) -> str:
        folder.mkdir()
        for name in download.MD5["mnist"]:
            archive = gzip.compress((some_mnist / name).read_bytes())
            (folder / f"{name}.gz").write_bytes(archive)
        handler = functools.partial(Mirror, directory=str(folder))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield serve
    for server in servers:
        server.shutdown()


@pytest.fixture
def mirror(served, tmp_path, monkeypatch):
    """The one mirror that torchvision knows; yields its folder."""
    monkeypatch.setattr(datasets.MNIST, "mirrors", [served(tmp_path / "served")])
    return tmp_path / "served"


def page_instead(folder):
    """A page with status 200 for whatever is asked, as a domain that was given up answers."""
    for path in folder.iterdir():
        path.write_bytes(b"<!DOCTYPE html><html>for sale</html>")


def half(folder):
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-10])


def other_file(folder):
    for path in folder.iterdir():
        path.write_bytes(gzip.compress(b"something else"))


def nothing(folder):
    shutil.rmtree(folder)


TROUBLES = {
    "page": page_instead,
    "half": half,
    "other": other_file,
    "404": nothing,
    "refused": None,
    "silent": None,
}


@pytest.fixture
def bad_mirror(served, tmp_path):
    """A function that makes a mirror with some trouble; returns its address."""
    sockets = []

    def make(trouble: str) -> str:
        if TROUBLES[trouble] is not None:
            url = served(tmp_path / trouble)
            TROUBLES[trouble](tmp_path / trouble)
            return url
        sockets.append(socket.socket())
        sockets[-1].bind(("127.0.0.1", 0))
        if trouble == "silent":
            sockets[-1].listen()
        return f"http://127.0.0.1:{sockets[-1].getsockname()[1]}/"

    yield make
    for one in sockets:
        one.close()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_whatever_one_mirror_does_the_other_is_asked(
    trouble, first, mirror, bad_mirror, some_mnist, tmp_path, monkeypatch
):
    monkeypatch.setattr(download, "NETWORK_TIMEOUT", 0.3)
    mirrors = [bad_mirror(trouble), *datasets.MNIST.mirrors]
    monkeypatch.setattr(datasets.MNIST, "mirrors", mirrors if first else mirrors[::-1])
    empty = tmp_path / "empty"
    assert data.find_or_download("mnist", "auto", empty) == "mnist"
    assert contents(empty) == {f"MNIST/raw/{n}": (some_mnist / n).read_bytes() for n in MNIST_FILES}


def test_each_file_may_come_from_another_mirror(mirror, served, some_mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(
        datasets.MNIST, "mirrors", [*datasets.MNIST.mirrors, served(tmp_path / "other")]
    )
    (mirror / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html></html>")
    (tmp_path / "other" / "train-images-idx3-ubyte.gz").unlink()
    empty = tmp_path / "empty"
    assert data.find_or_download("mnist", "mnist", empty) == "mnist"
    assert contents(empty) == {f"MNIST/raw/{n}": (some_mnist / n).read_bytes() for n in MNIST_FILES}


def test_if_no_mirror_gives_a_file_each_ones_answer_is_said(
    bad_mirror, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(download, "NETWORK_TIMEOUT", 0.3)
    mirrors = {trouble: bad_mirror(trouble) for trouble in TROUBLES}
    monkeypatch.setattr(datasets.MNIST, "mirrors", list(mirrors.values()))
    assert data.find_or_download("mnist", "auto", tmp_path / "empty") == "synthetic"
    said = capsys.readouterr().err.partition("MNIST is")
    first, *lines = "".join(said[1:]).splitlines()
    assert first.startswith(f"MNIST is not in {tmp_path}") and len(lines) == len(TROUBLES) - 1
    line = " ".join([first, *lines])
    for trouble, answer in (
        ("page", "it sent something other than the file"),
        ("half", "it sent something other than the file"),
        ("other", "it sent something other than the file"),
        ("404", "HTTP Error 404"),
        ("refused", "Connection refused"),
        ("silent", "timed out"),
    ):
        url = f"{mirrors[trouble]}train-images-idx3-ubyte.gz: "
        assert answer in line.partition(url)[2].partition("; ")[0], (trouble, line)
    assert contents(tmp_path / "empty") == {}
    with pytest.raises(DataError):
        data.find_or_download("mnist", "mnist", tmp_path / "empty")
