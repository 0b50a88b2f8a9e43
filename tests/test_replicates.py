"""Replicates: shared out, resumed, completed, and as one ensemble; what dies costs nothing."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import (
    NO_NETWORK,
    Child,
    contents,
    refused,
    results,
    run_all,
    same_weights,
    succeed,
    weights,
)


def lines_of(text, n):
    return [line for line in text.splitlines() if re.search(rf"\| {n} \|", line)]


@pytest.fixture
def flags(data_dir):
    common = ("--data", "synthetic", "--data_dir", data_dir, "--iter_max", 8, "--iter_save", 5)
    return (*common, "--sheet", "2x2", "--replicates", 3)


GROUP = "model=vae_z=10"


def name_of(run):
    return f"{GROUP}_run={run:04d}_data=synthetic"


def test_replicates(tmp_path, flags):
    """Three runs, the second of them interrupted before, the third done already."""
    succeed(tmp_path, "run_vae.py", *flags[:-2], "--run", 2)
    done_before = (tmp_path / "logs" / name_of(2) / "results.json").stat().st_mtime_ns
    succeed(tmp_path, "run_vae.py", *flags[:4], "--iter_max", 5, "--run", 1)
    stdout, stderr = succeed(tmp_path, "run_vae.py", *flags)
    assert (tmp_path / "logs" / name_of(2) / "results.json").stat().st_mtime_ns == done_before
    assert len(lines_of(stdout, 3)) == 5 and "NELBO: " not in stdout
    assert "replicates: 24 of 24 it" in stderr
    found = [results(tmp_path, name_of(run)) for run in range(3)]
    assert [one["seed"] for one in found] == [0, 1, 2]
    table = (tmp_path / "logs" / f"{GROUP}_data=synthetic.csv").read_text()
    for row in csv.DictReader(table.splitlines()):
        values = [one["figures"][row["figure"]] for one in found]
        assert math.isclose(float(row["mean"]), sum(values) / 3)
        assert row["published"] == ""  # synthetic digits are not comparable
    assert (tmp_path / "logs" / f"{GROUP}_data=synthetic.md").read_text() == stdout

    succeed(tmp_path / "alone", "run_vae.py", *flags[:-2], "--run", 1)
    path = f"checkpoints/{name_of(1)}/model-00008.pt"
    assert same_weights(weights(tmp_path / "alone" / path), weights(tmp_path / path))

    before = contents(tmp_path / "checkpoints")
    assert succeed(tmp_path, "run_vae.py", *flags)[0] == stdout  # nothing is done again
    assert contents(tmp_path / "checkpoints") == before


def test_replicates_further_than_asked_for_are_refused(tmp_path, flags):
    succeed(tmp_path, "run_vae.py", *flags)
    before = contents(tmp_path)
    line = refused(tmp_path, "run_vae.py", *flags, "--iter_max", 5)
    assert "is at iteration 8 already" in line
    assert contents(tmp_path) == before


@pytest.mark.parametrize("script", ["run_vae.py", "run_gmvae.py", "run_ssvae.py", "run_fsvae.py"])
def test_an_ensemble_leaves_ordinary_runs(script, tmp_path, flags):
    """All that a run alone leaves: pictures, events, hparams, embeddings, its time."""
    sheet = ("--sheet", "10x2")
    stdout, _ = succeed(tmp_path, script, *flags, *sheet, "--ensemble", 2)
    assert lines_of(stdout, 3)
    runs = sorted((tmp_path / "checkpoints").glob("model=*"))
    assert len(runs) == 3
    found = [weights(run / "model-00008.pt") for run in runs]
    assert not any(same_weights(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    for number, run in enumerate(runs):
        logs = tmp_path / "logs" / run.name
        assert (run / "model-00005.pt").exists() and (run / "run.json").exists()
        names = {path.name for path in logs.iterdir()}
        pictures = {"samples.png", "samples-00005.png", "samples-00008.png"}
        assert pictures | {"reconstructions.png", "hparams", "00008"} <= names
        assert "explore.html" not in names  # which is 4 MB
        assert any(name.startswith("events.out.tfevents") for name in names)
        recorded = results(tmp_path, run.name)
        assert recorded["seconds"] > 0
        assert recorded["together"] == ([0, 1] if number < 2 else [])
    one = (*flags[:-2], *sheet, "--run", 1, "--train", 0)
    stdout, _ = succeed(tmp_path, script, *one)
    line = refused(tmp_path, script, *flags[:-2], *sheet, "--run", 1, "--resume", 1)
    assert "--run 0 --replicates 2 --ensemble 2" in line


def test_an_ensembles_members_log_their_own_losses(tmp_path, flags):
    more = (*flags[:4], "--iter_max", 50, "--replicates", 2, "--ensemble", 2, "--sheet", "2x2")
    succeed(tmp_path, "run_vae.py", *more)
    from test_figures import scalars_of

    losses = [scalars_of(tmp_path / "logs" / name_of(run))["train/loss"] for run in range(2)]
    assert [step for step, _ in losses[0]] == [50] and losses[0] != losses[1]


def test_an_interrupted_ensemble_goes_on(tmp_path, flags):
    """To the weights of one that was not interrupted; without --ensemble, too."""
    common = (*flags[:4], "--iter_max", 25, "--iter_save", 10, "--sheet", "2x2", "--replicates", 2)
    state = tmp_path / "run" / "checkpoints" / name_of(0) / "training-state.pt"
    stop = (signal.SIGTERM, "samples-00010.png")
    child = Child(tmp_path / "run", "run_vae.py", *common, "--ensemble", 2, stop=stop)
    status, _, stderr = child.finish()
    assert status == 143 and "--resume" not in stderr.splitlines()[-1]  # the same command goes on
    step, before = weights(state)["step"], contents(state.parent)
    line = refused(tmp_path / "run", "run_vae.py", *common, "--iter_max", step - 1)
    assert f"is at iteration {step} already" in line
    for other in (("--replicates", 1), ("--run", 1, "--replicates", 2)):
        line = refused(tmp_path / "run", "run_vae.py", *common, *other)
        assert "--run 0 --replicates 2 --ensemble 2" in line
    assert contents(state.parent) == before
    stdout, _ = succeed(tmp_path / "run", "run_vae.py", *common)
    assert succeed(tmp_path / "whole", "run_vae.py", *common, "--ensemble", 2)[0] == stdout
    for run in range(2):
        path = f"checkpoints/{name_of(run)}/model-00025.pt"
        assert same_weights(weights(tmp_path / "run" / path), weights(tmp_path / "whole" / path))
    succeed(tmp_path / "run", "run_vae.py", *common, "--iter_max", 30)  # and it can be extended


def test_a_run_that_began_alone_goes_on_alone(tmp_path, flags):
    succeed(tmp_path / "alone", "run_vae.py", *flags[:-2], "--run", 1)
    succeed(tmp_path, "run_vae.py", *flags[:4], "--iter_max", 5, "--sheet", "2x2", "--run", 1)
    succeed(tmp_path, "run_vae.py", *flags, "--ensemble", 3)
    assert results(tmp_path, name_of(1))["together"] == []
    assert results(tmp_path, name_of(0))["together"] == [0, 2]
    path = f"checkpoints/{name_of(1)}/model-00008.pt"
    assert same_weights(weights(tmp_path / "alone" / path), weights(tmp_path / path))


def test_ensembles_and_single_runs_agree_in_distribution(tmp_path, flags):
    """Six of each: the difference of the means is within four standard errors."""
    common = (*flags[:4], "--iter_max", 40, "--sheet", "2x2", "--replicates", 6)
    run_all(
        Child(tmp_path / "single", "run_vae.py", *common),
        Child(tmp_path / "ensemble", "run_vae.py", *common, "--ensemble", 6),
    )
    rows = [
        list(csv.DictReader((folder / "logs" / f"{GROUP}_data=synthetic.csv").open()))
        for folder in (tmp_path / "single", tmp_path / "ensemble")
    ]
    for one, other in zip(*rows, strict=True):
        error = math.hypot(float(one["se"]), float(other["se"]))
        assert abs(float(one["mean"]) - float(other["mean"])) < 4 * error, one["figure"]
        assert 1 / 6 < float(one["sd"]) / float(other["sd"]) < 6


# torchrun


def test_torchrun_with_a_worker_killed(project, whole_data):
    """Two workers share four runs; one is killed in the middle, and the table is complete."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--standalone", "--max-restarts=3", "--", str(project / "run_vae.py")]
    command += ["--run", "1", "--replicates", "4", "--iter_max", "100", "--iter_save", "25"]
    command += ["--data", "synthetic", "--data_dir", str(whole_data), "--sheet", "2x2"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | NO_NETWORK,
    )
    weights_of = project / "checkpoints"
    deadline = time.monotonic() + 240
    while len(list(weights_of.glob("*/model-00025.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    assert len(workers) == 2
    os.kill(int(workers[1]), signal.SIGKILL)
    stdout, _ = process.communicate(timeout=400)
    assert process.returncode == 0
    assert len(lines_of(stdout, 4)) == 7
    for run in range(1, 5):
        found = json.loads((project / "logs" / name_of(run) / "results.json").read_text())
        assert found["iterations"] == 100 and found["seed"] == run
