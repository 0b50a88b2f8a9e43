"""What students hand in, and what grading says: zips, folders, classes, texts, reports."""

import ast
import json
import os
import re
import stat
import textwrap
import zipfile
from pathlib import Path

import pytest
import students

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
    files = students.homework()
    noise = {
        "__MACOSX/hw2/codebase/._utils.py": b"\0\5\26\7",
        "hw2/notebook.ipynb": "{}",
        "hw2/.git/codebase/utils.py": "",
        f"hw2/checkpoints/{VAE}/model-20000.pt": b"PK",
        f"hw2/checkpoints/{VAE}/state.pkl": b"cos\nsystem\n",
    }
    nested = {f"hw2/{name}": content for name, content in files.items()} | noise
    windows = tmp_path / "windows.zip"
    with zipfile.ZipFile(windows, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("/", "\\"), "\ufeff" + content.replace("\n", "\r\n"))
    inner = students.zipped(tmp_path / "inner.zip", files).read_bytes()
    for path in (
        students.zipped(tmp_path / "a.zip", files),
        students.zipped(tmp_path / "b.zip", nested),
        students.folder(tmp_path / "c", nested),
        students.folder(tmp_path / "d", nested) / "hw2",
        students.folder(tmp_path / "e", files) / "codebase",
        students.folder(tmp_path / "f", {"hw.zip": inner, "notes.txt": "x"}),  # as Moodle has it
        windows,
    ):
        found = read(path)
        assert (found.package, found.sources) == ("codebase", files)
    assert not read(tmp_path / "b.zip").files
    assert list(read(tmp_path / "b.zip", weights=True).files) == [
        f"hw2/checkpoints/{VAE}/model-20000.pt"
    ]
    successor = students.zipped(tmp_path / "g.zip", students.homework(package="submission"))
    assert read(successor).package == "submission"


def test_the_copy_in_which_most_is_written_is_graded(tmp_path):
    """A blank hand-out beside the solved one, above it, or another package of the same form."""
    right = students.homework()
    blank = students.homework(dict.fromkeys(students.BY_FUNCTION, "raise NotImplementedError"))
    other = {"codebase/utils.py": "x = 1", "codebase/models/net.py": "x = 1"}
    for files in (blank, other):
        for mine, theirs in (("final/", ""), ("hw/", "starter/"), ("z/", "a/")):
            both = {mine + name: text for name, text in right.items()}
            both |= {theirs + name: text for name, text in files.items()}
            found = read(students.zipped(tmp_path / "a.zip", both))
            assert found.sources == right
            assert f"'{mine}codebase' is graded" in found.copies and found.copies in found.notes


def test_what_cannot_be_read_costs_itself_alone(tmp_path):
    files = students.homework()
    path = students.zipped(tmp_path / "a.zip", files | {"codebase/odd.py": b"x = '\xe9'\n"})
    with zipfile.ZipFile(path) as archive:
        begins = archive.getinfo("codebase/models/fsvae.py").header_offset
    content = bytearray(path.read_bytes())
    content[begins + 60] ^= 0xFF
    path.write_bytes(content)
    link = zipfile.ZipInfo("codebase/models/secret.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
        archive.writestr("../../codebase/utils.py", "raise")
        archive.writestr("codebase/bomb.py", bytes(1 << 20), zipfile.ZIP_LZMA)
    found = read(path)
    kept = files.keys() - {"codebase/models/fsvae.py"} | {"codebase/odd.py"}
    assert found.sources.keys() == kept and found.sources["codebase/odd.py"] == "x = '\ufffd'\n"
    told = " ".join(found.notes)
    for word in ("fsvae.py", "is not UTF-8", "secret.py' is a link", "bomb.py' is a link, or"):
        assert word in told
    root = students.folder(tmp_path / "b", files)
    (root / "codebase" / "secret.py").symlink_to(tmp_path / "a.zip")
    (root / "codebase" / "above").symlink_to(tmp_path, target_is_directory=True)
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "codebase" / "pipe.py")
    assert read(root).sources == files and len(read(root).notes) == 2


def test_too_much_is_refused(tmp_path, monkeypatch):
    files = students.homework() | {"codebase/big.py": b"#" * (1 << 21)}
    path = students.zipped(tmp_path / "a.zip", files)
    assert read(path).sources == students.homework() and "too large for code" in read(path).notes[0]
    monkeypatch.setattr(submission, "LARGEST", 1 << 20)
    with pytest.raises(UserError, match="expected at most"):
        read(path)
    monkeypatch.setattr(submission, "MOST", 3)
    with pytest.raises(UserError, match="files of"):
        read(students.folder(tmp_path / "b", students.homework()))


def test_what_is_no_submission_is_refused_with_the_reason(tmp_path):
    (tmp_path / "text.zip").write_text("text", encoding="utf-8")
    students.folder(tmp_path, {"fred.tar.gz": b"x", "vae.py": "x"})
    for name in ("text.zip", "missing.zip", "fred.tar.gz", "vae.py"):
        with pytest.raises(UserError, match="cannot be read"):
            read(tmp_path / name)
    for files in ({"a/b.py": "x"}, {"hw2.ipynb": "{}"}, {"hw.rar": "x"}, {}):
        found = read(students.zipped(tmp_path / "x.zip", files))
        assert not found.sources and "expected a folder codebase/" in found.notes[0]


def names(*paths: Path) -> list[str]:
    return sorted(entry.name for path in paths for entry in submission.entries(path)[0])


def test_a_class_in_any_layout(tmp_path):
    """Nothing that was handed in is dropped without a word."""
    right = students.homework()
    inner = students.zipped(tmp_path / "inner.zip", right).read_bytes()
    folder = tmp_path / "class"
    students.zipped(students.folder(folder, {"x": ""}) / "ADA.ZIP", right)
    students.folder(folder / "_bob" / "hw2", right)
    students.folder(folder / "carl_123_assignsubmission", {"hw.zip": inner})
    students.zipped(folder / "dora.zip", {"deeper/hw.zip": inner, "notes.txt": "x"})
    students.folder(folder / "eve", {"hw2.ipynb": "{}"})
    students.folder(folder, {"fred.tar.gz": b"x"})
    students.folder(folder / "ivy.tar", right)  # a folder, whatever its name
    found, skipped = submission.entries(folder)
    expected = ["ADA", "_bob", "carl_123_assignsubmission", "dora", "eve", "ivy.tar"]
    assert sorted(one.name for one in found) == expected
    for name, line in zip(("fred.tar.gz", "x"), skipped, strict=True):
        assert line.startswith(f"{folder / name}: skipped")
    for entry in found:
        if entry.name != "eve":
            assert submission.read(entry).sources == right
    assert names(students.folder(tmp_path / "all", {"ada/a.zip": inner})) == ["ada"]
    assert names(students.folder(tmp_path / "mine", {"hw2/x": ""})) == ["mine"]
    assert names(students.folder(tmp_path / "own", right)) == ["own"]


def test_zips_beside_code_are_not_dropped_without_a_word(tmp_path):
    inner = students.zipped(tmp_path / "inner.zip", students.homework()).read_bytes()
    files = {f"dan/{name}": text for name, text in students.homework().items()}
    path = students.zipped(tmp_path / "a.zip", files | {"ada/hw.zip": inner, "bob.zip": inner})
    found, [line] = submission.entries(path)
    assert len(found) == 1 and "has zips beside its code" in line


def test_a_zip_of_zips_is_a_class(tmp_path):
    right = students.homework()
    inner = students.zipped(tmp_path / "inner.zip", right).read_bytes()
    files = {"ada_17_hw2.zip": inner, "bob_18_hw2.zip": inner, "readme.txt": "x"}
    found, skipped = submission.entries(students.zipped(tmp_path / "class.zip", files))
    assert [one.name for one in found] == ["ada_17_hw2", "bob_18_hw2"] and len(skipped) == 1
    assert all(submission.read(one).sources == right for one in found)
    moodle = {"ada_1_assignsubmission_file/hw2.zip": inner, "bob_2_file/hw2.zip": inner}
    assert names(students.zipped(tmp_path / "moodle.zip", moodle)) == [
        "ada_1_assignsubmission_file",
        "bob_2_file",
    ]


def test_a_students_zip_makes_no_other_students(tmp_path):
    """A zip of zips is a class only by itself: its zips could have the names of others."""
    inner = students.zipped(tmp_path / "inner.zip", students.homework()).read_bytes()
    eve = students.zipped(tmp_path / "eve.zip", {"ada.zip": inner, "bob.zip": inner})
    assert set(grading.find([eve])[0]) == {"ada", "bob"}
    assert set(grading.find([eve, students.zipped(tmp_path / "ada.zip", {})])[0]) == {"eve", "ada"}


def test_two_versions_of_one_student_are_named(tmp_path):
    """As Canvas names them; the teacher removes one."""
    for name in ("doeann_12_345_hw2.zip", "doeann_LATE_12_399_hw2-1.zip", "doebob_13_346_hw2.zip"):
        students.zipped(tmp_path / name, students.homework())
    found, [line] = grading.find([tmp_path])
    assert len(found) == 3
    assert "doeann_12_345_hw2 and doeann_LATE_12_399_hw2-1 are two versions" in line


# Texts


def collected(tmp_path: Path, files: dict) -> dict[str, bytes]:
    out = tmp_path / "written"
    path = students.zipped(tmp_path / "ada.zip", students.homework() | files)
    written.collect(read(path, weights=True), out)
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file()
    }


def test_pictures_and_texts_are_collected(tmp_path):
    """All texts and pictures: no code, no blank write-up."""
    found = collected(
        tmp_path,
        {
            "writeup.pdf": b"%PDF",
            "writeup/figure.PNG": b"png",
            "codebase/answers.pdf": b"%PDF",
            "README.md": "# Homework",
            f"logs/{VAE}/samples.png": b"samples",
            f"logs/{VAE}/results.json": "{}",
            "data/a b.jpg": b"2",
            "../evil.txt": "x",
            "a\nb.txt": "x",
        },
    )
    pages = {"writeup.pdf", "writeup/figure.PNG", "codebase/answers.pdf", "a b.txt"}
    assert found.keys() == pages | {f"logs/{VAE}/samples.png", "data/a b.jpg"}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["ada.zip", "written"]
    # What is handed in again replaces the copies, and edits of them.
    (tmp_path / "written" / "writeup.pdf").write_bytes(b"edited")
    assert collected(tmp_path, {"writeup.pdf": b"new"}) == {"writeup.pdf": b"new"}
    assert collected(tmp_path, {"writeup.md": written.template()}) == {}


def test_changed_texts_are_noticed(tmp_path):
    for content, expected in ((b"1", False), (b"1", False), (b"2", True)):
        path = students.zipped(tmp_path / "a.zip", students.homework() | {"a.md": content})
        assert bool(written.collect(read(path), tmp_path / "out")) is expected


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


# The table of what a person gave

HEAD = ["submission", *BY_HAND, "comment"]


def sheet(tmp_path, text: str):
    path = tmp_path / written.SHEET
    path.write_bytes(text.encode("utf-8-sig"))
    return written.read_sheet(path, POINTS, ["ada", "=eve"]), path


def lines_of(delimiter: str, *rows: dict[str, str], head=HEAD) -> str:
    lines = [head, *([row.get(column, "") for column in head] for row in rows)]
    return "\r\n".join(delimiter.join(line) for line in lines)


def test_an_empty_table_is_made_for_the_assistant(tmp_path):
    path = tmp_path / written.SHEET
    for _ in range(2):
        assert not any(
            row.scores
            for row in written.read_sheet(path, POINTS | {"5.1": 0}, ["ada", "=eve"]).values()
        )
    head, *lines = path.read_text(encoding="utf-8-sig").splitlines()
    assert head.split(",") == ["submission", *(k for k in BY_HAND if k != "5.1"), "comment"]
    assert lines == ["ada" + "," * 12, "'=eve" + "," * 12]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_save_is_read(tmp_path, delimiter):
    """Another delimiter, Windows' line ends, decimal commas, more columns; all of it is kept."""
    half = '"2,5"' if delimiter == "," else "2,5"
    ada = {"submission": "ada", "3.1": "4", "1.5": half, "comment": "well done", "grader": "me"}
    text = lines_of(delimiter, ada, {"submission": "dora"}, head=["grader", *HEAD])
    rows, path = sheet(tmp_path, text)
    assert rows["ada"] == written.Row({"3.1": 4, "1.5": 2.5}, "well done")
    assert rows.keys() == {"ada", "dora"}
    after = path.read_bytes().decode("utf-8-sig")
    assert after.startswith(text) and after.count("'=eve") == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *(
            (lines_of(",", {"submission": "ada"} | row), reason)
            for row, reason in (
                ({"3.1": "7"}, "row 2 .ada., 3.1: expected points from 0 to 6, got '7'"),
                ({"3.1": "-1"}, "expected points from 0 to 6"),
                ({"3.1": "nan"}, "expected points from 0 to 6"),
                ({"comment": "Good, but"}, "more cells than columns"),
                ({"comment": '"never ends'}, "check quotes and long cells"),
                ({"submission": "", "3.1": "1"}, "row 2 has points, but no name"),
            )
        ),
        (lines_of(",", {"submission": "ada"}, {"submission": "ada"}), "two rows of this name"),
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
    one = found()
    content = json.loads(report.results(one))
    assert content["score"] == 53.6 and content["stdout_visibility"] == "hidden"
    wrong = content["tests"][2]
    assert (wrong["number"], wrong["name"]) == ("2.1", "log_normal")
    assert (wrong["score"], wrong["status"], wrong["visibility"]) == (1.6, "failed", "visible")
    assert "You leave out −½ log 2π; add it for every dimension." in wrong["output"]
    assert content["tests"][8]["name"] == "FSVAE.negative_elbo_bound (bonus)"
    assert content["tests"][0]["output"] == "Correct."
    assert report.total(one) == "49.6 of 52, and 4 bonus"
    formats = {"text", "html", "simple_format", "md", "ansi"}
    assert all(test["output_format"] in formats for test in content["tests"])
    hidden = json.loads(report.results(one, show_points=False, show_output=True))
    assert {test["visibility"] for test in hidden["tests"]} == {"hidden"}
    assert hidden["stdout_visibility"] == "visible"
    assert "log_normal: You leave out −½ log 2π" in hidden["output"]
    assert b"points**" not in report.markdown(one, show_points=False)
    assert b"points**" in report.markdown(one)


def test_what_a_submission_prints_is_shown_by_flag_alone():
    shy = found(printed="SECRET\nlines")
    for shown in (False, True):
        assert (b"SECRET" in report.results(shy, show_output=shown)) is shown
        assert (b"    SECRET\n    lines\n" in report.markdown(shy, show_output=shown)) is shown


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


def test_what_is_found_is_kept_as_json():
    one = found(notes=("x",), printed="y", seconds={"log_normal": 0.1}, prints=(("f", 1),), key="k")
    again = report.Found.decoded(one.encoded())
    assert report.results(again) == report.results(one) and again.key == "k"
    assert report.markdown(again) == report.markdown(one)


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
    told = report.table(less)
    assert "Not graded yet: 12 points and 5 bonus points (1.4, 2.3, 3.1, 5.1, 5.2 picture)." in told
    assert "## 4.1 accuracy without the bound\n\n- Marked by hand.\n" in (
        report.markdown(less).decode()
    )


def test_what_is_not_graded_is_no_zero():
    """It is listed, with its reason, and is neither in the statistics nor worth 0 points."""
    ungraded = report.Found("ada", ungraded="it is empty")
    assert "not graded: it is empty" in summary.grades([ungraded])
    page = summary.summary([ungraded], [], POINTS)
    assert "Median" not in page and "ada: it is empty" in page.split("## Not graded")[1]
    assert "score" not in json.loads(report.results(ungraded))
    assert "not graded" in report.table(ungraded)


# Similarity


def test_similarity_is_of_code_and_not_of_names():
    def tokens(text: str) -> list[str]:
        return list(summary._tokens(ast.parse(text).body[0]))

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
    odd = {"log_normal": f"return {'0x' + 'f' * 5000}"}  # more digits than Python writes
    last = {f: bodies[-1] for f, bodies in right.items()}
    own = {"ada": bodies, "bob": changed, "carl": last, "dora": odd, "empty": blank, "too": blank}

    def prints(name: str, bodies) -> report.Found:
        handed_in = submission.Submission(name, sources=students.homework(bodies))
        return report.Found(name, prints=summary.fingerprints(handed_in))

    [(names, least, most)] = summary.clusters([prints(*one) for one in own.items()])
    assert names == ["ada", "bob"] and 0.8 < least == most < 1
    whole = [prints(str(i), last) for i in range(40)]  # what everybody wrote says nothing
    assert summary.clusters(whole) == []
