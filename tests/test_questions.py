"""What is not code: reports graded by weights, pictures and text by a person; the solutions."""

import csv
import errno
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import students
import torch
from conftest import refused, succeed

from codebase import ROOT, data, evaluate, models
from codebase.homework import grading, problems, solutions, starter, submission, written
from codebase.homework import weights as graded_weights
from codebase.homework.marking import Mark
from codebase.homework.problems import BY_KEY, POINTS, PROBLEMS, QUESTIONS, REPORTS
from codebase.homework.submission import Entry
from codebase.runs import published

VAE = "model=vae_z=10_run=0000"
BY_HAND = [question.key for question in QUESTIONS if question.kind != "code"]


# Reports


@pytest.fixture
def values(monkeypatch):
    """What any weights give, which a test may change: the replicates' means."""
    found = {m: mean for m, (mean, *_) in published.REPLICATES["model=vae_z=10"].items()}
    monkeypatch.setattr(data, "find_or_download", lambda *args: "mnist")
    monkeypatch.setattr(graded_weights, "metrics_of", lambda *args: dict(found))

    def here(command, **options):
        told = graded_weights.metrics_of_file(*map(Path, command[-2:]))
        return subprocess.CompletedProcess(command, 0, json.dumps(told))

    monkeypatch.setattr(graded_weights.subprocess, "run", here)
    return found


def handed_in(folder: Path, step: int = 20000, name: str = VAE, weights: bytes = b"") -> Path:
    """A submission with a VAE's weights."""
    files = {f"hw2/{name}": text for name, text in students.homework().items()}
    torch.save(models.VAE(z_dim=10).state_dict(), folder / "weights.pt")
    content = weights or (folder / "weights.pt").read_bytes()
    files[f"hw2/checkpoints/{name}/model-{step}.pt"] = content
    return students.zipped(folder / "ada.zip", files)


def marked(path: Path, wrong: tuple[str, ...] = ()) -> dict[str, Mark]:
    """The marks of reports, where some functions are wrong."""
    code = {}
    for name, problem in students.BY_FUNCTION.items():
        code[name] = Mark(problem, problem.points, 0, ("nelbo",) if name in wrong else ())
    found = graded_weights.marks(read(path), POINTS, code, path)
    return {mark.question.key: mark for mark in found}


def read(path: Path) -> submission.Submission:
    return submission.read(Entry(path), weights=True)


def test_reports_of_right_weights(tmp_path, values):
    found = marked(handed_in(tmp_path))
    assert [mark.question for mark in found.values()] == list(REPORTS)
    assert found["1.3"].score == found["3.3"].score == 3
    [told] = found["1.3"].said
    assert "NELBO 101.35 (99.15 to 103.55), KL" in told and "iteration 20,000" in told
    assert found["2.2"].score == 0 and "no weights of model=gmvae_z=10_k=500" in str(found["2.2"])


def test_backups_do_not_count(tmp_path, values):
    """Weights beside checkpoints/ may be older ones."""
    path = handed_in(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        for folder in ("hw2/a", "hw2/backup", "."):
            for inner in (VAE, f"checkpoints/{VAE}"):
                archive.writestr(f"{folder}/{inner}/model-20000.pt", b"")
                archive.writestr(f"{folder}/{inner}/model-30000.pt", b"")
    assert marked(path)["1.3"].score == 3 and not marked(path)["1.3"].lost


@pytest.mark.parametrize(
    "module, place, trouble",
    [
        (graded_weights, "write_atomically", OSError(errno.ENOSPC, "full")),
        (graded_weights, "metrics_of", MemoryError()),
        (torch, "load", MemoryError()),
    ],
)
def test_the_graders_own_trouble_costs_no_points(
    module, place, trouble, tmp_path, values, monkeypatch
):
    """A full disk and a lack of memory are not the submission's fault: it is graded again."""

    def fail(*args, **options):
        raise trouble

    path = handed_in(tmp_path)
    monkeypatch.setattr(module, place, fail)
    with pytest.raises(type(trouble)):
        marked(path)


def test_weights_that_training_does_not_give(tmp_path, values):
    values |= {"NELBO": 104.0, "Rec": float("nan")}
    found = marked(handed_in(tmp_path))
    assert (found["1.3"].score, found["1.3"].lost) == (1, ("NELBO", "Rec"))
    told = "Outside the expected range: NELBO, Rec. Train again with the script's default"
    assert told in found["1.3"].said[0]
    found = marked(handed_in(tmp_path), ("VAE.negative_elbo_bound",))
    assert "VAE.negative_elbo_bound is probably wrong" in found["1.3"].said[0]
    found = marked(handed_in(tmp_path, step=10000))
    assert "Your weights are from iteration 10,000; train for 20,000." in found["1.3"].said[0]
    path = handed_in(tmp_path, weights=b"cos\nsystem\n(S'x'\ntR.")
    [told] = marked(path)["1.3"].said
    assert f"cannot be evaluated: {VAE}/model-20000.pt is refused" in told  # not the grader's path
    odd = (tmp_path / "weights.pt").read_bytes()
    at = odd.find(b"PK\1\2") + 6
    odd = odd[:at] + bytes([99]) + odd[at + 1 :]  # a version of zip that there is not
    assert "cannot be evaluated" in marked(handed_in(tmp_path, weights=odd))["1.3"].said[0]
    found = marked(handed_in(tmp_path, name=f"{VAE}_data=synthetic"))
    assert "trained on synthetic digits; train on MNIST" in found["1.3"].said[0]


def test_weights_are_graded_again_if_they_change(tmp_path):
    settings = grading.Settings(POINTS, "bubblewrap", with_weights=True)
    two = (read(handed_in(tmp_path, weights=content)) for content in (b"1", b"2"))
    assert len(set(map(settings.key, two))) == 2


def test_ranges_are_of_the_results_table():
    """Four of the larger standard deviations, around this project's means in the README."""
    text = (ROOT / "codebase" / "runs" / "README.md").read_text(encoding="utf-8")
    [head] = re.findall(r"^\| \| N \|.*$", text, re.M)
    metrics = [cell.strip() for cell in head.split("|")[3:-1]]
    rows = re.findall(r"^\| \*\*\w*VAE.*$", text, re.M)
    for row, expected in zip(rows, published.REPLICATES.values(), strict=True):
        _, _, number, *cells, _ = row.split("|")
        for metric, cell in zip(metrics, cells, strict=True):
            numbers = [float(one) for one in re.findall(r"\d+\.\d+", cell)]
            unit = 100 if "%" in cell else 1
            mean, deviation, n = expected.get(metric, (None, None, int(number)))
            assert numbers == pytest.approx([unit * one for one in (mean, deviation) if one])
            assert n == int(number)
    low, high = graded_weights.expected("model=ssvae_gw=001_cw=100", "accuracy")
    assert (low, high) == pytest.approx((0.9428 - 4 * 0.0139, 0.9428 + 4 * 0.0139))


def test_a_report_without_the_iwae_bound(capsys):
    """The first training comes before the importance-weighted bound is written."""

    class Half(models.VAE):
        def negative_iwae_bound(self, x, iw):
            raise NotImplementedError

    subset = torch.zeros(2, 784), torch.zeros(2, 10)
    assert list(evaluate.evaluate_lower_bound(Half(), subset)) == ["NELBO", "KL", "Rec"]
    assert "not written yet: no IWAE bounds" in capsys.readouterr().err


@pytest.mark.mnist
def test_the_reference_weights_and_public_ones_are_in_range(tmp_path, mnist_dir):
    folders = [ROOT / "checkpoints" / "reference", ROOT.parent / "shared" / "checkpoints"]
    for folder in folders:
        files = students.homework()
        for path in folder.glob("model=*/model-*.pt"):
            if "fsvae" not in path.parent.name:
                files[f"checkpoints/{path.parent.name}/{path.name}"] = path.read_bytes()
        if len(files) > len(students.homework()):
            path = students.zipped(tmp_path / f"{folder.name}.zip", files)
            for mark in graded_weights.marks(read(path), POINTS, {}, mnist_dir):
                assert mark.score == mark.points, mark.said


# The hand-out and the solutions


def test_the_handout_asks_everything():
    points = problems.POINTS | {"3.1": 10, "log_normal": 2}
    page = starter.handed_out("README.md", points)
    assert "{{" not in page
    assert "There are 17 questions, worth 85 points and 9 bonus points." in page
    assert "### 4.1 Without the bound (1 point, report)" in page
    less = starter.handed_out("README.md", points | {"1.5": 0, "3.4 report": 0})
    assert "There are 16 questions, worth 79 points" in less and "### 1.5" not in less
    assert "### 3.4" in less and "### 1.4" in less
    for question in QUESTIONS:
        [heading] = re.findall(rf"(?m)^### {question.number} .*$", page)
        assert question.kind in heading
        if question.kind == "code":
            assert f"`{question.key}`" in page
    assert "### 3.1 A tighter bound (10 points, text)" in page
    assert "Expect NELBO 99.15 to 103.55, KL 18.68 to 20.04" in " ".join(page.split())
    headings = re.findall(r"(?m)^## (\d\.\d)", written.template().decode())
    assert headings == [q.number for q in QUESTIONS if q.key in BY_HAND]


def test_a_placeholder_may_be_wrapped(tmp_path, monkeypatch):
    """An editor of the hand-out may leave a line break in a placeholder."""
    monkeypatch.setattr(starter, "HANDOUT", tmp_path)
    (tmp_path / "README.md").write_text("{{range model=vae_z=10\nKL}}", encoding="utf-8")
    assert starter.handed_out("README.md", POINTS) == "18.68 to 20.04"


@pytest.fixture
def made(tmp_path, monkeypatch, values):
    monkeypatch.setattr(graded_weights, "metrics_of", lambda *args: values | {"accuracy": 0.9})
    solutions.make(tmp_path / "solutions", POINTS, tmp_path)
    return tmp_path / "solutions"


def test_the_solutions_are_made_from_what_is_here(made):
    text = (made / "solutions.md").read_text(encoding="utf-8")
    for question in QUESTIONS:
        assert f"\n### {question.number} " in text
        assert f"\n#### Solution: {question.title}\n" in text
        has_rubric = f"\n#### Rubric: {question.title}\n" in text
        assert has_rubric or question.kind in ("code", "report")
    sources = {p.file: (ROOT / "codebase" / p.file).read_text(encoding="utf-8") for p in PROBLEMS}
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    for problem in PROBLEMS:
        nodes = starter.nodes(__import__("ast").parse(sources[problem.file]))
        if problem.function in nodes:  # the code that runs
            node, lines = nodes[problem.function], sources[problem.file].splitlines()
            cut = [line[node.col_offset :] for line in lines[node.lineno - 1 : node.end_lineno]]
            assert "\n".join(cut) in code
    for helper in ("def importance_terms", "def _log_normal_all_pairs", "MAX_ROWS = ", "LOG_2PI"):
        assert code.count(helper) == 1 or helper == "LOG_2PI"
    assert code.count("def kl_to_prior") == 2  # the VAE's and the GMVAE's
    assert "never loosen" in text and "squared error" in text and "mutual information" in text
    assert "| NELBO | 101.35 | 101.35 ± 0.49 | 10 | 99.15 to 103.55 |" in text
    assert "draws of seed 0" in text and f"PyTorch {torch.__version__}" in text
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) == 4 and all((made / target).exists() for target in targets)


def test_the_solutions_take_no_toy_runs(made, folders):
    """A run that was trained for an hour's look has no place in the staff's document."""
    name = "model=vae_z=10_run=0000"
    reference = ROOT / "checkpoints" / "reference" / name
    shutil.copytree(reference.parent, folders / "checkpoints" / "reference")
    assert solutions._run(name)[0] == folders / "checkpoints" / "reference" / name
    for step, own in ((100, False), (20000, True)):
        path = folders / "checkpoints" / name / f"model-{step:05d}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        assert (solutions._run(name)[0] == path.parent) is own


def test_the_page_needs_no_network_and_no_script(made):
    page = (made / "solutions.html").read_text(encoding="utf-8")
    links = set(re.findall(r"https?://[^\"' <]+", page))
    assert links == {"http://www.w3.org/1998/Math/MathML"}
    assert page.count('src="data:image/png;base64,') == page.count("<img ") == 4
    assert "<script" not in page and "<table>" in page and page.count("<math ") > 90
    visible = re.sub(r"<(math|pre|style|code)\b.*?</\1>", "", page, flags=re.S)
    assert "$" not in visible and "\\mathbb" not in visible and "```" not in visible
    assert "merror" not in page


def test_the_starter_has_no_solution_in_it():
    text = b"".join(starter.starter_files(True).values()).decode()
    for trace in ("Rubric", "Solution:", "Fatou", "mutual information", "What counts", "latex2"):
        assert trace not in text, trace


def test_the_command_says_what_is_missing(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    said = refused(tmp_path, "codebase", "solutions", tmp_path / "file")
    assert "is a file: choose a folder" in said
    said = refused(tmp_path, "codebase", "solutions", tmp_path / "new", "--data_dir", tmp_path)
    assert "MNIST" in said and not (tmp_path / "new").exists()


@pytest.mark.sandbox
@pytest.mark.mnist
def test_a_class_from_the_handout_to_the_grades(tmp_path, mnist_dir, monkeypatch):
    """One complete and two partial submissions, with weights, pictures and text."""
    reference = ROOT / "checkpoints" / "reference"
    folder, out = tmp_path / "class", tmp_path / "grades"
    everything = students.homework()
    for path in reference.glob("model=*/model-*.pt"):
        if "fsvae" not in path.parent.name:
            everything[f"checkpoints/{path.parent.name}/{path.name}"] = path.read_bytes()
    everything["writeup.md"] = "# Write-up\n\n## 1.5 The role of β\n\nIt weighs KL."
    everything[f"logs/{VAE}/samples.png"] = b"\x89PNG"
    bodies = {"VAE.negative_iwae_bound": "raise NotImplementedError"}
    vae = {name: content for name, content in everything.items() if "vae_z=10_k" not in name}
    partial = students.homework(bodies)
    partial = {name: content for name, content in vae.items() if name not in partial} | partial
    partial = {name: content for name, content in partial.items() if "ssvae_gw" not in name}
    folder.mkdir()
    students.zipped(folder / "ada.zip", everything)
    students.zipped(folder / "bob.zip", partial)
    students.zipped(folder / "carl.zip", students.homework() | {"answers.pdf": b"%PDF"})
    command = ["codebase", "grade", folder, "--out", out, "--weights", 1, "--data_dir"]
    command += [mnist_dir, "--jobs", 1]
    said, _ = succeed(tmp_path, *command)
    assert "Marked by hand: 0 of 3" in said
    assert (out / "written" / "bob" / "writeup.md").exists()
    assert (out / "written" / "carl" / "answers.pdf").exists()
    with (out / written.SHEET).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {key: POINTS[key] for key in ("1.4", "1.5", "2.3", "3.1", "5.1", "5.2 picture")}
    rows[2] |= {"1.3": 1.5, "3.1": 0, "comment": "No proof."}
    with (out / written.SHEET).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    students.zipped(folder / "dora.zip", {"answers.pdf": b"%PDF"})
    said, _ = succeed(tmp_path, *command)
    assert "Marked by hand: 3 of 4" in said and (out / "written" / "dora" / "answers.pdf").exists()
    with (out / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        grades = {row["submission"]: row for row in csv.DictReader(file)}
    assert grades.pop("dora")["total"] == ""
    assert {name: float(row["total"]) for name, row in grades.items()} == {
        "ada": 92,
        "bob": 92 - 6 - 3 - 3 - 1 - 3,  # the bound; reports of the GMVAE and SSVAE
        "carl": 92 - 16 + 1.5 - 6,
    }
    for row in grades.values():
        assert sum(float(row[key]) for key in BY_KEY) == float(row["total"])
    page = (out / "carl" / "report.md").read_text(encoding="utf-8")
    assert "No proof." in page and "| 1.3 the VAE's bounds | 1.5 of 3 |" in page
    results = json.loads((out / "carl" / "results.json").read_text(encoding="utf-8"))
    assert results["score"] == float(grades["carl"]["total"])
