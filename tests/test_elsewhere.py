"""Other systems: commands without POSIX, imports without effects, files in UTF-8."""

import os
import signal
import subprocess
import sys
import zipfile

import pytest
from conftest import (
    SCRIPTS,
    Child,
    refused,
    report_lines,
    run_python,
    run_script,
    succeed,
)

from codebase import ROOT

NAME = "model=vae_z=10_run={:04d}_data=synthetic"


@pytest.fixture
def base(data_dir):
    return ("--data", "synthetic", "--data_dir", data_dir, "--sheet", "2x2")


# Without POSIX


@pytest.mark.process
def test_run_scripts_without_posix(tmp_path, base, whole_data):
    """Train, interrupted; resume; evaluate; replicates; compare; table."""
    flags = (*base, "--iter_max", 6, "--iter_save", 4)
    windows = {"elsewhere": True}
    stop = (signal.SIGINT, "samples-00004.png")
    status, _, stderr = Child(tmp_path, "run_vae.py", *flags, stop=stop, **windows).finish()
    assert status == 130 and "--resume 1" in stderr.splitlines()[-1], stderr
    stdout, _ = succeed(tmp_path, "run_vae.py", *flags, "--resume", 1, **windows)
    assert stdout.count("Negative IWAE") == 2
    again, _ = succeed(tmp_path, "run_vae.py", *base, "--train", 0, **windows)
    assert report_lines(again) == report_lines(stdout)
    table, _ = succeed(tmp_path, "run_vae.py", *flags, "--replicates", 2, **windows)
    assert "| vae_z=10_data=synthetic | NELBO |" in table
    assert "NELBO" in succeed(tmp_path, "codebase", "table", "--all", **windows)[0]
    out = tmp_path / "runs.png"
    command = ("compare", NAME.format(0), NAME.format(1), "--data_dir", whole_data, "--out", out)
    succeed(tmp_path, "codebase", *command, **windows)
    assert out.read_bytes().startswith(b"\x89PNG")
    page = tmp_path / "page.html"
    command = ("explore", NAME.format(0), "--data_dir", whole_data, "--out", page)
    succeed(tmp_path, "codebase", *command, **windows)
    assert "Σ" in page.read_text(encoding="utf-8")
    for other in SCRIPTS[1:]:
        more = ("--k", 5) if other == "run_gmvae.py" else ()
        succeed(tmp_path, other, *base, "--iter_max", 2, *more, **windows)


@pytest.mark.process
def test_the_homework_without_posix(tmp_path):
    """The hand-out, the submission and Gradescope's zip are made; marking says what it needs."""
    windows = {"elsewhere": True}
    succeed(tmp_path, "codebase", "starter", tmp_path / "hw2", **windows)
    assert "Σ" in (tmp_path / "hw2" / "codebase" / "utils.py").read_text(encoding="utf-8")
    succeed(tmp_path, "codebase", "submit", "--out", tmp_path / "me.zip", **windows)
    assert "codebase/utils.py" in zipfile.ZipFile(tmp_path / "me.zip").namelist()
    succeed(tmp_path, "codebase", "gradescope", tmp_path / "auto.zip", **windows)
    names = zipfile.ZipFile(tmp_path / "auto.zip").namelist()
    assert {"setup.sh", "run_autograder", "codebase/homework/sandboxed/server.py"} <= set(names)
    line = refused(tmp_path, "codebase", "grade", tmp_path / "me.zip", **windows)
    assert "grading needs Linux" in line and "gradescope" in line


# Encodings


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "ascii"])
@pytest.mark.process
def test_a_console_of_another_encoding(encoding, project, whole_data):
    """Letters that it lacks are written as escapes; files are UTF-8 all the same."""
    code = (
        "import sys, run_ssvae\n"
        f"sys.argv = ['run_ssvae.py', '--iter_max', '2', '--data_dir', {str(whole_data)!r},\n"
        "    '--data', 'synthetic', '--sheet', '2x2']\n"
        f"for stream in (sys.stdout, sys.stderr): stream.reconfigure(encoding={encoding!r})\n"
        "run_ssvae.main(run_ssvae.experiment)\n"
    )
    done = run_python(project, "-c", code)
    assert done.returncode == 0 and "accuracy" in done.stdout, done.stderr


@pytest.mark.process
def test_help_in_a_folder_that_the_console_cannot_write(project):
    """--help prints the data's folder."""
    folder = project.rename(project.parent / "проект")
    done = run_script(folder, "run_vae.py", "--help", env={"PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0 and "\\u043f" in done.stdout, done.stderr


# Imports


IMPORT_ALL = """
import os, signal, sys, threading
from pathlib import Path

def state():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return handlers, dict(os.environ), threading.active_count(), sys.excepthook, sys.stdout

def import_all():
    try:
        import importlib
        for path in sorted(Path("codebase").rglob("*.py")):
            if path.name not in ("__main__.py", "test_public.py"):
                name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
                importlib.import_module(name)
        for name in ("run_vae", "run_gmvae", "run_ssvae", "run_fsvae", "codebase.__main__"):
            importlib.import_module(name)
    except BaseException as error:
        trouble.append(repr(error))

trouble = []
import torch, numpy  # which may set what they like
thread = threading.Thread(target=import_all)
thread.start()
before = state()
thread.join()
after = state()
names = ("handlers", "environment", "threads", "excepthook", "stdout")
print(trouble, [n for n, a, b in zip(names, before, after) if a != b and n != "threads"])
print(after[2] == 1, len([m for m in sys.modules if m.startswith("codebase.")]) > 40)
"""


@pytest.mark.process
def test_imports_have_no_effects():
    """Every module, in a thread: no handlers, environment, threads, output, files or exit."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.stdout.splitlines() == ["[] []", "True True"], done.stderr


def test_a_python_that_is_too_old(project):
    """macOS has 3.9: the last line says what is wrong, not how it is noticed."""
    code = "import sys; sys.version_info = (3, 9, 6); import run_vae"
    done = run_python(project, "-c", code)
    assert done.returncode == 1
    assert "is too old: expected Python 3.10 or newer" in done.stderr.splitlines()[-1]
