"""The weights that come with the project: when they are taken, and that nothing changes them."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import (
    SCRIPTS,
    contents,
    finished_run,
    refused,
    report_lines,
    same_weights,
    succeed,
    weights,
)

from codebase import ROOT, UserError, checkpoints, load_run
from codebase.models.gmvae import GMVAE
from codebase.runs import run as runs
from codebase.runs.reference import keep_as_reference

REFERENCES = ROOT / "checkpoints" / "reference"
VAE_NAME = "model=vae_z=10_run=0000"
# Figures of the weights' own records, widely: the homework's table has their spread.
EXPECTED = {
    VAE_NAME: ("run_vae.py", (), "NELBO", 100.4, 102.6),
    "model=gmvae_z=10_k=500_run=0000": ("run_gmvae.py", (), "NELBO", 97.5, 100.0),
    "model=ssvae_gw=000_cw=100_run=0000": ("run_ssvae.py", ("--gw", 0), "accuracy", 0.72, 0.77),
    "model=ssvae_gw=001_cw=100_run=0000": ("run_ssvae.py", (), "accuracy", 0.92, 0.96),
    "model=fsvae_run=0000_data=synthetic": ("run_fsvae.py", (), "NELBO", -500, -470),
}


@pytest.fixture
def clone(tmp_path):
    """A folder as a fresh clone has it: reference weights, and no runs."""
    shutil.copytree(REFERENCES, tmp_path / "checkpoints" / "reference")
    return tmp_path


@pytest.mark.mnist
@pytest.mark.parametrize("name", EXPECTED)
def test_reference_weights(name, clone, mnist_dir, whole_data):
    script, flags, figure, low, high = EXPECTED[name]
    before = contents(clone)
    data_dir = whole_data if script == "run_fsvae.py" else mnist_dir
    flags = (*flags, "--data_dir", data_dir, "--train", 0)
    stdout, stderr = succeed(clone, script, *flags, whole=True)
    rest = "iteration [23]0,000, reference weights, on MNIST"
    if script == "run_fsvae.py":
        rest = "iteration 50,000 of 1,000,000, reference weights, on synthetic digits, .* SVHN"
    assert re.fullmatch(f"Evaluating {name}, {rest}", report_lines(stdout)[0])
    found = json.loads(
        (clone / "logs" / "reference" / name / "results.json").read_text(encoding="utf-8")
    )
    assert low < found["figures"][figure] < high, stdout
    trained = found["trained"]
    data = "synthetic" if script == "run_fsvae.py" else "mnist"
    assert (found["name"], trained["seed"], trained["data"]) == (name, 0, data)
    pictures = {path.stem for path in (clone / "logs" / "reference" / name).glob("*.png")}
    trains_a_decoder = "gw=000" not in name
    assert pictures == ({"samples", "reconstructions", "traversal"} if trains_a_decoder else set())
    after = contents(clone)
    assert {path: after[path] for path in before} == before
    assert all(path.startswith("logs/reference/") for path in after.keys() - before.keys())


def test_their_files_are_small_and_recorded():
    assert {path.name for path in REFERENCES.iterdir()} == EXPECTED.keys()
    assert all(path.stat().st_size < 8e6 for path in REFERENCES.rglob("*"))
    for name in EXPECTED:
        run = runs.read_run(REFERENCES / name)
        assert run.name == name and (run.flags["seed"], run.flags["compile"]) == (0, 0)
        assert run.build().describe() == run.model
        [path] = (REFERENCES / name).glob("*.pt")
        steps = {"SSVAE": 30_000, "FSVAE": 50_000}
        assert checkpoints.step_of(path) == steps.get(run.model["class"], 20_000)
        assert {tensor.dtype for tensor in weights(path).values()} == {torch.float16}


def test_problem_five_can_be_seen_without_training(clone, data_dir):
    stdout, stderr = succeed(clone, "run_fsvae.py", "--data_dir", data_dir, "--train", 0)
    assert "iteration 50,000 of 1,000,000, reference weights, on synthetic digits" in stdout
    assert "SYNTHETIC DATA" in stderr and "samples.png" in stdout


def test_without_the_data_and_a_decoder_there_is_nothing(clone):
    flags = ("--data_dir", clone / "no", "--train", 0, "--gw", 0)
    assert "--gw 0 trains no decoder" in refused(clone, "run_ssvae.py", *flags)


@pytest.mark.parametrize("script", SCRIPTS[:3])
def test_without_the_data_there_are_samples(script, clone):
    stdout, stderr = succeed(clone, script, "--data_dir", clone / "no", "--train", 0)
    assert "reference weights: only samples are drawn" in stderr and str(clone / "no") in stderr
    [path] = (clone / "logs").rglob("*.png")
    assert stdout == f"Picture: {path}\n" and path.name == "samples.png"
    assert not (clone / "no").exists()


def test_your_run_comes_first_and_hides_nothing(clone, data_dir, mnist_dir):
    """A synthetic run, and then MNIST: each command says what it evaluates."""
    base = ("--data", "synthetic", "--data_dir", data_dir)
    before = contents(clone)
    flags = (*base, "--iter_max", 3)
    with_them, _ = succeed(clone, "run_vae.py", *flags, "--resume", 1)
    bare, _ = succeed(clone / "bare", "run_vae.py", *flags)
    assert report_lines(with_them) == report_lines(bare)
    name = f"{VAE_NAME}_data=synthetic"
    own, other = (
        weights(folder / "checkpoints" / name / "model-00003.pt")
        for folder in (clone, clone / "bare")
    )
    assert same_weights(own, other)
    flags = ("--data_dir", mnist_dir, "--train", 0)
    stdout, stderr = succeed(clone, "run_vae.py", *flags)
    assert report_lines(stdout) == report_lines(bare)
    assert f"Evaluating {name}, iteration 3 of 20,000, your run, on synthetic digits" in stdout
    assert "To evaluate the reference weights instead: --reference 1" in stderr
    for more in (("--data", "mnist"), ("--reference", 1)):
        stdout, stderr = succeed(clone, "run_vae.py", *flags, *more)
        first = f"Evaluating {VAE_NAME}, iteration 20,000, reference weights, on MNIST"
        assert report_lines(stdout)[0] == first and "instead" not in stderr
    after = contents(clone)
    assert {path: after[path] for path in before} == before


def test_a_synthetic_run_does_not_keep_a_new_one_from_mnist(folders, mnist_dir):
    finished_run("run_vae.py", 3)
    stdout, _ = succeed(folders, "run_vae.py", "--data_dir", mnist_dir, "--iter_max", 2)
    assert f"Evaluating {VAE_NAME}, iteration 2 of 20,000, your run, on MNIST" in stdout


def test_other_runs_have_no_reference(clone, data_dir):
    base = ("--data_dir", data_dir, "--train", 0)
    for flags in (("--z", 3), ("--run", 1), (), ("--beta", 2)):
        line = refused(clone, "run_vae.py", *base, *flags, "--data", "synthetic")
        assert "does not exist" in line
        advice = "or use the weights trained on mnist data, with --data mnist"
        assert (advice in line) is (flags == ())
    for flags in (("--z", 3), ("--data", "synthetic")):
        line = refused(clone, "run_vae.py", *base, *flags, "--reference", 1)
        assert "no reference weights were trained with these flags" in line
        assert "there are weights of model=fsvae_run=0000_data=synthetic" in line
    line = refused(clone, "run_vae.py", *base, "--iter_max", 7)
    assert "model-00007.pt does not exist" in line and "--iter_max 20000)" in line
    assert "--lr" in refused(clone, "run_vae.py", *base, "--lr", 0.5)


def test_load_run_takes_them(folders, monkeypatch):
    shutil.copytree(REFERENCES, folders / "checkpoints" / "reference")
    finished_run("run_vae.py", 3, data="mnist")
    own, model = load_run(VAE_NAME), load_run(f"reference/{VAE_NAME}")
    assert not same_weights(own.state_dict(), model.state_dict())
    shutil.rmtree(checkpoints.run_folder(VAE_NAME))
    assert same_weights(load_run(VAE_NAME).state_dict(), model.state_dict())
    kept = weights(REFERENCES / VAE_NAME / "model-20000.pt")
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, kept[key].float())


def test_the_run_json_of_another_run_is_refused(clone, data_dir):
    place = clone / "checkpoints" / "reference"
    other = place / "model=gmvae_z=10_k=500_run=0000" / "run.json"
    shutil.copy(other, place / VAE_NAME / "run.json")
    line = refused(clone, "run_vae.py", "--data_dir", data_dir, "--train", 0)
    assert f"{place / VAE_NAME / 'run.json'} belongs to 'model=gmvae" in line


# Making them


def test_keeping_a_run(folders):
    run = finished_run("run_gmvae.py", 20_000, z=2, k=3)
    own = weights(checkpoints.file_of(run.folder, 20_000))
    with pytest.raises(UserError, match="is not finished"):
        keep_as_reference(run.name)
    results = run.results(20_000, {"NELBO": 1.0}, torch.device("cpu"))
    runs.write_json(run.logs / "results.json", results)
    old = checkpoints.file_of(checkpoints.reference_folder(run.name), 10_000)
    checkpoints.write_weights(run.build(), old)
    path = keep_as_reference(run.name)
    assert path == folders / "checkpoints" / "reference" / run.name / "model-20000.pt"
    assert not old.exists()
    for key, kept in weights(path).items():
        assert kept.dtype == torch.float16
        # Ten bits behind the leading one; below 2^-14 a fixed 2^-25.
        assert ((kept.float() - own[key]).abs() <= own[key].abs() / 2048 + 2**-25).all()
    assert (path.parent / "run.json").read_bytes() == (run.folder / "run.json").read_bytes()
    assert isinstance(load_run(run.name), GMVAE)


def test_weights_too_large_for_half_precision_replace_nothing(folders):
    run = finished_run("run_vae.py", 2)
    runs.write_json(run.logs / "results.json", run.results(2, {"NELBO": 1.0}, torch.device("cpu")))
    keep_as_reference(run.name)
    model = run.build()
    next(model.parameters()).data.fill_(7e4)
    checkpoints.save_model_by_name(model, 2)
    before = contents(folders / "checkpoints" / "reference")
    with pytest.raises(UserError, match="too large for half precision"):
        keep_as_reference(run.name)
    assert contents(folders / "checkpoints" / "reference") == before


def test_a_link_among_the_references_hides_no_run_of_yours(folders, data_dir, tmp_path):
    run = finished_run("run_vae.py", 2)
    (folders / "elsewhere").mkdir()
    (folders / "elsewhere" / "model-00002.pt").touch()
    (folders / "checkpoints" / "reference").mkdir()
    (folders / "checkpoints" / "reference" / run.name).symlink_to(folders / "elsewhere")
    assert load_run(run.name).name == run.name
    flags = ("--data", "synthetic", "--data_dir", data_dir, "--train", 0)
    assert "your run" in succeed(folders, "run_vae.py", *flags)[0]
    line = refused(folders, "run_vae.py", *flags, "--reference", 1)
    assert "leads out of" in line


def test_what_cannot_be_kept(folders):
    with pytest.raises(UserError, match="train the run first"):
        keep_as_reference("model=vae_z=03_run=0000")
    run = finished_run("run_vae.py", 7)
    with pytest.raises(UserError, match="is not finished"):
        keep_as_reference(run.name)


@pytest.mark.process
def test_no_test_looks_at_the_users_runs(tmp_path):
    """With a junk run of each name in place, the tests that load weights pass as in a clone."""
    project = tmp_path / "project"
    ignored = shutil.ignore_patterns(".git", ".venv", "data", "logs", "__pycache__")
    shutil.copytree(ROOT, project, ignore=ignored)
    for name in EXPECTED:
        for data in ("", "_data=synthetic"):
            for root, file in (
                ("checkpoints", "model-20000.pt"),
                ("checkpoints", "run.json"),
                ("checkpoints", "training-state.pt"),
                ("logs", "results.json"),
            ):
                path = project / root / f"{name}{data}" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("junk", encoding="utf-8")
    before = contents(project / "checkpoints") | contents(project / "logs")
    files = ("reference_runs", "readme", "equations")
    tests = [f"tests/test_{file}.py" for file in files]
    chosen = "not (process or sandbox or browser or catalogue or attack)"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-m", chosen, *tests],
        cwd=project,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout
    assert contents(project / "checkpoints") | contents(project / "logs") == before
