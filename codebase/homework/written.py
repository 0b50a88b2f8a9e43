"""What a person marks: pictures, text, and reports that were handed in without weights.

`collect` puts pictures and texts where the person looks; `Sheet` reads the marks from a table.
"""

import csv
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from codebase import UserError
from codebase.homework import report, submission
from codebase.homework.problems import BY_KEY, POINTS, QUESTIONS, totals
from codebase.machine.files import read_file, write_atomically

FOLDER, SHEET, RUBRIC = "written", "written.csv", "rubric.md"
SUFFIXES = (".pdf", ".md", ".txt", ".png", ".jpg", ".jpeg")
CODE = ("codebase", "tests", "checkpoints", "logs", "data")  # folders without answers
LARGEST, LARGEST_SHEET, MOST = 32 << 20, 8 << 20, 50  # bytes, bytes, files
COMMENT = "comment"


# Collecting


def collect(path: Path, folder: Path) -> list[str]:
    """Copy the pictures and texts of a submission.

    Args:
        path: of the submission
        folder: for the copies; others of its files are kept

    Returns:
        a line for each file that was left out
    """
    try:
        files = submission.files_of(path)
    except UserError:
        return []  # grading it says why
    wanted = {inner: name for inner in files.paths if (name := _name(inner))}
    left_out = []
    if len(wanted) > MOST:
        left_out.append(f"{path}: only {MOST} of {len(wanted)} pictures and texts were copied")
    for inner, name in list(wanted.items())[:MOST]:
        try:
            content, target = files.contents(inner, LARGEST), folder / name
            blank = content.replace(b"\r\n", b"\n") == template()
            if not blank and not _has(target, content):
                write_atomically(target, content)
        except OSError as error:
            left_out.append(f"{path}: {inner} was not copied: {error.strerror or error}")
    return left_out


def _name(inner: str) -> str:
    """A file's path below the folder of copies; empty if it is not an answer."""
    path = PurePosixPath(report.one_line(inner))
    if any(map(submission.is_noise, path.parts)):
        return ""
    if path.name == "samples.png":
        run = next((part for part in reversed(path.parts) if part.startswith("model=")), "")
        return f"{run}.png" if run and path.parent.name == run else ""
    given = path.name in ("README.md", "requirements.txt")
    if path.suffix.lower() not in SUFFIXES or given or set(path.parts) & set(CODE):
        return ""
    return str(path)


def _has(path: Path, content: bytes) -> bool:
    try:
        return read_file(path, LARGEST) == content
    except OSError:
        return False


def template() -> bytes:
    """The students' blank write-up."""
    return (Path(__file__).parent / "handout" / "writeup.md").read_bytes()


def rubric(points: Mapping[str, float]) -> str:
    """The rubrics of the questions that a person marks, with this course's points."""

    def scaled(match: re.Match) -> str:
        return f"| {report.number(float(match[1]) * factor)} |"

    text = (Path(__file__).parent / RUBRIC).read_text(encoding="utf-8")
    head, *sections = re.split(r"(?m)^(?=## )", text)
    kept = [head]
    for section in sections:
        key = re.match(r"## ([^:]+)", section)[1]
        factor = points[key] / POINTS[key]
        if factor:
            kept.append(re.sub(r"(?m)^\| ([0-9.]+) \|", scaled, section))
    return "".join(kept)


# The table


@dataclass(frozen=True)
class Row:
    """What a person gave a submission: points by question, and a comment."""

    scores: dict[str, float] = field(default_factory=dict)
    comment: str = ""


def read_sheet(path: Path, points: Mapping[str, float], names: list[str]) -> dict[str, Row]:
    """Read the table of a class, and add a row for each submission that it lacks.

    Args:
        path: of a CSV file; it is made if it is not there
        points: by question; what has none is not asked for
        names: of the submissions

    Returns:
        rows by names

    Raises:
        UserError: it cannot be read, or has points that cannot be; it is not changed
    """
    keys = [q.key for q in QUESTIONS if q.kind != "code" and points[q.key]]
    head = ["submission", *keys, COMMENT]
    try:
        text = read_file(path, LARGEST_SHEET).decode("utf-8-sig")
    except FileNotFoundError:
        text = _rows([head], ",")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}: save it as CSV in UTF-8") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    columns = [cell.strip() for cell in rows[0]] if rows else []
    if "submission" not in columns:
        raise UserError(f"{path}: expected a column submission, got {first[:100]!r}")
    found = {}
    for number, cells in enumerate(rows[1:], 2):
        row = dict(zip(columns, map(str.strip, cells), strict=False))
        name = row.get("submission", "")
        if name and name in found:
            raise UserError(f"{path}, row {number}: there are two rows of {name}: delete one")
        if name:
            where = f"{path}, row {number} ({report.one_line(name)})"
            scores = {
                key: _points(row[key], points[key], f"{where}, {key}")
                for key in keys
                if row.get(key)
            }
            found[name] = Row(scores, report.one_line(row.get(COMMENT) or ""))
    missing = [name for name in map(report.cell, names) if name not in found]
    if missing:
        added = _rows([[name] + [""] * (len(columns) - 1) for name in missing], delimiter)
        joined = text if not text or text.endswith("\n") else f"{text}\n"
        write_atomically(path, f"{joined}{added}".encode("utf-8-sig"))
    return {name: found.get(report.cell(name), Row()) for name in names}


def _rows(rows: list[list[str]], delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _points(text: str, most: float, where: str) -> float:
    try:
        score = float(text.replace(",", "."))
    except ValueError:
        score = math.nan
    if not 0 <= score <= most:
        raise UserError(f"{where}: expected points from 0 to {most:g}, got {text[:40]!r}")
    return score


def merged(content: dict, row: Row, points: Mapping[str, float]) -> dict:
    """Add what a person gave to a submission's results.

    Args:
        content: of results.json, with such points from before or without
        row: what counts now
        points: by question
    """
    extra = content["extra_data"]
    replaced = dict(extra.get("replaced", {}))  # the grader's own, which a person overruled
    tests = {test["extra_data"]["question"]: test for test in content["tests"]}
    tests = {key: test for key, test in tests.items() if not test["extra_data"].get("by hand")}
    tests |= replaced
    replaced = {key: tests[key] for key in row.scores if key in tests}
    visibility = content["tests"][0]["visibility"]
    for key, score in row.scores.items():
        tests[key] = report.entry(BY_KEY[key], score, points[key], "Marked by hand.", visibility)
        tests[key]["extra_data"] |= {"by hand": True, "explained": False}
    ordered = [tests[question.key] for question in QUESTIONS if question.key in tests]
    open_points = {key: 0 if key in tests else value for key, value in points.items()}
    waiting = [key for key, value in open_points.items() if value]
    usual, bonus = totals(open_points)
    more = f" and {report.number(bonus)} bonus points" if bonus else ""
    sentence = f"{report.number(usual)} points{more} are not graded yet: {', '.join(waiting)}."
    said = {"comment": row.comment, "waiting": sentence if waiting else "", "replaced": replaced}
    score = round(sum(test["score"] for test in ordered), 2)
    return content | {"score": score, "tests": ordered, "extra_data": extra | said}
