"""Handing out, and handing in."""

import ast
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
import students
from conftest import contents, refused, run_python
from students import handed_out, homework

from codebase import ROOT
from codebase.homework import starter, submission, weights
from codebase.homework.handout import submit
from codebase.homework.problems import PROBLEMS, REPORTS
from codebase.homework.submission import Entry
from codebase.runs import table

FUNCTIONS = [problem.key for problem in PROBLEMS]
FILES = sorted({f"codebase/{problem.file}" for problem in PROBLEMS})
TESTS = ("-m", "pytest", "-p", "no:cacheprovider")


@pytest.fixture
def blank(tmp_path) -> Path:
    """The starter."""
    return students.folder(tmp_path / "blank", handed_out())


@pytest.fixture
def mine(tmp_path) -> Path:
    """The starter, with its blanks filled in."""
    return students.folder(tmp_path / "mine", handed_out() | homework())


def run(folder: Path, *command, status: int = 0) -> subprocess.CompletedProcess:
    """Run Python in a folder, as a student does."""
    done = run_python(folder, *command)
    assert done.returncode == status, done.stderr + done.stdout
    return done


# The starter


@pytest.mark.parametrize("equations", [True, False])
def test_the_starter_has_no_trace_of_the_solution(equations):
    files = {name: text.decode() for name, text in starter.starter_files(equations).items()}
    traces = set()
    for problem in PROBLEMS:
        source = (ROOT / "codebase" / problem.file).read_text(encoding="utf-8")
        lines, nodes = list(map(str.strip, source.splitlines())), starter.nodes(ast.parse(source))
        names = {problem.key, "_log_normal_all_pairs", "VAE.importance_terms", "GMVAE.log_p_z"}
        for node in (nodes[name] for name in names & nodes.keys()):
            traces |= set(lines[node.body[1].lineno - 1 : node.end_lineno])
    traces = {line for line in traces if len(line) > 20}
    assert len(traces) > 50
    assert not traces & {line.strip() for name in FILES for line in files[name].splitlines()}
    text = "".join(files.values())
    for word in ("LaplaceVAE", "Rubric", "Solution:", "Fatou", "What counts", "latex2"):
        assert word not in text
    assert sum(files[name].count(starter.BLANK) for name in FILES) == len(PROBLEMS)
    assert ("Σ_d [log 2π" in files["codebase/utils.py"]) is equations


def test_nothing_that_only_graded_functions_use_is_left():
    """`starter.PARTS` names it all: what is left is mentioned elsewhere, or is asked for."""
    python = {name: text for name, text in handed_out().items() if name.endswith(".py")}
    text = "\n".join(re.sub(r"def \w+", "", source) for source in python.values())
    mentioned = {*re.findall(r"\w+", text), *FUNCTIONS, "classification_cross_entropy"}
    for file in FILES:
        for name in starter.nodes(ast.parse(python[file])):
            public = "utils" in file and not name.startswith("_") and not name.isupper()
            short = name.rpartition(".")[2]
            assert public or "__" in name or {name, short} & mentioned, name


def test_a_starter_replaces_nothing(tmp_path):
    folder = tmp_path / "hw2"
    starter.make(folder)
    assert contents(folder) == {name: text.encode() for name, text in handed_out().items()}
    assert "is not empty" in refused(tmp_path / "again", "codebase", "starter", folder)


def test_what_a_student_sees_first(blank, whole_data):
    told = run(blank, *TESTS, status=1).stdout
    assert "9 failed" in told and "Traceback" not in told
    for function in FUNCTIONS:  # GMVAE's bounds are the VAE's until they are written
        assert f"test_public_values[{function}]" in told
        assert f"\n{function} is not written yet\n" in told
    commands = run(blank, "-m", "codebase", "--help").stdout
    assert "submit" in commands and "grade " not in commands and "starter" not in commands
    assert "--prior" not in run(blank, "run_vae.py", "--help").stdout
    flags = ("--iter_max", 2, "--data_dir", whole_data)
    said = run(blank, "run_vae.py", *flags, status=1).stderr
    [line] = [line for line in said.splitlines() if line.startswith("run_vae.py: error")]
    assert "negative_elbo_bound (" in line and "is not written yet" in line
    assert "Traceback" not in said
    # Question 4.1 comes before 4.2.
    classifier = run(blank, "run_ssvae.py", "--gw", 0, *flags).stdout
    assert "Test set classification accuracy: 0." in classifier


@pytest.mark.process
def test_filled_in_it_trains_as_the_solution_does(mine, tmp_path, project, whole_data):
    """The first training comes before the importance-weighted bound is written."""
    students.folder(mine, homework({"VAE.negative_iwae_bound": starter.BLANK}))
    flags = ("run_vae.py", "--iter_max", 50, "--threads", 1, "--data_dir", whole_data)
    done = run(mine, *flags)
    assert "not written yet: no IWAE bounds" in done.stderr and "IWAE" not in done.stdout
    [theirs], [ours] = (
        re.findall(r"NELBO: (\S+)\.", one) for one in (done.stdout, run(project, *flags).stdout)
    )
    assert float(theirs) == pytest.approx(float(ours), rel=1e-4)


# Handing in


def test_submit_knows_what_is_graded():
    assert set(submit.GRADED) == set(FUNCTIONS)
    assert submit.REPORTED == table.ITERATIONS
    assert submit.REPORTED.keys() == {report.group for report in REPORTS}


def test_submit_makes_what_the_grader_reads(mine):
    vae, gmvae = "model=vae_z=10_run=0000", "model=gmvae_z=10_k=500_run=0001"
    pictures = {f"logs/{vae}/samples.png": b"png", f"logs/{vae}/curves.png": b"png"}
    answers = {
        "writeup.pdf": b"%PDF",
        "writeup.md": "![](pics/a.png)",
        "writeup/figure.png": b"png",
        "pics/a.png": b"png",
    }
    weights_of_runs = {
        f"checkpoints/{vae}/model-20000.pt": b"weights",
        f"checkpoints/{vae}/run.json": "{}",
        f"checkpoints/{gmvae}/model-00900.pt": b"weights",
        f"checkpoints/{vae}_data=synthetic/model-20000.pt": b"weights",
    }
    others = {
        f"checkpoints/{vae}/model-10000.pt": b"weights",
        f"logs/{vae}/results.json": "{}",
        "b.svg": b"svg",
        "../up.png": b"png",
        "env/pyvenv.cfg": "",
        "env/lib/a.png": b"png",
    }
    students.folder(mine, answers | pictures | weights_of_runs | others)
    (mine / "tests" / "test_public.py").unlink()  # see below
    told = run(mine, "-m", "codebase", "submit").stdout
    names = ("pics/a.png", "writeup/figure.png", "writeup.md", "writeup.pdf")
    assert "Not written yet" not in told
    assert f"With the code: {', '.join([*sorted(pictures), *names])}\n" in told
    assert names_in(mine) == {*answers, *pictures}
    told = run(mine, "-m", "codebase", "submit", "--weights", 1).stdout
    for line in (
        f"{gmvae} is at iteration 900 of 20,000: use --resume 1",
        "No weights of model=ssvae_gw=000_cw=100_run=0000 were found",
        "No weights of model=ssvae_gw=001_cw=100_run=0000 were found",
    ):
        assert line in told
    found = submission.read(Entry(mine / "submission.zip"), weights=True)
    assert names_in(mine) == {*answers, *pictures, *weights_of_runs}
    own = submission.read(Entry(mine)).sources
    assert found.sources == {name: own[name] for name in own if name.startswith("codebase/")}
    assert {vae, gmvae} <= weights.checkpoints_of(found).keys()


def names_in(folder: Path) -> set[str]:
    """The files of a submission, without its code."""
    with zipfile.ZipFile(folder / "submission.zip") as archive:
        return {name for name in archive.namelist() if not name.startswith("codebase/")}


def test_submit_refuses_what_the_grader_could_not_read(mine, blank):
    path = mine / "codebase" / "models" / "vae.py"
    right = path.read_text(encoding="utf-8")
    path.write_text(right + "\ndef broken(:\n", encoding="utf-8")
    error = run(mine, "-m", "codebase", "submit", status=2).stderr
    assert "codebase/models/vae.py: invalid syntax (vae.py, line " in error
    assert error.count("\n") == 1
    path.write_text(right, encoding="utf-8")
    command = ("-m", "codebase", "submit", "--out", "a.tar")
    assert "must end in .zip" in run(mine, *command, status=2).stderr
    assert not list(mine.glob("*.zip")) and not (mine / "a.tar").exists()
    (blank / "tests" / "test_public.py").unlink()
    assert (
        f"Not written yet: {', '.join(FUNCTIONS)}\n"
        in run(blank, "-m", "codebase", "submit").stdout
    )


TWICE = "return m + 2 * v.sqrt() * torch.randn_like(m).flip(0)"


@pytest.mark.process
@pytest.mark.parametrize(
    ("bodies", "summary"),
    [
        ({}, "9 passed"),
        (students.OTHER, "9 passed"),
        ({"FSVAE.negative_elbo_bound": "return nelbo, kl, rec"}, "1 failed, 8 passed"),
        ({"sample_gaussian": TWICE}, "7 failed, 2 passed"),
    ],
)
def test_submit_runs_the_public_tests(mine, bodies, summary):
    """They accept what the grader accepts: noise in another order, KL in another form."""
    students.folder(mine, homework(bodies))
    told = run(mine, "-m", "codebase", "submit").stdout
    assert summary in told and "Hand in this file: submission.zip" in told, told
    assert ("NameError: name 'nelbo' is" in told) is ("1 failed" in summary)
