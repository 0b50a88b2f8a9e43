"""What the README promises: its example runs, and its names and files exist."""

import importlib
import re
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

from codebase import ROOT, checkpoints
from codebase.homework.mistakes import count
from codebase.runs.table import PUBLISHED

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_the_librarys_example():
    """As it stands, with the reference weights; two draws of z give bounds that are close."""
    example, _ = EXAMPLES
    torch.manual_seed(0)
    names: dict = {}
    exec(example, names)
    assert names["images"].shape == names["similar"].shape == (16, 784)
    assert names["m"].shape == names["v"].shape == (16, 10)
    assert abs(names["nelbo"] - names["kl"] - names["rec"]) < 1e-3
    assert 50 < names["niwae"] < names["nelbo"] < 150
    assert names["per_image"].shape == (16,)
    assert abs(names["per_image"].mean() - names["niwae"]) < 3


def test_the_example_of_your_own_images(folders, monkeypatch):
    """As it stands, but for the number of iterations."""
    monkeypatch.chdir(folders)
    Path("pictures").mkdir()
    for i, digit in enumerate(tiny._digits(28)[0]):
        Image.fromarray(digit.view(28, 28).numpy()).save(f"pictures/{i:03d}.png")
    names: dict = {}
    exec(EXAMPLES[1].replace("20_000", "60"), names)
    assert torch.equal(names["images"], tiny._digits(28)[0])
    assert names["per_image"].shape == (100,) and names["samples"].shape == (16, 784)
    assert 50 < names["per_image"].mean() < 400  # 543 nats before training
    assert checkpoints.steps_in(checkpoints.run_folder("my pictures")) == [60]


def test_published_figures():
    """The published rows, in the order of the models, are what the table compares runs with."""
    [head] = re.findall(r"^\| \| N \|.*$", TEXT, re.M)
    figures = [cell.strip() for cell in head.split("|")[3:-1]]
    rows = re.findall(r"^\| published \|.*$", TEXT, re.M)
    for row, wanted in zip(rows, PUBLISHED.values(), strict=True):
        cells = dict(zip(figures, row.split("|")[3:-1], strict=True))
        for name, cell in cells.items():
            found = [float(number) for number in re.findall(r"\d+\.\d+", cell)]
            unit = 100 if "%" in cell else 1
            given = [unit * one for one in wanted.get(name, ()) if one is not None]
            assert found == pytest.approx(given, abs=1e-9), name


def test_files_and_functions_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    local = [target for target in targets if not target.startswith("https://")]
    assert len(local) > 8 and all((ROOT / target).exists() for target in local)
    [table] = re.findall(r"\| problem \|.*?\n\n", TEXT, re.S)
    homes = {
        "utils": "codebase.utils",
        "likelihoods": "codebase.models.likelihoods",
        "LaplaceVAE": "codebase.models.laplace_vae",
    }
    rows = [row.split("|")[2] for row in table.strip().splitlines()[2:]]
    names = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    assert len(names) > 10
    for name in names:
        owner, _, attribute = name.partition(".")
        if owner in ("utils", "likelihoods"):
            assert hasattr(importlib.import_module(homes[owner]), attribute), name
        else:
            home = homes.get(owner, f"codebase.models.{owner.lower()}")
            kind = getattr(importlib.import_module(home), owner)
            assert not attribute or hasattr(kind, attribute), name


def test_how_many_mistakes_are_known():
    assert f"one of {count()} known mistakes" in " ".join(TEXT.split())
