"""The run scripts as a person meets them: reports, errors, interruptions, and what they leave."""

import argparse
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import (
    NOBODY,
    SCRIPTS,
    Child,
    contents,
    refused,
    report_lines,
    run_all,
    run_python,
    run_script,
    same_weights,
    succeed,
    weights,
)

from codebase import ROOT, UserError, checkpoints, data
from codebase.datasets import download, synthetic
from codebase.machine import tuning
from codebase.runs import flags as run_flags
from codebase.runs import main as run_main

NUMBER = r"-?\d+\.\d+"
BOUNDS = [
    rf"NELBO: {NUMBER}\. KL: {NUMBER}\. Rec: {NUMBER}",
    *(rf"Negative IWAE-{iw}: {NUMBER}" for iw in (1, 10, 100, 1000)),
]
REPORTS = {
    "run_vae.py": BOUNDS,
    "run_gmvae.py": BOUNDS,
    "run_ssvae.py": [rf"Test set classification accuracy: {NUMBER}"],
    "run_fsvae.py": BOUNDS[:1],
}
NAMES = {
    "run_vae.py": "model=vae_z=10_run=0000",
    "run_gmvae.py": "model=gmvae_z=10_k=500_run=0000",
    "run_ssvae.py": "model=ssvae_gw=001_cw=100_run=0000",
    "run_fsvae.py": "model=fsvae_run=0000",
}
VAE_NAME = NAMES["run_vae.py"] + "_data=synthetic"


@pytest.fixture
def base(data_dir):
    return ("--data", "synthetic", "--data_dir", data_dir, "--sheet", "2x2")


# End to end


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_from_end_to_end(script, project, whole_data):
    """Train, offline, from another working directory; then evaluate, to the same figures.

    One of the scripts in a process that starts from nothing, as a user's does.
    """
    own = ("--k", 50) if script == "run_gmvae.py" else ()  # of 500: for the time
    flags = (*own, "--iter_max", 4, "--iter_save", 3, "--threads", 1, "--data_dir", whole_data)
    if script == "run_vae.py":
        done = run_script(project, script, *flags)
    else:
        done = run_python(project.parent, project / script, *flags)
    assert done.returncode == 0, done.stderr
    first, *rest = report_lines(done.stdout)
    dataset = "SVHN" if script == "run_fsvae.py" else "MNIST"
    experiment = importlib.import_module(script.removesuffix(".py")).experiment
    name = NAMES[script].replace("k=500", "k=050") + "_data=synthetic"
    assert first == (
        f"Evaluating {name}, iteration 4 of {experiment.iter_max:,}, your run, on synthetic "
        f"digits, not comparable with {dataset}"
    )
    assert f"in place of {dataset}" in done.stderr
    assert len(rest) == len(REPORTS[script])
    for line, pattern in zip(rest, REPORTS[script], strict=True):
        assert re.fullmatch(pattern, line), line

    steps = sorted(path.name for path in (project / "checkpoints" / name).glob("*.pt"))
    assert steps == ["model-00003.pt", "model-00004.pt", "training-state.pt"]
    logs = project / "logs" / name
    assert list(logs.glob("events.out.tfevents.*"))
    results = json.loads((logs / "results.json").read_text(encoding="utf-8"))
    assert (results["data"], results["seed"], results["iterations"]) == ("synthetic", 0, 4)
    assert results["seconds"] > 0 and results["torch"] == torch.__version__
    assert results["python"] and results["device"] in ("cpu", "cuda:0", "mps:0")
    printed = [float(n) for line in rest for n in re.findall(NUMBER, line.replace("IWAE-", ""))]
    assert printed == list(results["figures"].values())
    for path in re.findall(r"Picture: (.*)", done.stdout):
        assert Path(path).read_bytes().startswith(b"\x89PNG")
    assert "samples.png" in done.stdout and "reconstructions.png" in done.stdout
    assert not (logs / "explore.html").exists()  # 2 to 20 MB, which few open: explore makes it

    # The data and the iteration are recorded.
    flags = (*own, "--train", 0, "--data_dir", whole_data)
    stdout, _ = succeed(project, script, *flags, whole=True)
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
    children = {s: Child(tmp_path / s, s, "--help") for s in SCRIPTS}
    for script, child in children.items():
        status, text, _ = child.finish()
        text = " ".join(text.split())
        assert status == 0
        common = (("iter_save", 10000), ("run", 0), ("train", 1), ("overwrite", 0), ("resume", 0))
        for flag, default in (*common, ("lr", 0.001), *defaults[script]):
            assert re.search(rf"--{flag} .*?\(default: {default}\)", text), (script, flag)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_defaults_that_are_shown_are_those_of_runs(script):
    experiment = importlib.import_module(script.removesuffix(".py")).experiment
    shown = vars(run_flags.make_parser(experiment, "").parse_args([]))
    assert shown["iter_max"] == experiment.iter_max
    identity = experiment.identity({}, experiment.dataset)
    for name in identity.keys() - {"data", "seed"}:
        assert shown[name] == identity[name], name


def test_the_commands_beside_the_scripts(tmp_path):
    stdout, _ = succeed(tmp_path, "codebase")
    assert "table" in stdout
    stdout, _ = succeed(tmp_path, "codebase", "table", "--help")
    assert "--all" in stdout
    assert "invalid choice: 'tables'" in refused(tmp_path, "codebase", "tables")
    assert "no finished runs" in refused(tmp_path, "codebase", "table")
    assert os.listdir(tmp_path) == []


# Bad input: one line, exit status 2, nothing changed


BAD_FLAGS = {
    ("--z", 0): "argument --z: got '0', expected a whole number from 1 to 10000",
    ("--z", "ten"): "--z: got 'ten', expected a whole number",
    ("--z", 2**63): "from 1 to 10000",
    ("--iter_max", -5): "--iter_max: got '-5', expected a whole number from 1 to",
    ("--run", -1): "--run: got '-1', expected a whole number from 0 to",
    ("--train", 3): "--train: invalid choice: 3",
    ("--device", "cuda:7"): "--device cuda:7",
    ("--device", "abacus"): "--device abacus: not on this machine, which has",
    ("--device", "two\nlines"): "--device two\\nlines",
    ("--sheet", "20"): "--sheet: got '20', expected rows x columns",
    ("--beta", 0): "--beta: got '0', expected a number from 1e-06 to 1e+06",
    ("--beta", "nan"): "--beta: got 'nan', expected a number",
    ("--sigma2", "1e300"): "--sigma2: got '1e300', expected a number from 1e-06 to 1e+06",
    ("--seed", 2**64): "--seed: got '18446744073709551616', expected a whole number from 0 to",
    ("--lr", 0): "--lr: got '0', expected a number from 1e-09 to 10",
    ("--replicates", "1" * 400): "expected a whole number from 1 to 100000",
    ("--nn", "v2"): "--nn: invalid choice: 'v2'",
    ("--data", "svhn"): "--data: invalid choice: 'svhn'",
    ("--overw", 1): "unrecognized arguments: --overw 1",
    ("--overwrite", 1, "--resume", 1): "cannot be used together",
    ("--reference", 1): "--reference 1 evaluates weights: pass --train 0 too",
    ("--replicates", 2, "--train", 0): "--replicates",
    ("--replicates", 2, "--run", 999_999): "the last one would have --run 1000000",
    ("--replicates", 2, "--seed", 2**63 - 1): "--seed 9223372036854775808",
}


def test_bad_flags(tmp_path, data_dir):
    bad = dict(BAD_FLAGS)
    none = tmp_path / "none"
    bad["--data", "mnist", "--data_dir", none] = f"not in {none}/MNIST/raw"
    if not torch.cuda.is_available():
        bad["--device", "cuda"] = "--device cuda: not on this machine, which has"
    children = {
        ("run_gmvae.py", "--k", 0): "--k: got '0', expected a whole number from 1 to 100000",
        ("run_ssvae.py", "--gw", -1): "--gw: got '-1', expected a whole number from 0 to",
        ("run_fsvae.py", "--z", 3): "unrecognized arguments: --z 3",
    }
    children |= {("run_vae.py", "--data_dir", data_dir, *flags): m for flags, m in bad.items()}
    for i, ((script, *flags), message) in enumerate(children.items()):
        if script != "run_vae.py":
            flags = [*flags, "--data_dir", data_dir]
        line = refused(tmp_path / str(i), script, *flags)
        assert message in line, line
        assert contents(tmp_path / str(i)) == {}


@pytest.fixture
def short(tmp_path, base, trained):
    """A folder with a short synthetic run, and the flags that it takes to find it."""
    trained(tmp_path / "run", "run_vae.py", *base, "--iter_max", 6, "--iter_save", 4)
    return tmp_path / "run", base


def test_errors_about_runs_change_nothing(short, mnist_dir):
    folder, flags = short
    before = contents(folder / "checkpoints") | contents(folder / "logs")
    cases = {
        (*flags, "--iter_max", 6): ("--overwrite 1", "--resume 1", "--train 0", "another --run"),
        (*flags, "--train", 0, "--iter_max", 7): (
            "model-00007.pt does not exist",
            "--iter_max 4, 6)",
        ),
        (*flags, "--train", 0, "--run", 3): ("train first",),
        (*flags, "--resume", 1, "--iter_max", 5): ("at iteration 6 already", "larger"),
        ("--data", "mnist", "--data_dir", mnist_dir, "--train", 0): (
            "trained on synthetic data",
            "--data synthetic",
        ),
        (*flags, "--overwrite", 1, "--device", "abacus"): ("abacus",),
        ("--data", "mnist", "--data_dir", folder, "--overwrite", 1): ("MNIST/raw",),
        (*flags, "--replicates", 1, "--iter_max", 5): ("at iteration 6 already",),
    }
    for case, messages in cases.items():
        line = refused(folder, "run_vae.py", *case)
        assert all(message in line for message in messages), line
        assert contents(folder / "checkpoints") | contents(folder / "logs") == before


def test_a_run_whose_data_are_gone_is_not_another_run(tmp_path, mnist_dir, base):
    """--resume and --train of an MNIST run without MNIST never turn to synthetic digits."""
    flags = ("--iter_max", 2, "--sheet", "2x2")
    succeed(tmp_path, "run_vae.py", *flags, "--data_dir", mnist_dir)
    gone = ("--data_dir", tmp_path / "gone")
    before = contents(tmp_path / "checkpoints")
    for more in (("--resume", 1, "--iter_max", 9), ("--overwrite", 1)):
        line = refused(tmp_path, "run_vae.py", *flags, *gone, *more)
        assert "not in" in line and "--data synthetic" in line
    stdout, stderr = succeed(tmp_path, "run_vae.py", *gone, "--sheet", "2x2", "--train", 0)
    assert "only samples are drawn" in stderr and stdout.startswith("Picture: ")
    assert contents(tmp_path / "checkpoints") == before


def test_weights_of_another_shape(short):
    folder, flags = short
    other = folder / "checkpoints" / VAE_NAME.replace("z=10", "z=07")
    shutil.copytree(folder / "checkpoints" / VAE_NAME, other)
    (other / "run.json").unlink()
    line = refused(folder, "run_vae.py", *flags, "--iter_max", 6, "--train", 0, "--z", 7)
    assert "(20, 300)" in line and "(14, 300)" in line


@pytest.mark.process
def test_too_little_memory_removes_nothing(short, whole_data):
    """A lack of memory is found before the old run is removed; the limit is on mapped memory."""
    folder, _ = short
    flags = ("--data", "synthetic", "--data_dir", whole_data)
    before = contents(folder / "checkpoints")
    big = ("--overwrite", 1, "--batch_size", 60_000)
    line = refused(folder, "run_vae.py", *flags, *big, whole=True, memory=3 << 29)
    assert "does not have the memory" in line and "--batch_size" in line
    big = ("--z", 10_000, "--k", 100_000)
    line = refused(folder, "run_gmvae.py", *flags, *big, whole=True, memory=3 << 30)
    assert "does not have the memory" in line
    assert contents(folder / "checkpoints") == before


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
    interruptions = 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        child = Child(tmp_path / "run", "run_vae.py", *flags, "--resume", 1)
        started = state.stat().st_mtime_ns if state.exists() else 0
        child.wait_until(lambda at=started: state.exists() and state.stat().st_mtime_ns > at)
        if child.process.is_alive():
            os.kill(child.process.pid, number)
        status, _, stderr = child.finish()
        if status == 0:
            break
        assert status == 128 + number, stderr
        last = stderr.splitlines()[-1]
        assert "interrupted" in last and "--resume 1" in last and "Traceback" not in stderr
        if "at iteration" in last:
            assert f"interrupted at iteration {weights(state)['step']}" in last
        interruptions += 1
    assert interruptions >= 1
    stdout, _ = succeed(tmp_path / "run", "run_vae.py", *flags, "--resume", 1)
    path = state.parent / "model-00200.pt"
    assert same_weights(weights(path), final) and report_lines(stdout) == lines


@pytest.mark.process
def test_killed_a_run_resumes(tmp_path, uninterrupted):
    """By SIGKILL after its first, third and fourth save."""
    flags, final, lines = uninterrupted
    folder = tmp_path / "run" / "checkpoints" / VAE_NAME
    for step in (40, 120, 160):
        stop = (signal.SIGKILL, f"samples-{step:05d}.png")
        child = Child(tmp_path / "run", "run_vae.py", *flags, "--resume", 1, stop=stop)
        assert child.finish()[0] == -signal.SIGKILL
    stdout, _ = succeed(tmp_path / "run", "run_vae.py", *flags, "--resume", 1)
    assert same_weights(weights(folder / "model-00200.pt"), final)
    assert report_lines(stdout) == lines
    assert not list(folder.glob(".*.tmp"))


@pytest.mark.process
def test_a_finished_run_can_be_extended(tmp_path, uninterrupted):
    flags, final, lines = uninterrupted
    shorter = (*flags[:4], "--iter_max", 70, "--iter_save", 40, "--sheet", "2x2")
    succeed(tmp_path / "run", "run_vae.py", *shorter)
    stdout, _ = succeed(tmp_path / "run", "run_vae.py", *flags, "--resume", 1)
    path = tmp_path / "run" / "checkpoints" / VAE_NAME / "model-00200.pt"
    assert same_weights(weights(path), final) and report_lines(stdout) == lines


def test_how_to_continue_is_a_command(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    trouble = run_main.Trouble(None)
    monkeypatch.setattr(sys, "argv", ["/x/codebase/__main__.py", "grade", "a b"])
    assert trouble._go_on() == "; to continue: python -m codebase grade 'a b'"
    words = ["run_vae.py", "--overwrite", "1", "--resume=0", "--z", "3"]
    monkeypatch.setattr(sys, "argv", words)
    assert trouble._go_on().endswith("python run_vae.py --overwrite 1 --resume=0 --z 3")
    trouble.training = argparse.Namespace(has_begun=True)
    assert trouble._go_on() == "; to continue: python run_vae.py --z 3 --resume 1"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert trouble._go_on() == "; to continue: the same torchrun command"


# Disks


def test_a_full_disk(short):
    """Files may not grow past 4 MB: the weights fit, the training state does not."""
    folder, flags = short
    path = folder / "checkpoints" / VAE_NAME
    before = contents(path)
    more = (*flags, "--iter_max", 20, "--iter_save", 10, "--resume", 1)
    status, _, stderr = Child(folder, "run_vae.py", *more, file_size=4 << 20).finish()
    last = stderr.splitlines()[-1]
    assert status == 1 and "Traceback" not in stderr
    assert "File too large" in last and "reached iteration 10; iteration 6 is saved" in last
    assert str(path) in last and "to continue: python run_vae.py" in last
    after = contents(path)
    assert {name: after[name] for name in before} == before  # the last good state is untouched
    assert not list(path.glob(".*.tmp"))
    succeed(folder, "run_vae.py", *more)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounts a small disk as root")
def test_a_disk_that_is_full_to_the_last_byte(tmp_path, base):
    """TensorBoard's events fail too: that must not hang, nor print a traceback."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=24m tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("no disk can be mounted here")
    try:
        status, _, stderr = Child(disk / "run", "run_vae.py", *base, "--iter_save", 6).finish()
        assert status == 1 and "Traceback" not in stderr
        assert "No space left on device" in stderr.splitlines()[-1]
        assert "is saved" in stderr.splitlines()[-1]
        path = disk / "run" / "checkpoints" / VAE_NAME
        assert weights(path / "training-state.pt")["step"] > 0
    finally:
        os.system(f"umount {disk}")


@pytest.mark.process
def test_a_full_disk_while_drawing_data(tmp_path):
    done = Child(
        tmp_path / "run",
        "run_vae.py",
        *("--data", "synthetic", "--data_dir", tmp_path / "data"),
        file_size=2 << 20,
        whole=True,
    ).finish()
    assert done[0] == 1 and "File too large" in done[2].splitlines()[-1]
    assert contents(tmp_path / "data") == {} and contents(tmp_path / "run") == {}


@pytest.fixture
def public_run(public):
    run = public / "run"
    run.mkdir()
    run.chmod(0o777)
    return run


@pytest.mark.parametrize("locked", ["checkpoints", "logs"])
def test_folders_that_cannot_be_written(locked, public_run, base):
    for name in ("checkpoints", "logs"):
        (public_run / name).mkdir()
        (public_run / name).chmod(0o555 if name == locked else 0o777)
    child = Child(public_run, "run_vae.py", *base, "--iter_max", 3, user=NOBODY)
    status, _, stderr = child.finish()
    assert status == 1 and "Traceback" not in stderr
    assert "Permission denied" in stderr.splitlines()[-1] and locked in stderr.splitlines()[-1]


def test_evaluating_needs_no_writing(public_run, base):
    """Weights that somebody else keeps, in folders that only they may write to."""
    succeed(public_run, "run_vae.py", *base, "--iter_max", 3)
    before = contents(public_run)
    folders = [path for path in public_run.rglob("*") if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    evaluation = Child(public_run, "run_vae.py", *base, "--train", 0, user=NOBODY)
    status, stdout, stderr = evaluation.finish()
    for folder in folders:
        folder.chmod(0o755)
    assert status == 0 and "warning: results not written" in stderr, stderr
    assert len(report_lines(stdout)) == 4 and contents(public_run) == before


@pytest.mark.parametrize("script", SCRIPTS[:3])
def test_evaluating_leaves_the_training_images_unread(script, whole_data, tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    drawn = whole_data / "synthetic" / "MNIST" / "raw"
    for prefix in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            shutil.copy(drawn / f"{prefix}-{kind}-ubyte", raw)
    (raw / "train-images-idx3-ubyte").write_bytes(b"")
    monkeypatch.setattr(download, "MNIST_MD5", synthetic.DIGITS_MD5)
    experiment = importlib.import_module(script.removesuffix(".py")).experiment
    identity = argparse.Namespace(**experiment.identity({}, "mnist"))
    source = data.Source("mnist", tmp_path, torch.device("cpu"), train=False)
    assert len(experiment.data(identity, source).test[0]) == 10_000
    with pytest.raises(UserError, match="train-images-idx3-ubyte is damaged"):
        experiment.data(identity, source._replace(train=True))


def test_data_that_cannot_be_read(public, public_run):
    raw = public / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
        for kind in ("idx3-ubyte", "idx1-ubyte"):
            (raw / f"{name}-{kind}").touch()
    flags = ("--data_dir", public, "--data", "mnist")
    for path, mode in ((raw, 0o000), (raw / "t10k-images-idx3-ubyte", 0o200)):
        path.chmod(mode)
        line = refused(public_run, "run_vae.py", *flags, user=NOBODY, whole=True)
        path.chmod(0o755)
        assert "cannot be read (Permission denied)" in line and str(raw) in line


# Hostile names and environments


@pytest.mark.parametrize("which", ["checkpoints", "logs"])
def test_a_link_that_leads_elsewhere_is_not_followed(which, short, tmp_path):
    folder, flags = short
    outside = tmp_path / "outside"
    shutil.move(folder / which / VAE_NAME, outside)
    (folder / which / VAE_NAME).symlink_to(outside)
    before = contents(outside) | contents(folder)
    for more in (("--train", 0), ("--overwrite", 1), ("--resume", 1, "--iter_max", 9)):
        assert "leads out of" in refused(folder, "run_vae.py", *flags, *more)
    assert contents(outside) | contents(folder) == before


BROKEN_TORCHVISION = "raise RuntimeError('operator torchvision::nms does not exist')"


@pytest.mark.process
def test_a_torch_that_is_too_old(project):
    stubs = project.parent / "stubs"
    stubs.mkdir()
    (stubs / "torch.py").write_text("__version__ = '1.13.1+cu117'", encoding="utf-8")
    done = run_script(project, "run_vae.py", env={"PYTHONPATH": str(stubs)})
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "torch 1.13.1+cu117 is too old, expected 2.6 or newer: python -m pip" in done.stderr


@pytest.mark.parametrize("package", ["torch", "tqdm", "filelock", "tensorboardX", "scipy"])
def test_a_package_that_is_missing(package, monkeypatch):
    find_spec = tuning.importlib.util.find_spec
    monkeypatch.setattr(
        tuning.importlib.util, "find_spec", lambda n: None if n == package else find_spec(n)
    )
    with pytest.raises(UserError, match=f"{package} is missing: python -m pip .*requirements"):
        tuning.load_packages()


@pytest.mark.parametrize(
    ("version", "flags", "chosen", "expected"),
    [
        ("2.14.1+cpu", "avx2 avx512f", None, "avx2"),
        ("2.14.1+cpu", "avx2 avx512f", "avx512", "avx512"),
        ("2.14.1+cpu", "avx2", None, None),
        ("2.14.1+cpu", None, None, None),
        ("2.15.0", "avx2 avx512f", None, None),
    ],
)
def test_slow_kernels_are_avoided(tmp_path, monkeypatch, version, flags, chosen, expected):
    """Only on Linux, with AVX-512 and PyTorch 2.14, an environment variable is set."""
    monkeypatch.setattr(tuning, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(tuning.importlib.metadata, "version", lambda name: version)
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"flags : {flags}", encoding="utf-8")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", chosen or "")  # and put back afterwards
    if chosen is None:
        monkeypatch.delenv("ATEN_CPU_CAPABILITY")
    tuning._avoid_slow_kernels()
    assert os.environ.get("ATEN_CPU_CAPABILITY") == expected


@pytest.mark.process
def test_a_torchvision_of_another_torch(project, whole_data):
    """Only downloads need it: a line says what is wrong with it, and synthetic digits are used."""
    stubs = project.parent / "stubs"
    stubs.mkdir()
    (stubs / "torchvision.py").write_text(BROKEN_TORCHVISION, encoding="utf-8")
    flags = ("--iter_max", 2, "--threads", 1)
    env = {"PYTHONPATH": str(stubs)}
    done = run_script(project, "run_ssvae.py", *flags, data_dir=whole_data, env=env)
    assert "torchvision::nms does not exist" in done.stderr and "Traceback" not in done.stderr
    assert done.returncode == 0 and "accuracy" in done.stdout


@pytest.mark.process
def test_models_work_without_torchvision(project):
    stubs = project.parent / "stubs"
    stubs.mkdir()
    (stubs / "torchvision.py").write_text(BROKEN_TORCHVISION, encoding="utf-8")
    (project / "use_models.py").write_text(
        "import torch\n"
        "from codebase import utils as ut\n"
        "from codebase.models.vae import VAE\n"
        "from codebase.models.gmvae import GMVAE\n"
        "from codebase.models.ssvae import SSVAE\n"
        "from codebase.models.fsvae import FSVAE\n"
        "print(VAE().negative_iwae_bound(torch.zeros(2, 784), 3)[0].item() > 0)\n"
        "ut.save_model_by_name(VAE(name='x'), 1); ut.load_model_by_name(VAE(name='x'), 1)\n",
        encoding="utf-8",
    )
    done = run_script(project, "use_models.py", env={"PYTHONPATH": str(stubs)})
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.process
def test_what_starting_a_command_costs():
    """--help needs no torch, nor does importing a run script; commands import what they need."""
    code = (
        "import sys, run_vae, run_gmvae, run_ssvae, run_fsvae, codebase.__main__\n"
        "print({'matplotlib', 'scipy', 'torch', 'torchvision'} & sys.modules.keys())\n"
        "from codebase.machine import tuning\n"
        "tuning.load_packages()\n"
        "import gc, codebase.runs.table, codebase.homework.grading\n"
        "print({'matplotlib', 'scipy', 'torchvision'} & sys.modules.keys())\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 50_000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert (done.stdout, done.stderr) == ("set()\nset()\nTrue True\n", "")


def test_scripts_are_thin():
    for script in SCRIPTS:
        assert len((ROOT / script).read_text(encoding="utf-8").splitlines()) <= 50


def test_checkpoints_folder_is_beside_the_scripts(monkeypatch):
    monkeypatch.undo()  # the tests have others
    assert checkpoints.CHECKPOINTS == ROOT / "checkpoints"


def test_it_can_be_installed(project, monkeypatch):
    """What pip install -e . reads: every package is found, and what it depends on."""
    pyprojecttoml = pytest.importorskip("setuptools.config.pyprojecttoml")
    for name in ("pyproject.toml", "requirements.txt", "README.md"):
        shutil.copy(ROOT / name, project)
    monkeypatch.chdir(project)
    found = pyprojecttoml.read_configuration("pyproject.toml", expand=True)
    packages = {
        str(path.parent.relative_to(ROOT)).replace(os.sep, ".")
        for path in (ROOT / "codebase").rglob("__init__.py")
    }
    assert set(found["tool"]["setuptools"]["packages"]) == packages
    names = [re.match("[A-Za-z-]+", line)[0] for line in found["project"]["dependencies"]]
    assert {"torch", "torchvision", "numpy", "tqdm"} <= set(names)
