"""Weights on disk: what other people's files hold, and files that are not sound."""

import errno
import io
import os
import zipfile

import pytest
import torch

from codebase import checkpoints, utils
from codebase.checkpoints import CheckpointError, load_weights
from codebase.models import GMVAE, VAE
from codebase.project import UserError


def model():
    torch.manual_seed(3)
    return VAE(z_dim=2)


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


STATE = model().state_dict()
GOOD = saved(STATE)
FIRST = "enc.net.0.weight"


def prefixed(*prefixes):
    return {"".join(prefixes) + key: tensor for key, tensor in STATE.items()}


GOOD_FILES = {
    "plain": STATE,
    "DataParallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "DataParallel of compiled, in compiled": prefixed("_orig_mod.", "module.", "_orig_mod."),
    "in a dictionary": {"model": STATE, "epoch": 3},
    "half": {key: tensor.half() for key, tensor in STATE.items()},
}


@pytest.mark.parametrize("name", GOOD_FILES)
@pytest.mark.parametrize("archive", [True, False])
def test_good_files_load_right(name, archive, tmp_path):
    path = tmp_path / "model-00001.pt"
    path.write_bytes(saved(GOOD_FILES[name], _use_new_zipfile_serialization=archive))
    loaded = VAE(z_dim=2)
    load_weights(loaded, path)
    for key, tensor in loaded.state_dict().items():
        expected = STATE[key].half().float() if name == "half" else STATE[key]
        assert tensor.dtype == torch.float32 and torch.equal(tensor, expected)


def damaged():
    """An archive with a flipped bit in a tensor, which torch would read as other weights."""
    content = bytearray(GOOD)
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    content[largest.header_offset + largest.file_size // 2] ^= 4
    return bytes(content)


BAD_FILES = {
    "empty": (b"", "is refused"),
    "cut": (GOOD[:5000], "is refused"),
    "flipped bit": (damaged(), "it is damaged"),
    "text": (b"hello", "it begins with b'hello'"),
    "page": (b"<!DOCTYPE html>\n<html>", "it begins with b'<!DOCTYPE html>"),
    "whole model": (saved(model()), r"torch.save\(model.state_dict\(\), path\)"),
    "another z": (saved(VAE(z_dim=3).state_dict()), r"shape \(6, 300\), expected \(4, 300\)"),
    "another model": (saved(GMVAE(z_dim=2).state_dict()), "does not fit VAE"),
    "one more": (saved(STATE | {"more": STATE[FIRST]}), "'more' has shape .*, expected none"),
    "not finite": (saved(STATE | {FIRST: STATE[FIRST] * torch.nan}), "has non-finite values"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_in_one_line(name, tmp_path):
    content, message = BAD_FILES[name]
    path, loaded = tmp_path / "model-00001.pt", VAE(z_dim=2)
    path.write_bytes(content)
    before = {key: tensor.clone() for key, tensor in loaded.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(loaded, path)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert all(torch.equal(before[key], tensor) for key, tensor in loaded.state_dict().items())


def test_nothing_in_a_file_is_executed(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "model-00001.pt"
    path.write_bytes(saved({"weights": Hostile()}))
    with pytest.raises(CheckpointError, match="only tensors"):
        load_weights(VAE(), path)
    assert not (tmp_path / "executed").exists()


def test_saving_and_loading(folders):
    one, other = VAE(name="my model"), VAE(name="my model")
    utils.save_model_by_name(one, 7)
    path = folders / "checkpoints" / "my model" / "model-00007.pt"
    assert path.exists() and list(torch.load(path, weights_only=True)) == list(one.state_dict())
    utils.load_model_by_name(other, 7, device="cpu")
    assert torch.equal(one.enc.net[0].weight, other.enc.net[0].weight)
    with pytest.raises(CheckpointError, match=r"pass a saved iteration \(--iter_max 7\)"):
        utils.load_model_by_name(other, 8)


@pytest.mark.parametrize("name", ["", "..", "../other", "a/b", ".hidden", "reference"])
def test_names_stay_in_their_folder(name, folders):
    with pytest.raises(UserError, match="cannot be the name of a run"):
        utils.save_model_by_name(VAE(name=name), 1)
    assert not list(folders.rglob("*.pt"))


def test_a_write_that_fails_leaves_the_old_file(folders, monkeypatch):
    path = checkpoints.save_model_by_name(VAE(name="one"), 1)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        checkpoints.save_model_by_name(VAE(name="one"), 1)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]
