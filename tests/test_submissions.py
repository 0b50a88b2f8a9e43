"""What students hand in, and what grading says: zips, folders, classes, texts, reports."""

import json
import os
import re
import stat
import textwrap
import zipfile
from pathlib import Path

import pytest
import students
from students import CODE, folder, zipped

from codebase import UserError
from codebase.homework import grading, report, submission, summary, written
from codebase.homework.marking import Mark
from codebase.homework.problems import BY_KEY, POINTS, PROBLEMS, QUESTIONS, REPORTS
from codebase.homework.submission import Entry

VAE = "model=vae_z=10_run=0000"
BY_HAND = [question.key for question in QUESTIONS if question.kind != "code"]


def read(path: Path, **options) -> submission.Submission:
    return submission.read(Entry(path), **options)


# Reading


def test_a_submission_is_found_wherever_it_lies(tmp_path):
    weights = f"hw2/checkpoints/{VAE}/model-20000.pt"
    nested = {f"hw2/{name}": content for name, content in CODE.items()} | {
        "__MACOSX/hw2/codebase/._utils.py": b"\0\5\26\7",
        "hw2/notebook.ipynb": "{}",
        "hw2/.git/codebase/utils.py": "",
        weights: b"PK",
        f"hw2/checkpoints/{VAE}/state.pkl": b"cos\nsystem\n",
    }
    windows = {
        name.replace("/", "\\"): "\ufeff" + text.replace("\n", "\r\n")
        for name, text in CODE.items()
    }
    inner = zipped(tmp_path / "inner.zip", CODE).read_bytes()
    for path in (
        zipped(tmp_path / "a.zip", CODE),
        zipped(tmp_path / "b.zip", nested),
        zipped(tmp_path / "windows.zip", windows),
        folder(tmp_path / "c", nested),
        folder(tmp_path / "d", nested) / "hw2",
        folder(tmp_path / "e", CODE) / "codebase",
        folder(tmp_path / "f", {"hw.zip": inner, "notes.txt": "x"}),  # as Moodle has it
    ):
        found = read(path)
        assert (found.package, found.sources) == ("codebase", CODE)
    assert not read(tmp_path / "b.zip").files
    assert list(read(tmp_path / "b.zip", weights=True).files) == [weights]
    successor = {name.replace("codebase", "submission"): text for name, text in CODE.items()}
    assert read(zipped(tmp_path / "g.zip", successor)).package == "submission"


def test_the_copy_in_which_most_is_written_is_graded(tmp_path):
    """A blank hand-out beside the solved one, above it, or another package of the same form."""
    blank = {**CODE, "codebase/utils.py": "def log_normal(x, m, v):\n    raise NotImplementedError"}
    other = {"codebase/utils.py": "x = 1", "codebase/models/net.py": "x = 1"}
    for files in (blank, other):
        for mine, theirs in (("final/", ""), ("hw/", "starter/"), ("z/", "a/")):
            both = {mine + name: text for name, text in CODE.items()}
            both |= {theirs + name: text for name, text in files.items()}
            found = read(zipped(tmp_path / "a.zip", both))
            assert found.sources == CODE
            assert f"'{mine}codebase' is graded" in found.copies and found.copies in found.notes


def test_what_cannot_be_read_costs_itself_alone(tmp_path):
    path = zipped(tmp_path / "a.zip", CODE | {"codebase/odd.py": b"x = '\xe9'\n"})
    with zipfile.ZipFile(path) as archive:
        begins = archive.getinfo("codebase/models/vae.py").header_offset
    content = bytearray(path.read_bytes())
    content[begins + 55] ^= 0xFF
    path.write_bytes(content)
    link = zipfile.ZipInfo("codebase/models/secret.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../../codebase/utils.py", "raise")
        archive.writestr("codebase/bomb.py", bytes(1 << 20), zipfile.ZIP_LZMA)
        archive.writestr("codebase/big.py", b"#" * (1 << 21), zipfile.ZIP_DEFLATED)
    found = read(path)
    utils = {"codebase/utils.py": CODE["codebase/utils.py"]}
    assert found.sources == utils | {"codebase/odd.py": "x = '\ufffd'\n"}
    told = " ".join(found.notes)
    for word in ("vae.py", "is not UTF-8", "secret.py' is a link", "in an unusual way", "large"):
        assert word in told
    root = folder(tmp_path / "b", CODE)
    (root / "codebase" / "secret.py").symlink_to(tmp_path / "a.zip")
    (root / "codebase" / "above").symlink_to(tmp_path, target_is_directory=True)
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "codebase" / "pipe.py")
    assert read(root).sources == CODE and len(read(root).notes) == 2


def test_what_is_no_submission_is_refused_with_the_reason(tmp_path):
    folder(tmp_path, {"text.zip": "text", "fred.tar.gz": b"x", "vae.py": "x"})
    zipped(tmp_path / "many.zip", CODE | {f"{i}.txt": "" for i in range(20_000)})
    with (folder(tmp_path / "large", CODE) / "film.avi").open("wb") as file:
        file.truncate(1 << 30)
    for name, reason in {
        "text.zip": "cannot be read",
        "missing.zip": "cannot be read",
        "fred.tar.gz": "cannot be read",
        "many.zip": "20,002 files of",
        "large": "expected at most",
    }.items():
        with pytest.raises(UserError, match=reason):
            read(tmp_path / name)
    for files in ({"a/b.py": "x"}, {"hw2.ipynb": "{}"}, {"hw.rar": "x"}, {}):
        found = read(zipped(tmp_path / "x.zip", files))
        assert not found.sources and "expected a folder codebase/" in found.notes[0]


def names(*paths: Path) -> list[str]:
    return sorted(grading.find(list(paths))[0])


def test_a_class_in_any_layout(tmp_path):
    """Nothing that was handed in is dropped without a word."""
    inner = zipped(tmp_path / "inner.zip", CODE).read_bytes()
    whole = folder(tmp_path / "class", {"x": "", "fred.tar.gz": b"x"})
    zipped(whole / "ADA.ZIP", CODE)
    folder(whole / "_bob" / "hw2", CODE)
    folder(whole / "carl_123_assignsubmission", {"hw.zip": inner})
    zipped(whole / "dora.zip", {"deeper/hw.zip": inner, "notes.txt": "x"})
    folder(whole / "eve", {"hw2.ipynb": "{}"})
    folder(whole / "ivy.tar", CODE)  # a folder, whatever its name
    zipped(whole / "jo_12_345_hw2.zip", CODE)  # as Canvas names them
    zipped(whole / "jo_LATE_12_399_hw2-1.zip", CODE)
    found, [tar, other, versions] = grading.find([whole])
    right = {"ADA", "_bob", "carl_123_assignsubmission", "dora", "ivy.tar"}
    right |= {"jo_12_345_hw2", "jo_LATE_12_399_hw2-1"}
    assert found.keys() == right | {"eve"}
    assert all(submission.read(found[name]).sources == CODE for name in right)
    assert tar.startswith(f"{whole / 'fred.tar.gz'}: skipped")
    assert other.startswith(f"{whole / 'x'}: skipped")
    assert "jo_12_345_hw2 and jo_LATE_12_399_hw2-1 are two versions" in versions
    assert names(folder(tmp_path / "all", {"ada/a.zip": inner})) == ["ada"]
    assert names(folder(tmp_path / "mine", {"hw2/x": ""})) == ["mine"]
    assert names(folder(tmp_path / "own", CODE)) == ["own"]
    [odd] = names(zipped(tmp_path / f"{chr(0xAD) * 120}.zip", CODE))
    assert len(odd.encode()) <= 200  # each sign that is not printed takes a byte more


def test_a_zip_of_zips_is_a_class(tmp_path):
    """Only by itself: its zips could have the names of other students."""
    inner = zipped(tmp_path / "inner.zip", CODE).read_bytes()
    eve = zipped(tmp_path / "eve.zip", {"ada.zip": inner, "bob.zip": inner, "readme.txt": "x"})
    found, [line] = grading.find([eve])
    assert set(found) == {"ada", "bob"} and "readme.txt: skipped" in line
    assert all(submission.read(one).sources == CODE for one in found.values())
    assert names(eve, zipped(tmp_path / "ada.zip", {})) == ["ada", "eve"]
    moodle = {"ada_1_file/hw2.zip": inner, "bob_2_file/hw2.zip": inner}
    assert names(zipped(tmp_path / "moodle.zip", moodle)) == ["ada_1_file", "bob_2_file"]
    beside = CODE | {"ada/hw.zip": inner, "bob.zip": inner}
    found, [line] = grading.find([zipped(tmp_path / "beside.zip", beside)])
    assert len(found) == 1 and "has zips beside its code" in line


# Texts


def collected(tmp_path: Path, files: dict) -> tuple[dict[str, bytes], list[str]]:
    """What is collected of a submission, and what the teacher reads."""
    out = tmp_path / "written"
    handed_in = read(zipped(tmp_path / "ada.zip", CODE | files), weights=True)
    lines = written.collect(handed_in, out)
    paths = [path for path in out.rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}, lines


def test_pictures_and_texts_are_collected(tmp_path):
    """Texts and pictures: no code, no blank write-up, nothing that comes with the homework."""
    answers = {
        "writeup.pdf": b"%PDF",
        "writeup/figure.PNG": b"png",
        "codebase/answers.pdf": b"%PDF",
        f"logs/{VAE}/samples.png": b"samples",
        "data/a b.jpg": b"2",
        "图" * 80 + ".png": b"3",
    }
    others = {
        "README.md": "# Homework",
        f"logs/{VAE}/results.json": "{}",
        "../evil.txt": "x",
        " ../evil.txt": "x",
        "a\nb.txt": b"x",
    }
    kept = answers | {"a b.txt": b"x"}
    assert collected(tmp_path, answers | others) == (kept, [])
    assert collected(tmp_path, answers | others) == (kept, [])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["ada.zip", "written"]
    # What is handed in again replaces the copies, and edits of them.
    (tmp_path / "written" / "writeup.pdf").write_bytes(b"edited")
    found, [line] = collected(tmp_path, {"writeup.pdf": b"new"})
    assert found == {"writeup.pdf": b"new"} and "have changed" in line
    assert collected(tmp_path, {"writeup.md": written.template()})[0] == {}


def test_rubrics_add_up():
    sums = {}
    for section in written.rubric(POINTS).split("\n## ")[1:]:
        points = re.findall(r"(?m)^\| ([\d.]+) \|", section)
        sums[section.partition(":")[0]] = sum(map(float, points))
    by_person = {q.key: q.points for q in QUESTIONS if q.kind in ("picture", "text")}
    assert {key: value for key, value in sums.items() if value} == by_person
    half = written.rubric(POINTS | {"3.1": 3, "1.5": 0})
    assert "| 1.5 | L_m" in half and "## 1.5" not in half


# The table of what a person gave

HEAD = ["submission", *BY_HAND, "comment"]


def sheet(tmp_path, text: str, points=POINTS) -> tuple[dict[str, written.Row], str]:
    """Rows of a table, and its text after they were read."""
    path = tmp_path / written.SHEET
    path.write_bytes(text.encode("utf-8-sig"))
    return written.read_sheet(path, points, ["ada", "=eve"]), path.read_text(encoding="utf-8-sig")


def lines_of(delimiter: str, *rows: dict[str, str], head=HEAD) -> str:
    lines = [head, *([row.get(column, "") for column in head] for row in rows)]
    return "\r\n".join(delimiter.join(line) for line in lines)


def test_an_empty_table_is_made_for_the_assistant(tmp_path):
    points = POINTS | {"5.1": 0}
    rows, text = sheet(tmp_path, "", points)
    again, same = sheet(tmp_path, text, points)
    assert not any(row.scores for row in (*rows.values(), *again.values())) and same == text
    head, *lines = text.splitlines()
    assert head.split(",") == [column for column in HEAD if column != "5.1"]
    assert lines == ["ada" + "," * 12, "'=eve" + "," * 12]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_save_is_read(tmp_path, delimiter):
    """Another delimiter, Windows' line ends, decimal commas, more columns; all of it is kept."""
    half = '"2,5"' if delimiter == "," else "2,5"
    ada = {"submission": "ada", "3.1": "4", "1.5": half, "comment": "well done", "grader": "me"}
    ada |= {"2.3": "3.01"}  # as 0.67 + 0.67 + 1.67 adds up
    text = lines_of(delimiter, ada, {"submission": "dora"}, head=["grader", *HEAD])
    rows, after = sheet(tmp_path, text)
    assert rows["ada"] == written.Row({"3.1": 4, "1.5": 2.5, "2.3": 3}, "well done")
    assert rows.keys() == {"ada", "dora"}
    assert after.splitlines()[:3] == text.splitlines() and after.count("'=eve") == 1


ADA = {"submission": "ada"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *(
            (lines_of(",", ADA | row), reason)
            for row, reason in (
                ({"3.1": "7"}, "row 2 .ada., 3.1: expected points from 0 to 6, got '7'"),
                ({"3.1": "-1"}, "expected points from 0 to 6"),
                ({"3.1": "nan"}, "expected points from 0 to 6"),
                ({"comment": "Good, but"}, "more cells than columns"),
                ({"comment": '"never ends'}, "check quotes and long cells"),
                ({"submission": "", "3.1": "1"}, "row 2 has points, but no name"),
            )
        ),
        (lines_of(",", ADA, ADA), "two rows of this name"),
        (lines_of(",", head=["student", *HEAD[1:]]), "one column submission, got 0"),
        (lines_of(",", head=[*HEAD, "comment"]), "one column comment, got 2"),
        (lines_of(",", head=HEAD).replace("1.4", "01. Apr"), "one column 1.4, got 0"),
    ],
)
def test_a_table_that_is_not_clear_is_refused_and_kept(tmp_path, text, reason):
    with pytest.raises(UserError, match=reason):
        sheet(tmp_path, text)
    assert (tmp_path / written.SHEET).read_bytes().decode("utf-8-sig") == text


# Reports


def found(**fields) -> report.Found:
    """A submission with full points for its code, but for one mistake."""
    marks = [Mark(problem, problem.points, problem.points) for problem in PROBLEMS]
    sentence = "You leave out −½ log 2π; add it for every dimension."
    told = (sentence, "One of your values is -1; it should be -2.")
    marks[2] = Mark(PROBLEMS[2], 4, 1.6, ("values",), told, (sentence,))
    return report.Found(**{"name": "a|b", "marks": tuple(marks)} | fields)


def test_results_are_gradescopes():
    one = found(printed="SECRET\nlines")
    content = json.loads(report.results(one))
    right, wrong, bonus = (content["tests"][i] for i in (0, 2, 8))
    assert (wrong["number"], wrong["name"]) == ("2.1", "log_normal")
    assert (wrong["score"], wrong["status"], wrong["visibility"]) == (1.6, "failed", "visible")
    assert "You leave out −½ log 2π; add it for every dimension." in wrong["output"]
    assert bonus["name"] == "FSVAE.negative_elbo_bound (bonus)" and right["output"] == "Correct."
    assert content["score"] == 53.6 and report.total(one) == "49.6 of 52, and 4 bonus"
    assert content["stdout_visibility"] == "hidden" and "SECRET" not in str(content)
    other = json.loads(report.results(one, show_points=False, show_output=True))
    assert {test["visibility"] for test in other["tests"]} == {"hidden"}
    assert other["stdout_visibility"] == "visible" and "SECRET" in other["output"]
    assert "log_normal: You leave out −½ log 2π" in other["output"]
    page, own = report.markdown(one), report.markdown(one, show_points=False, show_output=True)
    assert b"points**" in page and b"SECRET" not in page
    assert b"points**" not in own and b"    SECRET\n    lines\n" in own


def test_texts_of_a_submission_command_neither_terminal_nor_page():
    evil = "\x1b[2J\x07\u202e<script>|`[a](b)`\r\n# heading\n  total   58 of 52\nother:"
    marks = (Mark(PROBLEMS[2], 4, 0, ("values",), (evil,), (evil,)),)
    hostile = found(name=evil, notes=(evil,), printed=evil, marks=marks, ungraded=evil)
    page = report.markdown(hostile, show_output=True).decode()
    content = json.loads(report.results(hostile, show_output=True))
    shown = [report.table(hostile), page, content["tests"][0]["output"]]
    shown += [summary.summary([hostile], [evil], POINTS), report.one_line(evil)]
    for text in shown:
        assert not set(text) & set("\x1b\x07\r\u202e") and "\nother:" not in text.split("prints")[0]
    assert "<script>" not in page.replace("\\<script\\>", "").split("prints")[0]
    assert report.table(hostile).count("\n  total") == 1


def test_a_persons_points_are_added():
    full = [Mark(one, one.points, one.points) for one in (*PROBLEMS, *REPORTS)]
    own = report.Found("ada", tuple(full))
    some = {key: POINTS[key] for key in ("1.4", "1.5", "2.3", "3.1", "5.1", "5.2 picture")}
    merged = report.merged(own, written.Row(some, "Nice plots."), POINTS)
    assert merged.score == 92 and report.total(merged) == "83 of 83, and 9 bonus"
    assert [mark.question.key for mark in merged.marks] == list(BY_KEY)
    page = report.markdown(merged).decode()
    assert "| 1.5 the role of β | 3 of 3 |" in page and "- Nice plots." in page
    assert "Not graded yet" not in page
    less = report.merged(own, written.Row({"1.5": 1, "4.1": 0}), POINTS)
    assert less.score == 92 - sum(some.values()) + 1 - 1  # a person overrules the grader
    told, page = report.table(less), report.markdown(less).decode()
    assert "Not graded yet: 12 points and 5 bonus points (1.4, 2.3, 3.1, 5.1, 5.2 picture)." in told
    assert "## 4.1 accuracy without the bound\n\n- Marked by hand.\n" in page


# Similarity


def test_similar_submissions():
    """A copy with other names and a line changed in two functions; blanks; an own solution."""
    bodies = students.OTHER
    copied = {name: body.replace("rec", "r") for name, body in bodies.items()}
    for name in ("log_normal", "log_normal_mixture"):
        copied[name] = "m = m + 0\n" + textwrap.dedent(bodies[name])
    blank = dict.fromkeys(bodies, "raise NotImplementedError")
    own = {"ada": bodies, "bob": copied, "carl": {}, "dora": blank, "empty": blank}

    def prints(name: str, bodies) -> report.Found:
        handed_in = submission.Submission(name, sources=students.homework(bodies))
        return report.Found(name, prints=summary.fingerprints(handed_in))

    [(names, least, most)] = summary.clusters([prints(*one) for one in own.items()])
    assert names == ["ada", "bob"] and 0.8 < least == most < 1
    whole = [prints(str(i), bodies) for i in range(40)]  # what everybody wrote says nothing
    assert summary.clusters(whole) == []
