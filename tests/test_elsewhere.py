"""Other systems: no POSIX, a console that lacks letters; and imports without effects."""

import signal
import zipfile

import pytest
from conftest import NAME, SCRIPTS, SHORT, Child, refused, report_lines, run_python, succeed

from codebase import ROOT

WINDOWS = {"elsewhere": True}


@pytest.mark.process
def test_run_scripts_without_posix(tmp_path, whole_data):
    """Train, interrupted; resume; evaluate; replicates; compare; explore."""
    vae = (tmp_path, "run_vae.py", *SHORT)
    stop = (signal.SIGINT, "samples-00004.png")
    status, _, stderr = Child(*vae, stop=stop, **WINDOWS).finish()
    assert status == 130 and "--resume 1" in stderr.splitlines()[-1], stderr
    stdout, _ = succeed(*vae, "--resume", 1, **WINDOWS)
    assert stdout.count("Negative IWAE") == 2
    assert report_lines(succeed(*vae, "--train", 0, **WINDOWS)[0]) == report_lines(stdout)
    table, _ = succeed(*vae, "--replicates", 2, **WINDOWS)
    assert "| vae_z=10_data=synthetic | NELBO |" in table
    for command in (("compare", NAME.format(0), NAME.format(1)), ("explore", NAME.format(0))):
        flags = ("--data_dir", whole_data, "--out", tmp_path / command[0])
        succeed(tmp_path, "codebase", *command, *flags, **WINDOWS)
    assert (tmp_path / "compare").read_bytes().startswith(b"\x89PNG")
    assert "Σ" in (tmp_path / "explore").read_text(encoding="utf-8")
    for other in SCRIPTS[2:]:
        succeed(tmp_path, other, *SHORT, **WINDOWS)


@pytest.mark.process
def test_the_homework_without_posix(tmp_path):
    """The hand-out, the submission and Gradescope's zip are made; marking says what it needs."""
    for command in (("starter", "hw2"), ("submit", "--out", "me.zip"), ("gradescope", "auto.zip")):
        *words, path = command
        succeed(tmp_path, "codebase", *words, tmp_path / path, **WINDOWS)
    assert "Σ" in (tmp_path / "hw2" / "codebase" / "utils.py").read_text(encoding="utf-8")
    assert "codebase/utils.py" in zipfile.ZipFile(tmp_path / "me.zip").namelist()
    names = zipfile.ZipFile(tmp_path / "auto.zip").namelist()
    assert {"setup.sh", "run_autograder", "codebase/homework/sandboxed.py"} <= set(names)
    line = refused(tmp_path, "codebase", "grade", tmp_path / "me.zip", **WINDOWS)
    assert "grading needs Linux" in line and "gradescope" in line


IMPORT_ALL = """
import importlib, os, signal, sys, threading
import torch, numpy, tensorboardX  # which may set what they like

def state():
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    return handlers, dict(os.environ), sys.excepthook, sys.stdout, threading.active_count()

def import_all():
    for name in sys.argv[1:]:
        importlib.import_module(name)

before = state()
thread = threading.Thread(target=import_all)
thread.start()
thread.join()
print([a == b for a, b in zip(before, state())], set(sys.argv[1:]) <= set(sys.modules))
"""


@pytest.mark.process
def test_imports_have_no_effects():
    """Every module, in a thread: no handlers, environment, hooks, threads, output or exit."""
    paths = [*ROOT.glob("run_*.py"), *sorted((ROOT / "codebase").rglob("*.py"))]
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in paths
        if path.name != "test_public.py"
    ]
    done = run_python(ROOT, "-c", IMPORT_ALL, *names)
    assert done.stdout == "[True, True, True, True, True] True\n", done.stderr


def test_a_python_that_is_too_old(project):
    """macOS has 3.9: the last line says what is wrong, not how it is noticed."""
    code = "import sys; sys.version_info = (3, 9, 6); import run_vae"
    done = run_python(project, "-c", code)
    assert done.returncode == 1
    assert "is too old: expected Python 3.10 or newer" in done.stderr.splitlines()[-1]
