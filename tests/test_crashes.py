"""End the process, or fill its disk, at each of its file operations: the next command must then
finish the run as if it had not been disturbed."""

import json
import re
import shlex
import shutil
from dataclasses import dataclass

import pytest
from conftest import Child, contents, results, same_weights, succeed, weights
from faults import ENDED

NAME = "model=vae_z=10_run=000{}_data=synthetic"
SHORT = ("--iter_max", 6, "--iter_save", 4, "--sheet", "2x2")


@dataclass
class Scenario:
    """A command, what runs before it, and the command that goes on after its end."""

    before: tuple = ()
    flags: tuple = SHORT
    go_on: tuple = (*SHORT, "--resume", 1)
    runs: tuple = (0,)


SCENARIOS = {
    "single": Scenario(),
    "overwritten": Scenario(
        before=((*SHORT, "--seed", 7),),
        flags=(*SHORT, "--overwrite", 1),
        go_on=(*SHORT, "--overwrite", 1),
    ),
    "resumed": Scenario(
        before=(("--iter_max", 4, "--sheet", "2x2"),), flags=(*SHORT, "--resume", 1)
    ),
    "replicates": Scenario(
        flags=(*SHORT, "--replicates", 2), go_on=(*SHORT, "--replicates", 2), runs=(0, 1)
    ),
    "evaluated": Scenario(
        before=(SHORT,),
        flags=("--train", 0, "--sheet", "2x2"),
        go_on=("--train", 0, "--sheet", "2x2"),
    ),
}
RANDOM = r"\.trash-\w+|\S+\.tmp|tfevents\S+"  # parts of names
KINDS = ("end", "full")


@pytest.fixture(scope="module")
def undisturbed(data_dir, tmp_path_factory):
    """For each scenario: its folder before, its operations on files, and its folder after."""
    found = {}

    def of(name):
        if name not in found:
            folder = tmp_path_factory.mktemp(name)
            data = ("--data", "synthetic", "--data_dir", data_dir)
            before = folder / "before"
            before.mkdir()
            for flags in SCENARIOS[name].before:
                succeed(before, "run_vae.py", *data, *flags)
            traces = []
            for after in ("after", "again"):
                shutil.copytree(before, folder / after)
                trace = folder / f"{after}.txt"
                succeed(folder / after, "run_vae.py", *data, *SCENARIOS[name].flags, trace=trace)
                traces.append(re.sub(RANDOM, "*", trace.read_text(encoding="utf-8")))
            assert traces[0] == traces[1]  # the n-th operation is always the same
            found[name] = folder, data, len(traces[0].splitlines())
        return found[name]

    return of


def assert_whole_files(folder):
    """Every file without a temporary name is complete."""
    for path in folder.glob("checkpoints/**/*.pt"):
        weights(path)
    for path in [*folder.glob("logs/**/results.json"), *folder.glob("checkpoints/**/run.json")]:
        json.loads(path.read_text(encoding="utf-8"))
    for path in folder.glob("logs/**/*.png"):
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82")


def attack(name, at, kind, undisturbed, tmp_path):
    """End a scenario's command at an operation, go on, and compare."""
    folder, data, total = undisturbed(name)
    scenario, run = SCENARIOS[name], tmp_path / f"{name}-{kind}-{at}"
    shutil.copytree(folder / "before", run)
    child = Child(run, "run_vae.py", *data, *scenario.flags, fault=(at, kind))
    status, _, stderr = child.finish()
    assert "Traceback" not in stderr, stderr
    assert_whole_files(run)
    finished = [
        weights(path)
        for path in (folder / "before").glob("checkpoints/*/model-00006.pt")
        if (path.parents[2] / "logs" / path.parent.name / "results.json").exists()
    ]
    there = [weights(path) for path in run.glob("checkpoints/**/model-00006.pt")]
    new = weights(folder / "after" / "checkpoints" / NAME.format(0) / "model-00006.pt")
    for old in finished:  # a finished run is there still, or its finished successor is
        assert any(same_weights(old, one) or same_weights(new, one) for one in there)
    if kind == "end":
        assert status == ENDED
        flags = (*data, *scenario.go_on)
    elif status != 0:
        assert status == 1 and "No space left on device" in stderr.splitlines()[-1], stderr
        command = re.search(r"to continue: (.*)", stderr.splitlines()[-1])
        _, script, *flags = shlex.split(command[1])
        assert script == "run_vae.py"
    if status != 0:
        succeed(run, "run_vae.py", *flags)
    for number in scenario.runs:
        own = NAME.format(number)
        for step in ("00004", "00006"):
            path = f"checkpoints/{own}/model-{step}.pt"
            assert same_weights(weights(run / path), weights(folder / "after" / path)), path
        if status != 0 or name != "evaluated":
            one, other = (results(place, own) for place in (run, folder / "after"))
            assert one["figures"] == other["figures"] and one["trained"] == other["trained"]
    left = [path for path in contents(run) if ".tmp" in path or ".replaced" in path]
    assert not left or status == 0, left
    shutil.rmtree(run)
    return total


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.process
def test_some_crash_points(name, undisturbed, tmp_path):
    """Four of each command's operations; `pytest -m attack` tries all of them."""
    total = undisturbed(name)[2]
    for kind, shares in (("end", (0.2, 0.8)), ("full", (0.4, 0.6))):
        for share in shares:
            attack(name, max(round(share * total), 1), kind, undisturbed, tmp_path)


@pytest.mark.attack
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_crash_point(name, kind, undisturbed, tmp_path, count):
    total = undisturbed(name)[2]
    for at in range(1, total + 1):
        attack(name, at, kind, undisturbed, tmp_path)
    count(f"crash points, {name}, {kind}", total)
