"""What is not code: reports graded by weights, pictures and text by a person; the solutions."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import students
import torch
from conftest import refused, succeed

from codebase import ROOT, checkpoints, data, models
from codebase.homework import grading, solutions, starter, submission, written
from codebase.homework import weights as graded_weights
from codebase.homework.marking import Mark
from codebase.homework.problems import POINTS, PROBLEMS, QUESTIONS, REPORTS
from codebase.homework.submission import Entry
from codebase.runs import published

VAE = "model=vae_z=10_run=0000"
REFERENCE = ROOT / "checkpoints" / "reference"


# Reports


@pytest.fixture
def values(monkeypatch):
    """What any weights give, which a test may change: the replicates' means."""
    found = {m: mean for m, (mean, *_) in published.REPLICATES["model=vae_z=10"].items()}
    monkeypatch.setattr(data, "find_or_download", lambda *args: "mnist")
    monkeypatch.setattr(graded_weights, "metrics_of", lambda *args: found | {"accuracy": 0.9})

    def here(command, **options):
        told = graded_weights.metrics_of_file(*map(Path, command[-2:]))
        return subprocess.CompletedProcess(command, 0, json.dumps(told))

    monkeypatch.setattr(subprocess, "run", here)
    return found


def handed_in(folder: Path, step: int = 20000, name: str = VAE, weights: bytes = b"") -> Path:
    """A submission with a VAE's weights, and with backups that do not count."""
    torch.save(models.VAE(z_dim=10).state_dict(), folder / "weights.pt")
    weights = weights or (folder / "weights.pt").read_bytes()
    files = {f"hw2/{path}": text for path, text in students.CODE.items()}
    files[f"hw2/checkpoints/{name}/model-{step}.pt"] = weights
    for backup in (f"hw2/a/{name}", f"hw2/backup/checkpoints/{name}", f"checkpoints/{name}"):
        files |= {f"{backup}/model-{number}.pt": b"" for number in (20000, 30000)}
    return students.zipped(folder / "ada.zip", files)


def marked(path: Path, wrong: str = "") -> dict[str, Mark]:
    """The marks of reports, where a function is wrong."""
    code = {p.key: Mark(p, p.points, 0, ("nelbo",) * (p.key == wrong)) for p in PROBLEMS}
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
    settings = grading.Settings(POINTS, "bubblewrap", with_weights=True)
    two = (read(handed_in(tmp_path, weights=content)) for content in (b"1", b"2"))
    assert len(set(map(settings.key, two))) == 2  # so others are graded again


def test_weights_that_training_does_not_give(tmp_path, values):
    pickle = b"cos\nsystem\n(S'x'\ntR."
    values |= {"NELBO": 104.0, "Rec": float("nan")}
    wrong = "VAE.negative_elbo_bound"
    for options, function, reason in (
        ({}, "", "Outside the expected range: NELBO, Rec. Train again with the script's"),
        ({}, wrong, f"{wrong} is probably wrong"),
        ({"step": 10000}, wrong, "Your weights are from iteration 10,000; train for 20,000."),
        ({"name": f"{VAE}_data=synthetic"}, "", "trained on synthetic digits; train on MNIST"),
        ({"weights": pickle}, "", f"cannot be evaluated: {VAE}/model-20000.pt is refused"),
    ):
        mark = marked(handed_in(tmp_path, **options), function)["1.3"]
        assert reason in mark.said[0], mark.said
        assert mark.score == (1 if "Outside" in mark.said[0] else 0)


def test_the_graders_own_trouble_costs_no_points(tmp_path, values, monkeypatch):
    """A lack of memory is not the submission's fault: it is graded again."""

    def fail(*args, **options):
        raise MemoryError

    path = handed_in(tmp_path)
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(MemoryError):
        marked(path)


@pytest.mark.sandbox
@pytest.mark.mnist
def test_the_reference_weights_are_in_range(tmp_path, mnist_dir):
    files = dict(students.CODE)
    for path in REFERENCE.glob("model=*/model-*.pt"):
        files[f"checkpoints/{path.parent.name}/{path.name}"] = path.read_bytes()
    path = students.zipped(tmp_path / "a.zip", files)
    flags = ("--weights", 1, "--data_dir", mnist_dir)
    said, _ = succeed(tmp_path, "codebase", "grade", path, *flags)
    for report in REPORTS:
        assert re.search(rf"{report.title} +{report.points} of {report.points}\n", said), said


# The hand-out and the solutions


def test_the_handout_asks_everything():
    points = POINTS | {"3.1": 10, "log_normal": 2}
    page = starter.handed_out("README.md", points)
    assert "{{" not in page
    assert "There are 17 questions, worth 85 points and 9 bonus points." in page
    assert "### 4.1 Without the bound (1 point, report)" in page
    assert "### 3.1 A tighter bound (10 points, text)" in page
    assert "Expect NELBO 99.15 to 103.55, KL 18.68 to 20.04" in " ".join(page.split())
    for question in QUESTIONS:
        [heading] = re.findall(rf"(?m)^### {question.number} .*$", page)
        assert question.kind in heading
        assert question.kind != "code" or f"`{question.key}`" in page
    headings = re.findall(r"(?m)^## (\d\.\d)", written.template().decode())
    assert headings == [q.number for q in QUESTIONS if q.kind != "code"]
    less = starter.handed_out("README.md", points | {"1.5": 0, "3.4 report": 0})
    assert "There are 16 questions, worth 79 points" in less and "### 1.5" not in less
    assert "### 3.4" in less


def test_the_solutions_are_made_from_what_is_here(tmp_path, folders, values):
    """From your runs, if they were trained as long as the scripts train."""
    folder, gmvae = tmp_path / "solutions", "model=gmvae_z=10_k=500_run=0000"
    shutil.copytree(REFERENCE, checkpoints.CHECKPOINTS / "reference")
    for name, step in ((VAE, 20000), (gmvae, 100)):
        own = shutil.copytree(REFERENCE / name, checkpoints.CHECKPOINTS / name)
        (own / "model-20000.pt").rename(own / f"model-{step:05d}.pt")
    solutions.make(folder, POINTS, tmp_path)
    text = (folder / "solutions.md").read_text(encoding="utf-8")
    assert f"{VAE}, iteration 20,000, your run." in text
    assert f"{gmvae}, iteration 20,000, reference weights." in text
    for question in QUESTIONS:
        assert f"\n### {question.number} " in text
        assert f"\n#### Solution: {question.title}\n" in text
        has_rubric = f"\n#### Rubric: {question.title}\n" in text
        assert has_rubric or question.kind in ("code", "report")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    own = (ROOT / "codebase" / "models" / "ssvae.py").read_text(encoding="utf-8")
    body = own[own.index("def negative_elbo_bound") : own.index("    def pairs_that_count")]
    assert re.sub(r"(?m)^    ", "", body).strip() in code  # the code that runs
    for helper in ("def importance_terms", "def _log_normal_all_pairs", "MAX_ROWS = "):
        assert code.count(helper) == 1
    assert code.count("def kl_to_prior") == 2  # the VAE's and the GMVAE's
    assert "never loosen" in text and "squared error" in text and "mutual information" in text
    assert "| NELBO | 101.35 | 101.35 ± 0.49 | 10 | 99.15 to 103.55 |" in text
    # The page needs no network and no script.
    page = (folder / "solutions.html").read_text(encoding="utf-8")
    links = set(re.findall(r"https?://[^\"' <]+", page))
    assert links == {"http://www.w3.org/1998/Math/MathML"}
    assert page.count('src="data:image/png;base64,') == page.count("<img ") == 4
    assert "<script" not in page and "<table>" in page and page.count("<math ") > 90
    visible = re.sub(r"<(math|pre|style|code)\b.*?</\1>", "", page, flags=re.S)
    assert not any(one in visible for one in ("$", "\\mathbb", "```")) and "merror" not in page


def test_the_command_says_what_is_missing(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    said = refused(tmp_path, "codebase", "solutions", tmp_path / "file")
    assert "is a file: choose a folder" in said
    said = refused(tmp_path, "codebase", "solutions", tmp_path / "new", "--data_dir", tmp_path)
    assert "MNIST" in said and not (tmp_path / "new").exists()
