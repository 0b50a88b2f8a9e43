"""Collect the pictures and texts that a person marks, and read that person's points.

`collect` copies pictures and texts. `read_sheet` reads the points from written.csv, the only file
that has them.
"""

import csv
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from codebase.homework import submission
from codebase.homework.problems import POINTS, QUESTIONS
from codebase.homework.submission import Submission
from codebase.machine.files import write_atomically
from codebase.project import UserError

FOLDER, SHEET, RUBRIC = "written", "written.csv", "rubric.md"
GIVEN = ("README.md", "requirements.txt")
MOST = 50  # files of a submission
COMMENT = "comment"
ROUNDING = 0.02  # points: steps of a rubric with other points are rounded


# Collecting


def collect(handed_in: Submission, folder: Path) -> list[str]:
    """Copy the pictures and texts of a submission; replace or delete earlier copies.

    Args:
        handed_in: the submission
        folder: folder for the copies

    Returns:
        lines for the teacher about replaced copies and files that were not copied
    """
    answers = {folder / name: content for name, content in _answers(handed_in).items()}
    before = {path for path in folder.rglob("*") if path.is_file()}
    changed, lines = bool(before - answers.keys()), []
    for path in before - answers.keys():
        path.unlink()
    for path, content in answers.items():
        try:
            if path not in before or path.read_bytes() != content:
                changed |= bool(before)
                write_atomically(path, content)
        except OSError as error:  # such as a name that is too long
            lines.append(f"{handed_in.name}: {path.name:.100} was not copied: {error.strerror}")
    if changed:
        lines.append(f"{handed_in.name}: its texts or pictures have changed: check its points")
    return lines


def _answers(handed_in: Submission) -> dict[str, bytes]:
    """Return texts and pictures, keyed by the names of their copies; write-ups, samples first."""
    found: dict[str, bytes] = {}

    def importance(inner: str) -> tuple[bool, bool, str]:
        return "writeup" not in inner, not inner.endswith("samples.png"), inner

    for inner in sorted(handed_in.files, key=importance):
        path = PurePosixPath(*(" ".join(part.split()) for part in inner.split("/")))
        given = path.name in GIVEN or handed_in.files[inner] == template()
        if path.suffix.lower() in submission.ANSWERS and not given:
            found.setdefault(str(path), handed_in.files[inner])
    return dict(list(found.items())[:MOST])


def template() -> bytes:
    """Read the students' blank write-up."""
    return (Path(__file__).parent / "handout" / "writeup.md").read_bytes()


def rubric(points: Mapping[str, float]) -> str:
    """Return the rubrics of the questions that a person marks, with this course's points."""

    def scaled(match: re.Match) -> str:
        return f"| {round(float(match[1]) * factor, 2):g} |"

    text = (Path(__file__).parent / RUBRIC).read_text(encoding="utf-8")
    head, *sections = re.split(r"(?m)^(?=## )", text)
    kept = [head]
    for section in sections:
        key = re.split(r"[:\n]", section.removeprefix("## "))[0]
        factor = points[key] / POINTS[key] if key in POINTS else 1
        if factor:
            kept.append(re.sub(r"(?m)^\| ([0-9.]+) \|", scaled, section))
    return "".join(kept)


# The table


@dataclass(frozen=True)
class Row:
    """A person's marks for a submission: points and remarks keyed by question, and a comment."""

    scores: Mapping[str, float] = field(default_factory=dict)
    comment: str = ""
    remarks: Mapping[str, str] = field(default_factory=dict)


def read_sheet(path: Path, points: Mapping[str, float], names: list[str]) -> dict[str, Row]:
    """Read the table of a class, and add a row for each submission that it lacks.

    A column such as "3.1 comment" has remarks about a question.

    Args:
        path: path of a CSV file; it is created if it does not exist
        points: points keyed by question; questions with 0 points are omitted
        names: names of the submissions

    Returns:
        rows keyed by name, including the rows of other submissions

    Raises:
        UserError: the table cannot be read, or has invalid points; the file is not changed
    """
    keys = [q.key for q in QUESTIONS if q.kind != "code" and points[q.key]]
    try:
        text = path.read_bytes().decode("utf-8-sig") if path.exists() else ""
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}: save it as CSV in UTF-8") from None
    text = text or _lines([["submission", *keys, COMMENT]], ",")
    first = text.splitlines()[0]
    delimiter = max(",;\t", key=first.count)
    found = _read_rows(path, text, delimiter, keys, points)
    missing = [name for name in names if name not in found]
    if missing:
        columns = len(next(csv.reader([first], delimiter=delimiter)))
        added = _lines([[quoted(name)] + [""] * (columns - 1) for name in missing], delimiter)
        joined = text if text.endswith(("\r", "\n")) else f"{text}\n"
        write_atomically(path, f"{joined}{added}".encode("utf-8-sig", errors="replace"))
    return found


def quoted(name: str) -> str:
    """Quote a name that a spreadsheet would read as a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "'")) else name


def _read_rows(
    path: Path, text: str, delimiter: str, keys: list[str], points: Mapping[str, float]
) -> dict[str, Row]:
    """Return rows keyed by name. Raises UserError if anything is ambiguous, to protect points."""
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        head, *rows = list(reader) or [[]]
    except csv.Error as error:
        raise UserError(f"{path} cannot be read: {error}: check quotes and long cells") from None
    head = [one.strip() for one in head]
    for column in dict.fromkeys(["submission", *keys, *filter(None, head)]):
        if head.count(column) != 1:
            raise UserError(
                f"{path}: expected one column {column}, got {head.count(column)}: correct the "
                "first row, or add the column; spreadsheets may turn 1.3 into a date"
            )
    found: dict[str, Row] = {}
    for count, cells in enumerate(rows, 2):
        row = dict(zip(head, map(str.strip, cells), strict=False))
        name = row.get("submission", "").removeprefix("'")
        where = f"{path}, row {count}" + (f" {name!r:.60}" if name else "")
        if any(cells[len(head) :]):
            raise UserError(f"{where} has more cells than columns: put texts in double quotes")
        if name in found:
            raise UserError(f"{where}: there are two rows of this name: delete one")
        scores = {
            key: _points(row[key], points[key], f"{where}, {key}") for key in keys if row.get(key)
        }
        if scores and not name:
            raise UserError(f"{where} has points, but no name")
        if without := [key for key in keys if row.get(f"{key} {COMMENT}") and key not in scores]:
            raise UserError(f"{where} has a comment on {without[0]}, but no points")
        if name:
            remarks = {key: row.get(f"{key} {COMMENT}", "") for key in scores}
            found[name] = Row(scores, row.get(COMMENT, ""), remarks)
    return found


def _lines(rows: list[list[str]], delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _points(text: str, most: float, where: str) -> float:
    try:
        score = float(text.replace(",", "."))
    except ValueError:
        score = math.nan
    if not 0 <= score <= most + ROUNDING:
        raise UserError(f"{where}: expected points from 0 to {most:g}, got {text[:40]!r}")
    return min(score, most)
