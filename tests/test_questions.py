"""What is not code: reports graded by weights, pictures and text by a person; the solutions."""

import csv
import errno
import hashlib
import json
import re
import shutil
import time
import zipfile
from pathlib import Path

import pytest
import students
import torch
from conftest import refused, succeed

from codebase import ROOT, UserError, data, evaluate, models
from codebase.homework import (
    grade,
    grading,
    problems,
    report,
    solutions,
    starter,
    submission,
    written,
)
from codebase.homework import weights as graded_weights
from codebase.homework.handout import submit
from codebase.homework.marks import Finding, Mark
from codebase.homework.problems import BY_FUNCTION, BY_KEY, POINTS, PROBLEMS, QUESTIONS, REPORTS
from codebase.runs import published

VAE = "model=vae_z=10_run=0000"
BY_HAND = [question.key for question in QUESTIONS if question.kind != "code"]


# Reports


@pytest.fixture
def values(monkeypatch):
    """What any weights give, which a test may change: the replicates' means."""
    found = {}

    def metrics_of(model, data_dir):
        if next(model.parameters()).requires_grad:  # initial weights
            return dict.fromkeys(found, 540.0)
        return dict(found)

    monkeypatch.setattr(data, "find_or_download", lambda *args: "mnist")
    monkeypatch.setattr(graded_weights, "metrics_of", metrics_of)
    found |= {metric: mean for metric, (mean, *_) in published.REPLICATES["model=vae_z=10"].items()}
    return found


def handed_in(folder: Path, reported=None, step: int = 20000, of_step: int = 20000, name=VAE):
    """A submission with a VAE's weights, and values that it reports."""
    files = {f"hw2/{name}": text for name, text in students.homework().items()}
    model = models.VAE(z_dim=10)
    path = folder / "weights.pt"
    torch.save(model.state_dict(), path)
    files[f"hw2/checkpoints/{name}/model-{step}.pt"] = path.read_bytes()
    if reported:
        results = {"figures": reported, "iterations": of_step}
        files[f"hw2/logs/{name}/results.json"] = json.dumps(results)
    return students.zipped(folder / "ada.zip", files)


def marked(path: Path, wrong: tuple[str, ...] = ()) -> dict[str, Mark]:
    """The marks of reports, where some functions are wrong."""
    code = {}
    for name, problem in BY_FUNCTION.items():
        findings = (Finding("values", name not in wrong),)
        code[name] = Mark(problem, problem.points, 0, findings, ())
    read = submission.read(path)
    return {mark.problem.key: mark for mark in graded_weights.marks(path, read, POINTS, code, path)}


def test_reports_of_right_weights(tmp_path, values):
    """Values that differ only because of their draws get full points."""
    reported = {metric: value + 0.2 for metric, value in values.items()}
    found = marked(handed_in(tmp_path, reported))
    assert [mark.problem for mark in found.values()] == list(REPORTS)
    assert found["1.3"].score == found["3.3"].score == 3
    [told] = found["1.3"].notes
    assert "NELBO 101.35 (99.15 to 103.55), KL" in told and "iteration 20,000" in told
    assert found["2.2"].score == 0 and "no weights of model=gmvae_z=10_k=500" in str(found["2.2"])
    found = marked(handed_in(tmp_path))
    assert found["1.3"].score == 3 and "no results.json" in found["1.3"].notes[1]


def test_a_wrong_report_is_explained(tmp_path, values):
    right = dict(values)
    off = right | {"NELBO": right["NELBO"] + 3, "Rec": right["Rec"] + 3}
    found = marked(handed_in(tmp_path, off))
    assert found["1.3"].score == 1 and found["3.3"].score == 3  # KL is right
    [told] = found["1.3"].reasons
    assert "You report NELBO 104.35 and Rec 84.99, but your weights produce other values." in told
    assert "probably come from other weights or older code; run the script with --train 0" in told
    found = marked(handed_in(tmp_path, off, of_step=10000))
    assert "You report iteration 10000; hand in the results of 20000" in str(found["1.3"].reasons)
    found = marked(handed_in(tmp_path, right | {"NELBO": float("nan")}))
    assert found["1.3"].lost == ["NELBO"]


@pytest.mark.parametrize(
    "content",
    ["{}", "[]", '{"figures": 1}', '{"figures": {"NELBO": 1' + "0" * 400 + "}}", "[" * 9999],
)
def test_results_that_are_none_cost_nothing(tmp_path, values, content):
    files = students.homework() | {f"logs/{VAE}/results.json": content}
    torch.save(models.VAE(z_dim=10).state_dict(), tmp_path / "weights.pt")
    files[f"checkpoints/{VAE}/model-20000.pt"] = (tmp_path / "weights.pt").read_bytes()
    for backup in ("__MACOSX", "logs/.replaced"):
        files[f"{backup}/{VAE}/results.json"] = '{"figures": {"NELBO": 1}}'
    found = marked(students.zipped(tmp_path / "ada.zip", files))
    assert found["1.3"].score == 3 and "no results.json" in found["1.3"].notes[1]


def test_values_that_are_not_reported_or_no_numbers(tmp_path, values):
    """The weights count, and a note says so; the other values are compared all the same."""
    found = marked(handed_in(tmp_path, {"NELBO": values["NELBO"], "KL": None, "Rec": 1e300}))
    assert found["1.3"].lost == ["Rec"] and "You report Rec 1e+300, but" in found["1.3"].reasons[0]
    assert "Your results.json has no KL; the weights count." in found["1.3"].notes
    assert found["3.3"].score == 3 and "has no IWAE-1, IWAE-10" in found["3.3"].notes[1]


def test_backups_do_not_count(tmp_path, values):
    """Weights and results beside checkpoints/ and logs/ may be older ones."""
    path = handed_in(tmp_path, values)
    with zipfile.ZipFile(path, "a") as archive:
        for folder in ("hw2/a", "hw2/backup"):
            for inner in (VAE, f"checkpoints/{VAE}", f"logs/{VAE}"):
                archive.writestr(f"{folder}/{inner}/model-20000.pt", b"")
                archive.writestr(f"{folder}/{inner}/model-30000.pt", b"")
                archive.writestr(f"{folder}/{inner}/results.json", '{"figures": {"NELBO": 1}}')
        archive.writestr(f"{VAE}/model-20000.pt", b"")
    assert marked(path)["1.3"].score == 3 and not marked(path)["1.3"].reasons
    paths = ["codebase/utils.py", f"{VAE}/model-2.pt", f"backup/checkpoints/{VAE}/model-3.pt"]
    assert submission._weights(paths) == {(VAE, 2): f"{VAE}/model-2.pt"}


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
    path = handed_in(tmp_path, values)
    monkeypatch.setattr(module, place, raising(trouble))
    with pytest.raises(type(trouble)):
        marked(path)


def raising(error: Exception):
    def fail(*args, **options):
        raise error

    return fail


def test_a_wrong_bound_costs_no_report_of_right_weights(tmp_path, values):
    """Values that a wrong bound explains cost nothing; other wrong values stay wrong."""
    off = dict(values, **{"IWAE-10": 60.0})
    found = marked(handed_in(tmp_path, off), wrong=("VAE.negative_iwae_bound",))
    assert found["3.3"].score == 3 and "you lose no points for it here" in found["3.3"].notes[-1]
    assert marked(handed_in(tmp_path, off), ("GMVAE.negative_iwae_bound",))["3.3"].score == 2.25
    assert marked(handed_in(tmp_path, off), ("log_normal",))["3.3"].score == 3


def test_weights_that_training_does_not_give(tmp_path, values):
    values |= dict.fromkeys(values, 120.0)
    found = marked(handed_in(tmp_path))
    assert found["1.3"].score == 0
    [told] = found["1.3"].reasons
    assert "NELBO, KL and Rec are outside the expected range. Train again with the scr" in told
    found = marked(handed_in(tmp_path), ("VAE.negative_elbo_bound",))
    assert "VAE.negative_elbo_bound is probably wrong" in found["3.3"].reasons[0]
    found = marked(handed_in(tmp_path, step=10000))
    assert "Your weights are from iteration 10,000; train for 20,000." in found["1.3"].reasons[0]
    values |= dict.fromkeys(values, 530.0)
    assert "The weights are untrained" in marked(handed_in(tmp_path))["1.3"].reasons[0]
    path = students.zipped(
        tmp_path / "b.zip",
        students.homework() | {f"checkpoints/{VAE}/model-20000.pt": b"cos\nsystem\n(S'x'\ntR."},
    )
    [told] = marked(path)["1.3"].reasons
    assert f"cannot be evaluated: {VAE}/model-20000.pt is refused" in told  # not the grader's path
    odd = (tmp_path / "weights.pt").read_bytes()
    at = odd.find(b"PK\1\2") + 6
    odd = odd[:at] + bytes([99]) + odd[at + 1 :]  # a version of zip that there is not
    files = students.homework() | {f"checkpoints/{VAE}/model-20000.pt": odd}
    assert "cannot be evaluated" in marked(students.zipped(path, files))["1.3"].reasons[0]
    bomb = tmp_path / "bomb.pt"
    students.zipped(bomb, {"x": bytes(graded_weights.LARGEST + 1)})
    files = students.homework() | {f"checkpoints/{VAE}/model-20000.pt": bomb.read_bytes()}
    assert "unpacks to 67,108,865 bytes" in marked(students.zipped(path, files))["1.3"].reasons[0]
    found = marked(handed_in(tmp_path, name=f"{VAE}_data=synthetic"))
    assert "trained on synthetic digits; train on MNIST" in found["1.3"].reasons[0]


def test_weights_and_values_are_graded_again_if_they_change(tmp_path):
    digests = set()
    for reported in ({"NELBO": 1.0}, {"NELBO": 2.0}):
        path = handed_in(tmp_path, reported)
        digests.add(graded_weights.digest(path, submission.read(path)))
    assert len(digests) == 2


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
            read = submission.read(path)
            for mark in graded_weights.marks(path, read, POINTS, {}, mnist_dir):
                assert mark.score == mark.points, mark.reasons


# Pictures and text


def test_rubrics_add_up():
    text = written.rubric(POINTS)
    sums = {}
    for section in text.split("\n## ")[1:]:
        points = re.findall(r"(?m)^\| ([\d.]+) \|", section)
        sums[section.partition(":")[0]] = sum(map(float, points))
    by_person = {q.key: q.points for q in QUESTIONS if q.kind in ("picture", "text")}
    assert {key: value for key, value in sums.items() if value} == by_person
    half = written.rubric(POINTS | {"3.1": 3, "1.5": 0})
    assert "| 1.5 | L_m" in half and "## 1.5" not in half
    assert written._points("4.01", 4, "") == 4  # what 0.67 + 0.67 + 2 + 0.67 adds up to


def test_pictures_and_texts_are_collected(tmp_path):
    """Only pictures and texts are collected: no code, no other picture, no blank write-up."""
    files = {f"hw2/{name}": text for name, text in students.homework().items()}
    files |= {
        "hw2/writeup.pdf": b"%PDF",
        "hw2/writeup.md": written.template().replace(b"\n", b"\r\n"),
        "hw2/writeup/figure.PNG": b"png",
        "hw2/writeup/samples.png": b"png",
        "hw2/codebase/answers.pdf": b"%PDF",
        "hw2/README.md": "# Homework",
        f"hw2/logs/{VAE}/samples.png": b"samples",
        f"hw2/logs/{VAE}/curves.png": b"curves",
        f"hw2/logs/{VAE}/evaluation-20000/samples.png": b"later",
        "hw2/logs/model=x/evaluation-20000/samples.png": b"evaluated",
        "hw2/.venv/x.txt": "x",
        "__MACOSX/hw2/writeup.pdf": "x",
        "../evil.txt": "x",
        f" {tmp_path}/evil.txt": "x",
        " ../ ../evil.txt": "x",
        "hw2/venv/lib/site-packages/LICENSE.txt": "x",
        "a\nb.txt": "x",
    }
    path = students.zipped(tmp_path / "ada.zip", files)
    out = tmp_path / "written" / "ada"
    hashes, left_out = written.collect(path, out)
    assert left_out == []
    found = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
    within = f"{tmp_path}/evil.txt".lstrip("/")  # below the folder, not at the root
    assert found == {
        *("hw2/writeup.pdf", "hw2/writeup/figure.PNG", "hw2/writeup/samples.png", "a b.txt"),
        *("hw2/codebase/answers.pdf", f"{VAE}.png", "model=x.png", within),
    }
    assert (out / f"{VAE}.png").read_bytes() == b"samples"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["ada.zip", "written"]
    assert hashes.keys() == found
    for i in range(written.MOST):
        files[f"{i}.txt"] = "x"
    students.zipped(path, files)
    assert "too many texts, or texts too large:" in written.collect(path, out)[1][0]


def test_what_a_student_hands_in_again_is_collected_again(tmp_path):
    """New texts replace copies, but what a person has written in a copy is kept."""
    out, copies = tmp_path / "written", {}
    page, notes = out / "writeup.md", out / "notes.txt"

    def collect(**files) -> set[str]:
        content = students.homework() | {f"{name}.md": text for name, text in files.items()}
        path = students.zipped(tmp_path / "ada.zip", content)
        copies["now"], copies["lines"] = written.collect(path, out, copies.get("now", {}))
        return {one.name for one in out.iterdir()}

    assert collect(writeup="first", more="x") == {"writeup.md", "more.md"}
    notes.write_text("A person's own file.", encoding="utf-8")
    assert collect(writeup="second") == {"writeup.md", "notes.txt"}  # none was written in
    assert page.read_text(encoding="utf-8") == "second"
    page.write_text("second, annotated", encoding="utf-8")
    for _ in range(2):
        assert collect(writeup="second") == {"writeup.md", "notes.txt"}
        assert page.read_text(encoding="utf-8") == "second, annotated"
    old = {"writeup (old).md", "notes.txt"}
    assert collect(writeup="third") == {"writeup.md", *old}
    assert "has been changed: it was kept as writeup (old).md" in copies["lines"][0]
    assert page.read_text(encoding="utf-8") == "third"
    assert (out / "writeup (old).md").read_text(encoding="utf-8") == "second, annotated"
    page.write_text("third, annotated", encoding="utf-8")
    assert collect() == {"writeup (old 2).md", *old}
    copies.clear()  # nobody knows what was copied: all is kept
    page.write_text("unknown", encoding="utf-8")
    assert collect(writeup="last") == {
        "writeup.md",
        "writeup (old 3).md",
        *old,
        "writeup (old 2).md",
    }


def test_a_text_that_cannot_be_read_keeps_its_copy(tmp_path, monkeypatch):
    path = students.folder(tmp_path / "ada", students.homework() | {"a.md": "1", "b.md": "2"})
    out, copies = tmp_path / "written", {}
    copies, _ = written.collect(path, out)
    with monkeypatch.context() as patch:
        patch.setattr(submission, "read_file", raising(OSError(errno.EIO, "broken")))
        again, lines = written.collect(path, out, copies)
    assert again == copies and len(lines) == 2
    many = {f"{i:03}.md": "x" for i in range(written.MOST + 9)}
    students.folder(path, many)
    written.collect(path, out, copies)
    assert {"a.md", "b.md"} <= {one.name for one in out.iterdir()}
    for name in many:
        (path / name).unlink()
    (path / "a.md").write_bytes(written.template())
    assert written.collect(path, out, copies)[0].keys() == {"b.md"}
    assert not (out / "a.md").exists()


def test_pictures_that_a_write_up_shows_are_collected(tmp_path):
    """Also if the link leads there from elsewhere; and the samples that the rubric names."""
    samples = f"logs/{VAE}/samples.png"
    shown = f"![]({samples}) <img width=9 src='./my%20plot.png'> ![p](<data/a b.jpg> 'title')"
    shown += " ![](/home/ada/hw2/logs/x/y.png) ![](logs\\x\\z.png) ![](../up.png) ![](a%00.png)"
    files = {samples: b"1", "data/a b.jpg": b"2", "my plot.png": b"3", f"{VAE}.png": b"mine"}
    files |= {"logs/x/y.png": b"5", "logs/x/z.png": b"6", "logs/x/curves.png": b"4"}
    pasted = f"![](data:image/png;base64,{'A' * (2 << 20)})"
    files |= {"writeup.md": f"{pasted} {shown}"}
    path = students.zipped(tmp_path / "ada.zip", students.homework() | files)
    found, lines = written.collect(path, tmp_path / "written")
    assert found.keys() == files.keys() - {"logs/x/curves.png"} | {f"{VAE} (2).png"} and not lines
    assert (tmp_path / "written" / f"{VAE}.png").read_bytes() == b"1"


def test_a_write_up_takes_no_time_to_search():
    """The time is linear, whatever the write-up repeats."""
    begun = time.process_time()
    for part in ("![", "<img ", "![](", "![]( ", "<img src=", "[", "![a", "<img src "):
        submit.pictures_in(part * 200_000)
    assert time.process_time() - begun < 10


def test_a_text_beside_the_zip_of_the_code(tmp_path):
    """As learning platforms hand out several files of one student."""
    folder = tmp_path / "ada"
    code = students.zipped(tmp_path / "code.zip", students.homework()).read_bytes()
    students.folder(folder, {"code.zip": code, "writeup.pdf": b"%PDF"})
    assert submission.read(folder).sources == students.homework()
    written.collect(folder, tmp_path / "written")
    assert [path.name for path in (tmp_path / "written").iterdir()] == ["writeup.pdf"]
    blank = students.homework() | {"writeup.md": written.template()}
    code = students.zipped(tmp_path / "code.zip", blank).read_bytes()
    students.folder(folder, {"code.zip": code, "writeup.md": "![](logs/x.png)", "logs/x.png": b""})
    hashes, _ = written.collect(folder, tmp_path / "again")
    beside = [f"beside code.zip/{name}" for name in ("logs/x.png", "writeup.md", "writeup.pdf")]
    assert sorted(hashes) == beside


def test_names_of_copies_do_not_lead_out_of_their_folder(tmp_path):
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    digest = hashlib.sha256(b"kept").hexdigest()
    path = students.zipped(tmp_path / "a.zip", students.homework())
    before = {str(tmp_path / "file"): digest, "../file": digest}
    assert written.collect(path, tmp_path / "written", before) == ({}, [])
    assert (tmp_path / "file").exists()


def test_names_that_differ_in_odd_characters_are_two_files(tmp_path):
    files = students.homework() | {"answer 1.md": "one", "answer  1.md": "two"}
    hashes, left_out = written.collect(students.zipped(tmp_path / "a.zip", files), tmp_path / "w")
    assert sorted(hashes) == ["answer 1 (2).md", "answer 1.md"] and not left_out


HEAD = ["submission", *BY_HAND, "comment"]


def sheet(tmp_path, text: str, names=("ada", "=eve"), points=POINTS):
    path = tmp_path / written.SHEET
    path.write_bytes(text.encode("utf-8-sig"))
    return written.read_sheet(path, points, list(names)), path


def lines_of(delimiter: str, *rows: dict[str, str], head=HEAD) -> str:
    lines = [head, *([row.get(column, "") for column in head] for row in rows)]
    return "\r\n".join(delimiter.join(line) for line in lines)


def test_an_empty_table_is_made_for_the_assistant(tmp_path):
    path, left = tmp_path / written.SHEET, tmp_path / f".{written.SHEET}.x.tmp"
    left.write_text("of a killed process", encoding="utf-8")
    rows = written.read_sheet(path, POINTS | {"5.1": 0}, ["ada", "=eve"])
    assert not left.exists()
    assert rows == {"ada": written.Row(), "=eve": written.Row()}
    head, *lines = path.read_text(encoding="utf-8-sig").splitlines()
    assert head.split(",") == ["submission", *(k for k in BY_HAND if k != "5.1"), "comment"]
    assert lines == ["ada" + "," * 12, "'=eve" + "," * 12]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_save_is_read(tmp_path, delimiter, capsys):
    """Another delimiter, Windows' line ends, decimal commas, more columns; all of it is kept."""
    half = '"2,5"' if delimiter == "," else "2,5"
    ada = {"submission": "ada", "3.1": "4", "1.5": half, "comment": "well done", "grader": "me"}
    ada["3.1 comment"] = "no Jensen"
    dora = {"submission": "dora", "3.1": "1"}
    text = lines_of(delimiter, ada, dora, head=["grader", *HEAD, "3.1 comment"])
    rows, path = sheet(tmp_path, text)
    remarks = {"3.1": "no Jensen", "1.5": ""}
    expected = written.Row({"3.1": 4, "1.5": 2.5}, "well done", remarks)
    assert rows == {"ada": expected, "=eve": written.Row()}
    assert "no submission is named dora: its points are ignored" in capsys.readouterr().err
    after = path.read_bytes().decode("utf-8-sig")
    assert after.startswith(text) and after.count("'=eve") == 1
    assert written.read_sheet(path, POINTS, ["ada", "=eve"]) == rows


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"3.1": "7"}, "row 2 .ada., 3.1: expected points from 0 to 6, got '7'"),
        ({"3.1": "-1"}, "expected points from 0 to 6"),
        ({"3.1": "good"}, "expected points from 0 to 6, got 'good'"),
        ({"3.1": "nan"}, "expected points from 0 to 6"),
        ({"comment": "Good, but short"}, "more cells than columns"),
        ({"comment": '"never ends'}, "check quotes and long cells"),
        ({"submission": "", "3.1": "1"}, "row 2 has points, but no name"),
        ({"3.1 comment": "no Jensen"}, "has a comment on 3.1, but no points"),
    ],
)
def test_a_row_that_is_not_clear_is_refused_and_kept(tmp_path, row, reason):
    head = [*HEAD, "3.1 comment"] if "3.1 comment" in row else HEAD
    text = lines_of(",", {"submission": "ada"} | row, head=head)
    with pytest.raises(UserError, match=reason):
        sheet(tmp_path, text)
    assert (tmp_path / written.SHEET).read_bytes().decode("utf-8-sig") == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lines_of(",", {"submission": "ada"}, {"submission": "ada"}), "two rows of this name"),
        (lines_of(",", head=["student", *HEAD[1:]]), "one column submission, got 0"),
        (lines_of(",", head=[*HEAD, "1.4"]), "one column 1.4, got 2"),
        (lines_of(",", head=[*HEAD, "comment"]), "one column comment, got 2"),
        (lines_of(",", head=HEAD).replace("1.4", "01. Apr"), "one column 1.4, got 0"),
        ("", "expected one column submission"),
    ],
)
def test_a_table_that_is_not_clear_is_refused(tmp_path, text, reason):
    with pytest.raises(UserError, match=reason):
        sheet(tmp_path, text)


def test_a_table_with_the_line_ends_of_an_old_mac(tmp_path):
    text = lines_of(",", {"submission": "ada", "3.1": "2"}).replace("\r\n", "\r")
    rows, path = sheet(tmp_path, text)
    assert rows["ada"].scores == {"3.1": 2}
    assert written.read_sheet(path, POINTS, ["ada", "=eve"]) == rows


def test_names_that_a_table_cannot_tell_apart(tmp_path):
    with pytest.raises(UserError, match="differ only in spaces, such as 'b c'"):
        written.read_sheet(tmp_path / "x.csv", POINTS, ["a", "b c", "b  c"])


def everything(scores: dict[str, float], reports: float = 1) -> dict:
    """Results with full points for code, some share for reports, and what a person gave."""
    marks = [Mark(p, p.points, p.points, (), ()) for p in PROBLEMS]
    marks += [Mark(r, r.points, reports * r.points, (), ()) for r in REPORTS]
    seconds = dict.fromkeys(BY_FUNCTION, 0.1)
    results = report.results(grade.Graded("ada", "codebase", tuple(marks), (), "", seconds))
    return written.merged(results, written.Row(scores, "Nice plots."), POINTS)


def test_a_persons_points_are_added_and_can_be_taken_back():
    some = {key: POINTS[key] for key in ("1.4", "1.5", "2.3", "3.1", "5.1", "5.2 picture")}
    full = everything(some)
    assert full["score"] == 92 and report.total(full) == "83 of 83, and 9 bonus"
    assert [test["extra_data"]["question"] for test in full["tests"]] == list(BY_KEY)
    page = report.markdown(full)
    assert "| 1.5 the role of β | 3 of 3 |" in page and "- Nice plots." in page
    assert "Not graded yet" not in page
    less = written.merged(full, written.Row({"1.5": 1, "4.1": 0}), POINTS)
    assert less["score"] == 92 - sum(some.values()) + 1 - 1
    told = report.table(less)
    assert "Not graded yet: 12 points and 5 bonus points (1.4, 2.3, 3.1, 5.1, 5.2 picture)." in told
    none = written.merged(less, written.Row(), POINTS)
    assert none["score"] == 72 and none["tests"] == everything({})["tests"]  # 4.1 is back
    assert everything({"1.3": 3}, reports=0)["score"] == 59  # a person overrules the grader
    assert none["output"].startswith("Nice") is False and "Not graded yet" in none["output"]
    row = written.Row({"3.1": 2, "4.3": 1}, "", {"3.1": "No Jensen.", "4.3": ""})
    page = report.markdown(written.merged(none, row, POINTS))
    assert "## 3.1 proof that IWAE's bound is tighter\n\n- No Jensen.\n" in page
    assert "## 4.3 accuracy with the bound\n\n- Marked by hand.\n- Correct.\n" in page


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
    assert "trained with seed 0" in text and f"PyTorch {torch.__version__}" in text
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) == 4 and all((made / target).exists() for target in targets)


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


def test_a_missing_table_does_not_take_points_back(tmp_path, capsys):
    """Without the table, the same command would remove points given by hand from all reports."""
    path = students.zipped(tmp_path / "ada.zip", students.homework())
    settings = grading.Settings(POINTS, "bubblewrap")
    rows = grading._written({"ada": path}, settings, tmp_path / "out")
    assert rows == {"ada": written.Row()}
    results = report.results(grade.unreadable("ada", POINTS, "it is empty"))
    content = written.merged(results, written.Row({"3.1": 6}), POINTS)
    files = {"ada/results.json": report.encoded(content)}
    students.folder(tmp_path / "out", files)
    grading._written({"ada": path}, settings, tmp_path / "out")
    assert "ada: its points by hand are no longer in" in capsys.readouterr().err
    without = grading.Settings(POINTS | {"3.1": 0}, "bubblewrap")
    grading._written({"ada": path}, without, tmp_path / "out")
    assert "no longer" not in capsys.readouterr().err
    (tmp_path / "out" / written.SHEET).unlink()
    for name in ("ada", "bob"):
        with pytest.raises(UserError, match="is missing, but the report of ada has points"):
            grading._written({name: path}, settings, tmp_path / "out")
    assert not (tmp_path / "out" / written.SHEET).exists()


def test_texts_that_have_changed_are_named(tmp_path, capsys):
    settings, out = grading.Settings(POINTS, "bubblewrap"), tmp_path / "out"
    for text, told in (("one", ""), ("one", ""), ("two", "since they were copied"), ("two", "")):
        files = students.homework() | {"writeup.md": text}
        path = students.zipped(tmp_path / "ada.zip", files)
        grading._written({"ada": path}, settings, out)
        line = capsys.readouterr().err
        assert told in line and bool(told) is bool(line) and "check its points" not in line
    sheet = out / written.SHEET
    sheet.write_text(
        sheet.read_text(encoding="utf-8-sig").replace("ada,", "ada,3"), encoding="utf-8"
    )
    students.zipped(path, students.homework())
    grading._written({"ada": path}, settings, out)
    assert "since they were copied: check its points" in capsys.readouterr().err


def test_what_a_person_has_edited_stays_while_nothing_changes(tmp_path):
    """A rubric, and a copy, also if only another submission was graded meanwhile."""
    out = tmp_path / "out"
    ada, bob = (
        students.zipped(tmp_path / f"{name}.zip", students.homework() | {"writeup.md": name})
        for name in ("ada", "bob")
    )
    written.prepare(out, {"ada": ada}, POINTS)
    edited = [out / written.RUBRIC, out / written.FOLDER / "ada" / "writeup.md"]
    for path in edited:
        path.write_text("edited", encoding="utf-8")
    for found in ({"bob": bob}, {"ada": ada}):
        assert written.prepare(out, found, POINTS)[1] == []
    assert [path.read_text(encoding="utf-8") for path in edited] == ["edited", "edited"]
    _, [line] = written.prepare(out, {"ada": ada}, POINTS | {"3.1": 3})
    assert "rubric (old).md" in line and "| 1.5 | L_m" in edited[0].read_text(encoding="utf-8")


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
    command[2] = folder / "ada.zip"
    _, told = succeed(tmp_path, *command)
    assert "unchanged since they were graded: 1" in told
    students.zipped(folder / "dora.zip", {"answers.pdf": b"%PDF"})
    command[2:3] = [folder / "carl.zip", folder / "dora.zip"]
    said, told = succeed(tmp_path, *command)
    assert "has other reports (2) that grades.csv does not list" in told
    ungraded = json.loads((out / "dora" / "results.json").read_text(encoding="utf-8"))
    assert {test["name"] for test in ungraded["tests"]} >= {"the VAE's bounds"}
    (folder / "dora.zip").unlink()
    shutil.rmtree(out / "dora")
    command[2:4] = [folder]
    said, told = succeed(tmp_path, *command)
    assert "Marked by hand: 3 of 3" in said and "unchanged since they were graded: 3" in told
    with (out / "grades.csv").open(encoding="utf-8", newline="") as file:
        grades = {row["submission"]: row for row in csv.DictReader(file)}
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
