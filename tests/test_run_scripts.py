"""The run scripts as a person meets them: reports, errors, interruptions, and what they leave."""

import errno
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import (
    NAME,
    SCRIPTS,
    SHORT,
    Child,
    contents,
    in_process,
    refused,
    report_lines,
    results,
    run_python,
    same_weights,
    succeed,
    weights,
)

from codebase.machine import tuning
from codebase.project import ROOT, UserError
from codebase.runs.main import errors_in_one_line
from codebase.train import NotFinite

NUMBER = r"-?\d+\.\d+"
BOUNDS = [
    rf"NELBO: {NUMBER}\. KL: {NUMBER}\. Rec: {NUMBER}",
    *(rf"Negative IWAE-{iw}: {NUMBER}" for iw in (1, 10, 100, 1000)),
]
REPORTS = {
    "run_vae.py": ("model=vae_z=10_run=0000", BOUNDS),
    "run_gmvae.py": ("model=gmvae_z=10_k=050_run=0000", BOUNDS),
    "run_ssvae.py": (
        "model=ssvae_gw=001_cw=100_run=0000",
        [rf"Test set classification accuracy: {NUMBER}"],
    ),
    "run_fsvae.py": ("model=fsvae_run=0000", BOUNDS[:1]),
}


# End to end


ENDS = [
    pytest.param(script, marks=[pytest.mark.process] if script in SCRIPTS[1::2] else ())
    for script in SCRIPTS
]


@pytest.mark.parametrize("script", ENDS)
def test_a_script_from_end_to_end(script, project, whole_data):
    """Train, offline, from another working directory; then evaluate, to the same metrics."""
    own = ("--k", 50) if script == "run_gmvae.py" else ()  # of 500: for the time
    flags = (*own, "--iter_max", 4, "--iter_save", 3, "--threads", 1, "--data_dir", whole_data)
    done = run_python(project.parent, project / script, *flags)
    assert done.returncode == 0, done.stderr
    first, *rest = report_lines(done.stdout)
    dataset = "SVHN" if script == "run_fsvae.py" else "MNIST"
    experiment = importlib.import_module(script.removesuffix(".py")).experiment
    name, report = REPORTS[script]
    name += "_data=synthetic"
    assert first == (
        f"Evaluating {name}, iteration 4 of {experiment.iter_max:,}, your run, on synthetic "
        f"digits, not comparable with {dataset}"
    )
    assert f"in place of {dataset}" in done.stderr and "Next: " in done.stderr
    assert len(rest) == len(report) and all(map(re.fullmatch, report, rest))
    steps = sorted(path.name for path in (project / "checkpoints" / name).glob("*.pt"))
    assert steps == ["model-00003.pt", "model-00004.pt", "training-state.pt"]
    found = results(project, name)
    assert (found["data"], found["seed"], found["iterations"]) == ("synthetic", 0, 4)
    assert found["seconds"] > 0 and found["torch"] == torch.__version__
    printed = [float(n) for line in rest for n in re.findall(NUMBER, line.replace("IWAE-", ""))]
    assert printed == list(found["figures"].values())
    pictures = re.findall(r"Picture: (.*)", done.stdout)
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert {"samples.png", "reconstructions.png"} <= {Path(path).name for path in pictures}

    stdout, _ = succeed(project, script, *own, "--train", 0, "--data_dir", whole_data, whole=True)
    assert report_lines(stdout) == report_lines(done.stdout)


def test_the_same_command_gives_the_same_weights(tmp_path):
    commands = {"one": (), "two": (), "seed": ("--seed", 1), "lr": ("--lr", 0.01)}
    outputs = [
        report_lines(succeed(tmp_path / name, "run_vae.py", *SHORT, *own)[0])
        for name, own in commands.items()
    ]
    path = f"checkpoints/{NAME.format(0)}/model-00006.pt"
    one, two, seed, lr = (weights(tmp_path / name / path) for name in commands)
    assert same_weights(one, two) and not same_weights(one, seed) and not same_weights(one, lr)
    assert outputs[0] == outputs[1] != outputs[2]


def test_help_lists_flags_with_their_defaults(tmp_path):
    defaults = {
        "run_vae.py": (("iter_max", 20000), ("z", 10), ("batch_size", 97), ("nn", "v1")),
        "run_gmvae.py": (("iter_max", 20000), ("z", 10), ("k", 500)),
        "run_ssvae.py": (("iter_max", 30000), ("gw", 1), ("cw", 100)),
        "run_fsvae.py": (("iter_max", 1000000), ("batch_size", 100)),
    }
    for script in SCRIPTS:
        text = " ".join(succeed(tmp_path, script, "--help")[0].split())
        common = (("iter_save", 10000), ("run", 0), ("train", 1), ("overwrite", 0), ("resume", 0))
        for flag, default in (*common, ("lr", 0.001), *defaults[script]):
            assert re.search(rf"--{flag} .*?\(default: {default}\)", text), (script, flag)
    stdout, _ = succeed(tmp_path, "codebase")
    assert "table" in stdout and "grade" in stdout


# Errors: one line and an exit status


BAD_FLAGS = {
    ("--z", 0): "argument --z: got '0', expected a whole number from 1 to 10,000",
    ("--train", 3): "--train: invalid choice: 3",
    ("--device", "cuda:7"): "--device cuda:7 does not work here",
    ("--device", "two\nlines"): "--device two\\nlines",
    ("--sheet", "20"): "--sheet: got '20', expected rows x columns",
    ("--beta", "nan"): "--beta: got 'nan', expected a number",
    ("--seed", 2**64): "--seed: got '18446744073709551616', expected a whole number from 0 to",
    ("--overw", 1): "unrecognized arguments: --overw 1",
    ("--overwrite", 1, "--resume", 1): "cannot be used together",
    ("--reference", 1): "--reference 1 evaluates weights: pass --train 0 too",
    ("--replicates", 2, "--train", 0): "--replicates",
}


@pytest.mark.parametrize("flags", BAD_FLAGS, ids=map(repr, BAD_FLAGS))
def test_bad_flags(flags, tmp_path):
    assert BAD_FLAGS[flags] in refused(tmp_path, "run_vae.py", *flags)
    assert contents(tmp_path) == {}


ERRORS = [
    (UserError("not so"), 2, "error: not so"),
    (NotFinite("the loss is not finite: pass a smaller --lr"), 1, "--lr"),
    (ModuleNotFoundError("No module named 'x'", name="x"), 2, "-m pip install -r"),
    (NotImplementedError("'aten::x' is not implemented for MPS\nmore"), 1, "--device cpu"),
    (NotImplementedError(), 1, "is not written yet"),
    (OSError(errno.ENOSPC, "No space left on device", "x.pt"), 1, "x.pt: No space left on device"),
    (KeyboardInterrupt(), 130, "stopped"),
]


@pytest.mark.parametrize("error, status, said", ERRORS, ids=repr)
def test_an_error_is_one_line_and_a_status(error, status, said, capsys):
    with pytest.raises(SystemExit) as ended, errors_in_one_line():
        raise error
    [line] = capsys.readouterr().err.splitlines()
    assert ended.value.code == status and said in line


def test_too_little_memory(capsys):
    with pytest.raises(SystemExit, match="2"), errors_in_one_line():
        torch.empty(2**60)
    assert "does not have the memory for that: pass a smaller --batch" in capsys.readouterr().err


# Interruptions


@pytest.mark.process
def test_interrupted_in_every_way_a_run_ends_with_the_same_weights(tmp_path):
    """By SIGKILL, as in a power cut, Ctrl-C, SIGTERM and a smaller --iter_max."""
    flags = (*SHORT, "--iter_max", 200, "--iter_save", 40)
    lines = report_lines(succeed(tmp_path / "whole", "run_vae.py", *flags)[0])
    run = (tmp_path / "run", "run_vae.py", *flags, "--resume", 1)
    folder = tmp_path / "run" / "checkpoints" / NAME.format(0)
    for number, step in ((signal.SIGKILL, 40), (signal.SIGINT, 80), (signal.SIGTERM, 120)):
        child = Child(*run, stop=(number, f"samples-{step:05d}.png"))
        status, _, stderr = child.finish()
        if number == signal.SIGKILL:
            assert status == -number and f"there is no run {folder.name}" in stderr
            (folder / "model-00040.pt").unlink()  # as if it had ended between its two files
            continue
        assert status == 130 and "Traceback" not in stderr, stderr
        last = stderr.splitlines()[-1]
        assert f"stopped at iteration {step}; to continue: add --resume 1" in last
        assert f"at iteration {step}: pass --resume 1" in refused(*run[:2], *flags)
    succeed(*run, "--iter_max", 170)
    assert report_lines(succeed(*run)[0]) == lines
    for step in (40, 200):
        own, whole = (
            tmp_path / name / "checkpoints" / folder.name / f"model-{step:05d}.pt"
            for name in ("run", "whole")
        )
        assert same_weights(weights(own), weights(whole))


@pytest.mark.process
def test_torchrun_with_a_worker_killed(project, whole_data):
    """Two workers share four runs; one is killed in the middle, and the table is complete."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--standalone", "--max-restarts=1", "--", str(project / "run_vae.py")]
    command += ["--run", "1", "--replicates", "4", "--iter_max", "100", "--iter_save", "25"]
    command += ["--data", "synthetic", "--data_dir", str(whole_data), "--sheet", "2x2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "encoding": "utf-8"}
    process = subprocess.Popen(command, **pipes)
    deadline = time.monotonic() + 240
    saved = project / "checkpoints"
    while len(list(saved.glob("*/model-00025.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    pgrep = ["pgrep", "-P", str(process.pid)]
    workers = subprocess.run(pgrep, capture_output=True, encoding="utf-8").stdout.split()
    os.kill(int(workers[1]), signal.SIGKILL)
    stdout, _ = process.communicate(timeout=400)
    assert process.returncode == 0 and stdout.count("| 4 |") == 7
    for run in range(1, 5):
        found = results(project, NAME.format(run))
        assert found["iterations"] == 100 and found["seed"] == run


# Disks and folders


@pytest.mark.process
def test_a_full_disk(tmp_path, trained):
    """The run ends with one line and no half of a file; with space, it continues."""
    trained(tmp_path, "run_vae.py", *SHORT)
    before, flags = contents(tmp_path / "checkpoints"), ("run_vae.py", *SHORT, "--iter_max", 9)
    child = Child(tmp_path, *flags, "--resume", 1, file_size=5_000_000)  # a state has 8 MB
    status, _, stderr = child.finish()
    assert status == 1 and "training-state.pt: File too large" in stderr.splitlines()[-1]
    assert contents(tmp_path / "checkpoints") == before
    succeed(tmp_path, *flags, "--resume", 1)


def test_folders_that_cannot_be_written(tmp_path, trained):
    """Training ends with one line; an evaluation prints its report all the same."""
    trained(tmp_path, "run_vae.py", *SHORT)
    shutil.rmtree(tmp_path / "logs")
    (tmp_path / "logs").touch()
    status, _, stderr = in_process(tmp_path, "run_vae.py", *SHORT, "--run", 5)
    last = stderr.splitlines()[-1]
    assert status == 1 and f"error: {tmp_path / 'logs'}" in last and "Not a directory" in last
    stdout, stderr = succeed(tmp_path, "run_vae.py", *SHORT, "--train", 0)
    assert "NELBO: " in stdout and "results not written" in stderr


# The process


@pytest.mark.parametrize(
    "version, flags, chosen, expected",
    [
        ("2.14.1", b"flags: avx2 avx512f", {}, "avx2"),
        ("2.14.1", b"flags: avx2", {}, None),
        ("2.13.0", b"flags: avx512f", {}, None),
        ("2.14.1", b"flags: avx512f", {"ATEN_CPU_CAPABILITY": "default"}, "default"),
    ],
)
def test_slow_kernels_are_avoided(tmp_path, monkeypatch, version, flags, chosen, expected):
    monkeypatch.setattr(tuning, "CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_bytes(flags)
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    environment = dict(chosen)
    monkeypatch.setattr(os, "environ", environment)
    tuning.load_torch()
    assert environment.get("ATEN_CPU_CAPABILITY") == expected
    assert environment["GOMP_SPINCOUNT"] == "2000"


@pytest.mark.process
def test_it_can_be_installed(project, tmp_path):
    for name in ("pyproject.toml", "requirements.txt", "README.md"):
        shutil.copy(ROOT / name, project)
    pip = ("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet")
    done = run_python(tmp_path, *pip, "--target", tmp_path / "site", project)
    if "setuptools" in done.stderr and done.returncode:
        pytest.skip("setuptools is not installed")
    assert done.returncode == 0, done.stderr
    for path in ("models/README.md", "homework/handout/writeup.md", "explorer/page/main.js"):
        assert (tmp_path / "site" / "codebase" / path).exists(), path
