"""Handing out, and handing in."""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import students
import torch
from conftest import refused, run_python, succeed

from codebase import ROOT, UserError
from codebase.homework import (
    starter,
    submission,
    weights,
)
from codebase.homework.handout import submit
from codebase.homework.problems import PROBLEMS, REPORTS
from codebase.homework.submission import Entry
from codebase.runs import table

FUNCTIONS = [problem.function for problem in PROBLEMS]
FILES = sorted({problem.file for problem in PROBLEMS})


@pytest.fixture(scope="module")
def blank(tmp_path_factory) -> Path:
    """The starter."""
    folder = tmp_path_factory.mktemp("homework") / "starter"
    starter.make(folder)
    return folder


def run(folder: Path, *command: str, status: int = 0) -> subprocess.CompletedProcess:
    """Run Python in a folder, as a student does."""
    done = run_python(folder, *command)
    assert done.returncode == status, done.stderr + done.stdout
    return done


def filled(folder: Path, blank: Path) -> Path:
    """A copy of the starter, its blanks filled in with the solution's bodies and their helpers."""
    for name, content in contents(blank).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for file in FILES:
        solution = (ROOT / "codebase" / file).read_text(encoding="utf-8")
        path = folder / "codebase" / file
        wanted, mine = starter.nodes(ast.parse(solution)), path.read_text(encoding="utf-8")
        here = starter.nodes(ast.parse(mine))
        lines = mine.splitlines()
        graded = {problem.function for problem in PROBLEMS if problem.file == file}
        for name in sorted(graded, key=lambda name: -here[name].lineno):
            node = here[name]
            # What the solution inherits, the filled-in class is to inherit too.
            new = text_of(solution, wanted[name]) if name in wanted else []
            lines[node.lineno - 1 : node.end_lineno] = new
        for name in wanted.keys() - here.keys() - {"sample_laplace", "log_laplace", "kl_laplace"}:
            at = len(lines)
            if "." not in name:
                at = next(i for i, line in enumerate(lines) if line.startswith(("def ", "class ")))
            lines[at:at] = ["", *text_of(solution, wanted[name]), ""]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def text_of(source: str, node: ast.stmt) -> list[str]:
    return source.splitlines()[node.lineno - 1 : node.end_lineno]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".pytest" not in str(path)
    }


# The starter


@pytest.mark.parametrize("equations", [True, False])
def test_the_starter_has_no_trace_of_the_solution(equations):
    files = starter.starter_files(equations)
    traces = set()
    for problem in PROBLEMS:
        here = starter.nodes(ast.parse((ROOT / "codebase" / problem.file).read_bytes()))
        gone = ["VAE.log_p_z", "VAE.kl_to_prior", "VAE.importance_terms", "GMVAE.log_p_z"]
        gone += ["_log_normal_all_pairs"]
        for name in (problem.function, *gone):
            if name in here:
                for statement in here[name].body[1:]:
                    traces |= {ast.dump(s) for s in ast.walk(statement) if telling(s)}
    assert len(traces) > 100
    found = {name: ast.parse(content) for name, content in files.items() if name.endswith(".py")}
    graded = {f"codebase/{file}" for file in FILES}
    for name, tree in found.items():
        same = {ast.unparse(n) for n in ast.walk(tree) if telling(n) and ast.dump(n) in traces}
        assert not {text for text in same if name in graded or len(text) > 40}, name
    text = b"".join(files.values()).decode()
    for word in ("log_normal_all_pairs", "kl_to_prior", "LaplaceVAE", "LOG_2PI", "MAX_ROWS"):
        assert word not in text
    assert "importance_terms" not in text
    blanks = [files[f"codebase/{file}"].count(b"raise NotImpl") for file in FILES]
    assert sum(blanks) == len(PROBLEMS)
    has_equation = "Σ_d [log 2π" in files["codebase/utils.py"].decode()
    assert has_equation is equations


def telling(node: ast.AST) -> bool:
    """Whether a node is more than a name or an attribute."""
    return isinstance(node, ast.expr | ast.stmt) and sum(1 for _ in ast.walk(node)) >= 12


def test_what_a_student_sees_first(blank):
    told = run(blank, "-m", "pytest", "-p", "no:cacheprovider", status=1).stdout
    assert "9 failed" in told and "Traceback" not in told
    for function in FUNCTIONS:  # GMVAE's bounds are the VAE's until they are written
        assert f"test_public_values[{function}]" in told
        assert f"\n{function} is not written yet\n" in told
    commands = run(blank, "-m", "codebase", "--help").stdout
    assert "submit" in commands and "grade " not in commands and "starter" not in commands
    assert "--prior" not in run(blank, "run_vae.py", "--help").stdout
    page = (blank / "README.md").read_text(encoding="utf-8")
    assert "{{" not in page and "### 1.1 Draw z (6 points, code)" in page


def test_a_blank_that_is_reached_is_named_in_a_line(blank, whole_data):
    done = run(blank, "run_vae.py", "--iter_max", "1", "--data_dir", str(whole_data), status=1)
    [line] = [line for line in done.stderr.splitlines() if line.startswith("run_vae.py: error")]
    assert "error: negative_elbo_bound (" in line and "is not written yet" in line
    assert "Traceback" not in done.stderr


def test_the_classifier_is_trained_before_its_bound_is_written(blank, tmp_path, whole_data):
    """Question 4.1 comes before 4.2."""
    mine = students.folder(tmp_path / "mine", contents(blank))
    flags = ["--gw", "0", "--iter_max", "2", "--data_dir", str(whole_data)]
    done = run(mine, "run_ssvae.py", *flags)
    assert "Test set classification accuracy: 0." in done.stdout


@pytest.mark.process
def test_filled_in_it_is_the_solution_bit_for_bit(blank, tmp_path, whole_data):
    mine = filled(tmp_path / "mine", blank)
    figures = json.loads(
        run(
            mine,
            "-c",
            "import json, sys; sys.path.insert(0, 'tests'); import test_public as t\n"
            "from codebase import models, utils\n"
            "print(json.dumps({f: r(utils, models) for f, r in t.RECIPES.items()}))",
        ).stdout
    )
    assert figures == {function: value[0] for function, value in starter.public_values().items()}
    flags = ["--iter_max", "3", "--k", "5", "--threads", "1", "--data_dir", str(whole_data)]
    run(mine, "run_gmvae.py", *flags)
    succeed(tmp_path / "ours", "run_gmvae.py", *flags, whole=True)
    [theirs] = (mine / "checkpoints").rglob("model-00003.pt")
    [ours] = (tmp_path / "ours" / "checkpoints").rglob("model-00003.pt")
    one, other = (torch.load(path, weights_only=True) for path in (theirs, ours))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_starter_replaces_nothing(tmp_path):
    (tmp_path / "kept").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="is not empty"):
        starter.make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert "is not empty" in refused(tmp_path / "r", "codebase", "starter", tmp_path)


# Handing in


def test_submit_knows_what_is_graded():
    assert set(submit.GRADED) == {problem.function for problem in PROBLEMS}
    assert submit.REPORTED == table.ITERATIONS
    assert submit.REPORTED.keys() == {report.group for report in REPORTS}


def test_submit_makes_what_the_grader_reads(blank, tmp_path, monkeypatch, capsys):
    mine = filled(tmp_path / "mine", blank)
    run_name = "model=vae_z=10_run=0000"
    logs = f"logs/{run_name}"
    students.folder(
        mine,
        {
            **{f"checkpoints/{run_name}/model-{step}.pt": b"weights" for step in (10000, 20000)},
            f"checkpoints/{run_name}/run.json": "{}",
            f"{logs}/results.json": "{}",
            f"{logs}/samples.png": b"png",
            f"{logs}/curves.png": b"png",
            "writeup.pdf": b"%PDF",
            "writeup.md": "![](writeup/figure.png)",
            "writeup/figure.png": b"png",
        },
    )
    monkeypatch.setattr(submit, "ROOT", mine)
    monkeypatch.setattr(submit.subprocess, "run", lambda *args, **options: None)
    for with_weights in (0, 1):
        submit.act(argparse.Namespace(out=mine / "submission.zip", weights=with_weights))
        told = capsys.readouterr().out
        assert "Running the public tests" in told and "Not written yet" not in told
        assert "Write-up: writeup/figure.png, writeup.md, writeup.pdf" in told
        assert f"{'Weights' if with_weights else 'Pictures'} of runs: {run_name}\n" in told
        assert ("No weights of model=gmvae_z=10_k=500_run=0000 were found" in told) == with_weights
        with zipfile.ZipFile(mine / "submission.zip") as archive:
            names = {name for name in archive.namelist() if not name.startswith("codebase/")}
        given = {"writeup.md", "writeup.pdf", "writeup/figure.png", f"{logs}/samples.png"}
        given.add(f"{logs}/curves.png")
        more = {f"checkpoints/{run_name}/model-20000.pt", f"checkpoints/{run_name}/run.json"}
        assert names == (given | more if with_weights else given)
    found = submission.read(Entry(mine / "submission.zip"), weights=True)
    own = submission.read(Entry(mine)).sources
    assert found.sources == {name: own[name] for name in own if name.startswith("codebase/")}
    assert {f"codebase/{file}" for file in FILES} <= found.sources.keys()
    assert weights.checkpoints_of(found).keys() == {run_name}
    monkeypatch.setattr(submit, "ROOT", blank)
    assert submit.submit(tmp_path / "b.zip", False)[0] == list(submit.GRADED)


@pytest.mark.process
def test_submit_runs_the_public_tests(blank, tmp_path):
    mine = filled(tmp_path / "mine", blank)
    path = mine / "codebase" / "models" / "fsvae.py"
    text = path.read_text(encoding="utf-8")
    assert "9 passed" in run(mine, "-m", "codebase", "submit").stdout
    path.write_text(text.replace("return kl_z + rec, ", "return nelbo, "), encoding="utf-8")
    said = run(mine, "-m", "codebase", "submit").stdout
    assert "NameError: name 'nelbo' is" in said and "1 failed, 8 passed" in said
    assert "Hand in this file: submission.zip" in said


def test_submit_says_which_values_will_not_be_graded(tmp_path, monkeypatch):
    monkeypatch.setattr(submit, "ROOT", tmp_path)
    vae, gmvae, ssvae = (f"{group}_run=0001" for group in list(submit.REPORTED)[:3])
    files = {
        f"checkpoints/{vae}/model-20000.pt": b"",
        f"checkpoints/{gmvae}/model-00900.pt": b"",
        f"checkpoints/{ssvae}_data=synthetic/model-30000.pt": b"",
    }
    students.folder(tmp_path, files)
    *unfinished, without, another = submit._unfinished({vae, gmvae, f"{ssvae}_data=synthetic"})
    assert unfinished == [
        f"{gmvae} is at iteration 900 of 20,000: continue it with --resume 1",
    ]
    assert "No weights of model=ssvae_gw=000_cw=100_run=0000" in without
    assert "No weights of model=ssvae_gw=001_cw=100_run=0000" in another


def test_submit_takes_no_pictures_of_packages(tmp_path, monkeypatch):
    files = {"writeup.md": "x", "pics/a.PNG": b"1", "env/pyvenv.cfg": "", "env/lib/a.png": b"2"}
    students.folder(tmp_path, files | {".git/a.txt": "x", "data/b.png": b"3"})
    monkeypatch.setattr(submit, "ROOT", tmp_path)
    assert list(map(submit._name, submit._answers())) == ["pics/a.PNG", "writeup.md"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
def test_submit_in_a_folder_that_is_not_utf8(tmp_path, monkeypatch):
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/Caf\xe9"))
    students.folder(folder, {"writeup.md": "x"})
    monkeypatch.setattr(submit, "ROOT", folder)
    assert submit._answers() == [folder / "writeup.md"]


NOISE = "torch.randn_like(m, memory_format=torch.contiguous_format)"
CLOSED = """closed = ut.kl_normal(*self.enc.encode(x), torch.zeros(1), torch.ones(1))
        kl = closed if type(self) is VAE else kl
        return niwae, kl.mean(), rec.mean()"""
PUBLIC_FORMS = {
    "noise in another order": ("utils.py", NOISE, "torch.randn_like(m).flip(0)", 0),
    "twice the noise": ("utils.py", NOISE, "2 * torch.randn_like(m).flip(0)", 7),
    "KL at the draw": (
        "models/vae.py",
        "return ut.kl_normal(q_m, q_v, *self.z_prior)",
        "return self.log_q(z, q_m, q_v) - self.log_p_z(z)",
        0,
    ),
    "closed KL reported": (
        "models/vae.py",
        "return niwae, kl.mean(), rec.mean()",
        CLOSED,
        0,
    ),
    "one noise for all labels": (
        "models/ssvae.py",
        "noise[label, image]",
        "noise[0, image]",
        0,
    ),
}


@pytest.mark.process
@pytest.mark.parametrize("form", PUBLIC_FORMS)
def test_public_tests_accept_what_the_grader_accepts(blank, tmp_path, form):
    file, old, new, failed = PUBLIC_FORMS[form]
    mine = filled(tmp_path / "mine", blank)
    path = mine / "codebase" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    told = run(mine, "-m", "pytest", "-p", "no:cacheprovider", status=int(failed > 0)).stdout
    assert f"{9 - failed} passed" in told and (f"{failed} failed" in told) is (failed > 0), told


def test_nothing_that_only_graded_functions_use_is_left(blank):
    """`starter.PARTS` names it all: what is left is mentioned elsewhere, or is asked for."""
    python = {name: text.decode() for name, text in contents(blank).items() if name[-3:] == ".py"}
    text = "\n".join(re.sub(r"def \w+", "", source) for source in python.values())
    mentioned = {*re.findall(r"\w+", text), *FUNCTIONS, "classification_cross_entropy"}
    for file in FILES:
        for name in starter.nodes(ast.parse(python[f"codebase/{file}"])):
            public = file == "utils.py" and not name.startswith("_") and not name.isupper()
            short = name.rpartition(".")[2]
            assert public or "__" in name or {name, short} & mentioned, name


def test_submit_refuses_what_the_grader_could_not_read(blank, tmp_path, monkeypatch):
    mine = filled(tmp_path / "mine", blank)
    monkeypatch.setattr(submit, "ROOT", mine)
    vae = mine / "codebase" / "models" / "vae.py"
    right = vae.read_text(encoding="utf-8")
    vae.write_text(right + "\ndef broken(:\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"codebase/models/vae.py: .* line \d+\): correct it"):
        submit.submit(tmp_path / "a.zip", weights=False)
    vae.write_text(right.replace("def negative_iwae_bound", "def iwae"), encoding="utf-8")
    blank_ones, _ = submit.submit(tmp_path / "b.zip", weights=False)
    assert blank_ones == ["VAE.negative_iwae_bound", "GMVAE.negative_iwae_bound"]
    with pytest.raises(UserError, match="must end in .zip"):
        submit.submit(tmp_path / "a.tar", weights=False)
    assert not list(tmp_path.glob("a.*"))
    vae.write_text(right + "\ndef broken(:\n", encoding="utf-8")
    error = run(mine, "-m", "codebase", "submit", status=2).stderr
    assert "vae.py: " in error and error.count("\n") == 1
