"""Replicates: shared out, resumed and completed; what dies costs nothing."""

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
    contents,
    refused,
    results,
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
    _, stderr = succeed(tmp_path, "run_vae.py", *flags[:-2], "--run", 2)
    assert "Next: python run_gmvae.py" in stderr
    done_before = (tmp_path / "logs" / name_of(2) / "results.json").stat().st_mtime_ns
    succeed(tmp_path, "run_vae.py", *flags[:4], "--iter_max", 5, "--run", 1)
    stdout, stderr = succeed(tmp_path, "run_vae.py", *flags)
    assert (tmp_path / "logs" / name_of(2) / "results.json").stat().st_mtime_ns == done_before
    assert len(lines_of(stdout, 3)) == 5 and "NELBO: " not in stdout
    assert "NELBO: " in stderr  # of each run that was trained
    assert "Next: " not in stderr
    found = [results(tmp_path, name_of(run)) for run in range(3)]
    assert [one["seed"] for one in found] == [0, 1, 2]
    table = (tmp_path / "logs" / f"{GROUP}_data=synthetic.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(table.splitlines()):
        values = [one["figures"][row["figure"]] for one in found]
        assert math.isclose(float(row["mean"]), sum(values) / 3)
        assert row["published"] == ""  # synthetic digits are not comparable
    assert (tmp_path / "logs" / f"{GROUP}_data=synthetic.md").read_text(encoding="utf-8") == stdout

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


# torchrun


@pytest.mark.process
def test_torchrun_with_a_worker_killed(project, whole_data):
    """Two workers share four runs; one is killed in the middle, and the table is complete."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--standalone", "--max-restarts=1", "--", str(project / "run_vae.py")]
    command += ["--run", "1", "--replicates", "4", "--iter_max", "100", "--iter_save", "25"]
    command += ["--data", "synthetic", "--data_dir", str(whole_data), "--sheet", "2x2"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env=os.environ | NO_NETWORK,
    )
    weights_of = project / "checkpoints"
    deadline = time.monotonic() + 240
    while len(list(weights_of.glob("*/model-00025.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, encoding="utf-8"
    ).stdout.split()
    assert len(workers) == 2
    os.kill(int(workers[1]), signal.SIGKILL)
    stdout, _ = process.communicate(timeout=400)
    assert process.returncode == 0
    assert len(lines_of(stdout, 4)) == 7
    for run in range(1, 5):
        found = json.loads(
            (project / "logs" / name_of(run) / "results.json").read_text(encoding="utf-8")
        )
        assert found["iterations"] == 100 and found["seed"] == run
