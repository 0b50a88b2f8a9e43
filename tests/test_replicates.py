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
import torch
from conftest import NO_NETWORK, Child, contents, same_weights

from codebase import records, table
from codebase.table import PUBLISHED


def results_of(*values, name="model=vae_z=10", iterations=20_000, **other):
    """Results as runs leave them: each value is a NELBO."""
    return [
        {
            "name": f"{name}_run={run:04d}",
            "data": "mnist",
            "iterations": iterations,
            "flags": {"batch_size": 97},
            "figures": {"NELBO": value},
        }
        | other
        for run, value in enumerate(values)
    ]


# The table


def test_rows():
    [row] = table.rows({"model=vae_z=10": results_of(101.0, 102.0, 103.0)})
    assert (row["figure"], row["n"], row["mean"], row["sd"]) == ("NELBO", 3, 102.0, 1.0)
    assert math.isclose(row["se"], 1 / math.sqrt(3))
    assert (row["published"], row["published sd"]) == (101.5, 0.55)
    assert math.isclose(row["difference"], 0.5 / 0.55)


def test_what_is_not_comparable_is_not_compared():
    for other in (
        {"data": "synthetic"},
        {"iterations": 300},
        {"flags": {"batch_size": 2056}},
        {"name": "model=vae_z=10", "iterations": 19_999},
    ):
        [row] = table.rows({"model=vae_z=10": results_of(101.0, **other)})
        assert row["published"] is None and row["difference"] is None and row["sd"] is None
    [row] = table.rows({"model=vae_z=02": results_of(150.0)})
    assert row["published"] is None


def test_published_figures():
    """To the letter of the homework's table; a single run has no deviation."""
    assert PUBLISHED["model=vae_z=10"]["IWAE-1000"] == (95.62, 0.42)
    assert PUBLISHED["model=gmvae_z=10_k=500"]["NELBO"] == (97.22, 0.54)
    assert PUBLISHED["model=ssvae_gw=000_cw=100"] == {"accuracy": (0.735, None)}
    run = results_of(0.0, name="model=ssvae_gw=000_cw=100", iterations=30_000)
    run[0]["figures"] = {"accuracy": 0.7442}
    text = table.markdown(table.rows({"model=ssvae_gw=000_cw=100": run}))
    assert "| ssvae_gw=000_cw=100 | accuracy | 0.7442 |  | 1 | 0.7350 |  |" in text


def test_the_whole_table(folders, capsys):
    for result in (
        *results_of(101.0, 102.0),
        *results_of(99.0, name="model=gmvae_z=10_k=500"),
        *results_of(99.0, name="model=vae_z=10", iterations=5, name_of_run="short"),
    ):
        name = result["name"]
        if "name_of_run" in result:
            name = "model=vae_z=10_run=0007"
        records.write_results(name, result)
    (records.LOGS / "model=vae_z=10_run=0008").mkdir()
    (records.LOGS / "model=vae_z=10_run=0008" / "results.json").write_text("{broken")
    table.main()
    text = capsys.readouterr().out
    assert "| vae_z=10 | NELBO | 101.50 ± 0.71 | 0.500 | 2 | 101.50 ± 0.55 | +0.0 |" in text
    assert "| gmvae_z=10_k=500 | NELBO | 99.00 |  | 1 | 97.22 ± 0.54 | +3.3 |" in text
    assert "binarisation" in text
    assert (records.LOGS / "table.md").read_text() == text
    rows = list(csv.DictReader((records.LOGS / "table.csv").read_text().splitlines()))
    assert [float(row["mean"]) for row in rows] == [101.5, 99.0]


def test_no_results(folders):
    with pytest.raises(SystemExit, match="no results"):
        table.main()


# Replicates


def lines_of(text, n):
    return [line for line in text.splitlines() if re.search(rf"\| {n} \|", line)]


@pytest.fixture
def flags(data_dir):
    common = ("--data", "synthetic", "--data_dir", data_dir, "--iter_max", 12, "--iter_save", 5)
    return (*common, "--replicates", 3)


GROUP = "model=vae_z=10"


def name_of(run):
    return f"{GROUP}_run={run:04d}_data=synthetic"


def test_replicates(tmp_path, flags):
    """Three runs, the second of them interrupted before, the third done already."""
    single = (*flags[:-2], "--run", 2)
    assert Child(tmp_path, "run_vae.py", *single).finish()[0] == 0
    done_before = (tmp_path / "logs" / name_of(2) / "results.json").stat().st_mtime_ns
    longer = (*flags[:4], "--iter_max", 5, "--run", 1)
    assert Child(tmp_path, "run_vae.py", *longer).finish()[0] == 0
    status, stdout, stderr = Child(tmp_path, "run_vae.py", *flags).finish()
    assert status == 0, stderr
    assert (tmp_path / "logs" / name_of(2) / "results.json").stat().st_mtime_ns == done_before
    assert len(lines_of(stdout, 3)) == 7 and "NELBO: " not in stdout
    assert "replicates: 100%" in stderr
    results = [
        json.loads((tmp_path / "logs" / name_of(run) / "results.json").read_text())
        for run in range(3)
    ]
    assert [result["seed"] for result in results] == [0, 1, 2]
    rows = csv.DictReader(
        (tmp_path / "logs" / f"{GROUP}_data=synthetic.csv").read_text().splitlines()
    )
    for row in rows:
        values = [result["figures"][row["figure"]] for result in results]
        assert math.isclose(float(row["mean"]), sum(values) / 3)
        assert row["published"] == ""  # synthetic digits are not comparable
    assert (tmp_path / "logs" / f"{GROUP}_data=synthetic.md").read_text() == stdout

    alone = tmp_path / "alone"
    assert Child(alone, "run_vae.py", *flags[:-2], "--run", 1).finish()[0] == 0
    path = f"checkpoints/{name_of(1)}/model-00012.pt"
    assert same_weights(torch.load(alone / path), torch.load(tmp_path / path))

    before = contents(tmp_path / "checkpoints")
    assert Child(tmp_path, "run_vae.py", *flags).finish()[1] == stdout  # nothing is done again
    assert contents(tmp_path / "checkpoints") == before


@pytest.mark.parametrize("script", ["run_vae.py", "run_gmvae.py", "run_ssvae.py", "run_fsvae.py"])
def test_an_ensemble_leaves_ordinary_runs(script, tmp_path, flags):
    status, stdout, stderr = Child(tmp_path, script, *flags, "--ensemble", 2).finish()
    assert status == 0, stderr
    assert lines_of(stdout, 3)
    runs = sorted((tmp_path / "checkpoints").iterdir())
    assert len(runs) == 3
    weights = [torch.load(run / "model-00012.pt", weights_only=True) for run in runs]
    assert not any(same_weights(weights[i], weights[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    for run in runs:
        assert (run / "model-00010.pt").exists()
        assert (tmp_path / "logs" / run.name / "samples.png").exists()
    one = (*flags[:-2], "--run", 1, "--train", 0)
    assert Child(tmp_path, script, *one).finish()[0] == 0


def test_an_interrupted_ensemble_goes_on(tmp_path, flags):
    """To the weights of one that was not interrupted."""
    flags = (*flags[:4], "--iter_max", 150, "--iter_save", 20, "--replicates", 2, "--ensemble", 2)
    state = tmp_path / "run" / "checkpoints" / name_of(0) / "training-state.pt"
    child = Child(tmp_path / "run", "run_vae.py", *flags)
    child.wait_until(state.exists)
    os.kill(child.process.pid, signal.SIGTERM)
    status, _, stderr = child.finish()
    assert status == 143 and "--resume" not in stderr.splitlines()[-1]  # the same command goes on
    status, stdout, stderr = Child(tmp_path / "run", "run_vae.py", *flags).finish()
    assert status == 0 and not state.exists(), stderr
    assert Child(tmp_path / "whole", "run_vae.py", *flags).finish()[1] == stdout
    for run in range(2):
        path = f"checkpoints/{name_of(run)}/model-00150.pt"
        assert same_weights(
            torch.load(tmp_path / "run" / path), torch.load(tmp_path / "whole" / path)
        )


def test_ensembles_and_single_runs_agree_in_distribution(tmp_path, data_dir):
    """Six of each: the difference of the means is within four standard errors."""
    common = ("--data", "synthetic", "--data_dir", data_dir, "--iter_max", 100, "--replicates", 6)
    children = [
        Child(tmp_path / "single", "run_vae.py", *common),
        Child(tmp_path / "ensemble", "run_vae.py", *common, "--ensemble", 6),
    ]
    assert [child.finish()[0] for child in children] == [0, 0]
    rows = [
        list(csv.DictReader((folder / "logs" / f"{GROUP}_data=synthetic.csv").open()))
        for folder in (tmp_path / "single", tmp_path / "ensemble")
    ]
    for one, other in zip(*rows, strict=True):
        error = math.hypot(float(one["se"]), float(other["se"]))
        assert abs(float(one["mean"]) - float(other["mean"])) < 4 * error, one["figure"]
        assert 1 / 6 < float(one["sd"]) / float(other["sd"]) < 6


# torchrun


def test_torchrun_with_a_worker_killed(project, data_dir):
    """Two workers share four runs; one is killed in the middle, and the table is complete."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--standalone", "--max-restarts=3", str(project / "run_vae.py")]
    command += ["--replicates", "4", "--iter_max", "400", "--iter_save", "50"]
    command += ["--data", "synthetic", "--data_dir", str(data_dir), "--sheet", "2x2"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | NO_NETWORK,
    )
    states = project / "checkpoints"
    deadline = time.monotonic() + 120
    while len(list(states.glob("*/training-state.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    assert len(workers) == 2
    os.kill(int(workers[1]), signal.SIGKILL)
    stdout, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    assert len(lines_of(stdout, 4)) == 7
    for run in range(4):
        results = json.loads((project / "logs" / name_of(run) / "results.json").read_text())
        assert results["iterations"] == 400 and results["seed"] == run
