"""The weights that come with the project, and other people's, on the real MNIST."""

import re
import shutil

import pytest
import torch
from conftest import (
    contents,
    finished_run,
    refused,
    report_lines,
    results,
    same_weights,
    succeed,
    weights,
)

from codebase import UserError, checkpoints, load_run
from codebase.machine.files import write_atomically
from codebase.project import ROOT, step_of
from codebase.runs import run as runs
from codebase.runs.reference import keep_as_reference

REFERENCES = ROOT / "checkpoints" / "reference"
SHARED = ROOT.parent / "shared" / "checkpoints"
VAE_NAME = "model=vae_z=10_run=0000"
# Metrics, widely: the homework's table has their spread.
EXPECTED = {
    VAE_NAME: ("run_vae.py", (), "NELBO", 100.4, 102.6),
    "model=gmvae_z=10_k=500_run=0000": ("run_gmvae.py", (), "NELBO", 97.5, 100.0),
    "model=ssvae_gw=000_cw=100_run=0000": ("run_ssvae.py", ("--gw", 0), "accuracy", 0.72, 0.77),
    "model=ssvae_gw=001_cw=100_run=0000": ("run_ssvae.py", (), "accuracy", 0.92, 0.96),
    "model=fsvae_run=0000_data=synthetic": ("run_fsvae.py", (), "NELBO", -500, -470),
}
# What other people's weights give elsewhere; bounds to within 0.3, twice the error of the draws.
PUBLIC = {
    VAE_NAME: {"NELBO": 101.2, "KL": 19.26, "Rec": 81.9, "IWAE-10": 98.5, "IWAE-1000": 97.1},
    "model=gmvae_z=10_k=500_run=0000": {"NELBO": 98.95, "KL": 17.5, "IWAE-100": 95.5},
    "model=ssvae_gw=000_cw=100_run=0000": {"accuracy": 0.7442},
    "model=ssvae_gw=001_cw=100_run=0000": {"accuracy": 0.9308},
}


@pytest.fixture
def clone(folders):
    """A folder as a fresh clone has it: reference weights, and no runs."""
    shutil.copytree(REFERENCES, folders / "checkpoints" / "reference")
    return folders


@pytest.mark.mnist
@pytest.mark.parametrize("name", EXPECTED)
def test_reference_weights(name, clone, mnist_dir, whole_data):
    script, flags, metric, low, high = EXPECTED[name]
    before = contents(clone)
    data_dir = whole_data if script == "run_fsvae.py" else mnist_dir
    flags = (*flags, "--data_dir", data_dir, "--train", 0)
    stdout, _ = succeed(clone, script, *flags, whole=True)
    rest = "iteration [23]0,000, reference weights, on MNIST"
    if script == "run_fsvae.py":
        rest = "iteration 50,000 of 1,000,000, reference weights, on synthetic digits, .* SVHN"
    assert re.fullmatch(f"Evaluating {name}, {rest}", report_lines(stdout)[0])
    found = results(clone, f"reference/{name}")
    assert low < found["figures"][metric] < high, stdout
    assert found["trained"]["seed"] == 0
    pictures = {path.stem for path in (clone / "logs" / "reference" / name).glob("*.png")}
    assert pictures == (
        {"samples", "reconstructions", "traversal"} if "gw=000" not in name else set()
    )
    after = contents(clone)
    assert {path: after[path] for path in before} == before
    assert all(path.startswith("logs/reference/") for path in after.keys() - before.keys())


@pytest.mark.mnist
@pytest.mark.parametrize("name", PUBLIC)
def test_other_peoples_weights(name, tmp_path, mnist_dir):
    if not SHARED.exists():
        pytest.skip("the public checkpoints are not in ../shared")
    shutil.copytree(SHARED / name, tmp_path / "checkpoints" / name)
    script, flags, *_ = EXPECTED[name]
    flags = (*flags, "--data_dir", mnist_dir, "--train", 0)
    stdout, _ = succeed(tmp_path, script, *flags, whole=True)
    assert "weights without a run.json" in stdout
    found = results(tmp_path, name)["figures"]
    for metric, value in PUBLIC[name].items():
        assert abs(found[metric] - value) < (0.3 if metric != "accuracy" else 1e-9), metric
    table, _ = succeed(tmp_path, "codebase", "table")
    assert name.removeprefix("model=").partition("_run")[0] in table


def test_their_files_are_small_and_recorded():
    assert {path.name for path in REFERENCES.iterdir()} == EXPECTED.keys()
    steps = {"SSVAE": 30_000, "FSVAE": 50_000}
    for name in EXPECTED:
        run = runs.read_run(REFERENCES / name)
        assert run.name == name and (run.flags["seed"], run.flags["compile"]) == (0, 0)
        [path] = (REFERENCES / name).glob("*.pt")
        assert step_of(path) == steps.get(run.model["class"], 20_000)
        assert path.stat().st_size < 8e6
        assert {tensor.dtype for tensor in weights(path).values()} == {torch.float16}


def test_which_weights_are_evaluated(clone):
    """Yours before the reference ones; without the data, samples are drawn."""
    flags = ("--data_dir", clone / "no", "--train", 0)
    stdout, stderr = succeed(clone, "run_vae.py", *flags)
    assert "iteration 20000, reference weights: only samples are drawn" in stderr
    assert str(clone / "no") in stderr
    assert stdout.startswith("Picture: ") and "NELBO" not in stdout
    reference = load_run(VAE_NAME).state_dict()
    assert {tensor.dtype for tensor in reference.values()} == {torch.float32}

    finished_run("run_vae.py", 5, data="mnist")
    for more, expected in (((), "5, your run"), (("--reference", 1), "20000, reference weights")):
        assert f"iteration {expected}" in succeed(clone, "run_vae.py", *flags, *more)[1]
    assert not same_weights(load_run(VAE_NAME).state_dict(), reference)
    assert same_weights(load_run(f"reference/{VAE_NAME}").state_dict(), reference)
    line = refused(clone, "run_vae.py", *flags, "--reference", 1, "--z", 3)
    assert "no reference weights were trained with these flags" in line and VAE_NAME in line
    line = refused(clone, "run_ssvae.py", *flags, "--gw", 0)
    assert "--gw 0 trains no decoder" in line


def test_a_run_keeps_its_data(clone, mnist_dir):
    """A new run trains on MNIST, beside a run on synthetic digits."""
    flags = ("run_vae.py", "--data_dir", mnist_dir, "--sheet", "2x2", "--iter_max", 2, "--run", 9)
    succeed(clone, *flags, "--data", "synthetic")
    for more in (("--train", 0), ("--resume", 1, "--iter_max", 3)):
        assert "on synthetic digits" in succeed(clone, *flags, *more)[0]
    stdout, _ = succeed(clone, *flags)
    assert "model=vae_z=10_run=0009, iteration 2 of 20,000, your run, on MNIST" in stdout


def test_keeping_a_run(folders):
    run = finished_run("run_gmvae.py", 3, 5, k=4)
    with pytest.raises(UserError, match="is not a finished run"):
        keep_as_reference(run.name)
    done = run.results(5, {"NELBO": 1.0}, torch.device("cpu"))
    runs.write_json(run.logs / "results.json", done)
    write_atomically(checkpoints.reference_folder(run.name) / "model-00002.pt", b"old")
    path = keep_as_reference(run.name)
    assert [p.name for p in sorted(path.parent.iterdir())] == ["model-00005.pt", "run.json"]
    for key, tensor in load_run(f"reference/{run.name}").state_dict().items():
        own = weights(run.folder / "model-00005.pt")[key]
        torch.testing.assert_close(tensor, own, rtol=1e-3, atol=1e-4)
