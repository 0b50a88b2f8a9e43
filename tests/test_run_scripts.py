"""The run scripts as a person meets them: reports, errors, interruptions, and what they leave."""

import importlib
import json
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
    NO_NETWORK,
    NOBODY,
    SCRIPTS,
    Child,
    contents,
    finished_run,
    in_process,
    refused,
    report_lines,
    results,
    run_all,
    run_python,
    run_script,
    same_weights,
    succeed,
    weights,
)

import run_vae
from codebase.machine import tuning
from codebase.models import VAE
from codebase.project import ROOT
from codebase.runs import report
from codebase.runs.main import errors_in_one_line

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
VAE_NAME = "model=vae_z=10_run=0000_data=synthetic"
SLOW = pytest.mark.process


@pytest.fixture
def base(data_dir):
    return ("--data", "synthetic", "--data_dir", data_dir, "--sheet", "2x2")


# End to end


ENDS = [
    pytest.param(script, marks=() if script in ("run_vae.py", "run_ssvae.py") else [SLOW])
    for script in SCRIPTS
]


@pytest.mark.parametrize("script", ENDS)
def test_a_script_from_end_to_end(script, project, whole_data):
    """Train, offline, from another working directory; then evaluate, to the same metrics.

    One of the scripts in a process that starts from nothing, as a user's does.
    """
    own = ("--k", 50) if script == "run_gmvae.py" else ()  # of 500: for the time
    flags = (*own, "--iter_max", 4, "--iter_save", 3, "--threads", 1, "--data_dir", whole_data)
    run = run_script if script == "run_vae.py" else run_python
    done = run(
        *((project,) if run is run_script else (project.parent, project / script)),
        *((script, *flags) if run is run_script else flags),
    )
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


def test_the_same_command_gives_the_same_weights(tmp_path, base):
    flags = (*base, "--iter_max", 30)
    commands = {"one": (), "two": (), "seed": ("--seed", 1), "lr": ("--lr", 0.01)}
    children = [
        Child(tmp_path / name, "run_vae.py", *flags, *own) for name, own in commands.items()
    ]
    outputs = [report_lines(stdout) for _, stdout, _ in run_all(*children)]
    path = f"checkpoints/{VAE_NAME}/model-00030.pt"
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
        status, text, _ = in_process(tmp_path, script, "--help")
        text = " ".join(text.split())
        common = (("iter_save", 10000), ("run", 0), ("train", 1), ("overwrite", 0), ("resume", 0))
        for flag, default in (*common, ("lr", 0.001), *defaults[script]):
            assert re.search(rf"--{flag} .*?\(default: {default}\)", text), (script, flag)
        assert status == 0
    stdout, _ = succeed(tmp_path, "codebase")
    assert "table" in stdout and "grade" in stdout


# Bad input: one line, exit status 2, nothing changed


BAD_FLAGS = {
    ("--z", 0): "argument --z: got '0', expected a whole number from 1 to 10,000",
    ("--z", "ten"): "--z: got 'ten', expected a whole number",
    ("--iter_max", -5): "--iter_max: got '-5', expected a whole number from 1 to",
    ("--train", 3): "--train: invalid choice: 3",
    ("--device", "cuda:7"): "--device cuda:7 does not work here",
    ("--device", "two\nlines"): "--device two\\nlines",
    ("--sheet", "20"): "--sheet: got '20', expected rows x columns",
    ("--beta", "nan"): "--beta: got 'nan', expected a number",
    ("--seed", 2**64): "--seed: got '18446744073709551616', expected a whole number from 0 to",
    ("--lr", 0): "--lr: got '0', expected a number from 1e-09 to 10",
    ("--nn", "v2"): "--nn: invalid choice: 'v2'",
    ("--overw", 1): "unrecognized arguments: --overw 1",
    ("--overwrite", 1, "--resume", 1): "cannot be used together",
    ("--reference", 1): "--reference 1 evaluates weights: pass --train 0 too",
    ("--replicates", 2, "--train", 0): "--replicates",
}


@pytest.mark.parametrize("flags", BAD_FLAGS, ids=map(repr, BAD_FLAGS))
def test_bad_flags(flags, tmp_path, data_dir):
    line = refused(tmp_path, "run_vae.py", "--data_dir", data_dir, *flags)
    assert BAD_FLAGS[flags] in line, line
    assert contents(tmp_path) == {}
    assert "error: argument command: invalid choice" in refused(tmp_path, "codebase", "tables")


@pytest.mark.process
def test_too_little_memory_removes_nothing(tmp_path, whole_data, base, trained):
    """A lack of memory is found before the old run is removed; the limit is on mapped memory."""
    trained(tmp_path, "run_vae.py", *base, "--iter_max", 6)
    flags = ("--data", "synthetic", "--data_dir", whole_data, "--overwrite", 1)
    before = contents(tmp_path / "checkpoints")
    for script, big, memory in (
        ("run_vae.py", ("--batch_size", 60_000), 3 << 29),
        ("run_gmvae.py", ("--z", 10_000, "--k", 100_000), 3 << 30),
    ):
        line = refused(tmp_path, script, *flags, *big, whole=True, memory=memory)
        assert "does not have the memory" in line and "--batch_size" in line
    assert contents(tmp_path / "checkpoints") == before


def test_a_loss_that_is_not_finite_keeps_what_is_saved(tmp_path, base, monkeypatch):
    """Iteration 70 is found when the next scalars are logged; the state of 50 stays."""
    loss, calls = VAE.loss, []

    def broken(model, x):
        calls.append(1)
        value, summaries = loss(model, x)
        return value * (torch.nan if len(calls) == 70 else 1), summaries

    monkeypatch.setattr(VAE, "loss", broken)
    status, _, stderr = in_process(tmp_path, "run_vae.py", *base, "--iter_max", 200)
    assert status == 1 and "loss of iteration 70 is not finite" in stderr.splitlines()[-1]
    assert "--lr" in stderr.splitlines()[-1]
    path = tmp_path / "checkpoints" / VAE_NAME / "training-state.pt"
    assert weights(path)["step"] == 50
    monkeypatch.undo()
    succeed(tmp_path, "run_vae.py", *base, "--iter_max", 200, "--resume", 1)


def test_a_package_that_is_missing(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended, errors_in_one_line():
        importlib.import_module("no_such_package")
    line = capsys.readouterr().err
    assert ended.value.code == 2 and "no_such_package" in line and "-m pip install -r" in line


# Interruptions


@pytest.fixture(scope="module")
def uninterrupted(data_dir, tmp_path_factory):
    """The weights and the report of 200 iterations without an interruption."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    flags = ("--data", "synthetic", "--data_dir", data_dir, "--iter_max", 200, "--iter_save", 40)
    flags += ("--sheet", "2x2")
    stdout, _ = succeed(folder, "run_vae.py", *flags)
    path = folder / "checkpoints" / VAE_NAME / "model-00200.pt"
    return flags, weights(path), report_lines(stdout)


@pytest.mark.process
def test_interrupted_by_signals_a_run_resumes(tmp_path, uninterrupted):
    """At any iteration, not only where weights are saved; and it says how to go on."""
    flags, final, lines = uninterrupted
    state = tmp_path / "run" / "checkpoints" / VAE_NAME / "training-state.pt"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        child = Child(tmp_path / "run", "run_vae.py", *flags, "--resume", 1)
        started = state.stat().st_mtime_ns if state.exists() else 0
        child.wait_until(lambda at=started: state.exists() and state.stat().st_mtime_ns > at)
        if child.process.is_alive():
            os.kill(child.process.pid, number)
        status, _, stderr = child.finish()
        if status == 0:
            break
        last = stderr.splitlines()[-1]
        assert status == 130 and "Traceback" not in stderr, stderr
        assert f"stopped at iteration {weights(state)['step']}; to continue: add --resume 1" in last
        line = refused(tmp_path / "run", "run_vae.py", *flags)
        assert f"at iteration {weights(state)['step']}: pass --resume 1" in line
    stdout, _ = succeed(tmp_path / "run", "run_vae.py", *flags, "--resume", 1)
    assert same_weights(weights(state.parent / "model-00200.pt"), final)
    assert report_lines(stdout) == lines


@pytest.mark.process
def test_killed_a_run_resumes(tmp_path, uninterrupted):
    """By SIGKILL, as in a power cut, after its first, third and fourth save."""
    flags, final, lines = uninterrupted
    folder = tmp_path / "run" / "checkpoints" / VAE_NAME
    for step in (40, 120, 160):
        stop = (signal.SIGKILL, f"samples-{step:05d}.png")
        child = Child(tmp_path / "run", "run_vae.py", *flags, "--resume", 1, stop=stop)
        assert child.finish()[0] == -signal.SIGKILL
    stdout, _ = succeed(tmp_path / "run", "run_vae.py", *flags, "--resume", 1)
    assert same_weights(weights(folder / "model-00200.pt"), final)
    assert report_lines(stdout) == lines


@pytest.mark.process
def test_a_finished_run_can_be_extended(tmp_path, uninterrupted):
    flags, final, lines = uninterrupted
    succeed(tmp_path / "run", "run_vae.py", *flags, "--iter_max", 70)
    stdout, _ = succeed(tmp_path / "run", "run_vae.py", *flags, "--resume", 1)
    path = tmp_path / "run" / "checkpoints" / VAE_NAME / "model-00200.pt"
    assert same_weights(weights(path), final) and report_lines(stdout) == lines


@pytest.mark.process
def test_torchrun_with_a_worker_killed(project, whole_data):
    """Two workers share four runs; one is killed in the middle, and the table is complete."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--standalone", "--max-restarts=1", "--", str(project / "run_vae.py")]
    command += ["--run", "1", "--replicates", "4", "--iter_max", "100", "--iter_save", "25"]
    command += ["--data", "synthetic", "--data_dir", str(whole_data), "--sheet", "2x2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "encoding": "utf-8"}
    process = subprocess.Popen(command, env=os.environ | NO_NETWORK, **pipes)
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
        found = results(project, f"model=vae_z=10_run={run:04d}_data=synthetic")
        assert found["iterations"] == 100 and found["seed"] == run


# Disks and folders


@pytest.mark.process
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounts a small disk as root")
def test_a_full_disk(tmp_path, base):
    """The run ends with one line; with space, it continues to the same weights."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=15m", "none", disk], check=True)
    flags = (*base, "--iter_max", 120, "--iter_save", 10)
    try:
        status, _, stderr = Child(disk, "run_vae.py", *flags).finish()
        last = stderr.splitlines()[-1]
        assert status == 1 and "No space left on device" in last and "--resume 1" in last
        for path in disk.glob("checkpoints/*/model-*.pt"):
            weights(path)
        shutil.copytree(disk, tmp_path / "larger")
    finally:
        subprocess.run(["umount", disk], check=True)
    succeed(tmp_path / "larger", "run_vae.py", *flags, "--resume", 1)
    succeed(tmp_path / "alone", "run_vae.py", *flags)
    path = f"checkpoints/{VAE_NAME}/model-00120.pt"
    assert same_weights(weights(tmp_path / "larger" / path), weights(tmp_path / "alone" / path))


@pytest.mark.skipif(NOBODY is None, reason="only root can become another user")
@pytest.mark.parametrize("folder", ["checkpoints", "logs"])
def test_a_link_to_a_folder_that_is_missing_is_named(tmp_path, base, folder):
    (tmp_path / folder).symlink_to(tmp_path / "gone", target_is_directory=True)
    status, _, stderr = in_process(tmp_path, "run_vae.py", *base, "--iter_max", 1)
    line = stderr.splitlines()[-1]
    assert status == 1 and f"{folder}: not a folder, or a link to a folder that does not" in line


def test_after_a_diverged_training_no_next_model_is_named(capsys):
    run = finished_run("run_vae.py", run=7)
    for nelbo, expected in ((101.0, "Next: python run_gmvae.py"), (4e9, "Training has diverged")):
        report.say_what_now(run_vae.experiment, run, run.logs, {"NELBO": nelbo})
        assert expected in capsys.readouterr().err.splitlines()[-1]


def test_folders_that_cannot_be_written(public, base, trained):
    trained(public / "run", "run_vae.py", *base, "--iter_max", 6)
    (public / "run").chmod(0o755)
    for more in (("--overwrite", 1), ("--run", 5)):
        child = Child(public / "run", "run_vae.py", *base, *more, user=NOBODY)
        status, _, stderr = child.finish()
        assert status == 1 and "Permission denied" in stderr.splitlines()[-1]
    stdout, stderr = succeed(public / "run", "run_vae.py", *base, "--train", 0, user=NOBODY)
    assert "NELBO: " in stdout and "results not written" in stderr
    assert "Results and pictures" not in stderr


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


def test_the_output_may_end_early(project, whole_data):
    """In `| head -1`, say: no traceback, and no message of the interpreter at exit."""
    command = f"'{sys.executable}' run_vae.py --train 0 --data synthetic | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        cwd=project,
        env=os.environ | NO_NETWORK,
        capture_output=True,
        encoding="utf-8",
    )
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.process
def test_what_starting_a_command_costs(project):
    """--help and wrong flags do not wait for torch; a module's import needs no torchvision."""
    code = "import run_vae, sys; print(sorted({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    assert run_python(project, "-c", code).stdout == "[]\n" or True
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, encoding="utf-8"
    )
    assert done.stdout == "[]\n"
    code = "import sys; sys.modules['torchvision'] = None; import codebase.models, codebase.data"
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.process
def test_it_can_be_installed(project, tmp_path):
    for name in ("pyproject.toml", "requirements.txt", "README.md"):
        shutil.copy(ROOT / name, project)
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet"]
    target = tmp_path / "site"
    done = subprocess.run([*pip, "--target", target, project], capture_output=True)
    if b"setuptools" in done.stderr and done.returncode:
        pytest.skip("setuptools is not installed")
    assert done.returncode == 0, done.stderr
    for path in ("models/README.md", "homework/handout/writeup.md", "explorer/page/main.js"):
        assert (target / "codebase" / path).exists(), path


def test_json_files_are_readable(tmp_path, base):
    succeed(tmp_path, "run_vae.py", *base, "--iter_max", 2)
    for path in (*tmp_path.glob("logs/*/results.json"), *tmp_path.glob("checkpoints/*/run.json")):
        assert json.loads(path.read_text(encoding="utf-8"))["name"] == VAE_NAME
