"""End a run, or fill its disk, at each of its file operations: the next command must then finish it
as if it had not been disturbed."""

import json
import re
import shutil

import pytest
from conftest import Child, results, same_weights, succeed, weights
from faults import ENDED

NAME = "model=vae_z=10_run=0000_data=synthetic"
FLAGS = ("--iter_max", 6, "--iter_save", 4, "--sheet", "2x2")
RANDOM = r"\.\S+\.tmp|tfevents\S+"  # parts of names


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory):
    """The command's flags, the number of its operations on files, and its folder after it."""
    folder, traces = tmp_path_factory.mktemp("undisturbed"), []
    flags = ("--data", "synthetic", "--data_dir", data_dir, *FLAGS)
    for name in ("one", "again"):
        trace = folder / f"{name}.txt"
        succeed(folder / name, "run_vae.py", *flags, trace=trace)
        traces.append(re.sub(RANDOM, "*", trace.read_text(encoding="utf-8")))
    assert traces[0] == traces[1]  # the n-th operation is always the same
    return flags, len(traces[0].splitlines()), folder / "one"


def attack(at, kind, undisturbed, run):
    """End the command at an operation, continue, and compare."""
    flags, _, expected = undisturbed
    status, _, stderr = Child(run, "run_vae.py", *flags, fault=(at, kind)).finish()
    assert "Traceback" not in stderr, stderr
    for path in run.glob("checkpoints/*/*.pt"):
        weights(path)
    for path in [*run.glob("logs/*/results.json"), *run.glob("checkpoints/*/run.json")]:
        json.loads(path.read_text(encoding="utf-8"))
    if kind == "end":
        assert status == ENDED
    elif status:
        assert status == 1 and "No space left on device" in stderr.splitlines()[-1], stderr
    succeed(run, "run_vae.py", *flags, "--resume", 1)
    for step in ("00004", "00006"):
        path = f"checkpoints/{NAME}/model-{step}.pt"
        assert same_weights(weights(run / path), weights(expected / path)), path
    one, other = (results(folder, NAME) for folder in (run, expected))
    assert one["figures"] == other["figures"] and one["trained"] == other["trained"]
    shutil.rmtree(run)


@pytest.mark.process
@pytest.mark.parametrize("kind, share", [("end", 0.3), ("end", 0.8), ("full", 0.5)])
def test_some_crash_points(kind, share, undisturbed, tmp_path):
    attack(max(round(share * undisturbed[1]), 1), kind, undisturbed, tmp_path / "run")


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["end", "full"])
def test_every_crash_point(kind, undisturbed, tmp_path):
    for at in range(1, undisturbed[1] + 1):
        attack(at, kind, undisturbed, tmp_path / f"{kind}-{at}")
