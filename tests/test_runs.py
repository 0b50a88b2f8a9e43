"""Runs: names, run.json, what is refused, what --train 0 evaluates, load_run, replicates."""

import argparse
import csv
import importlib
import json
import math
import shutil

import pytest
import torch
from conftest import (
    NAME,
    SCRIPTS,
    SHORT,
    contents,
    finished_run,
    refused,
    report_lines,
    results,
    same_weights,
    succeed,
    weights,
)
from filelock import FileLock

import codebase
from codebase import UserError, models, project
from codebase.runs import run as runs

EXPERIMENTS = {
    script: importlib.import_module(script.removesuffix(".py")).experiment for script in SCRIPTS
}
VAE = ("run_vae.py", *SHORT)
RUN = NAME.format(0)


@pytest.fixture
def there(tmp_path, trained):
    """The folder of a finished run of the flags VAE."""
    trained(tmp_path, *VAE)
    return tmp_path / "checkpoints" / RUN


def run_json(folder, name):
    return json.loads((folder / "checkpoints" / name / "run.json").read_text(encoding="utf-8"))


# Names and models


@pytest.mark.parametrize(
    "script, given, name",
    [
        ("run_vae.py", {}, "model=vae_z=10_run=0000"),
        ("run_vae.py", {"z": 2, "run": 12345}, "model=vae_z=02_run=12345"),
        ("run_gmvae.py", {"k": 7}, "model=gmvae_z=10_k=007_run=0000"),
        ("run_ssvae.py", {"gw": 0, "cw": 50}, "model=ssvae_gw=000_cw=050_run=0000"),
        ("run_fsvae.py", {"run": 3}, "model=fsvae_run=0003"),
        ("run_vae.py", {"beta": 4.0, "lr": 0.1}, "model=vae_z=10_run=0000_beta=4"),
    ],
)
def test_names(script, given, name):
    experiment = EXPERIMENTS[script]
    flags = experiment.identity(given, experiment.dataset)
    assert experiment.name_of(flags) == name
    assert flags["seed"] == given.get("run", 0)
    assert "_data=synthetic" in experiment.name_of(experiment.identity(given, "synthetic"))
    if "beta" in given:
        with pytest.raises(UserError, match="is not the name of a run"):
            project.model_of_name(name)
        return
    assert project.group_of(name) == name.partition("_run")[0]
    described = experiment.model(argparse.Namespace(**flags))
    found = project.model_of_name(name)
    assert found.items() <= described.items()
    one, other = models.build(found, name), models.build(described, name)
    assert type(one) is type(other)
    assert repr(one.state_dict().keys()) == repr(other.state_dict().keys())


# run.json


def test_run_json_says_how_a_run_was_made(tmp_path):
    flags = ("--prior", "laplace", "--likelihood", "gaussian", "--seed", 5, "--lr", 0.01)
    succeed(tmp_path, *VAE, *flags)
    name = RUN + "_likelihood=gaussian_prior=laplace"
    found = run_json(tmp_path, name)
    assert found["name"] == name
    assert found["model"] == {
        **{"class": "LaplaceVAE", "nn": "v1", "z_dim": 10, "beta": 1.0},
        "likelihood": {"variance": 0.392, "squash": "sigmoid"},
    }
    assert (found["flags"]["seed"], found["flags"]["lr"]) == (5, 0.01)
    assert found["torch"] == torch.__version__ and found["device"] and found["threads"] == 1
    assert results(tmp_path, name)["trained"] == found["flags"]
    folder = tmp_path / "checkpoints" / name
    written = [(folder / file).stat().st_mtime_ns for file in ("run.json", "model-00004.pt")]
    assert written == sorted(written)

    succeed(tmp_path, *VAE, *flags[:4], "--resume", 1, "--iter_max", 9)
    assert run_json(tmp_path, name) == found  # whose seed and rate apply
    assert results(tmp_path, name)["trained"]["lr"] == 0.01


def test_a_damaged_run_json_is_refused(there, tmp_path):
    for damage in (b"", b"{", b"\xff"):
        (there / "run.json").write_bytes(damage)
        before = contents(tmp_path)
        for more in (("--train", 0), ("--resume", 1)):
            line = refused(tmp_path, *VAE, *more)
            assert "run.json" in line and "--overwrite 1" in line
        assert contents(tmp_path) == before


def test_old_run_json_files_build_the_same_models():
    """The description in the reference weights' run.json is the one that scripts make today."""
    for folder in sorted((project.ROOT / "checkpoints" / "reference").iterdir()):
        run = runs.read_run(folder)
        kind = run.name.partition("_")[0].removeprefix("model=")
        experiment = EXPERIMENTS[f"run_{kind}.py"]
        assert experiment.model(argparse.Namespace(**run.flags)) == run.model
        assert experiment.name_of(experiment.identity(run.flags, run.flags["data"])) == run.name


# Never replaced in silence


REFUSED = {
    (): ("at iteration 6", "--overwrite 1", "--resume 1", "--train 0", "another --run"),
    ("--train", 0, "--iter_max", 7): ("model-00007.pt does not exist", "--iter_max 4, 6)"),
    ("--train", 0, "--run", 3): ("train first",),
    ("--resume", 1, "--iter_max", 5): ("at iteration 6 already", "larger"),
    ("--replicates", 1, "--iter_max", 5): ("at iteration 6 already",),
    ("--overwrite", 1, "--device", "abacus"): ("--device abacus", "--device cpu"),
    ("--overwrite", 1, "--data", "mnist"): ("MNIST/raw",),
    ("--train", 0, "--lr", 0.1): ("--lr 0.1: ", "was trained with --lr 0.001"),
    ("--resume", 1, "--seed", 3): ("--seed 3: ", "was trained with --seed 0"),
    ("--resume", 1, "--batch_size", 5): ("--batch_size 5: ", "was trained with --batch_size 97"),
}


def test_an_existing_run_is_not_replaced(there, tmp_path):
    before = contents(tmp_path)
    for case, messages in REFUSED.items():
        line = refused(tmp_path, *VAE, *case)
        assert all(message in line for message in messages), line
        assert contents(tmp_path) == before


def test_overwriting_leaves_nothing_of_the_old_run(there, tmp_path):
    old = contents(tmp_path)
    succeed(tmp_path, *VAE, "--overwrite", 1, "--iter_max", 2, "--seed", 8)
    new = contents(tmp_path)
    assert f"checkpoints/{RUN}/model-00002.pt" in new and results(tmp_path, RUN)
    assert not any(path in new and new[path] == content for path, content in old.items())
    assert not any("model-00006" in path or "samples-00004" in path for path in new)


def test_two_processes_do_not_train_one_run(tmp_path):
    lock = tmp_path / "checkpoints" / ".locks" / RUN
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        assert "is being trained by another process" in refused(tmp_path, *VAE)


def test_a_state_that_cannot_be_continued_names_the_ways_out(there, tmp_path):
    path = there / "training-state.pt"
    path.write_bytes(path.read_bytes()[:-100])
    line = refused(tmp_path, *VAE, "--resume", 1, "--iter_max", 9)
    assert "training-state.pt" in line and "--overwrite 1" in line and "--train 0" in line


# --train 0


def test_an_evaluation_changes_nothing_of_the_training(there, tmp_path):
    before = contents(tmp_path)
    script, *data = VAE[:5]
    stdout, _ = succeed(tmp_path, script, *data, "--train", 0, "--sheet", "2x2")
    first, *metrics = report_lines(stdout)
    assert first.startswith(f"Evaluating {RUN}, iteration 6 of 20,000, your run, on ")
    assert metrics[0].startswith(f"NELBO: {results(tmp_path, RUN)['figures']['NELBO']}")
    earlier, _ = succeed(tmp_path, script, *data, "--train", 0, "--iter_max", 4)
    assert "iteration 4 of" in earlier
    after = contents(tmp_path)
    assert {path: after[path] for path in before} == before
    new = {path.split("/")[2] for path in after.keys() - before.keys()}
    assert new == {"evaluation-00004", "evaluation-00006"}


def test_other_peoples_weights(there, tmp_path):
    """Without a run.json they are evaluated by their name, and leave your results alone."""
    (there / "run.json").unlink()
    before = contents(tmp_path)
    assert "no run.json" in refused(tmp_path, *VAE, "--resume", 1, "--iter_max", 9)
    stdout, _ = succeed(tmp_path, *VAE, "--train", 0)
    assert "weights without a run.json" in stdout
    after = contents(tmp_path)
    assert {path: after[path] for path in before} == before and len(after) > len(before)
    shutil.rmtree(tmp_path / "logs")
    succeed(tmp_path, *VAE, "--train", 0)
    assert results(tmp_path, RUN)["trained"] == "not recorded" and not (there / "run.json").exists()


def test_the_flag_test_set(there, tmp_path):
    """Its values are printed after the report, and written beside it."""
    stdout, _ = succeed(tmp_path, *VAE, "--train", 0, "--test_set", 1)
    assert "Test set of 100 images, binarised with seed 0, mean ± standard error. NELBO: " in stdout
    path = tmp_path / "logs" / RUN / "evaluation-00006" / "test-set.json"
    assert json.loads(path.read_text(encoding="utf-8")).keys() == {"NELBO", "IWAE-1000"}
    assert "pass --train 0 too" in refused(tmp_path, *VAE, "--test_set", 1)
    assert "unrecognized arguments" in refused(tmp_path, "run_ssvae.py", "--test_set", 1)


# load_run


@pytest.mark.parametrize("recorded", [True, False])
def test_load_run(recorded, folders):
    laplace = {"prior": "laplace", "likelihood": "gaussian", "nn": "v3", "z": 3}
    own = {"vae": {}, "gmvae": {"k": 5}, "ssvae": {"gw": 0, "cw": 50}, "fsvae": {}}
    made = [finished_run(f"run_{kind}.py", 1, 2, **flags) for kind, flags in own.items()]
    made += [finished_run("run_vae.py", 1, 2, **laplace)] if recorded else []
    before = torch.get_rng_state()
    for run in made:
        path, name = run.folder, run.name
        if not recorded:  # other people's weights: the homework's name tells
            (path / "run.json").unlink()
            path = path.rename(path.with_name(name := name.removesuffix("_data=synthetic")))
        last, first = weights(path / "model-00002.pt"), weights(path / "model-00001.pt")
        for found in (name, path, str(path), path / "model-00002.pt"):
            model = codebase.load_run(found)
            assert same_weights(model.state_dict(), last) and not model.training
            assert model.name == name and not any(p.requires_grad for p in model.parameters())
        assert same_weights(codebase.load_run(name, step=1).state_dict(), first)
        assert same_weights(codebase.load_run(path / "model-00001.pt").state_dict(), first)
    assert type(model) is (models.LaplaceVAE if recorded else models.FSVAE)
    assert torch.equal(torch.get_rng_state(), before)


def test_load_run_of_what_is_not_there(folders):
    folder = finished_run("run_vae.py", 1, 2).folder
    for run, step, message in (
        ("model=vae_z=11_run=0000", None, "does not exist"),
        (RUN, 7, r"no weights of iteration 7; it has iterations \[1, 2\]"),
        (folder / "model-00009.pt", None, "or is not named model-"),
        (folder / "model-00001.pt", 2, "weights of iteration 1, not 2"),
    ):
        with pytest.raises(UserError, match=message):
            codebase.load_run(run, step)


# Replicates and the table


def test_replicates(tmp_path):
    """Three runs, the second of them interrupted before, the third done already."""
    succeed(tmp_path, *VAE, "--run", 9, "--seed", 6)
    succeed(tmp_path, *VAE, "--run", 8, "--seed", 5, "--iter_max", 5)
    before = contents(tmp_path)
    command = (*VAE, "--run", 7, "--seed", 4, "--replicates", 3)
    stdout, stderr = succeed(tmp_path, *command)
    after = contents(tmp_path)
    assert all(after[path] == before[path] for path in before if "run=0009" in path)
    assert f"{NAME.format(8)}/model-00005.pt" in str(list(after))  # it was resumed
    assert stdout.count("| 3 |") == 5 and "NELBO: " not in stdout and "NELBO: " in stderr
    found = [results(tmp_path, NAME.format(run)) for run in (7, 8, 9)]
    assert [(one["seed"], one["iterations"]) for one in found] == [(4, 6), (5, 6), (6, 6)]
    table = (tmp_path / "logs" / "model=vae_z=10_data=synthetic.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(table.splitlines()):
        values = [one["figures"][row["figure"]] for one in found]
        assert math.isclose(float(row["mean"]), sum(values) / 3)
        assert row["published"] == ""  # synthetic digits are not comparable
    assert "--all" in refused(tmp_path, "codebase", "table")
    assert stdout in succeed(tmp_path, "codebase", "table", "--all")[0]
    succeed(tmp_path, *VAE, "--run", 20, "--replicates", 2)  # without --seed, it is the number
    assert [results(tmp_path, NAME.format(run))["seed"] for run in (20, 21)] == [20, 21]


def test_comparing_runs(there, tmp_path, whole_data):
    succeed(tmp_path, *VAE, "--run", 1)
    out = tmp_path / "runs.png"
    command = ("compare", RUN, NAME.format(1), "--data_dir", whole_data, "--out", out)
    assert str(out) in succeed(tmp_path, "codebase", *command)[0]
    assert out.read_bytes().startswith(b"\x89PNG")
    line = refused(tmp_path, "codebase", *command, "--labels", "one")
    assert "--labels: got 1 different labels for 2 runs" in line
