"""The run scripts as a person meets them: reports, errors, interruptions, and what they leave."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from conftest import SCRIPTS, Child, contents, run_script, same_weights

from codebase import ROOT, checkpoints, environment
from codebase.models.vae import VAE

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


def report(stdout):
    return [line for line in stdout.splitlines() if not line.startswith("Picture: ")]


def weights(path):
    return torch.load(path, weights_only=True)


# End to end


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_from_end_to_end(script, project, data_dir):
    """Train, offline, from another working directory; then evaluate, to the same figures."""
    one_thread = {"OMP_NUM_THREADS": "1"}  # as in a Child: the last digit depends on it
    flags = ("--iter_max", 4, "--iter_save", 3)
    done = run_script(project, script, *flags, data_dir=data_dir, env=one_thread)
    assert done.returncode == 0, done.stderr
    first, *rest = report(done.stdout)
    dataset = "SVHN" if script == "run_fsvae.py" else "MNIST"
    assert first == f"Data: synthetic digits, not comparable with {dataset}"
    assert f"in the place of {dataset}" in done.stderr
    assert len(rest) == len(REPORTS[script])
    for line, pattern in zip(rest, REPORTS[script], strict=True):
        assert re.fullmatch(pattern, line), line

    name = NAMES[script] + "_data=synthetic"
    steps = sorted(path.name for path in (project / "checkpoints" / name).glob("*.pt"))
    assert steps == ["model-00003.pt", "model-00004.pt", "training-state.pt"]
    logs = project / "logs" / name
    assert list(logs.glob("events.out.tfevents.*"))
    results = json.loads((logs / "results.json").read_text())
    assert (results["data"], results["seed"], results["iterations"]) == ("synthetic", 0, 4)
    assert results["seconds"] > 0 and results["torch"] == torch.__version__
    assert results["python"] and results["device"] in ("cpu", "cuda:0", "mps:0")
    assert results["flags"]["iter_save"] == 3
    printed = [float(n) for line in rest for n in re.findall(NUMBER, line.replace("IWAE-", ""))]
    assert printed == list(results["figures"].values())
    for path in re.findall(r"Picture: (.*)", done.stdout):
        assert Path(path).read_bytes().startswith(b"\x89PNG")
    assert "samples.png" in done.stdout and "reconstructions.png" in done.stdout

    flags = ("--iter_max", 4, "--train", 0, "--data_dir", data_dir)
    status, stdout, stderr = Child(project, script, *flags).finish()
    assert status == 0 and report(stdout) == report(done.stdout), stderr
    kept = json.loads((logs / "results.json").read_text())
    assert kept["figures"] == results["figures"] and kept["seconds"] == results["seconds"]


def test_the_same_command_gives_the_same_weights(tmp_path, data_dir):
    flags = ("--iter_max", 30, "--data_dir", data_dir, "--data", "synthetic")
    one = Child(tmp_path / "one", "run_vae.py", *flags)
    two = Child(tmp_path / "two", "run_vae.py", *flags)
    other = Child(tmp_path / "other", "run_vae.py", *flags, "--seed", 1)
    outputs = [child.finish() for child in (one, two, other)]
    assert [status for status, *_ in outputs] == [0, 0, 0]
    path = f"checkpoints/{VAE_NAME}/model-00030.pt"
    one, two, other = (weights(tmp_path / folder / path) for folder in ("one", "two", "other"))
    assert same_weights(one, two) and not same_weights(one, other)
    assert report(outputs[0][1]) == report(outputs[1][1]) != report(outputs[2][1])


def test_help_lists_flags_with_their_defaults(project):
    defaults = {
        "run_vae.py": (("iter_max", 20000), ("z", 10), ("batch_size", 97), ("nn", "v1")),
        "run_gmvae.py": (("iter_max", 20000), ("z", 10), ("k", 500)),
        "run_ssvae.py": (("iter_max", 30000), ("gw", 1), ("cw", 100)),
        "run_fsvae.py": (("iter_max", 1000000), ("batch_size", 100)),
    }
    children = {s: Child(project / s.removesuffix(".py"), s, "--help") for s in SCRIPTS}
    for script, child in children.items():
        status, text, _ = child.finish()
        text = " ".join(text.split())
        assert status == 0
        common = (("iter_save", 10000), ("run", 0), ("train", 1), ("overwrite", 0), ("resume", 0))
        for flag, default in common + defaults[script]:
            assert re.search(rf"--{flag} .*?\(default: {default}\)", text), (script, flag)


# Bad input: one line, exit status 2, nothing changed


def test_bad_flags(tmp_path, data_dir):
    bad = {
        ("--z", 0): "--z: 0 is below 1",
        ("--z", "ten"): "--z: invalid whole number value: 'ten'",
        ("--iter_max", -5): "--iter_max: -5 is below 1",
        ("--iter_save", 0): "--iter_save: 0 is below 1",
        ("--run", -1): "--run: -1 is below 0",
        ("--batch_size", 0): "--batch_size: 0 is below 1",
        ("--train", 3): "--train: invalid choice: 3",
        ("--device", "cuda:7"): "--device cuda:7",
        ("--device", "abacus"): "--device abacus: not on this machine, which has",
        ("--sheet", "20"): "--sheet: invalid sheet value: '20'",
        ("--beta", 0): "--beta: 0 is not above 0",
        ("--beta", "nan"): "--beta: nan is not above 0",
        ("--sigma2", "inf"): "--sigma2: inf is not above 0",
        ("--nn", "v2"): "--nn: invalid choice: 'v2'",
        ("--data", "svhn"): "--data: invalid choice: 'svhn'",
        ("--overwrite", 1, "--resume", 1): "exclude each other",
        ("--ensemble", 2): "--ensemble needs --replicates",
        ("--replicates", 2, "--train", 0): "--replicates",
        ("--data", "mnist", "--data_dir", tmp_path / "none"): f"not in {tmp_path}/none/MNIST/raw",
    }
    if not torch.cuda.is_available():
        bad["--device", "cuda"] = "--device cuda: not on this machine, which has"
    children = {}
    for i, flags in enumerate(bad):
        children[flags] = Child(tmp_path / str(i), "run_vae.py", "--data_dir", data_dir, *flags)
    children["--k", 0] = Child(tmp_path / "k", "run_gmvae.py", "--k", 0)
    bad["--k", 0] = "--k: 0 is below 1"
    children["--gw", -1] = Child(tmp_path / "gw", "run_ssvae.py", "--gw", -1)
    bad["--gw", -1] = "--gw: -1 is below 0"
    for flags, child in children.items():
        status, stdout, stderr = child.finish()
        assert (status, stdout) == (2, ""), (flags, stderr)
        assert len(stderr.splitlines()) == 1 and bad[flags] in stderr, stderr
        assert os.listdir(child.folder) == []


@pytest.fixture
def trained(tmp_path, data_dir):
    """A folder with a short synthetic run, and the flags that it takes to find it."""
    flags = ("--data", "synthetic", "--data_dir", data_dir, "--iter_max", 6, "--iter_save", 4)
    status, _, stderr = Child(tmp_path / "run", "run_vae.py", *flags).finish()
    assert status == 0, stderr
    return tmp_path / "run", flags[:4]


def test_errors_about_runs_change_nothing(trained, mnist_dir):
    folder, flags = trained
    before = contents(folder / "checkpoints") | contents(folder / "logs")
    cases = {
        (*flags, "--iter_max", 6): ("--overwrite 1", "--resume 1", "another --run"),
        (*flags, "--train", 0, "--iter_max", 7): ("model-00007.pt does not exist", "[4, 6]"),
        (*flags, "--train", 0, "--iter_max", 6, "--run", 3): ("nor does any other",),
        (*flags, "--resume", 1, "--iter_max", 5): ("at iteration 6 already", "larger"),
        ("--data_dir", mnist_dir, "--train", 0, "--iter_max", 6): (
            "trained on synthetic data",
            "--data synthetic",
        ),
        (*flags, "--overwrite", 1, "--device", "abacus"): ("abacus",),
        ("--data", "mnist", "--data_dir", folder, "--overwrite", 1): ("MNIST/raw",),
    }
    for case, messages in cases.items():
        status, stdout, stderr = Child(folder, "run_vae.py", *case).finish()
        assert (status, stdout, len(stderr.splitlines())) == (2, "", 1), stderr
        assert all(message in stderr for message in messages), stderr
        assert contents(folder / "checkpoints") | contents(folder / "logs") == before


def test_weights_of_another_shape(trained):
    folder, flags = trained
    other = folder / "checkpoints" / VAE_NAME.replace("z=10", "z=07")
    shutil.copytree(folder / "checkpoints" / VAE_NAME, other)
    other_flags = (*flags, "--iter_max", 6, "--train", 0, "--z", 7)
    status, stdout, stderr = Child(folder, "run_vae.py", *other_flags).finish()
    assert (status, stdout, len(stderr.splitlines())) == (2, "", 1)
    assert "(20, 300)" in stderr and "(14, 300)" in stderr


def test_overwriting_and_weights_without_a_state(trained):
    folder, flags = trained
    path = folder / "checkpoints" / VAE_NAME
    old = weights(path / "model-00006.pt")
    more = (*flags, "--iter_max", 3, "--overwrite", 1)
    assert Child(folder, "run_vae.py", *more, "--seed", 5).finish()[0] == 0
    assert checkpoints_in(path) == ["model-00003.pt", "training-state.pt"]
    assert not same_weights(weights(path / "model-00003.pt"), old)
    (path / "training-state.pt").unlink()
    status, _, stderr = Child(folder, "run_vae.py", *flags, "--resume", 1).finish()
    assert status == 2 and "no training-state.pt to resume from" in stderr


def checkpoints_in(folder):
    return sorted(path.name for path in folder.glob("*.pt"))


# Interruptions


@pytest.fixture(scope="module")
def uninterrupted(data_dir, tmp_path_factory):
    """The weights and the report of 200 iterations without an interruption."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    flags = ("--data", "synthetic", "--data_dir", data_dir, "--iter_max", 200, "--iter_save", 20)
    status, stdout, stderr = Child(folder, "run_vae.py", *flags).finish()
    assert status == 0, stderr
    return flags, weights(folder / "checkpoints" / VAE_NAME / "model-00200.pt"), report(stdout)


def assert_whole(folder):
    """Every file by its right name is whole: weights, training state, results, pictures."""
    for path in folder.glob("checkpoints/*/*.pt"):
        state = weights(path)
        if path.name.startswith("model-"):
            VAE(z_dim=10).load_state_dict(state)
    for path in folder.glob("logs/*/results.json"):
        json.loads(path.read_text())
    for path in folder.glob("logs/*/*.png"):
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82")


def test_killed_at_any_moment_a_run_resumes(tmp_path, uninterrupted):
    """30 kills at random moments; then the run's end is that of one that was never killed."""
    flags, final, lines = uninterrupted
    moments = random.Random(0)
    folders = [tmp_path / "one", tmp_path / "two"]  # two runs at a time, to wait half as long
    kills = resumed = 0
    while kills < 30:
        children = [Child(folder, "run_vae.py", *flags, "--resume", 1) for folder in folders]
        time.sleep(moments.uniform(0.1, 2.2))
        for child in children:
            if child.process.is_alive():
                os.kill(child.process.pid, signal.SIGKILL)
                kills += 1
            status, _, stderr = child.finish()
            assert status in (0, -signal.SIGKILL), stderr
            assert_whole(child.folder)
            path = child.folder / "checkpoints" / VAE_NAME
            resumed += (path / "training-state.pt").exists()
            if status == 0:  # it came to its end between two kills: begin anew
                shutil.rmtree(child.folder)
    assert resumed > 5
    for folder in folders:
        status, stdout, stderr = Child(folder, "run_vae.py", *flags, "--resume", 1).finish()
        assert status == 0, stderr
        path = folder / "checkpoints" / VAE_NAME
        assert same_weights(weights(path / "model-00200.pt"), final) and report(stdout) == lines
        assert not list(path.glob(".*.tmp"))


def test_interrupted_by_signals_a_run_resumes(tmp_path, uninterrupted):
    """At any iteration, not only where weights are saved; and it says how to go on."""
    flags, final, lines = uninterrupted
    state = tmp_path / "run" / "checkpoints" / VAE_NAME / "training-state.pt"
    interruptions = 0
    for number in (signal.SIGINT, signal.SIGTERM) * 4:
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
        step = weights(state)["step"]
        assert f"interrupted at iteration {step}" in last and "--resume 1" in last
        assert "Traceback" not in stderr
        interruptions += 1
    assert interruptions >= 2
    status, stdout, stderr = Child(tmp_path / "run", "run_vae.py", *flags, "--resume", 1).finish()
    assert status == 0, stderr
    path = state.parent / "model-00200.pt"
    assert same_weights(weights(path), final) and report(stdout) == lines


def test_a_finished_run_can_be_extended(tmp_path, uninterrupted):
    flags, final, lines = uninterrupted
    shorter = (*flags[:4], "--iter_max", 70, "--iter_save", 20)
    assert Child(tmp_path / "run", "run_vae.py", *shorter).finish()[0] == 0
    status, stdout, _ = Child(tmp_path / "run", "run_vae.py", *flags, "--resume", 1).finish()
    path = tmp_path / "run" / "checkpoints" / VAE_NAME / "model-00200.pt"
    assert status == 0 and same_weights(weights(path), final) and report(stdout) == lines


def test_two_at_once(tmp_path, data_dir):
    flags = ("--data", "synthetic", "--data_dir", data_dir, "--iter_save", 50)
    first = Child(tmp_path / "run", "run_vae.py", *flags)
    folder = tmp_path / "run" / "checkpoints" / VAE_NAME
    first.wait_until(lambda: (folder / ".lock").exists())
    time.sleep(0.2)
    second = Child(tmp_path / "run", "run_vae.py", *flags, "--overwrite", 1)
    status, _, stderr = second.finish()
    assert status == 2 and "is being trained by another process" in stderr.splitlines()[-1]
    first.wait_until(lambda: (folder / "training-state.pt").exists())  # undisturbed
    assert first.process.is_alive()
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.join()
    step = weights(folder / "training-state.pt")["step"]
    third = (*flags, "--resume", 1, "--iter_max", step + 5)  # the lock died with its holder
    assert Child(tmp_path / "run", "run_vae.py", *third).finish()[0] == 0


# Disks


def test_a_full_disk(trained):
    """Files may not grow past 4 MB: the weights fit, the training state does not."""
    folder, flags = trained
    path = folder / "checkpoints" / VAE_NAME
    before = contents(path)
    more = (*flags, "--iter_max", 20, "--iter_save", 10, "--resume", 1)
    status, _, stderr = Child(folder, "run_vae.py", *more, file_size=4 << 20).finish()
    last = stderr.splitlines()[-1]
    assert status == 1 and "Traceback" not in stderr
    assert "File too large" in last and "reached iteration 10, of which 6 are saved" in last
    assert str(path) in last
    after = contents(path)
    assert {name: after[name] for name in before} == before  # the last good state is untouched
    assert not list(path.glob(".*.tmp"))
    assert Child(folder, "run_vae.py", *more).finish()[0] == 0


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounts a small disk as root")
def test_a_disk_that_is_full_to_the_last_byte(tmp_path, data_dir):
    """TensorBoard's events fail too: that must not hang, nor print a traceback."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=12m tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("no disk can be mounted here")
    try:
        flags = ("--data", "synthetic", "--data_dir", data_dir, "--iter_save", 60)
        status, _, stderr = Child(disk / "run", "run_vae.py", *flags).finish()
        assert status == 1 and "Traceback" not in stderr
        assert "No space left on device" in stderr.splitlines()[-1]
        assert "are saved" in stderr.splitlines()[-1]
        assert_whole(disk / "run")
        path = disk / "run" / "checkpoints" / VAE_NAME
        assert (path / "training-state.pt").exists()
    finally:
        os.system(f"umount {disk}")


def test_a_full_disk_while_drawing_data(tmp_path):
    done = Child(
        tmp_path / "run",
        "run_vae.py",
        *("--data", "synthetic", "--data_dir", tmp_path / "data"),
        file_size=10 << 20,
    ).finish()
    assert done[0] == 1 and "File too large" in done[2].splitlines()[-1]
    assert contents(tmp_path / "data") == {} and not (tmp_path / "run" / "checkpoints").exists()


NOBODY = 65534 if os.name == "posix" and os.geteuid() == 0 else None  # root may do everything


@pytest.fixture
def public():
    """A folder below which another user may read everything."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def public_run(public):
    run = public / "run"
    run.mkdir()
    return run


@pytest.mark.parametrize("locked", ["checkpoints", "logs"])
def test_folders_that_cannot_be_written(locked, public_run, data_dir):
    for name in ("checkpoints", "logs"):
        (public_run / name).mkdir()
        (public_run / name).chmod(0o555 if name == locked else 0o777)
    flags = ("--data", "synthetic", "--data_dir", data_dir, "--iter_max", 3)
    status, _, stderr = Child(public_run, "run_vae.py", *flags, user=NOBODY).finish()
    assert status == 1 and "Traceback" not in stderr
    assert "Permission denied" in stderr.splitlines()[-1] and locked in stderr.splitlines()[-1]


def test_evaluating_needs_no_writing(public, public_run, data_dir):
    """Weights that somebody else keeps, in folders that only they may write to."""
    flags = ("--data", "synthetic", "--data_dir", data_dir, "--iter_max", 3)
    assert Child(public_run, "run_vae.py", *flags).finish()[0] == 0
    before = contents(public_run)
    folders = [path for path in public_run.rglob("*") if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    evaluation = Child(public_run, "run_vae.py", *flags, "--train", 0, user=NOBODY)
    status, stdout, stderr = evaluation.finish()
    for folder in folders:
        folder.chmod(0o755)
    assert status == 0 and "warning: results.json not written" in stderr, stderr
    assert len(report(stdout)) == 6 and contents(public_run) == before


def test_evaluating_leaves_the_training_images_unread(trained, data_dir, tmp_path):
    folder, _ = trained
    shutil.copytree(data_dir / "synthetic", tmp_path / "synthetic")
    (tmp_path / "synthetic" / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"")
    flags = ("--data", "synthetic", "--data_dir", tmp_path, "--iter_max", 6)
    status, stdout, stderr = Child(folder, "run_vae.py", *flags, "--train", 0).finish()
    assert status == 0 and len(report(stdout)) == 6, stderr
    status, _, stderr = Child(folder, "run_vae.py", *flags, "--overwrite", 1).finish()
    assert status == 2 and "train-images-idx3-ubyte is damaged" in stderr


def test_data_that_cannot_be_read(public, public_run):
    raw = public / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
        for kind in ("idx3-ubyte", "idx1-ubyte"):
            (raw / f"{name}-{kind}").touch()
    flags = ("--data_dir", public, "--data", "mnist")
    for path, mode in ((raw, 0o000), (raw / "t10k-images-idx3-ubyte", 0o200)):
        path.chmod(mode)
        status, _, stderr = Child(public_run, "run_vae.py", *flags, user=NOBODY).finish()
        path.chmod(0o755)
        assert (status, len(stderr.splitlines())) == (2, 1)
        assert "cannot be read (Permission denied)" in stderr and str(raw) in stderr


# Hostile names and environments


def test_a_link_out_of_checkpoints_is_not_followed(trained, tmp_path):
    folder, flags = trained
    outside = tmp_path / "outside"
    shutil.move(folder / "checkpoints" / VAE_NAME, outside)
    (folder / "checkpoints" / VAE_NAME).symlink_to(outside)
    before = contents(outside)
    for more in (("--train", 0), ("--overwrite", 1)):
        status, _, stderr = Child(folder, "run_vae.py", *flags, "--iter_max", 6, *more).finish()
        assert status == 2 and "leads out of" in stderr
    assert contents(outside) == before


STUBS = {
    "torchvision": (
        "raise RuntimeError('operator torchvision::nms does not exist')",
        "operator torchvision::nms does not exist",
        "--force-reinstall torch torchvision",
    ),
    "torch": ("__version__ = '1.13.1+cu117'", "torch 1.13.1+cu117 is too old", "requirements.txt"),
}


@pytest.mark.parametrize("package", STUBS)
def test_an_environment_that_does_not_work(package, project):
    code, reason, remedy = STUBS[package]
    stubs = project.parent / "stubs"
    stubs.mkdir()
    (stubs / f"{package}.py").write_text(code)
    done = run_script(project, "run_vae.py", env={"PYTHONPATH": str(stubs)})
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert reason in done.stderr and remedy in done.stderr and "python -m pip" in done.stderr


@pytest.mark.parametrize("package", ["tqdm", "filelock", "tensorboardX", "scipy"])
def test_a_package_that_is_missing(package, monkeypatch):
    find_spec = environment.importlib.util.find_spec
    monkeypatch.setattr(
        environment.importlib.util, "find_spec", lambda n: None if n == package else find_spec(n)
    )
    with pytest.raises(SystemExit, match=f"{package} is missing: python -m pip .*requirements"):
        environment.check()


def test_models_work_without_torchvision(project):
    stubs = project.parent / "stubs"
    stubs.mkdir()
    (stubs / "torchvision.py").write_text(STUBS["torchvision"][0])
    (project / "use_models.py").write_text(
        "import torch\n"
        "from codebase import utils as ut\n"
        "from codebase.models.vae import VAE\n"
        "from codebase.models.gmvae import GMVAE\n"
        "from codebase.models.ssvae import SSVAE\n"
        "from codebase.models.fsvae import FSVAE\n"
        "print(VAE().negative_iwae_bound(torch.zeros(2, 784), 3)[0].item() > 0)\n"
        "ut.save_model_by_name(VAE(name='x'), 1); ut.load_model_by_name(VAE(name='x'), 1)\n"
    )
    done = run_script(project, "use_models.py", env={"PYTHONPATH": str(stubs)})
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_what_starting_a_script_costs():
    """What is not needed is not imported; the garbage collector leaves torch's modules alone."""
    code = (
        "import gc, sys, run_vae\n"
        "print('matplotlib' in sys.modules, 'scipy.io' in sys.modules)\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 50_000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("False False\nTrue True\n", "")


def test_scripts_are_thin():
    for script in SCRIPTS:
        assert len((ROOT / script).read_text().splitlines()) <= 50


def test_checkpoints_folder_is_beside_the_scripts():
    assert checkpoints.CHECKPOINTS == ROOT / "checkpoints"
