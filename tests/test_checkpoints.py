"""Weights and training states on disk: what is refused, what loads, and that nothing is lost."""

import collections
import io
import os
import pickle
import random
import socket
import tracemalloc
import zipfile

import pytest
import torch
from conftest import same_weights

from codebase import UserError, checkpoints
from codebase.checkpoints import CheckpointError, load_model_by_name, save_model_by_name
from codebase.machine.files import write_atomically
from codebase.models.vae import VAE

STEP = 20
KEYS = list(VAE(z_dim=2).state_dict())


def good_state():
    torch.manual_seed(0)
    return VAE(z_dim=2).state_dict()


def saved(value, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def with_tensor(key, change):
    state = good_state()
    state[key] = change(state[key])
    return saved(state)


class RunsCode:
    """A pickle that leaves a file behind where it is executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def foreign_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", b"not a pickle")
        archive.writestr("version", b"3")
    return buffer.getvalue()


GOOD = saved(good_state())
LEGACY = saved(good_state(), _use_new_zipfile_serialization=False)
EXECUTED = "/tmp/executed-by-a-checkpoint"
WEIGHT, BIAS = "dec.net.0.weight", "enc.net.0.bias"


def bad_files():
    """What may lie where weights should: name → contents."""
    yield from ((f"cut to {n}", GOOD[:n]) for n in (0, 1, 4, 64, 1000, 10**5, 10**6))
    yield from ((f"cut by {n}", GOOD[:-n]) for n in (1, 10, 22, 100, 1000, 10**4))
    yield from ((f"legacy cut to {n}", LEGACY[:n]) for n in (0, 10, 500, 10**5))
    # Not named by its length, which varies with addresses: xdist needs the same names everywhere.
    yield "legacy cut by 1", LEGACY[:-1]
    yield "zeros", bytes(len(GOOD))
    yield "ones", b"\xff" * 1000
    yield "text", b"These are not weights.\n" * 100
    yield "picture", b"\x89PNG\r\n\x1a\n" + bytes(500)
    yield "another zip", foreign_zip()
    yield "no directory", GOOD.replace(b"PK\x05\x06", b"PK\x00\x00")
    yield "code", pickle.dumps(RunsCode(EXECUTED))
    yield "code in a state_dict", saved(good_state() | {WEIGHT: RunsCode(EXECUTED)})
    yield "code, legacy", saved(RunsCode(EXECUTED), _use_new_zipfile_serialization=False)
    yield "a whole model", saved(VAE(z_dim=2))
    yield from ((f"lacks {key}", saved(dict(good_state(), **{key: None}))) for key in KEYS[:2])
    for key in KEYS:
        state = good_state()
        del state[key]
        yield f"without {key}", saved(state)
    yield "one too many", saved(good_state() | {"dec.net.6.weight": torch.zeros(3)})
    yield "empty", saved({})
    yield "other z", saved(VAE(z_dim=7).state_dict())
    yield "transposed", with_tensor(WEIGHT, lambda t: t.T.contiguous())
    yield "one row less", with_tensor(BIAS, lambda t: t[:-1])
    yield "more dimensions", with_tensor(BIAS, lambda t: t[None])
    yield "scalar", with_tensor(BIAS, lambda t: t[0])
    for value in (torch.nan, torch.inf, -torch.inf):
        yield (
            f"one {value}",
            with_tensor(WEIGHT, lambda t, v=value: t.index_fill(0, torch.tensor([3]), v)),
        )
    yield "too large for float32", with_tensor(BIAS, lambda t: t.double() + 1e300)
    yield "complex", with_tensor(BIAS, lambda t: t.to(torch.complex64))
    yield "truth values", with_tensor(BIAS, lambda t: t > 0)
    yield "integers", with_tensor(BIAS, lambda t: t.long())
    yield "sparse", with_tensor(WEIGHT, lambda t: t.to_sparse())
    yield "list in place of a tensor", with_tensor(BIAS, lambda t: t.tolist())
    for name, value in {
        "list": [1, 2],
        "number": 3,
        "nothing": None,
        "tensor": torch.zeros(3),
    }.items():
        yield f"a {name}", saved(value)
    yield "keys that are numbers", saved(dict(enumerate(good_state().values())))
    yield "model is a number", saved({"model": 3})
    yield "model within is wrong", saved({"model": {"x": torch.zeros(1)}})


BAD = dict(bad_files())


def test_the_corpus_is_large_enough():
    assert len(BAD) >= 40


@pytest.fixture
def path(folders):
    path = checkpoints.file_of(checkpoints.run_folder("vae"), STEP)
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line(name, path):
    path.write_bytes(BAD[name])
    torch.manual_seed(1)
    model = VAE(z_dim=2)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_model_by_name(model, STEP)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert same_weights(model.state_dict(), before)
    assert not os.path.exists(EXECUTED)


def on_cuda(state, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        content = saved(state)
    assert b"cuda:0" in content
    return content


@pytest.mark.parametrize(
    "name",
    [
        "as saved",
        "legacy",
        "model",
        "state_dict",
        "model_state_dict",
        "DataParallel",
        "compiled",
        "double",
        "cuda",
        "ordered",
        "expanded",
        "strided",
    ],
)
def test_good_files_load_right(name, path, monkeypatch):
    state = good_state()
    content = {
        "as saved": lambda: GOOD,
        "legacy": lambda: LEGACY,
        "model": lambda: saved({"model": state, "epoch": 3}),
        "state_dict": lambda: saved({"state_dict": state}),
        "model_state_dict": lambda: saved({"model_state_dict": state, "epoch": 3}),
        "DataParallel": lambda: saved({f"module.{key}": t for key, t in state.items()}),
        "compiled": lambda: saved({"model": {f"_orig_mod.{key}": t for key, t in state.items()}}),
        "double": lambda: saved({key: tensor.double() for key, tensor in state.items()}),
        "cuda": lambda: on_cuda(state, monkeypatch),
        "ordered": lambda: saved(collections.OrderedDict(reversed(list(state.items())))),
        "expanded": lambda: saved(state | {BIAS: torch.zeros(1).expand(300)}),
        "strided": lambda: saved(state | {WEIGHT: state[WEIGHT].T.contiguous().T}),
    }[name]()
    if name == "expanded":
        state[BIAS] = torch.zeros(300)
    path.write_bytes(content)
    model = VAE(z_dim=2)
    load_model_by_name(model, STEP, device="cpu")
    assert same_weights(model.state_dict(), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_dtypes_are_converted(dtype, path):
    state = {key: (10 * tensor).to(dtype) for key, tensor in good_state().items()}
    path.write_bytes(saved(state))
    model = VAE(z_dim=2)
    load_model_by_name(model, STEP)
    assert same_weights(model.state_dict(), {key: t.float() for key, t in state.items()})


@pytest.mark.parametrize(
    "content, message",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "a web page"),
        (saved({"weights": 3, "epoch": 4}), "it holds 'weights', 'epoch'"),
    ],
)
def test_what_other_files_are_is_said(content, message, path):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_model_by_name(VAE(z_dim=2), STEP)


def test_saving_and_loading(folders):
    model, other = VAE(z_dim=2, name="some model"), VAE(z_dim=2, name="some model")
    path = save_model_by_name(model, 7)
    assert path == folders / "checkpoints" / "some model" / "model-00007.pt"
    assert same_weights(torch.load(path, weights_only=True), model.state_dict())
    load_model_by_name(other, 7)
    assert same_weights(other.state_dict(), model.state_dict())
    save_model_by_name(model, 123_456)
    assert checkpoints.steps_in(path.parent) == [7, 123_456]
    with pytest.raises(CheckpointError, match=r"model-00008.*--iter_max 7, 123456"):
        load_model_by_name(model, 8)
    assert sorted(os.listdir(path.parent)) == ["model-00007.pt", "model-123456.pt"]


def test_names_cannot_leave_checkpoints(folders):
    (folders / "checkpoints").mkdir()
    outside = folders / "outside"
    outside.mkdir()
    (folders / "checkpoints" / "link").symlink_to(outside)
    wrong = ("../outside", "..", "", ".", "a/b", str(outside), "link", "x/../../outside", ".locks")
    for name in wrong:
        model = VAE(name=name)
        for act in (save_model_by_name, load_model_by_name):
            with pytest.raises(UserError, match="leads out of"):
                act(model, 1)
    assert os.listdir(outside) == []
    for name in ("x" * 300, "é" * 120):
        with pytest.raises(UserError, match="too long"):
            save_model_by_name(VAE(name=name), 1)


def test_archives_packed_in_another_way(path):
    """torch does not read compressed archives; a damaged one is refused in one line."""
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            archive.writestr("archive/data.pkl", bytes(range(256)) * 50)
        content = bytearray(buffer.getvalue())
        content[60:70] = bytes(10)
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="is damaged"):
            load_model_by_name(VAE(z_dim=2), STEP)


def test_a_write_that_fails_leaves_the_old_file(folders, monkeypatch):
    path = folders / "file"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(folders) == ["file"]


@pytest.mark.parametrize("content", [b"", GOOD[:500], saved([1]), saved(3)])
def test_bad_training_states_are_refused(content, folders):
    path = checkpoints.run_folder("vae") / checkpoints.STATE_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="training-state.pt"):
        checkpoints.load_training_state("vae")


# What torch does not notice


def flipped(content: bytes, bit: int) -> bytes:
    wrong = bytearray(content)
    wrong[bit // 8] ^= 1 << bit % 8
    return bytes(wrong)


def try_flips(path, count, seed):
    """Flip one bit at a time: refused, or the same weights. Returns how many were refused."""
    generator = random.Random(seed)
    refused = 0
    for _ in range(count):
        path.write_bytes(flipped(GOOD, generator.randrange(8 * len(GOOD))))
        model = VAE(z_dim=2)
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        try:
            load_model_by_name(model, STEP)
        except CheckpointError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
            assert same_weights(model.state_dict(), before)
        else:
            assert same_weights(model.state_dict(), good_state())
    return refused


def test_flipped_bits_do_not_become_weights(path):
    assert try_flips(path, 20, seed=0) > 15  # the rest hit padding


@pytest.mark.attack
def test_many_flipped_bits_do_not_become_weights(path, count):
    assert try_flips(path, 400, seed=1) > 300
    count("bit flips in weights", 400)


def try_directory_bits(path, step):
    """Flip bits of the zip's directory, which names, places and measures the records."""
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        start = archive.start_dir
        attributes = [start + 38]  # each entry's external attributes: bit 4 says it is a folder
        for record in archive.infolist()[:-1]:
            size = 46 + len(record.filename) + len(record.extra) + len(record.comment)
            attributes.append(attributes[-1] + size)
    folders = [8 * byte + 4 for byte in attributes]
    refused, bits = 0, [*folders, *range(8 * start, 8 * len(GOOD), step)]
    for bit in bits:
        path.write_bytes(flipped(GOOD, bit))
        model = VAE(z_dim=2)
        # Memory that is freed, and given again, holds what no weight is.
        [torch.full_like(tensor, 7e7) for tensor in good_state().values()]
        try:
            load_model_by_name(model, STEP)
        except CheckpointError:
            refused += 1
        else:
            assert same_weights(model.state_dict(), good_state()), bit
    return refused, len(bits)


def test_bits_of_the_archives_directory(path):
    refused, tried = try_directory_bits(path, 193)
    assert 10 < refused < tried  # what torch does not need may be wrong


@pytest.mark.attack
def test_every_bit_of_the_archives_directory(path, count):
    _, tried = try_directory_bits(path, 1)
    count("bits of the archive's directory", tried)


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/data/0", "w", force_zip64=True) as record:
            for _ in range(7):
                record.write(bytes(10 << 20))
    return buffer.getvalue()


def test_a_zip_bomb_is_not_unpacked(path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LARGEST_FILE", 64 << 20)
    path.write_bytes(zip_bomb())
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="unpacked"):
            load_model_by_name(VAE(z_dim=2), STEP)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_is_too_large_is_not_read(path):
    with open(path, "wb") as file:
        file.truncate(3 << 30)  # a hole: no disk is used
    with pytest.raises(CheckpointError, match="3,221,225,472 bytes"):
        load_model_by_name(VAE(z_dim=2), STEP)


@pytest.mark.parametrize("what", ["folder", "pipe", "device", "socket", "link in a circle"])
def test_what_is_no_file_is_not_read(what, path):
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "socket":
        server = socket.socket(socket.AF_UNIX)
        previous = os.getcwd()
        os.chdir(path.parent)  # a socket's path may have 108 bytes
        server.bind(path.name)
        os.chdir(previous)
    else:
        path.symlink_to(path)
    with pytest.raises(CheckpointError) as caught:
        load_model_by_name(VAE(z_dim=2), STEP)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1


ODD_DTYPES = [
    name
    for name in (*("bits1x8", "bits2x4", "bits4x2", "bits8", "bits16"), "float4_e2m1fn_x2", "bool")
    if hasattr(torch, name)
]


@pytest.mark.parametrize("dtype", ODD_DTYPES)
def test_dtypes_without_arithmetic_are_refused(dtype, path):
    odd = torch.zeros(300, dtype=torch.uint8).view(getattr(torch, dtype))
    path.write_bytes(saved(good_state() | {BIAS: odd}))
    with pytest.raises(CheckpointError, match=BIAS):
        load_model_by_name(VAE(z_dim=2), STEP)


def test_tensors_without_contents_are_refused(path):
    path.write_bytes(saved(good_state() | {BIAS: torch.zeros(300, device="meta")}))
    with pytest.raises(CheckpointError, match=BIAS):
        load_model_by_name(VAE(z_dim=2), STEP)
