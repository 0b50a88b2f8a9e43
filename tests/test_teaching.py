"""Handing out, handing in, and grading a class, as teaching assistants do."""

import ast
import csv
import json
import os
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest
import students
import torch
from conftest import NO_NETWORK, refused, run_python, succeed
from test_grading import WRONG_NORMAL

from codebase import ROOT, UserError
from codebase.homework import (
    grade,
    gradescope,
    grading,
    report,
    similarity,
    starter,
    submission,
    summary,
)
from codebase.homework.handout import submit
from codebase.homework.problems import PROBLEMS, REPORTS
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
    assert figures["VAE.negative_iwae_bound"][0] == pytest.approx(544.36072, abs=6.2e-5)
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


def test_half_a_starter_is_none(tmp_path, monkeypatch):
    """After a full disk, the same command can be repeated."""

    def full(path, content):
        if path.name == "utils.py":
            raise OSError(28, "No space left on device", str(path))
        write(path, content)

    write = starter.write_atomically
    monkeypatch.setattr(starter, "write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        starter.make(tmp_path / "hw")
    assert os.listdir(tmp_path) == []


# Handing in


def test_submit_knows_what_is_graded():
    assert set(submit.GRADED) == {problem.function for problem in PROBLEMS}
    assert submit.REPORTED == table.ITERATIONS
    assert submit.REPORTED.keys() == {report.group for report in REPORTS}


def test_submit_makes_what_the_grader_reads(blank, tmp_path):
    mine = filled(tmp_path / "mine", blank)
    run_name = "model=vae_z=10_run=0000"
    logs = f"logs/{run_name}"
    students.folder(
        mine,
        {
            **{f"checkpoints/{run_name}/model-{step}.pt": b"weights" for step in (10000, 20000)},
            f"checkpoints/{run_name}/run.json": "{}",
            f"{logs}/results.json": "{}",
            f"{logs}/evaluation-20000/results.json": "{}",
            f"{logs}/evaluation-10000/results.json": "{}",
            f"{logs}/samples.png": b"png",
            f"{logs}/curves.png": b"png",
            "writeup.pdf": b"%PDF",
            "writeup.md": "![](gone.png) ![](https://x.org/a.png) ![](writeup/figure.png)",
            "writeup/figure.png": b"png",
        },
    )
    for weights in (0, 1):
        told = run(mine, "-m", "codebase", "submit", "--weights", str(weights)).stdout
        assert "Every function is written and ran without an error" in told
        assert "Write-up: writeup/figure.png, writeup.md, writeup.pdf" in told
        assert f"{'Weights' if weights else 'Pictures'} of runs: {run_name}\n" in told
        assert ("No weights of model=gmvae_z=10_k=500_run=0000 were found" in told) == weights
        assert (
            "writeup.md shows gone.png, which is not in the zip" in told
        ) and "https" not in told
        with zipfile.ZipFile(mine / "submission.zip") as archive:
            for entry in archive.infolist():
                assert entry.external_attr >> 16 == 0o100644
                assert entry.compress_type == zipfile.ZIP_DEFLATED
            names = {name for name in archive.namelist() if not name.startswith("codebase/")}
        given = {"writeup.md", "writeup.pdf", "writeup/figure.png", f"{logs}/samples.png"}
        more = {f"checkpoints/{run_name}/model-20000.pt", f"checkpoints/{run_name}/run.json"}
        more |= {f"{logs}/results.json", f"{logs}/evaluation-20000/results.json"}
        assert names == (given | more if weights else given)
    found = submission.read(mine / "submission.zip")
    own = submission.read(mine).sources
    assert found.sources == {name: own[name] for name in own if name.startswith("codebase/")}
    assert {f"codebase/{file}" for file in FILES} <= found.sources.keys()
    assert list(found.weights) == [("model=vae_z=10_run=0000", 20000)]
    told = run(blank, "-m", "codebase", "submit", "--out", str(tmp_path / "b.zip")).stdout
    assert "\nNot written yet: sample_gaussian, VAE.negative_elbo_bound, log_normal" in told


def test_submit_tries_each_function(blank, tmp_path):
    mine = filled(tmp_path / "mine", blank)
    for file, right, wrong, told in (
        ("models/fsvae.py", "return kl_z + rec, ", "return nelbo, ", "NameError: name 'nelbo' is"),
        ("utils.py", "import math\n", "import math, nowhere\n", "ModuleNotFoundError: No module"),
    ):
        path = mine / "codebase" / file
        text = path.read_text(encoding="utf-8")
        assert right in text
        path.write_text(text.replace(right, wrong), encoding="utf-8")
        said = run(mine, "-m", "codebase", "submit").stdout
        path.write_text(text, encoding="utf-8")
        assert f"fails: {told}" in said and f"(codebase/{file}, line " in said
        assert "Every function" not in said and "Hand in this file: submission.zip" in said
    path = mine / "codebase" / "models" / "vae.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("return kl + rec, kl, rec", "return kl + rec"), encoding="utf-8")
    said = run(mine, "-m", "codebase", "submit").stdout
    assert "VAE.negative_elbo_bound does not return 3 values" in said


def test_submit_says_which_values_will_not_be_graded(tmp_path, monkeypatch):
    monkeypatch.setattr(submit, "ROOT", tmp_path)
    vae, gmvae, ssvae = (f"{group}_run=0001" for group in list(submit.REPORTED)[:3])
    files = {
        f"checkpoints/{vae}/model-20000.pt": b"",
        f"logs/{vae}/results.json": '{"iterations": 20000}',
        f"checkpoints/{gmvae}/model-00900.pt": b"",
        f"logs/{gmvae}/results.json": '{"iterations": 200}',
        f"checkpoints/{ssvae}_data=synthetic/model-30000.pt": b"",
    }
    students.folder(tmp_path, files)
    *unfinished, without, another = submit._unfinished([vae, gmvae, f"{ssvae}_data=synthetic"])
    assert unfinished == [
        f"{gmvae} is at iteration 900 of 20,000: continue it with --resume 1",
        f"{gmvae} has no results of its last weights: evaluate it (--train 0)",
    ]
    assert "No weights of model=ssvae_gw=000_cw=100_run=0000" in without
    assert "No weights of model=ssvae_gw=001_cw=100_run=0000" in another


def test_submit_adds_the_pictures_of_the_write_up(tmp_path, monkeypatch):
    shown = (
        "![a](pics/a.png) ![](pics/./a.png) ![](b.svg) ![](../c.png) ![](gone.png) ![](a%00.png)"
    )
    shown += f" ![]({'x' * 300}.png) <IMG SRC=pics/a.png>"
    shown = f"![](data:image/png;base64,{'A' * (2 << 20)}) {shown}"
    pictures = {"hw/writeup.md": shown, "hw/pics/a.png": b"1", "hw/b.svg": b"2", "c.png": b"3"}
    students.folder(tmp_path, pictures)
    monkeypatch.setattr(submit, "ROOT", tmp_path / "hw")
    assert list(map(submit._name, submit._write_up())) == ["writeup.md", "pics/a.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
def test_submit_in_a_folder_that_is_not_utf8(tmp_path, monkeypatch):
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/Caf\xe9"))
    students.folder(folder, {"writeup.md": "x"})
    monkeypatch.setattr(submit, "ROOT", folder)
    assert submit._read(folder / "writeup.md") == b"x"


def test_submit_ends_although_a_function_does_not(monkeypatch):
    monkeypatch.setattr(submit, "SECONDS", 0.1)
    monkeypatch.setattr(submit, "_trial", lambda name: time.sleep(name == "log_normal") or [])
    told = ["log_normal did not end in 0.1 s, perhaps in an endless loop"]
    assert submit._trials() == (told, False)


@pytest.mark.process
def test_submit_ends_well_after_an_endless_loop(blank, tmp_path):
    """torch would abort a process that ends while another thread is in it."""
    mine = filled(tmp_path / "mine", blank)
    path = mine / "codebase" / "utils.py"
    loop = "\n\ndef log_normal(x, m, v):\n    while True:\n        m = m + torch.randn(2, 3)\n"
    path.write_text(path.read_text(encoding="utf-8") + loop, encoding="utf-8")
    code = "import codebase.__main__ as s; s.SECONDS = 1; s.main()"
    command = [sys.executable, "-c", code, "submit"]
    done = subprocess.run(command, cwd=mine, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "log_normal did not end in 1 s" in done.stdout and "Hand in this file" in done.stdout
    assert submission.read(mine / "submission.zip")


@pytest.mark.process
def test_public_tests_accept_any_order_of_draws(blank, tmp_path):
    """Public tests accept any order of draws, and reject a mistake in it."""
    mine = filled(tmp_path / "mine", blank)
    path = mine / "codebase" / "utils.py"
    text = path.read_text(encoding="utf-8")
    right = "noise = torch.randn_like(m, memory_format=torch.contiguous_format)"
    assert right in text
    for noise, failed in (
        ("torch.randn_like(m).flip(0)", 0),
        ("2 * torch.randn_like(m).flip(0)", 7),
    ):
        path.write_text(text.replace(right, f"noise = {noise}"), encoding="utf-8")
        told = run(mine, "-m", "pytest", "-p", "no:cacheprovider", status=int(failed > 0)).stdout
        assert f"{9 - failed} passed" in told and (f"{failed} failed" in told) is (failed > 0)


def test_submit_refuses_what_the_grader_could_not_read(blank, tmp_path, monkeypatch):
    mine = filled(tmp_path / "mine", blank)
    monkeypatch.setattr(submit, "ROOT", mine)
    vae = mine / "codebase" / "models" / "vae.py"
    right = vae.read_text(encoding="utf-8")
    for text, reason in (
        (right + "\ndef broken(:\n", "codebase/models/vae.py, line 1"),
        (right.replace("def negative_iwae_bound", "def iwae"), "has no VAE.negative_iwae_bound"),
        (right + "#" * submission.LARGEST_FILE, "more than 1,048,576 bytes"),
        (None, "codebase/models/vae.py is missing"),
    ):
        vae.unlink()
        if text is not None:
            vae.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=reason):
            submit.submit(tmp_path / "a.zip", weights=False)
        vae.write_text(right, encoding="utf-8")
    with pytest.raises(UserError, match="must end in .zip"):
        submit.submit(tmp_path / "a.tar", weights=False)
    assert not list(tmp_path.glob("a.*"))
    vae.write_text(right + "\ndef broken(:\n", encoding="utf-8")
    error = run(mine, "-m", "codebase", "submit", status=2).stderr
    assert "vae.py, line" in error and error.count("\n") == 1


# A class


@pytest.mark.sandbox
def test_a_class(tmp_path):
    folder, out = tmp_path / "class", tmp_path / "grades"
    folder.mkdir()
    right = students.homework()
    renamed = {
        name: text.replace("y_logprob", "lq").replace("rec =", "rec  =  ")
        for name, text in right.items()
    }
    students.zipped(folder / "ada.zip", right)
    students.zipped(folder / "copy.zip", renamed)
    students.zipped(folder / "=eve.zip", students.homework({"log_normal": WRONG_NORMAL}))
    students.zipped(
        folder / "hostile.zip",
        students.homework(dict.fromkeys(FUNCTIONS[5:], "import os; os._exit(1)")),
    )
    (folder / "notes.txt").write_text("no submission", encoding="utf-8")
    (folder / "__MACOSX").mkdir()
    command = ["-m", "codebase", "grade", str(folder), "--out", str(out), "--jobs", "2"]
    done = run(ROOT, *command)
    assert "Summary: " in done.stdout and "4/4" in done.stderr
    rows = {
        row["submission"]: row
        for row in csv.DictReader((out / "grades.csv").open(encoding="utf-8"))
    }
    totals = {name: float(row["total"]) for name, row in rows.items()}
    assert totals == {"ada": 56, "copy": 56, "'=eve": 53.6, "hostile": 28}
    assert float(rows["'=eve"]["log_normal"]) == 1.6
    page = (out / "summary.md").read_text(encoding="utf-8")
    assert "Submissions: 4. Median: 54.8 points, with the bonus." in page
    assert "| `log_normal` | mean over dimensions | 1 | =eve |" in page
    assert "- =eve, ada, copy: " in page and "to 100%" in page
    assert "hostile" not in page.split("## Similarity")[1]
    assert "notes.txt: skipped" in done.stderr and "notes.txt" in page.split("## Skipped")[1]
    assert (out / "points.png").read_bytes().startswith(b"\x89PNG")
    # The same command does what is left: here one that is new, and one that has changed.
    before = {name: (out / name / "report.md").stat().st_mtime_ns for name in ("ada", "copy")}
    students.zipped(folder / "=eve.zip", right)
    students.folder(folder / "new" / "hw2", right)
    students.zipped(folder / "new" / "old.zip", {"x": ""})
    _, told = succeed(tmp_path, "codebase", *command[2:-1], "1")
    assert "unchanged since they were graded: 3" in told
    for name, written in before.items():
        assert (out / name / "report.md").stat().st_mtime_ns == written
    results = {name: report.read_results(out / name) for name in ("=eve", "new")}
    assert [result["score"] for result in results.values()] == [56, 56]


def test_similarity_is_of_code_and_not_of_names(tmp_path):
    def tokens(text: str) -> list[str]:
        return list(similarity._tokens(ast.parse(text).body[0]))

    one = tokens("def f(a, b):\n    '''doc'''\n    c = a.exp() + 2 * b\n    return c\n")
    assert one == tokens(
        "def f(x, y):\n    # comment\n    z = (x.exp()\n         + 2 * y)\n    return z"
    )
    for other in ("z = y.exp() + 2 * x\n    return x", "z = x.log() + 2 * y\n    return z"):
        assert one != tokens(f"def f(x, y):\n    {other}")


def test_similar_submissions(tmp_path):
    """A copy with a line changed in two functions; blank starters; independent solutions."""
    right = students.RIGHT
    bodies = {f: bodies[1] for f, bodies in right.items()}
    changed = bodies | {
        "log_normal": "m = m + 0\n" + textwrap.dedent(bodies["log_normal"]),
        "log_normal_mixture": "m = m * 1\n" + textwrap.dedent(bodies["log_normal_mixture"]),
    }
    blank = dict.fromkeys(right, "raise NotImplementedError")
    found = {
        name: students.folder(tmp_path / name, students.homework(own))
        for name, own in {
            "ada": bodies,
            "bob": changed,
            "carl": {f: bodies[-1] for f, bodies in right.items()},
            "dora": None,
            "empty": blank,
            "too": blank,
        }.items()
    }
    [(names, least, most)] = similarity.clusters(found)
    assert names == ["ada", "bob"] and 0.8 < least == most < 1
    whole = {f"{i}": found["dora"] for i in range(40)}  # what everybody wrote says nothing
    assert similarity.clusters(whole) == []


def test_code_that_python_cannot_print_stops_no_summary(tmp_path):
    numeral = "0x" + "f" * 5000  # more digits than Python writes
    deep = "raise x" + ".x" * 500 + "(NotImplementedError)"
    files = students.homework({"log_normal": f"return {numeral}", "log_normal_mixture": deep})
    found = similarity.fingerprints(students.folder(tmp_path / "odd", files))
    assert {function for function, _ in found} >= {*FUNCTIONS} - {
        "log_normal_mixture",
        "log_normal",
    }


def test_a_class_in_any_layout(tmp_path):
    """Nothing that was handed in is dropped without a word."""
    right = students.homework()
    zipped = students.zipped(tmp_path / "inner.zip", right).read_bytes()
    folder = tmp_path / "class"
    students.zipped(students.folder(folder, {"x": ""}) / "ADA.ZIP", right)
    students.folder(folder / "_bob" / "hw2", right)
    students.folder(folder / "carl_123_assignsubmission", {"hw.zip": zipped})  # as Moodle has it
    students.zipped(folder / "dora.zip", {"deeper/hw.zip": zipped, "notes.txt": "x"})
    students.folder(folder / "eve", {"hw2.ipynb": "{}"})
    students.folder(folder, {"fred.tar.gz": b"x", "gina.rar": b"x"})
    students.folder(folder / "hugo", {"vae.py": "x = 1"})
    students.folder(folder / "ivy.tar", right)  # a folder, whatever its name
    found, skipped = grading.find([folder])
    assert sorted(found) == sorted(
        ["ADA", "_bob", "carl_123_assignsubmission", "dora", "eve", "fred", "gina", "hugo", "ivy"]
    )
    assert len(skipped) == 1 and skipped[0].startswith(f"{folder / 'x'}: skipped")
    for name in ("ADA", "_bob", "carl_123_assignsubmission", "dora", "ivy"):
        assert submission.read(found[name]).sources == right
    assert "hw.zip" in submission.read(found["dora"]).notes[0]
    for name, reason in {
        "eve": "notebooks are not graded",
        "fred": "hand in a .zip",
        "gina": "hand in a .zip",
        "hugo": "one file is not enough",
    }.items():
        with pytest.raises(UserError, match=reason):
            submission.read(found[name])
    others, _ = grading.find([students.folder(tmp_path / "all", {"ada/a.zip": zipped}).resolve()])
    assert list(others) == ["ada"]
    alone, _ = grading.find([students.folder(tmp_path / "mine", {"hw2/x": ""})])
    assert list(alone) == ["mine"]


def test_what_cannot_be_graded_is_no_zero(tmp_path):
    """It is listed, with its reason, and is not in the statistics."""
    results = {
        "ada": grade.unreadable("ada", dict.fromkeys(FUNCTIONS, 6), "it is empty"),
    }
    results = {name: report.results(graded) for name, graded in results.items()}
    assert "not graded: it is empty" in summary.grades(results)
    page = summary.summary(results, [], [])
    assert "Median" not in page and "ada: it is empty" in page.split("## Not graded")[1]


@pytest.mark.sandbox
def test_reports_are_not_written_among_submissions(tmp_path):
    folder = students.folder(tmp_path / "class", {"ada.zip": b"x", "bob.zip": b"x"})
    students.folder(tmp_path, {"file": "x"})
    for out, reason in (
        (folder, "is inside"),
        (folder / "new", "is inside"),
        (tmp_path / "file", "is a file"),
    ):
        assert reason in refused(tmp_path, "codebase", "grade", folder, "--out", out)
    students.folder(folder / "ada", students.homework())
    line = refused(tmp_path, "codebase", "grade", folder / "ada", "--out", folder)
    assert "has the submission ada in it" in line
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused(tmp_path, "codebase", "grade", tmp_path / "empty")


@pytest.mark.sandbox
def test_names_and_reasons_command_no_terminal(tmp_path):
    """Names and reasons can neither control the terminal nor forge a line."""
    evil = "x\x1b]0;PWN\x07\nFAKE was graded"
    (tmp_path / "class").mkdir()
    for name in ("a", "b", "c", "d"):
        students.zipped(tmp_path / "class" / f"{name}.zip", {f"{evil}.ipynb": "{}"})
    (tmp_path / "class" / evil).write_text("x", encoding="utf-8")
    _, said = succeed(tmp_path, "codebase", "grade", tmp_path / "class", "--jobs", 1)
    assert "\x1b" not in said and "\nFAKE" not in said and "d was not graded" in said


def test_nothing_says_right_at_no_points():
    graded = grade.unreadable("ada", dict.fromkeys(FUNCTIONS, 6), "it is empty")
    results = report.results(graded)
    assert "it is empty" in results["output"]
    assert {test["output"] for test in results["tests"]} == {
        "Nothing was graded; see the note at the top."
    }


# Gradescope


@pytest.mark.sandbox
def test_gradescopes_layout(tmp_path):
    """As /autograder is laid out, under another root."""
    gradescope.make(tmp_path / "autograder.zip", None, 1, 0)
    root = tmp_path / "autograder"
    with zipfile.ZipFile(tmp_path / "autograder.zip") as archive:
        assert {"setup.sh", "run_autograder"} <= set(archive.namelist())
        mode = archive.getinfo("run_autograder").external_attr >> 16
        assert mode & 0o111 == 0o111
        archive.extractall(root / "source")
    (root / "run_autograder").write_text(
        (root / "source" / "run_autograder").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (root / "run_autograder").chmod(0o755)
    (root / "results").mkdir()
    for script in ("setup.sh", "run_autograder"):
        subprocess.run(["bash", "-n", str(root / "source" / script)], check=True)
    good = students.homework()
    forge = "open('/autograder/results/results.json', 'w').write('{\"score\": 99}')"
    forge += f"\nopen({str(root / 'results' / 'results.json')!r}, 'w').write('{{\"score\": 99}}')"
    half = dict.fromkeys(FUNCTIONS[4:], "raise NotImplementedError")
    hostile = students.homework(half | dict.fromkeys(FUNCTIONS[5:7], forge))
    died = tmp_path / "python"
    died.write_text("#!/bin/sh\nkill -9 $$\n", encoding="utf-8")
    died.chmod(0o755)
    environment = os.environ | {"GRADER_PYTHON": str(died)}
    subprocess.run(["./run_autograder"], cwd=root, env=environment, check=True)
    results = json.loads((root / "results" / "results.json").read_text(encoding="utf-8"))
    assert results["score"] == 0 and "too little memory" in results["output"]
    for files, score in ((good, 56), (hostile, 21)):
        subprocess.run(["rm", "-rf", str(root / "submission")], check=True)
        students.folder(root / "submission", files)
        environment = os.environ | NO_NETWORK | {"GRADER_PYTHON": sys.executable}
        done = subprocess.run(
            ["./run_autograder"], cwd=root, env=environment, capture_output=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        results = json.loads((root / "results" / "results.json").read_text(encoding="utf-8"))
        assert results["score"] == score
        assert sum(test["score"] for test in results["tests"]) == score
