"""Nothing that the program reads can hurt it: flags, environments, streams, files, records, races.

Each family of attacks has a sample in every run of the tests; `pytest -m attack` tries all of it
and counts. Families that need a model or a trainer at hand are in test_checkpoints (bit flips,
weights), test_train (doctored states) and test_crashes.
"""

import hashlib
import importlib
import itertools
import json
import os
import pickle
import random
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import (
    NO_NETWORK,
    Child,
    contents,
    refused,
    results,
    same_weights,
    succeed,
    weights,
)
from test_checkpoints import GOOD, flipped, saved

from codebase import UserError, checkpoints, data
from codebase.checkpoints import CheckpointError
from codebase.datasets import download
from codebase.datasets.download import DataError
from codebase.machine.tuning import pick_device
from codebase.models import VAE
from codebase.runs import events, table
from codebase.runs import flags as run_flags
from codebase.runs import main as run_main
from codebase.runs import run as runs

NAME = "model=vae_z=10_run={:04d}_data=synthetic"
SSVAE_NAME = "model=ssvae_gw=001_cw=100_run={:04d}_data=synthetic"
SHORT = ("--iter_max", 4, "--iter_save", 2, "--sheet", "2x2")


@pytest.fixture
def base(data_dir):
    return ("--data", "synthetic", "--data_dir", data_dir)


def every(step, cases):
    """A sample of a family, the same in every run."""
    return list(cases)[::step]


# Flags

NUMBERS = ("", " ", "abc", "1.5", "1e3", "-1", "0x10", "nan", "inf", "None", "[]", "1,2", "½")
LARGE = (str(2**63), str(2**64), "-" + "9" * 30, "9" * 400, "9" * 5000)
REALS = ("", "abc", "nan", "inf", "-inf", "-1", "0", "1e300", "1e-300", "0x1p3", "1,5", "--", "½")
WORDS = ("", " ", "v2", "V1", "../v1", "v1\n", "gaussiann", "AUTO", "0", "x" * 5000)
SHEETS = ("", "10", "x", "10x", "x20", "10x20x30", "0x5", "5x0", "-1x2", "201x1", "axb", "9" * 99)


def bad_flags():
    for flag in ("iter_max", "iter_save", "batch_size", "replicates", "threads"):
        yield from (("vae", f"--{flag}", value) for value in (*NUMBERS, *LARGE, "0"))
    for flag in ("run", "seed", "train", "overwrite", "resume"):
        yield from (("vae", f"--{flag}", value) for value in (*NUMBERS, *LARGE))
    for model, flags in {"vae": ("z",), "gmvae": ("z", "k"), "ssvae": ("gw", "cw")}.items():
        yield from ((model, f"--{flag}", value) for flag in flags for value in (*NUMBERS, *LARGE))
    for flag in ("lr", "beta", "sigma2"):
        yield from (("vae", f"--{flag}", value) for value in REALS)
    for flag in ("nn", "likelihood", "prior", "data"):
        yield from (("gmvae" if flag == "nn" else "vae", f"--{flag}", value) for value in WORDS)
    yield from (("vae", "--sheet", value) for value in SHEETS)
    for flag in ("--overw", "--it", "--ru", "--Z", "-z", "--", "---z", "--z\n", "z", "--no-such"):
        yield ("vae", flag, "1")
    for words in (("--overwrite", "1", "--resume", "1"), ("--replicates", "2", "--train", "0")):
        yield ("vae", *words)
    yield ("vae", "--device", "abacus")
    yield ("vae", "--device", "cuda:99")
    yield ("vae", "--device", "")
    yield ("vae", "--device", "two\nlines")


def try_flags(cases, capsys, folders):
    tried = 0
    for model, *words in cases:
        experiment = importlib.import_module(f"run_{model}").experiment
        with pytest.raises(SystemExit) as ended:
            parser = run_flags.make_parser(experiment, "a script")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", [f"run_{model}.py", *words])
                args, given = run_flags.parse(parser)
                with run_main.Trouble(parser):  # what only this machine can tell
                    pick_device(args.device)
        printed = capsys.readouterr()
        assert (ended.value.code, printed.out) == (2, ""), words
        assert len(printed.err.splitlines()) == 1 and len(printed.err) < 6000, words
        assert contents(folders) == {}
        tried += 1
    return tried


def test_flags(capsys, folders):
    try_flags(every(9, bad_flags()), capsys, folders)


@pytest.mark.attack
def test_all_flags(capsys, folders, count):
    count("flags", try_flags(bad_flags(), capsys, folders))


# Environments and streams


def environments():
    """Environment, redirections, exit statuses that are right, a piece of a last line."""
    ended = (0,)
    for value in ("abc", "", "-1", "1e9"):
        yield {"OMP_NUM_THREADS": value}, "", ended, ""
        yield {"GOMP_SPINCOUNT": value}, "", ended, ""
        yield {"COLUMNS": value, "LINES": value}, "", ended, ""
    yield {"TORCHELASTIC_RUN_ID": "x"}, "", ended, ""
    for name in ("HOME", "TMPDIR", "MPLCONFIGDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR"):
        yield {name: "/nonexistent"}, "", ended, ""
        yield {name: "/proc"}, "", ended, ""
    for encoding in ("ascii", "latin-1", "utf-16", "cp037"):
        yield {"PYTHONIOENCODING": encoding}, "", ended, ""
    for locale in ("C", "POSIX", "xx_XX.bad"):
        yield {"LC_ALL": locale, "PYTHONUTF8": "0"}, "", ended, ""
    for name in ("PYTHONOPTIMIZE", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONDEVMODE"):
        yield {name: "2" if name == "PYTHONOPTIMIZE" else "1"}, "", ended, ""
    lost = "error: "
    yield {}, "2>&-", ended, ""
    yield {}, ">&-", ended, ""
    yield {}, "<&-", ended, ""
    yield {}, "<&- >&- 2>&-", ended, ""
    yield {}, ">/dev/full", (1,), lost
    yield {"PYTHONUNBUFFERED": "1"}, ">/dev/full", (1,), lost
    yield {"PYTHONUNBUFFERED": "1"}, "| head -1", (1,), lost
    yield {"PYTHONUNBUFFERED": "1"}, "| true", (1,), lost


def try_environments(cases, project, whole_data):
    """Whatever the environment, the training succeeds and is saved.

    It trains an SSVAE, whose report is the shortest.
    """
    place = project.parent / "é ß"
    project.rename(place)
    reference = None
    for i, (environment, redirection, statuses, words) in enumerate(cases):
        flags = [*SHORT[:4], "--data", "synthetic", "--data_dir", whole_data]
        flags += ["--run", i, "--seed", 1]
        command = f'"{sys.executable}" run_ssvae.py {" ".join(map(str, flags))} {redirection}'
        done = subprocess.run(
            ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
            cwd=place,
            env=os.environ | NO_NETWORK | {"OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
        )
        stderr = done.stderr.decode(errors="replace")
        case = environment, redirection, done.returncode, stderr
        assert done.returncode in statuses and "Traceback" not in stderr, case
        assert words in stderr or "2>" in redirection, case
        own = weights(place / "checkpoints" / SSVAE_NAME.format(i) / "model-00004.pt")
        if environment.get("OMP_NUM_THREADS") is None:
            reference = reference or own
            assert same_weights(own, reference), case
        assert (place / "logs" / SSVAE_NAME.format(i) / "results.json").exists(), case
    return i + 1


@pytest.mark.process
def test_environments_and_streams(project, whole_data):
    chosen = [case for case in environments() if case[1] in (">/dev/full", "2>&-", ">&-")][:3]
    try_environments(chosen, project, whole_data)


@pytest.mark.attack
def test_all_environments_and_streams(project, whole_data, count):
    count("environment and streams", try_environments(environments(), project, whole_data))


# Files that would run code


class Call:
    """Pickled as a call of a function, which unpickling executes."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def calls(mark):
    """Ways to leave a folder behind, or to do worse."""
    path = str(mark)
    yield Call(os.mkdir, path)
    yield Call(os.makedirs, path)
    yield Call(os.system, f"mkdir {path}")
    yield Call(os.popen, f"mkdir {path}")
    yield Call(subprocess.Popen, ["mkdir", path])
    yield Call(subprocess.check_output, ["mkdir", path])
    yield Call(eval, f"__import__('os').mkdir({path!r})")
    yield Call(exec, f"import os; os.mkdir({path!r})")
    yield Call(__import__, "antigravity")
    yield Call(open, path, "w")
    yield Call(shutil.copytree, "/etc/skel", path)
    yield Call(threading.Thread, None, os.mkdir, None, (path,))
    yield Call(torch.save, {}, path)
    yield Call(pickle.loads, pickle.dumps(Call(os.mkdir, path)))
    yield Call(json.loads, "{}")
    yield Call(sys.exit, 3)
    yield Call(os._exit, 3)


def code_files(mark):
    """Contents of files that run code where they are unpickled without care."""
    for call in calls(mark):
        for value in (
            call,
            {"dec.net.0.weight": call},
            {"model": {"x": call}},
            {"moments": [call]},
        ):
            for protocol in (0, 2, 5):
                yield pickle.dumps(value, protocol=protocol)
            yield saved(value)
            yield saved(value, _use_new_zipfile_serialization=False)


def try_code(files, folders, mark):
    paths = [
        checkpoints.file_of(checkpoints.run_folder("vae"), 1),
        checkpoints.run_folder("vae") / "training-state.pt",
    ]
    paths[0].parent.mkdir(parents=True)
    tried = 0
    for content in files:
        for path in paths:
            path.write_bytes(content)
        with pytest.raises(CheckpointError):
            checkpoints.load_weights(VAE(name="vae"), paths[0])
        with pytest.raises(CheckpointError):
            checkpoints.load_training_state("vae")
        assert not mark.exists()
        tried += 2
    return tried


def test_files_that_would_run_code(folders):
    mark = folders / "executed"
    try_code(every(17, code_files(mark)), folders, mark)


@pytest.mark.attack
def test_all_files_that_would_run_code(folders, count):
    mark = folders / "executed"
    count("files that would run code", try_code(code_files(mark), folders, mark))


# What is no file, or no good one, where a file should be


def put(what, path, sound):
    """Replace a file by something else."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        server, previous = socket.socket(socket.AF_UNIX), os.getcwd()
        os.chdir(path.parent)  # a socket's path may have 108 bytes
        server.bind(path.name)
        os.chdir(previous)
    elif what in ("/dev/zero", "/dev/full", "/dev/tty", "/proc/self/mem", "/nonexistent"):
        path.symlink_to(what)
    elif what == "circle":
        path.symlink_to(path)
    elif what == "hole":
        with open(path, "wb") as file:
            file.truncate(5 << 30)
    else:
        path.write_bytes(
            {"empty": b"", "zeros": bytes(10_000), "half": sound[: len(sound) // 2]}[what]
        )


KINDS = (
    *("folder", "pipe", "socket", "/dev/zero", "/dev/full", "/dev/tty", "/proc/self/mem"),
    *("/nonexistent", "circle", "hole", "empty", "zeros", "half"),
)
PLACES = ("weights", "state", "record", "results")  # odd data: see try_data


def try_odd_files(cases, base, tmp_path, trained):
    """Commands that meet odd files succeed or end in one line, and never hang."""
    trained(tmp_path / "sound", "run_vae.py", *base, *SHORT)
    tried = 0
    for what, place in cases:
        run = tmp_path / "run"
        shutil.copytree(tmp_path / "sound", run)
        folder = run / "checkpoints" / NAME.format(0)
        path = {
            "weights": folder / "model-00004.pt",
            "state": folder / "training-state.pt",
            "record": folder / "run.json",
            "results": run / "logs" / NAME.format(0) / "results.json",
        }[place]
        sound = path.read_bytes()
        put(what, path, sound)
        children = [
            Child(run, "run_vae.py", *base, "--train", 0),
            Child(run, "run_vae.py", *base, *SHORT, "--resume", 1),
            Child(run, "run_vae.py", *base, *SHORT, "--replicates", 1),
            Child(run, "codebase", "table", "--all"),
        ]
        for child in children:
            status, _, stderr = child.finish()
            assert status in (0, 1, 2), (what, place, status, stderr)
            assert "Traceback" not in stderr, (what, place, stderr)
        shutil.rmtree(run)
        tried += 1
    return tried


@pytest.mark.process
def test_odd_files(base, tmp_path, trained):
    cases = [("pipe", "weights"), ("folder", "state"), ("hole", "record"), ("pipe", "results")]
    try_odd_files(cases, base, tmp_path, trained)


@pytest.mark.attack
def test_all_odd_files(base, tmp_path, count, trained):
    cases = itertools.product(KINDS, PLACES)
    count("odd files", try_odd_files(cases, base, tmp_path, trained))


# Bit flips in training states; those in weights are in test_checkpoints


def try_state_flips(number, base, tmp_path, folders, trained):
    trained(tmp_path / "run", "run_vae.py", *base, *SHORT)
    path = tmp_path / "run" / "checkpoints" / NAME.format(0) / "training-state.pt"
    sound, state = path.read_bytes(), weights(path)
    place = checkpoints.run_folder("vae") / "training-state.pt"
    place.parent.mkdir(parents=True)
    generator = random.Random(0)
    for _ in range(number):
        place.write_bytes(flipped(sound, generator.randrange(8 * len(sound))))
        try:
            found = checkpoints.load_training_state("vae")
        except CheckpointError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert same_weights(found["model"], state["model"])
            assert torch.equal(found["generators"]["cpu"], state["generators"]["cpu"])
            for one, other in zip(found["moments"], state["moments"], strict=True):
                assert same_weights(one, other)
    return number


def test_flipped_bits_in_states(base, tmp_path, folders, trained):
    try_state_flips(5, base, tmp_path, folders, trained)


@pytest.mark.attack
def test_many_flipped_bits_in_states(base, tmp_path, folders, count, trained):
    count("bit flips in states", try_state_flips(400, base, tmp_path, folders, trained))


def test_doctored_states_end_in_a_line(base, tmp_path, trained):
    """A doctored state gives exit status 2, and the state and weights stay as they were."""
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    path = tmp_path / "checkpoints" / NAME.format(0) / "training-state.pt"
    state = weights(path)
    for change in (
        {"moments": [{"exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}] * 12},
        {"seconds": "text"},
        {"step": 3, "iter_max": "9"},
        {"flags": {}},
        {"train": None},
        {"generators": {"cpu": torch.zeros(3, dtype=torch.uint8)}},
    ):
        torch.save(state | change, path)
        before = contents(tmp_path)
        line = refused(tmp_path, "run_vae.py", *base, "--resume", 1, "--iter_max", 9)
        assert "--overwrite 1" in line and "--train 0" in line
        assert contents(tmp_path) == before


# Data

DAMAGES = {
    "truncated": lambda c: c[:-3],
    "without its header": lambda c: c[16:],
    "header alone": lambda c: c[:8],
    "empty": lambda c: b"",
    "longer": lambda c: c + b"\0",
    "twice": lambda c: c * 2,
    "first bit": lambda c: flipped(c, 0),
    "count": lambda c: flipped(c, 63),
    "last bit": lambda c: flipped(c, 8 * len(c) - 1),
    "middle bit": lambda c: flipped(c, 4 * len(c)),
    "black": lambda c: c[:16] + bytes(len(c) - 16),
    "reversed": lambda c: c[::-1],
    "zeros": lambda c: bytes(len(c)),
    "text": lambda c: b"<html>404 Not Found</html>",
    "pickle": lambda c: pickle.dumps([1]),
    "gzip": lambda c: b"\x1f\x8b" + c[2:],
    "torch": lambda c: GOOD,
    "little end first": lambda c: c[:4] + c[4:8][::-1] + c[8:],
    "folder": None,
    "pipe": None,
    "circle": None,
}


def try_data(cases, tmp_path, monkeypatch):
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    sound = {}
    for prefix in ("train", "t10k"):
        for name, head, n in (("images-idx3", 16, 10 * 784), ("labels-idx1", 8, 10)):
            content = (0x0801).to_bytes(4, "big") + (10).to_bytes(4, "big")
            content += (28).to_bytes(4, "big") * ((head - 8) // 4) + bytes(range(1, 11)) * (n // 10)
            sound[f"{prefix}-{name}-ubyte"] = content
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in sound.items()}
    monkeypatch.setattr(download, "MNIST_MD5", md5)
    monkeypatch.setattr(download, "_silent", lambda urls: dict.fromkeys(urls, "is down"))
    tried = 0
    for name, damage in cases:
        for own, content in sound.items():
            (raw / own).write_bytes(content)
        if DAMAGES[damage] is None:
            put(damage, raw / name, sound[name])
        else:
            (raw / name).write_bytes(DAMAGES[damage](sound[name]))
        split = "train" if name.startswith("train") else "test"
        with pytest.raises(DataError) as caught:
            data.find_or_download("mnist", "mnist", tmp_path / "data")
            data.read_mnist(split, tmp_path / "data", "mnist")
        assert name in str(caught.value) and len(str(caught.value).splitlines()) == 1
        put("empty", raw / name, b"")
        tried += 1
    return tried


def all_damages():
    names = [f"{p}-{k}-ubyte" for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1")]
    return list(itertools.product(names, DAMAGES))


def test_data(tmp_path, monkeypatch):
    try_data(every(7, all_damages()), tmp_path, monkeypatch)


@pytest.mark.attack
def test_all_data(tmp_path, monkeypatch, count):
    count("data", try_data(all_damages(), tmp_path, monkeypatch))


# Results


def odd_results(sound):
    yield from ("", "{", "[]", "3", "null", "true", '"x"', "{}", "NaN", "\xff\xfe", "[" * 100_000)
    yield from ('{"a":' * 50_000, "\0", "1e999", "{'a': 1}", sound[:-3], sound + sound, sound * 0)
    whole = json.loads(sound)
    for key in whole:
        yield json.dumps({k: v for k, v in whole.items() if k != key})
        for value in (None, 3, "x", [], {}, [[]], {"a": {}}, float("nan"), -1, True, 10**400):
            yield json.dumps(whole | {key: value})
    for value in (None, "x", [], {}, float("nan"), float("inf"), 10**400, True):
        yield json.dumps(whole | {"figures": {"NELBO": value}})
    yield json.dumps(whole | {"trained": "not recorded", "name": "../../etc"})
    yield json.dumps(whole | {"trained": whole["trained"] | {"run": 10**9}})


def try_results(step, base, tmp_path, monkeypatch, trained):
    trained(tmp_path, "run_vae.py", *base, *SHORT)
    monkeypatch.setattr(runs, "LOGS", tmp_path / "logs")
    path = tmp_path / "logs" / NAME.format(0) / "results.json"
    sound = path.read_text(encoding="utf-8")
    tried = 0
    for content in every(step, odd_results(sound)):
        path.write_bytes(content.encode("latin-1"))
        before = contents(tmp_path / "checkpoints")
        try:
            table.markdown(table.rows(table.collect(everything=True)))
        except UserError as error:
            assert "no finished runs" in str(error)
        assert contents(tmp_path / "checkpoints") == before
        tried += 1
    path.write_text("[]", encoding="utf-8")
    succeed(tmp_path, "run_vae.py", *base, *SHORT, "--replicates", 1)  # reports again
    assert results(tmp_path, NAME.format(0))["figures"] == json.loads(sound)["figures"]
    return tried


def test_results(base, tmp_path, monkeypatch, trained):
    try_results(9, base, tmp_path, monkeypatch, trained)


@pytest.mark.attack
def test_all_results(base, tmp_path, monkeypatch, count, trained):
    count("results", try_results(1, base, tmp_path, monkeypatch, trained))


def test_a_clock_that_jumps_back(folders, monkeypatch, capsys):
    now = time.time
    with events.Events(folders / "logs" / "run") as written:
        written.scalars(1, {"loss": 1.0})
        monkeypatch.setattr(time, "time", lambda: now() - 1e8)
        written.scalars(2, {"loss": 2.0})
    assert capsys.readouterr().err == ""


# Races


def race(first, second, delay):
    """Two commands, the second a moment after the first; returns how they ended."""
    children = [first()]
    time.sleep(delay)
    children.append(second())
    return [child.finish() for child in children]


def try_races(delays, base, tmp_path, trained):
    """Races end in success or one line, with complete files and no weights of two runs."""
    commands = {
        "new": (),
        "overwritten": ("--overwrite", 1, "--seed", 3),
        "resumed": ("--resume", 1),
        "evaluated": ("--train", 0),
        "replicated": ("--replicates", 2),
    }
    pairs = [
        ("new", "new"),
        ("new", "overwritten"),
        ("overwritten", "evaluated"),
        ("evaluated", "overwritten"),
        ("overwritten", "overwritten"),
        ("resumed", "evaluated"),
        ("replicated", "replicated"),
        ("new", "replicated"),
        ("resumed", "overwritten"),
    ]
    finals = {}
    for seed in (0, 3):
        succeed(tmp_path / f"seed{seed}", "run_vae.py", *base, *SHORT, "--seed", seed)
        path = tmp_path / f"seed{seed}" / "checkpoints" / NAME.format(0)
        finals[seed] = [weights(path / f"model-0000{step}.pt") for step in (2, 4)]
    tried = 0
    for (one, other), delay in itertools.product(pairs, delays):
        folder = tmp_path / f"race{tried}"
        folder.mkdir()
        if one in ("overwritten", "evaluated"):
            trained(folder, "run_vae.py", *base, *SHORT)
        start = [
            lambda own=commands[name], f=folder: Child(f, "run_vae.py", *base, *SHORT, *own)
            for name in (one, other)
        ]
        for status, _, stderr in race(*start, delay):
            assert status in (0, 2) and "Traceback" not in stderr, (one, other, delay, stderr)
        run = folder / "checkpoints" / NAME.format(0)
        own = [weights(run / f"model-0000{step}.pt") for step in (2, 4)]
        seed = json.loads((run / "run.json").read_text(encoding="utf-8"))["flags"]["seed"]
        assert all(map(same_weights, own, finals[seed])), (one, other, delay)
        outcome = results(folder, NAME.format(0))
        assert outcome["seed"] == seed
        again = folder / "logs" / NAME.format(0) / "evaluation-00004" / "results.json"
        if again.exists():
            assert json.loads(again.read_text(encoding="utf-8"))["figures"] == outcome["figures"]
        shutil.rmtree(folder)
        tried += 1
    return tried


@pytest.mark.process
def test_races(base, tmp_path, trained):
    try_races((0.2,), base, tmp_path, trained)


@pytest.mark.attack
def test_many_races(base, tmp_path, count, trained):
    count("races", try_races((0, 0.1, 0.25, 0.4, 0.7), base, tmp_path, trained))
