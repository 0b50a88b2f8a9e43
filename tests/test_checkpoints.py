import collections
import io
import os
import pickle
import zipfile

import pytest
import torch
from conftest import same_weights

from codebase import checkpoints
from codebase.checkpoints import CheckpointError, load_model_by_name, save_model_by_name
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
    yield from ((f"legacy cut to {n}", LEGACY[:n]) for n in (0, 10, 500, 10**5, len(LEGACY) - 1))
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
    yield (
        "integers beyond float32",
        with_tensor(BIAS, lambda t: torch.full_like(t, 2**24 + 1).long() + 1),
    )
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
    path = checkpoints.model_path("vae", STEP)
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.int8])
def test_other_dtypes_are_converted_where_that_is_safe(dtype, path):
    state = {key: (10 * tensor).to(dtype) for key, tensor in good_state().items()}
    path.write_bytes(saved(state))
    model = VAE(z_dim=2)
    load_model_by_name(model, STEP)
    assert same_weights(model.state_dict(), {key: t.float() for key, t in state.items()})


def test_saving_and_loading(folders):
    model, other = VAE(z_dim=2, name="some model"), VAE(z_dim=2, name="some model")
    path = save_model_by_name(model, 7)
    assert path == folders / "checkpoints" / "some model" / "model-00007.pt"
    assert same_weights(torch.load(path, weights_only=True), model.state_dict())
    load_model_by_name(other, 7)
    assert same_weights(other.state_dict(), model.state_dict())
    save_model_by_name(model, 123_456)
    assert checkpoints.saved_steps("some model") == [7, 123_456]
    with pytest.raises(CheckpointError, match=r"model-00008.*\[7, 123456\]"):
        load_model_by_name(model, 8)
    assert os.listdir(path.parent).sort() == ["model-00007.pt", "model-123456.pt"].sort()


def test_names_cannot_leave_checkpoints(folders):
    (folders / "checkpoints").mkdir()
    outside = folders / "outside"
    outside.mkdir()
    (folders / "checkpoints" / "link").symlink_to(outside)
    for name in ("../outside", "..", "", ".", "a/b", str(outside), "link", "x/../../outside"):
        model = VAE(name=name)
        for act in (save_model_by_name, load_model_by_name):
            with pytest.raises(CheckpointError, match="leads out of"):
                act(model, 1)
    assert os.listdir(outside) == []


def test_a_write_that_fails_leaves_the_old_file(folders, monkeypatch):
    path = folders / "file"
    checkpoints.write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(folders) == ["file"]


@pytest.mark.parametrize("content", [b"", GOOD[:500], saved([1]), saved({"step": "x"}), saved({})])
def test_bad_training_states_are_refused(content, folders):
    path = checkpoints.run_folder("vae") / checkpoints.STATE_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="training-state.pt"):
        checkpoints.load_training_state("vae")
