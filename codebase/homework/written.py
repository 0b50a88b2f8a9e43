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
        lines for the teacher about replaced copies
    """
    answers = {folder / name: content for name, content in _answers(handed_in).items()}
    before = {path for path in folder.rglob("*") if path.is_file()}
    same = {path for path in before & answers.keys() if path.read_bytes() == answers[path]}
    for path in before - same:
        path.unlink()
    for path in answers.keys() - same:
        write_atomically(path, answers[path])
    changed = before and before | answers.keys() != same
    told = f"{handed_in.name}: its texts or pictures have changed: check its points"
    return [told] if changed else []


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
    """A person's marks for a submission: points keyed by question, and a comment."""

    scores: Mapping[str, float] = field(default_factory=dict)
    comment: str = ""


def read_sheet(path: Path, points: Mapping[str, float], names: list[str]) -> dict[str, Row]:
    """Read the table of a class, and add a row for each submission that it lacks.

    Args:
        path: path of a CSV file; it is created if it does not exist
        points: points keyed by question; questions with 0 points are omitted
        names: names of the submissions

    Returns:
        rows keyed by name, including the rows of other submissions

    Raises:
        UserError: the table cannot be read, or has invalid points; the file is not changed
    """
    columns = ["submission", *(q.key for q in QUESTIONS if q.kind != "code" and points[q.key])]
    columns.append(COMMENT)
    try:
        text = path.read_bytes().decode("utf-8-sig") if path.exists() else ""
        text = text or f"{','.join(columns)}\n"
        delimiter = max(",;\t", key=text.splitlines()[0].count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        head, *rows = [[cell.strip() for cell in row] for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        told = "save it as CSV in UTF-8, and check quotes and long cells"
        raise UserError(f"{path} cannot be read: {error}: {told}") from None
    for column in columns:
        if head.count(column) != 1:
            raise UserError(
                f"{path}: expected one column {column}, got {head.count(column)}: correct the "
                "first row, or add the column; spreadsheets may turn 1.3 into a date"
            )
    found = _read_rows(path, head, rows, {key: points[key] for key in columns[1:-1]})
    missing = [[quoted(name)] + [""] * (len(head) - 1) for name in names if name not in found]
    if missing:
        added = io.StringIO(text if text.endswith(("\r", "\n")) else f"{text}\n", newline="")
        added.seek(0, io.SEEK_END)
        csv.writer(added, delimiter=delimiter, lineterminator="\n").writerows(missing)
        write_atomically(path, added.getvalue().encode("utf-8-sig", errors="replace"))
    return found


def quoted(name: str) -> str:
    """Quote a name that a spreadsheet would read as a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "'")) else name


def _read_rows(
    path: Path, head: list[str], rows: list[list[str]], points: Mapping[str, float]
) -> dict[str, Row]:
    """Return rows keyed by name. Raises UserError if anything is ambiguous, to protect points."""
    found: dict[str, Row] = {}
    for count, cells in enumerate(rows, 2):
        row = dict(zip(head, cells, strict=False))
        name = row.get("submission", "").removeprefix("'")
        where = f"{path}, row {count}" + (f" {name!r:.60}" if name else "")
        if any(cells[len(head) :]):
            raise UserError(f"{where} has more cells than columns: put texts in double quotes")
        if name in found:
            raise UserError(f"{where}: there are two rows of this name: delete one")
        given = {key: row[key] for key in points if row.get(key)}
        scores = {key: _points(text, points[key], f"{where}, {key}") for key, text in given.items()}
        if scores and not name:
            raise UserError(f"{where} has points, but no name")
        if name:
            found[name] = Row(scores, row.get(COMMENT, ""))
    return found


def _points(text: str, most: float, where: str) -> float:
    try:
        score = float(text.replace(",", "."))
    except ValueError:
        score = math.nan
    if not 0 <= score <= most + ROUNDING:
        raise UserError(f"{where}: expected points from 0 to {most:g}, got {text[:40]!r}")
    return min(score, most)
