"""End a run, or fill its disk, at each of its file operations: the next command must then finish it
as if it had not been disturbed."""

import json
import shutil
from collections import Counter

import pytest
from conftest import NAME, SHORT, Child, results, same_weights, succeed, weights

RUN = NAME.format(0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run's folder, and the number of its operations on files, which never varies."""
    folder = tmp_path_factory.mktemp("undisturbed")
    counts = Counter()
    for name in ("one", "again"):
        status, stdout, stderr = Child(folder / name, "run_vae.py", *SHORT, fault=(0, "")).finish()
        assert status == 0, stderr
        counts[stdout.count("operation ")] += 1
    [(count, _)] = counts.items()
    assert count > 20
    return folder / "one", count


def attack(at, kind, expected, run):
    """Disturb the command at an operation, continue, and compare."""
    status, _, stderr = Child(run, "run_vae.py", *SHORT, fault=(at, kind)).finish()
    assert "Traceback" not in stderr, stderr
    for path in run.glob("checkpoints/*/*.pt"):
        weights(path)
    for path in [*run.glob("logs/*/results.json"), *run.glob("checkpoints/*/run.json")]:
        json.loads(path.read_text(encoding="utf-8"))
    if kind == "end":
        assert status == 137
    elif status:
        assert status == 1 and "No space left on device" in stderr.splitlines()[-1], stderr
    succeed(run, "run_vae.py", *SHORT, "--resume", 1)
    for step in ("00004", "00006"):
        path = f"checkpoints/{RUN}/model-{step}.pt"
        assert same_weights(weights(run / path), weights(expected / path)), path
    one, other = (results(folder, RUN) for folder in (run, expected))
    assert one["figures"] == other["figures"] and one["trained"] == other["trained"]
    shutil.rmtree(run)


@pytest.mark.process
@pytest.mark.parametrize("kind, share", [("end", 0.3), ("end", 0.8), ("full", 0.5)])
def test_some_crash_points(kind, share, undisturbed, tmp_path):
    attack(round(share * undisturbed[1]), kind, undisturbed[0], tmp_path / "run")


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["end", "full"])
def test_every_crash_point(kind, undisturbed, tmp_path):
    for at in range(1, undisturbed[1] + 1):
        attack(at, kind, undisturbed[0], tmp_path / f"{kind}-{at}")
