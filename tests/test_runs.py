"""A run is what its record says: no later command relabels it, replaces it, or mixes two."""

import argparse
import importlib
import json
import os
import shutil
import signal

import pytest
import torch
from conftest import (
    Child,
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
from codebase import UserError, checkpoints, data, models
from codebase.models.laplace_vae import LaplaceVAE
from codebase.runs import flags as run_flags
from codebase.runs import run as runs
from codebase.runs.load import run_named
from codebase.runs.training import Training

EXPERIMENTS = {
    kind: importlib.import_module(f"run_{kind}").experiment
    for kind in ("vae", "gmvae", "ssvae", "fsvae")
}
NAME = "model=vae_z=10_run={:04d}_data=synthetic"
SHORT = ("--iter_max", 6, "--iter_save", 4, "--sheet", "2x2")


@pytest.fixture
def base(data_dir):
    return ("--data", "synthetic", "--data_dir", data_dir)


def record(folder, name):
    return json.loads((folder / "checkpoints" / name / "run.json").read_text(encoding="utf-8"))


def everything(folder):
    return contents(folder / "checkpoints") | contents(folder / "logs")


# Names


def test_names_and_flags():
    given = {"z": 3, "beta": 2.0, "run": 7}
    experiment = EXPERIMENTS["vae"]
    identity = experiment.identity(given, "synthetic")
    assert experiment.name_of(identity) == "model=vae_z=03_run=0007_data=synthetic_beta=2"
    assert runs.group_of(experiment.name_of(identity)) == "model=vae_z=03_data=synthetic_beta=2"
    assert identity["seed"] == 7 and experiment.identity({"seed": 3}, "mnist")["seed"] == 3
    other = experiment.name_of(experiment.identity(given | {"beta": 2.0000001}, "mnist"))
    assert other == "model=vae_z=03_run=0007_beta=2.0000001"


def test_the_homeworks_names():
    names = [e.name_of(e.identity({}, e.dataset)) for e in EXPERIMENTS.values()]
    assert names == [
        "model=vae_z=10_run=0000",
        "model=gmvae_z=10_k=500_run=0000",
        "model=ssvae_gw=001_cw=100_run=0000",
        "model=fsvae_run=0000",
    ]
    for name, kind in zip(names, ("VAE", "GMVAE", "SSVAE", "FSVAE"), strict=True):
        assert run_named(name).model["class"] == kind
    assert run_named("model=ssvae_gw=000_cw=1000_run=0003").model == {
        "class": "SSVAE",
        "gen_weight": 0,
        "class_weight": 1000,
    }


@pytest.mark.parametrize("kind", EXPERIMENTS)
def test_a_model_is_built_again_from_its_description(kind):
    experiment = EXPERIMENTS[kind]
    for given in ({}, {"k": 7, "z": 3, "likelihood": "gaussian", "prior": "laplace", "gw": 0}):
        given = {key: v for key, v in given.items() if key in experiment.identity({}, "mnist")}
        model = experiment.build(experiment.identity(given, experiment.dataset))
        description = json.loads(json.dumps(model.describe()))
        again = models.build(model.name, description)
        assert (type(again), again.name) == (type(model), model.name)
        assert again.describe() == model.describe()
        again.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"class": "Path"},
        {"class": "VAE", "z_dim": "ten"},
        {"class": "VAE", "nn": "v9"},
        {"class": "VAE", "depth": 3},
        {"class": "VAE", "likelihood": "poisson"},
        {"class": "GMVAE", "likelihood": {"variance": "x", "squash": None}},
    ],
    ids=str,
)
def test_descriptions_of_no_model_are_refused(description):
    with pytest.raises(ValueError):
        models.build("a name", description)


@pytest.mark.parametrize(
    "name",
    [
        *("", "vae", "model=vae", "model=vae_z=10", "model=vae_run=0000_z=10"),
        *("model=vae_z=10_run=0000_beta=1", "model=resnet_run=0000", "model=fsvae_run=0000_z=3"),
        *("model=vae_z=10_run=-001", "model=vae_z=10_run=0000\n"),
    ],
)
def test_names_that_are_not_the_homeworks(name):
    with pytest.raises(UserError):
        run_named(name)


@pytest.mark.parametrize(
    "kind, text, expected",
    [
        (run_flags.number(int, 0, 9), "-1", "a whole number from 0 to 9"),
        (run_flags.number(int, 0, 9), "18446744073709551616", "a whole number from 0 to 9"),
        (run_flags.number(int, 0, 9), "1" * 5000, "a whole number from 0 to 9"),
        (run_flags.number(int, 0, 9), "ten", "a whole number from 0 to 9"),
        (run_flags.number(float, 1e-9, 10), "nan", "a number from 1e-09 to 10"),
        (run_flags.number(float, 1e-9, 10), "1e300", "a number from 1e-09 to 10"),
        (run_flags.sheet, "10x", "rows x columns"),
    ],
)
def test_refusals_name_the_range(kind, text, expected):
    with pytest.raises(argparse.ArgumentTypeError, match=expected) as caught:
        kind(text)
    assert len(str(caught.value)) < 150


# What training recorded stays


def test_an_evaluation_does_not_relabel_a_run(tmp_path, base):
    succeed(tmp_path, "run_vae.py", *base, *SHORT, "--run", 31, "--batch_size", 50, "--seed", 7)
    name, before = NAME.format(31), everything(tmp_path)
    stdout, _ = succeed(tmp_path, "run_vae.py", *base, "--run", 31, "--train", 0)
    after = everything(tmp_path)
    assert {key: after[key] for key in before} == before
    trained = results(tmp_path, name)
    assert (trained["trained"]["batch_size"], trained["trained"]["seed"]) == (50, 7)
    again = json.loads(
        (tmp_path / "logs" / name / "evaluation-00006/results.json").read_text(encoding="utf-8")
    )
    assert again["figures"] == trained["figures"] and again["trained"] == trained["trained"]
    assert again["date"] and again["torch"] == torch.__version__
    assert "evaluation-00006/samples.png" in stdout


def test_an_earlier_iteration_replaces_nothing(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    before = everything(tmp_path)
    succeed(tmp_path, "run_vae.py", *base, "--train", 0, "--iter_max", 4)
    after = everything(tmp_path)
    assert {key: after[key] for key in before} == before
    own = tmp_path / "logs" / NAME.format(0) / "evaluation-00004"
    assert json.loads((own / "results.json").read_text(encoding="utf-8"))["iterations"] == 4
    assert (own / "samples.png").exists() and (own / "reconstructions.png").exists()
    stdout, _ = succeed(tmp_path, "codebase", "table", "--all")
    assert f"| {results(tmp_path, NAME.format(0))['figures']['NELBO']:.2f} |" in stdout


def test_other_peoples_weights_are_evaluated_as_not_recorded(tmp_path, base, trained):
    trained(tmp_path / "theirs", "run_vae.py", *base, *SHORT)
    shutil.rmtree(tmp_path / "theirs" / "logs")
    folder = tmp_path / "theirs" / "checkpoints" / NAME.format(0)
    for file in ("run.json", "training-state.pt"):
        (folder / file).unlink()
    for step in (4, 6):
        flags = ("--train", 0, "--iter_max", step)
        stdout, _ = succeed(tmp_path / "theirs", "run_vae.py", *base, *flags)
        first = (
            f"Evaluating {NAME.format(0)}, iteration {step} of 20,000, weights without a run.json"
        )
        assert report_lines(stdout)[0].startswith(first)
    found = results(tmp_path / "theirs", NAME.format(0))
    assert found["trained"] == "not recorded" and found["iterations"] == 6
    succeed(tmp_path / "theirs", "run_vae.py", *base, "--train", 0, "--iter_max", 4)
    assert results(tmp_path / "theirs", NAME.format(0)) == found
    stdout, _ = succeed(tmp_path / "theirs", "codebase", "table", "--all")
    assert f"| {found['figures']['NELBO']:.2f} |" in stdout
    line = refused(tmp_path / "theirs", "run_vae.py", *base, "--train", 0)  # no 20,000
    assert "model-20000.pt does not exist: pass a saved iteration (--iter_max 4, 6)" in line
    line = refused(tmp_path / "theirs", "run_vae.py", *base, "--resume", 1)
    assert "no run.json" in line and "--train 0" in line and "--overwrite 1" in line


# Contradictions


def test_a_flag_that_was_not_given_takes_the_recorded_value(tmp_path, base):
    flags = ("--iter_save", 4, "--sheet", "2x2", "--batch_size", 50, "--lr", 0.01, "--seed", 3)
    succeed(tmp_path / "whole", "run_vae.py", *base, *flags, "--iter_max", 6)
    succeed(tmp_path / "parts", "run_vae.py", *base, *flags, "--iter_max", 4)
    folder = tmp_path / "parts"
    stdout, _ = succeed(folder, "run_vae.py", "--data_dir", base[3], "--resume", 1, "--iter_max", 6)
    path = f"checkpoints/{NAME.format(0)}/model-00006.pt"
    assert same_weights(weights(folder / path), weights(tmp_path / "whole" / path))
    assert results(folder, NAME.format(0))["trained"]["lr"] == 0.01
    again, _ = succeed(folder, "run_vae.py", "--data_dir", base[3], "--train", 0)
    assert report_lines(again) == report_lines(stdout)  # the last iteration, the recorded seed
    line = refused(folder, "run_vae.py", *base, "--replicates", 2, "--iter_max", 6)
    assert "--batch_size 97" in line and "50" in line  # the second would be of another kind


@pytest.mark.parametrize(
    "flag, value, other",
    [("--seed", 5, 0), ("--batch_size", 50, 97), ("--lr", 0.5, 0.001)],
)
def test_a_flag_that_contradicts_the_record_is_refused(flag, value, other, tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    before = everything(tmp_path)
    for how in (("--train", 0), ("--resume", 1), ("--replicates", 1), ("--replicates", 2)):
        line = refused(tmp_path, "run_vae.py", *base, *SHORT, *how, flag, value)
        for word in (
            f"{flag} {value}",
            f"{flag} {other}",
            "--overwrite 1",
            "--run",
            NAME.format(0),
        ):
            assert word in line, line
        assert everything(tmp_path) == before


def test_replicates_that_contradict_each_other_are_refused(tmp_path, base):
    succeed(tmp_path, "run_vae.py", *base, *SHORT, "--run", 1, "--batch_size", 10)
    succeed(tmp_path, "run_vae.py", *base, *SHORT, "--run", 2, "--batch_size", 20)
    before = everything(tmp_path)
    line = refused(tmp_path, "run_vae.py", *base, *SHORT, "--run", 1, "--replicates", 2)
    assert "--batch_size 20" in line and "10" in line
    shutil.rmtree(tmp_path / "checkpoints" / NAME.format(2))
    succeed(tmp_path, "run_vae.py", *base, *SHORT, "--run", 3, "--batch_size", 10, "--seed", 1)
    before = everything(tmp_path)
    flags = ("--run", 1, "--replicates", 3, "--batch_size", 10)
    line = refused(tmp_path, "run_vae.py", *base, *SHORT, *flags)
    assert "same seed, 1" in line
    assert everything(tmp_path) == before


def test_a_record_in_the_wrong_folder_is_refused(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / NAME.format(0), folder / NAME.format(0).replace("z=10", "z=07"))
    for how in (("--train", 0), ("--resume", 1)):
        line = refused(tmp_path, "run_vae.py", *base, "--z", 7, *how)
        assert NAME.format(0) in line


def test_another_device_or_number_of_threads_is_said(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    flags = ("--resume", 1, "--iter_max", 8, "--threads", 2)
    _, stderr = succeed(tmp_path, "run_vae.py", *base, *flags)
    assert stderr.count("note: this run was trained with threads 1 and continues with 2;") == 1
    _, stderr = succeed(tmp_path, "run_vae.py", *base, "--resume", 1, "--iter_max", 9)
    assert "threads 2 and continues with 1;" in stderr


# Decided under the lock


@pytest.mark.process
def test_two_at_once(tmp_path, base):
    """The second is refused at once, and the first goes on undisturbed."""
    folder = tmp_path / "checkpoints" / NAME.format(0)
    first = Child(tmp_path, "run_vae.py", *base, "--iter_save", 50)
    first.wait_until(lambda: (folder / "model-00050.pt").exists())
    for flags in ((), ("--overwrite", 1), ("--resume", 1), ("--replicates", 1)):
        assert "being trained by another process" in refused(tmp_path, "run_vae.py", *base, *flags)
    assert first.process.is_alive()
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.join()
    step = weights(folder / "training-state.pt")["step"]
    more = ("--resume", 1, "--iter_max", step + 5)  # the lock died with its holder
    succeed(tmp_path, "run_vae.py", *base, *more)


def test_what_happened_before_the_lock_is_seen(tmp_path, base, folders, monkeypatch):
    """B starts while A trains and gets the lock once A has finished: it sees A's weights."""
    started, locked = {}, runs.locked

    def a_comes_first(name, what):
        if not started:
            started["a"] = succeed(tmp_path, "run_vae.py", *base, *SHORT)
        return locked(name, what)

    monkeypatch.setattr(runs, "locked", a_comes_first)
    given = {"data": "synthetic"}
    for more, message in (
        ({"overwrite": 0, "resume": 0}, "holds a run"),
        ({"overwrite": 0, "resume": 1, "iter_max": 5}, "at iteration 6 already"),
    ):
        args = argparse.Namespace(**{"iter_max": 6, "iter_save": 4, "replicates": None} | more)
        source = data.Source("synthetic", base[3], torch.device("cpu"))
        training = Training(EXPERIMENTS["vae"], given | more, args, source)
        with pytest.raises(UserError, match=message), training:
            pass
        started.clear()
        shutil.rmtree(tmp_path / "checkpoints")


@pytest.mark.process
def test_a_run_is_not_replaced_while_it_is_evaluated(tmp_path, base, folders, trained):
    """The replacement waits until the evaluation has ended."""
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    path = tmp_path / "checkpoints" / NAME.format(0) / "model-00006.pt"
    old = path.read_bytes()
    lock = FileLock(tmp_path / "checkpoints" / ".locks" / f"{NAME.format(0)}.evaluation")
    with lock:
        child = Child(tmp_path, "run_vae.py", *base, *SHORT, "--overwrite", 1, "--seed", 9)
        child.process.join(2)
        assert child.process.is_alive() and path.read_bytes() == old
    assert child.finish()[0] == 0
    assert path.read_bytes() != old


# Training states, and what to do without one


def test_resuming_what_is_not_there_is_said(tmp_path, base):
    _, stderr = succeed(tmp_path, "run_vae.py", *base, *SHORT, "--resume", 1)
    assert f"note: there is no run {NAME.format(0)} to resume, so a new run starts" in stderr


def test_a_damaged_state_names_the_ways_out(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    state = tmp_path / "checkpoints" / NAME.format(0) / "training-state.pt"
    sound = state.read_bytes()
    for damage in (b"", sound[:1000], bytes(len(sound)), sound.replace(sound[9000:9100], b"?")):
        state.write_bytes(damage)
        line = refused(tmp_path, "run_vae.py", *base, "--resume", 1, "--iter_max", 9)
        assert "--overwrite 1" in line and "--train 0 to evaluate iterations [4, 6]" in line
        assert str(state) in line
        line = refused(tmp_path, "run_vae.py", *base, *SHORT)
        assert "--overwrite 1" in line and "--train 0" in line
        line = refused(tmp_path, "run_vae.py", *base, "--replicates", 1, "--iter_max", 9)
        assert "--overwrite 1" in line
    succeed(tmp_path, "run_vae.py", *base, "--train", 0)
    succeed(tmp_path, "run_vae.py", *base, *SHORT, "--overwrite", 1)


def test_a_state_of_another_run_is_refused(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    succeed(tmp_path, "run_vae.py", *base, *SHORT, "--run", 1)
    states = [tmp_path / "checkpoints" / NAME.format(n) / "training-state.pt" for n in (0, 1)]
    shutil.copy(*states)
    line = refused(tmp_path, "run_vae.py", *base, "--run", 1, "--resume", 1, "--iter_max", 9)
    assert "it belongs to another run" in line and "--overwrite 1" in line


def test_a_state_without_weights_names_what_goes_on(tmp_path, base, trained):
    """A run that was stopped before its first --iter_save has a training state but no weights."""
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    for path in (tmp_path / "checkpoints" / NAME.format(0)).glob("model-*.pt"):
        path.unlink()
    line = refused(tmp_path, "run_vae.py", *base, "--train", 0)
    assert "stopped before its first --iter_save, and --resume 1 continues it" in line
    succeed(tmp_path, "run_vae.py", *base, *SHORT, "--resume", 1)


def test_weights_without_a_state(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    (tmp_path / "checkpoints" / NAME.format(0) / "training-state.pt").unlink()
    line = refused(tmp_path, "run_vae.py", *base, "--resume", 1)
    assert "no training-state.pt to resume from" in line and "--overwrite 1" in line


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", "null", '{"flags": 3}', '{"run": {}}', "[" * 100_000, "\xff"]
)
def test_damaged_records(content, tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    path = tmp_path / "checkpoints" / NAME.format(0) / "run.json"
    path.write_text(content, encoding="latin-1")
    for how in (("--train", 0), ("--resume", 1), ("--replicates", 1)):
        line = refused(tmp_path, "run_vae.py", *base, *how)
        assert str(path) in line and "--overwrite 1" in line and "delete it" in line


@pytest.mark.process
def test_overwriting_keeps_the_old_run_until_the_new_one_is_finished(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    old = contents(tmp_path / "checkpoints" / NAME.format(0))
    flags, started = ("--overwrite", 1, "--seed", 5, "--iter_save", 50), 0
    for _ in range(2):  # the second time, what it replaces is not finished: that goes
        child = Child(tmp_path, "run_vae.py", *base, *flags)
        new = tmp_path / "checkpoints" / NAME.format(0) / "model-00050.pt"
        child.wait_until(lambda at=started, new=new: new.exists() and new.stat().st_mtime_ns > at)
        started = new.stat().st_mtime_ns
        os.kill(child.process.pid, signal.SIGTERM)
        status, _, stderr = child.finish()
        assert status == 143 and "--resume 1" in stderr.splitlines()[-1]
        assert contents(tmp_path / "checkpoints" / ".replaced" / NAME.format(0)) == old
    step = weights(new.parent / "training-state.pt")["step"]
    succeed(tmp_path, "run_vae.py", *base, "--resume", 1, "--iter_max", step + 5)
    assert not (tmp_path / "checkpoints" / ".replaced" / NAME.format(0)).exists()
    assert not list((tmp_path / "checkpoints").glob(".trash*"))
    assert results(tmp_path, NAME.format(0))["seed"] == 5


def test_a_new_run_moves_no_file_that_is_there(tmp_path, base):
    """Only --overwrite 1 may: other people's model.pt, notes in logs/ without weights."""
    for root, file in (("checkpoints", "model.pt"), ("checkpoints", "x.pth"), ("logs", "notes")):
        (tmp_path / root / NAME.format(0)).mkdir(parents=True, exist_ok=True)
        (tmp_path / root / NAME.format(0) / file).write_bytes(b"mine")
    before = contents(tmp_path)
    succeed(tmp_path, "run_vae.py", *base, *SHORT)
    after = contents(tmp_path)
    assert {path: after[path] for path in before} == before


@pytest.mark.parametrize(
    "flag, value", [("run", 1), ("seed", None), ("lr", "x"), ("data", "mnist"), ("z", 10.0)]
)
def test_a_run_json_that_does_not_fit_is_refused(flag, value, tmp_path, base, trained):
    """A run.json that does not fit would give another run's weights, or a traceback."""
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    path = tmp_path / "checkpoints" / NAME.format(0) / "run.json"
    content = record(tmp_path, NAME.format(0))
    content["flags"][flag] = value
    path.write_text(json.dumps(content), encoding="utf-8")
    before = contents(tmp_path)
    for how in (("--train", 0), ("--resume", 1, "--iter_max", 9)):
        assert "flags of another run" in refused(tmp_path, "run_vae.py", *base, *how)
    assert contents(tmp_path) == before


def test_weights_that_a_killed_run_missed_are_written_by_a_longer_one(tmp_path, base, trained):
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    last = tmp_path / "checkpoints" / NAME.format(0) / "model-00006.pt"
    kept = weights(last)
    last.unlink()  # as if the process had ended between the state and the weights
    succeed(tmp_path, "run_vae.py", *base, "--resume", 1, "--iter_max", 9)
    assert same_weights(weights(last), kept)


def test_an_empty_new_run_does_not_delete_what_it_replaces(folders):
    """A process that ended before its run.json was whole leaves an empty folder."""
    kept = folders / "checkpoints" / ".replaced" / "run" / "model-00001.pt"
    kept.parent.mkdir(parents=True)
    kept.touch()
    (folders / "checkpoints" / "run").mkdir()
    runs.set_aside("run")
    assert kept.exists() and not (folders / "checkpoints" / "run").exists()


def test_setting_aside_goes_on_where_it_was_ended(folders):
    """Weights moved, logs not yet: nothing is lost, and logs without weights are kept."""
    for root in ("checkpoints", "logs"):
        (folders / root / "run").mkdir(parents=True)
        (folders / root / "run" / "file").touch()
    (folders / "checkpoints" / ".replaced").mkdir()
    (folders / "checkpoints" / "run").rename(folders / "checkpoints" / ".replaced" / "run")
    runs.set_aside("run")
    assert (folders / "logs" / ".replaced" / "run" / "file").exists()
    assert (folders / "checkpoints" / ".replaced" / "run" / "file").exists()
    runs.forget_what_was_set_aside("run")
    assert not any(path.is_file() for path in folders.rglob("file"))


# Interruptions


@pytest.mark.process
def test_interrupted_in_the_report_a_run_names_what_finishes_it(tmp_path, base):
    """A signal once the training is done: --resume 1 trains nothing and reports."""
    for number in (signal.SIGINT, signal.SIGTERM):
        folder = tmp_path / str(number)
        logs = folder / "logs" / NAME.format(0)
        stop = (number, "reconstructions.png")
        status, _, stderr = Child(folder, "run_vae.py", *base, *SHORT, stop=stop).finish()
        last = stderr.splitlines()[-1]
        assert status == 128 + number and "interrupted; to continue: python" in last
        assert "--resume 1" in last and not (logs / "results.json").exists()
        line = refused(folder, "run_vae.py", *base, *SHORT)
        assert "unfinished" in line and "--resume 1" in line and "--train 0" in line
        before = contents(folder / "checkpoints")
        stdout, _ = succeed(folder, "run_vae.py", *base, *SHORT, "--resume", 1)
        assert contents(folder / "checkpoints") == before
        assert results(folder, NAME.format(0))["iterations"] == 6 and "NELBO: " in stdout


@pytest.mark.process
def test_interrupted_before_it_begins_the_same_command_goes_on(tmp_path, base, data_dir):
    """While the digits are drawn: nothing has begun, and nothing is left behind."""
    flags = (*base[:3], tmp_path / "data", "--overwrite", 1)
    child = Child(tmp_path, "run_vae.py", *flags, whole=True)
    child.wait_until(lambda: "Drawing" in child.stderr())
    os.kill(child.process.pid, signal.SIGINT)
    status, _, stderr = child.finish()
    last = stderr.splitlines()[-1]
    assert status == 130 and "Traceback" not in stderr
    assert "to continue: python run_vae.py" in last and last.endswith("--overwrite 1")
    assert everything(tmp_path) == {}


def test_names_that_lead_nowhere(folders):
    """A loop of links, a name longer than names may be, a NUL: a line, not a traceback."""
    (folders / "checkpoints").mkdir()
    (folders / "checkpoints" / "reference").symlink_to("reference")
    for name in ("x", "x" * 5000, "x\0y"):
        with pytest.raises(UserError):
            codebase.load_run(name)
    with pytest.raises(UserError):
        checkpoints.run_folder("x\0y")


# load_run


@pytest.fixture
def some_runs(folders):
    """A run of each kind of model, with weights of iterations 1 and 2: their names."""
    laplace = {"prior": "laplace", "likelihood": "gaussian", "nn": "v3", "z": 3}
    own = {"vae": {}, "gmvae": {"k": 5}, "ssvae": {"gw": 0, "cw": 50}, "fsvae": {}}
    names = [finished_run(f"run_{kind}.py", 1, 2, **flags).name for kind, flags in own.items()]
    return [*names, finished_run("run_vae.py", 1, 2, **laplace).name]


@pytest.mark.parametrize("recorded", [True, False])
def test_load_run(some_runs, recorded):
    before = torch.get_rng_state()
    for name in some_runs:
        path = checkpoints.run_folder(name)
        if not recorded:  # other people's weights: the homework's name tells
            (path / "run.json").unlink()
            if run_is_homeworks := "_data" in name and "nn=v3" not in name:
                path = path.rename(path.with_name(name := name.removesuffix("_data=synthetic")))
            if not run_is_homeworks:
                continue
        last, first = weights(path / "model-00002.pt"), weights(path / "model-00001.pt")
        for found in (name, path, str(path), path / "model-00002.pt"):
            model = codebase.load_run(found)
            assert same_weights(model.state_dict(), last) and not model.training
            assert model.name == name and next(model.parameters()).device.type == "cpu"
        assert same_weights(codebase.load_run(name, step=1).state_dict(), first)
        assert same_weights(codebase.load_run(path / "model-00001.pt").state_dict(), first)
        assert type(model) is LaplaceVAE or "laplace" not in name
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
        ("..", None, "leads out|not the name"),
        ("", None, "not the name"),
    ],
)
def test_load_run_of_what_is_not_there(run, step, message, folders):
    own = finished_run("run_vae.py", 1, 2)
    with pytest.raises(UserError, match=message):
        codebase.load_run(run.format(own.folder), step)
