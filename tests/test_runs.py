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
    SCRIPTS,
    contents,
    finished_run,
    in_process,
    refused,
    report_lines,
    results,
    same_weights,
    succeed,
    weights,
)
from filelock import FileLock

import codebase
import run_vae
from codebase import UserError, models, project
from codebase.runs import replicates, table
from codebase.runs import run as runs

EXPERIMENTS = {
    script: importlib.import_module(script.removesuffix(".py")).experiment for script in SCRIPTS
}
NAME = "model=vae_z=10_run={:04d}_data=synthetic"
SHORT = ("--iter_max", 6, "--iter_save", 4, "--sheet", "2x2")


@pytest.fixture
def base(data_dir):
    return ("--data", "synthetic", "--data_dir", data_dir, *SHORT)


def run_json(folder, name):
    return json.loads((folder / "checkpoints" / name / "run.json").read_text(encoding="utf-8"))


def everything(folder):
    return contents(folder / "checkpoints") | contents(folder / "logs")


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
    synthetic = experiment.name_of(experiment.identity(given, "synthetic"))
    assert "_data=synthetic" in synthetic
    group = name.partition("_run")[0] + ("_beta=4" if "beta" in given else "")
    assert project.group_of(name) == group
    if "beta" not in given:
        described = experiment.model(argparse.Namespace(**flags))
        found = project.model_of_name(name)
        assert found.items() <= described.items()
        one, other = models.build(found, name), models.build(described, name)
        assert type(one) is type(other)
        assert repr(one.state_dict().keys()) == repr(other.state_dict().keys())


@pytest.mark.parametrize(
    "name", ["", "model=vae", "model=vae_z=10", "model=vae_z=x_run=0000", "model=other_run=0000"]
)
def test_names_that_are_not_the_homeworks(name):
    with pytest.raises(UserError, match="is not the name of a run"):
        project.model_of_name(name)


@pytest.mark.parametrize(
    "description",
    [{}, {"class": "Other"}, {"class": "VAE", "k": 3}, {"class": "VAE", "likelihood": "other"}],
)
def test_descriptions_of_no_model_are_refused(description):
    with pytest.raises(ValueError, match="class|not a VAE|likelihood"):
        models.build(description, "name")


# run.json


def test_run_json_says_how_a_run_was_made(tmp_path, base):
    flags = ("--prior", "laplace", "--likelihood", "gaussian", "--seed", 5, "--lr", 0.01)
    succeed(tmp_path, "run_vae.py", *base, *flags)
    name = NAME.format(0) + "_likelihood=gaussian_prior=laplace"
    found = run_json(tmp_path, name)
    assert found["name"] == name
    assert found["model"] == {
        **{"class": "LaplaceVAE", "nn": "v1", "z_dim": 10, "beta": 1.0},
        "likelihood": {"variance": 0.392, "squash": "sigmoid"},
    }
    assert (found["flags"]["seed"], found["flags"]["lr"]) == (5, 0.01)
    assert found["torch"] == torch.__version__ and found["device"] and found["threads"] == 1
    assert results(tmp_path, name)["trained"] == found["flags"]

    before = run_json(tmp_path, name)
    longer = (*base, *flags[:4], "--resume", 1, "--iter_max", 9)
    succeed(tmp_path, "run_vae.py", *longer)  # the seed and the rate are those of run.json
    assert run_json(tmp_path, name) == before
    assert results(tmp_path, name)["trained"]["lr"] == 0.01


@pytest.mark.parametrize("train", [("--train", 0), ("--resume", 1)])
@pytest.mark.parametrize("flag, value", [("lr", 0.1), ("seed", 3), ("batch_size", 5)])
def test_a_flag_that_contradicts_it_is_refused(flag, value, train, tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base)
    before = everything(tmp_path)
    line = refused(tmp_path, "run_vae.py", *base, *train, f"--{flag}", value)
    assert f"--{flag} {value}: " in line and f"was trained with --{flag}" in line
    assert everything(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"name": "other"}'])
def test_a_damaged_run_json_is_refused(content, tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base)
    (tmp_path / "checkpoints" / NAME.format(0) / "run.json").write_bytes(content)
    before = everything(tmp_path)
    for more in (("--train", 0), ("--resume", 1)):
        line = refused(tmp_path, "run_vae.py", *base, *more)
        assert "run.json" in line and "--overwrite 1" in line
    assert everything(tmp_path) == before


def test_the_folder_of_another_run_is_refused(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base)
    folder = tmp_path / "checkpoints" / NAME.format(0)
    folder.rename(folder.with_name(NAME.format(1)))
    line = refused(tmp_path, "run_vae.py", *base, "--train", 0, "--run", 1)
    assert f"belongs to '{NAME.format(0)}'" in line


# Never replaced in silence


def test_an_existing_run_is_not_replaced(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base)
    before = everything(tmp_path)
    cases = {
        (): ("at iteration 6", "--overwrite 1", "--resume 1", "--train 0", "another --run"),
        ("--train", 0, "--iter_max", 7): ("model-00007.pt does not exist", "--iter_max 4, 6)"),
        ("--train", 0, "--run", 3): ("train first",),
        ("--resume", 1, "--iter_max", 5): ("at iteration 6 already", "larger"),
        ("--replicates", 1, "--iter_max", 5): ("at iteration 6 already",),
        ("--overwrite", 1, "--device", "abacus"): ("--device abacus", "--device cpu"),
        ("--overwrite", 1, "--data", "mnist", "--data_dir", tmp_path): ("MNIST/raw",),
    }
    for case, messages in cases.items():
        line = refused(tmp_path, "run_vae.py", *base, *case)
        assert all(message in line for message in messages), line
        assert everything(tmp_path) == before


def test_overwriting_leaves_nothing_of_the_old_run(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base)
    old = everything(tmp_path)
    succeed(tmp_path, "run_vae.py", *base, "--overwrite", 1, "--iter_max", 2, "--seed", 8)
    new = everything(tmp_path)
    assert f"{NAME.format(0)}/model-00002.pt" in new and results(tmp_path, NAME.format(0))
    assert not any(path in new and new[path] == content for path, content in old.items())
    assert not any("model-00006" in path or "samples-00004" in path for path in new)


def test_two_processes_do_not_train_one_run(tmp_path, base):
    lock = tmp_path / "checkpoints" / ".locks" / NAME.format(0)
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        line = refused(tmp_path, "run_vae.py", *base)
        assert "is being trained by another process" in line
    succeed(tmp_path, "run_vae.py", *base)


def test_a_state_that_cannot_be_continued_names_the_ways_out(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base)
    path = tmp_path / "checkpoints" / NAME.format(0) / "training-state.pt"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    line = refused(tmp_path, "run_vae.py", *base, "--resume", 1, "--iter_max", 9)
    assert "training-state.pt" in line and "--overwrite 1" in line and "--train 0" in line
    path.unlink()
    line = refused(tmp_path, "run_vae.py", *base, "--resume", 1, "--iter_max", 9)
    assert "no training-state.pt" in line and "--overwrite 1" in line
    path.write_bytes(content)
    (path.parent / "run.json").unlink()
    line = refused(tmp_path, "run_vae.py", *base, "--resume", 1, "--iter_max", 9)
    assert "no run.json" in line and "--train 0" in line


def test_resuming_what_is_not_there_starts_a_run(tmp_path, base):
    _, stderr = succeed(tmp_path, "run_vae.py", *base, "--resume", 1)
    assert f"there is no run {NAME.format(0)}" in stderr
    assert results(tmp_path, NAME.format(0))["iterations"] == 6


# --train 0


def test_an_evaluation_changes_nothing_of_the_training(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base)
    before = everything(tmp_path)
    stdout, _ = succeed(tmp_path, "run_vae.py", *base[:4], "--train", 0, "--sheet", "2x2")
    first, *metrics = report_lines(stdout)
    assert first.startswith(f"Evaluating {NAME.format(0)}, iteration 6 of 20,000, your run, on ")
    assert metrics[0].startswith(f"NELBO: {results(tmp_path, NAME.format(0))['figures']['NELBO']}")
    earlier, _ = succeed(tmp_path, "run_vae.py", *base[:4], "--train", 0, "--iter_max", 4)
    assert "iteration 4 of" in earlier
    after = everything(tmp_path)
    assert {path: after[path] for path in before} == before
    new = {path.split("/")[1] for path in after.keys() - before.keys()}
    assert new == {"evaluation-00004", "evaluation-00006"}


def test_other_peoples_weights(tmp_path, base, trained):
    """Weights without a run.json are evaluated by their name, and marked as not recorded."""
    trained(tmp_path, "run_vae.py", *base)
    folder = tmp_path / "checkpoints" / NAME.format(0)
    for name in ("run.json", "training-state.pt"):
        (folder / name).unlink()
    shutil.rmtree(tmp_path / "logs")
    line = refused(tmp_path, "run_vae.py", *base)
    assert "no training-state.pt" in line or "no run.json" in line
    stdout, _ = succeed(tmp_path, "run_vae.py", *base, "--train", 0)
    assert "weights without a run.json" in stdout
    assert results(tmp_path, NAME.format(0))["trained"] == "not recorded"
    assert not (folder / "run.json").exists()


def test_other_peoples_weights_do_not_overwrite_your_results(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base)
    (tmp_path / "checkpoints" / NAME.format(0) / "run.json").unlink()
    before = contents(tmp_path / "logs")
    succeed(tmp_path, "run_vae.py", *base, "--train", 0)
    after = contents(tmp_path / "logs")
    assert {path: after[path] for path in before} == before and len(after) > len(before)


def test_weights_of_another_shape(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base)
    folder = tmp_path / "checkpoints" / NAME.format(0)
    (folder / "run.json").unlink()
    folder.rename(folder.with_name(NAME.format(0).replace("z=10", "z=07")))
    line = refused(tmp_path, "run_vae.py", *base, "--train", 0, "--z", 7)
    assert "(20, 300)" in line and "(14, 300)" in line


def test_the_flag_test_set(tmp_path, base, trained, monkeypatch):
    """Its values are printed after the report, and written beside it."""
    values = {"NELBO": (1.0, 0.5)}
    monkeypatch.setattr("codebase.runs.test_set.evaluate_test_set", lambda *of: values)
    trained(tmp_path, "run_vae.py", *base)
    status, _, _ = in_process(tmp_path, "run_vae.py", *base, "--train", 0, "--test_set", 1)
    assert status == 0
    path = tmp_path / "logs" / NAME.format(0) / "evaluation-00006" / "test-set.json"
    assert json.loads(path.read_text(encoding="utf-8")) == {"NELBO": [1.0, 0.5]}
    assert "pass --train 0 too" in refused(tmp_path, "run_vae.py", *base, "--test_set", 1)
    assert "unrecognized arguments" in refused(tmp_path, "run_ssvae.py", *base, "--test_set", 1)


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


@pytest.mark.parametrize(
    "run, step, message",
    [
        ("model=vae_z=11_run=0000", None, "does not exist"),
        ("nothing/there", None, "does not exist"),
        (NAME.format(0), 7, r"no weights of iteration 7; it has iterations \[1, 2\]"),
        ("{}/model-00009.pt", None, "or is not named model-"),
        ("{}/training-state.pt", None, "or is not named model-"),
        ("{}/model-00001.pt", 2, "weights of iteration 1, not 2"),
    ],
)
def test_load_run_of_what_is_not_there(run, step, message, folders):
    own = finished_run("run_vae.py", 1, 2)
    with pytest.raises(UserError, match=message):
        codebase.load_run(run.format(own.folder), step)


# Replicates and the table


@pytest.mark.process
def test_replicates(tmp_path, base):
    """Three runs, the second of them interrupted before, the third done already."""
    succeed(tmp_path, "run_vae.py", *base, "--run", 2)
    done_before = (tmp_path / "logs" / NAME.format(2) / "results.json").stat().st_mtime_ns
    succeed(tmp_path, "run_vae.py", *base, "--iter_max", 5, "--run", 1)
    stdout, stderr = succeed(tmp_path, "run_vae.py", *base, "--replicates", 3)
    assert (tmp_path / "logs" / NAME.format(2) / "results.json").stat().st_mtime_ns == done_before
    assert stdout.count("| 3 |") == 5 and "NELBO: " not in stdout and "NELBO: " in stderr
    found = [results(tmp_path, NAME.format(run)) for run in range(3)]
    assert [one["seed"] for one in found] == [0, 1, 2]
    table = (tmp_path / "logs" / "model=vae_z=10_data=synthetic.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(table.splitlines()):
        values = [one["figures"][row["figure"]] for one in found]
        assert math.isclose(float(row["mean"]), sum(values) / 3)
        assert row["published"] == ""  # synthetic digits are not comparable
    succeed(tmp_path / "alone", "run_vae.py", *base, "--run", 1)
    path = f"checkpoints/{NAME.format(1)}/model-00006.pt"
    assert same_weights(weights(tmp_path / "alone" / path), weights(tmp_path / path))
    before = contents(tmp_path / "checkpoints")
    assert succeed(tmp_path, "run_vae.py", *base, "--replicates", 3)[0] == stdout
    assert contents(tmp_path / "checkpoints") == before
    seeds, _ = succeed(tmp_path, "run_vae.py", *base, "--replicates", 2, "--run", 7, "--seed", 4)
    assert [results(tmp_path, NAME.format(run))["seed"] for run in (7, 8)] == [4, 5]


def test_replicates_have_numbers_and_seeds_of_their_own(monkeypatch):
    found = []

    def train_run(experiment, args):
        found.append(experiment.identity(args.given, "mnist"))
        return {"name": experiment.name_of(found[-1])}

    monkeypatch.setattr(replicates, "train_run", train_run)
    monkeypatch.setattr(table, "rows", list)
    monkeypatch.setattr(table, "write", lambda rows, path: None)
    run_vae.main(run_vae.experiment, ["--replicates", "3", "--run", "7", "--device", "cpu"])
    assert [(one["run"], one["seed"]) for one in found] == [(7, 7), (8, 8), (9, 9)]


def test_the_command_table(tmp_path, data_dir, base):
    assert "no finished runs with the published" in refused(tmp_path, "codebase", "table")
    succeed(tmp_path, "run_vae.py", *base)
    assert "--all" in refused(tmp_path, "codebase", "table")
    stdout, _ = succeed(tmp_path, "codebase", "table", "--all")
    assert "| vae_z=10_data=synthetic | NELBO |" in stdout


def test_comparing_runs(tmp_path, base, whole_data):
    for number in (0, 1):
        succeed(tmp_path, "run_vae.py", *base, "--run", number)
    out = tmp_path / "runs.png"
    command = ("compare", NAME.format(0), NAME.format(1), "--data_dir", whole_data, "--out", out)
    assert str(out) in succeed(tmp_path, "codebase", *command)[0]
    assert out.read_bytes().startswith(b"\x89PNG")
    line = refused(tmp_path, "codebase", *command, "--labels", "one")
    assert "--labels: got 1 different labels for 2 runs" in line


def test_old_run_json_files_build_the_same_models(folders):
    """The description in the reference weights' run.json is the one that scripts make today."""
    for folder in sorted((project.ROOT / "checkpoints" / "reference").iterdir()):
        run = runs.read_run(folder)
        kind = run.name.partition("_")[0].removeprefix("model=")
        experiment = EXPERIMENTS[f"run_{kind}.py"]
        assert experiment.model(argparse.Namespace(**run.flags)) == run.model
        assert experiment.name_of(experiment.identity(run.flags, run.flags["data"])) == run.name
