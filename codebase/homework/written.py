"""What a person marks: pictures, text, and reports that were handed in without weights.

`collect` puts pictures and texts where the person looks; `read_sheet` reads the marks from a table.
"""

import contextlib
import csv
import hashlib
import io
import itertools
import json
import math
import posixpath
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from codebase.homework import report, submission
from codebase.homework.files import child_folder, read_file, remove_leftovers
from codebase.homework.handout.submit import LARGEST_WRITE_UP, pictures_in
from codebase.homework.problems import BY_KEY, POINTS, QUESTIONS, totals
from codebase.machine.files import write_atomically
from codebase.project import UserError

FOLDER, SHEET, RUBRIC, HASHES = "written", "written.csv", "rubric.md", ".copies.json"
SUFFIXES = (".pdf", ".md", ".txt", ".docx", ".png", ".jpg", ".jpeg")
CODE = ("codebase", "tests", "checkpoints", "logs", "data")  # folders without answers
LARGEST, LARGEST_SUM, LARGEST_SHEET = 32 << 20, 128 << 20, 8 << 20  # bytes
MOST = 50  # files
MOST_WRITE_UPS, MOST_LINKS = 5, 200  # that are searched for pictures
COMMENT = "comment"
ROUNDING = 0.02  # points: steps of a rubric with other points are rounded


# Collecting


def prepare(
    out: Path, found: Mapping[str, Path], points: Mapping[str, float]
) -> tuple[dict[str, "Row"], list[str]]:
    """Put pictures, texts, the rubric and the table where a person marks, and read the table.

    Args:
        out: folder of the reports
        found: paths of the submissions, by name
        points: by question

    Returns:
        (rows, lines): rows of the table by name, and lines about what a person should look at

    Raises:
        UserError: the table cannot be read, or it is missing and reports have points from it
    """
    sheet = out / SHEET
    reports = [path.parent for path in out.glob(f"*/{report.RESULTS}")]
    marked = {one.name for one in reports if _is_by_hand(report.read_results(one), points)}
    if marked and not sheet.exists():
        name = min(marked)
        raise UserError(
            f"{sheet} is missing, but the report of {name} has points from it: put it back, or "
            f"delete {out / name}"
        )
    rows = read_sheet(sheet, points, list(found))
    before = _read_hashes(out)
    of_class = dict(before.get("", {}))
    page = rubric(points).encode()
    of_class[RUBRIC], lines = put(out / RUBRIC, page, of_class.get(RUBRIC))
    now = before | {"": of_class}
    for name, path in found.items():
        folder = child_folder(out / FOLDER, name)
        now[name], more = collect(path, folder, before.get(name, {}))
        lines += more
        if now[name] != before.get(name, now[name]):
            line = f"{path}: its texts or pictures have changed since they were copied"
            lines.append(f"{line}: check its points" if rows[name].scores else line)
        if name in marked and not rows[name].scores:
            lines.append(f"{name}: its points by hand are no longer in {sheet}")
    write_atomically(out / HASHES, json.dumps(now, indent=1).encode())
    return rows, lines


def collect(
    path: Path, folder: Path, before: Mapping[str, str] = MappingProxyType({})
) -> tuple[dict[str, str], list[str]]:
    """Copy the pictures and texts of a submission, or bring the copies up to date: see `put`.

    Args:
        path: path of the submission
        folder: folder for the copies
        before: hashes of the files that were copied the last time, by name

    Returns:
        (now, lines): the same hashes now, and lines about files that were left out or renamed
    """
    try:
        files = submission.files_of(path)
    except UserError:
        return dict(before), []  # grading it says why
    root, links, wanted = submission.root_of(files.paths), _links(files), {}
    for inner in sorted(files.paths, key=_importance):
        shown = any(inner == link or link.endswith(f"/{inner}") for link in links)
        for name, is_only in _names(inner, root, shown):
            if not (is_only and name in wanted):
                wanted[_free(name, wanted)] = inner
        if len(wanted) > MOST:
            break
    now, lines, size = {name: before[name] for name in before.keys() & wanted.keys()}, [], 0
    for i, (name, inner) in enumerate(wanted.items()):
        try:
            content = files.contents(inner, LARGEST)
            size += len(content)
            if i >= MOST or size > LARGEST_SUM:
                lines.append(
                    f"{path}: too many texts, or texts too large: {inner} and the files after it "
                    "were not copied"
                )
                break
            if content.replace(b"\r\n", b"\n") != template():
                now[name], renamed = put(folder / name, content, before.get(name))
                lines += renamed
            else:
                now.pop(name, None)
        except OSError as error:
            lines.append(f"{path}: {inner} was not copied: {error.strerror or error}")
    for name in before.keys() - now.keys() if len(wanted) <= MOST else ():
        if ".." not in PurePosixPath(name).parts and not name.startswith("/"):
            with contextlib.suppress(OSError):
                lines += put(folder / name, None, before[name])[1]
    return now, lines


def _links(files: submission.Files) -> list[str]:
    """The pictures that write-ups in Markdown show, as paths in the submission or beyond it."""
    found = []
    write_ups = [path for path in files.paths if PurePosixPath(path).name == "writeup.md"]
    for inner in sorted(write_ups, key=len)[:MOST_WRITE_UPS]:
        with contextlib.suppress(OSError):
            text = files.contents(inner, LARGEST_WRITE_UP).decode(errors="replace")
            above = posixpath.dirname(inner)
            links = [link.replace("\\", "/") for link in pictures_in(text)]
            found += [posixpath.normpath(posixpath.join(above, link)) for link in links]
    return found[:MOST_LINKS]


def _importance(inner: str) -> tuple[bool, bool, str]:
    """Sort write-ups first, and a training's samples before an evaluation's."""
    return "writeup" not in inner, "/evaluation-" in inner, inner


def _names(inner: str, root: str, shown: bool) -> list[tuple[str, bool]]:
    """Names for a file's copies, and whether only the first file of such a name is copied.

    There is none if the file is not an answer.

    Args:
        inner: path in the submission
        root: the folder of the submission's code, with a slash
        shown: whether a write-up shows it
    """
    path = PurePosixPath(*map(report.one_line, inner.split("/")))
    if any(map(submission.is_noise, path.parts)):  # dots too, which would lead out of the folder
        return []
    runs = [part for part in path.parts[-3:-1] if part.startswith("model=")]
    grid = [(f"{runs[-1]}.png", True)] if path.name == "samples.png" and runs else []
    of_code = inner.removeprefix(root).partition("/")[0] in CODE and path.suffix.lower() != ".pdf"
    given = path.name in ("README.md", "requirements.txt")
    is_answer = shown or not (grid or of_code or given)
    return grid + [(str(path), False)] * (is_answer and path.suffix.lower() in SUFFIXES)


def _free(name: str, taken: Collection[str]) -> str:
    """The name, or one with a number: names may differ only in characters that are left out."""
    path = PurePosixPath(name)
    numbered = (str(path.with_stem(f"{path.stem} ({i})")) for i in itertools.count(2))
    return next(one for one in itertools.chain([name], numbered) if one not in taken)


def put(path: Path, content: bytes | None, before: str | None) -> tuple[str, list[str]]:
    """Bring a copy up to date. What a person has written in it is never lost.

    If the original is the same as before, the copy is not changed. Otherwise it is replaced, but a
    copy that a person has changed is renamed, for example to "writeup (old).md".

    Args:
        path: path of the copy
        content: content of the original; None if there is none any more
        before: hash of the original when it was copied; None if it was not

    Returns:
        the hash of the original now, and a line if the copy was renamed

    Raises:
        OSError: the copy cannot be read or written
    """
    now = "" if content is None else hashlib.sha256(content).hexdigest()
    lines = []
    if path.exists():
        found = hashlib.sha256(read_file(path, LARGEST)).hexdigest()
        if now in (before, found):
            return now, []
        if found != before:
            kept = path.rename(_unused(path))
            lines.append(f"{path} has been changed: it was kept as {kept.name}")
        elif content is None:
            path.unlink()
    if content is not None:
        write_atomically(path, content)
    return now, lines


def _unused(path: Path) -> Path:
    """A name for an old copy."""
    names = itertools.chain(["old"], (f"old {number}" for number in itertools.count(2)))
    paths = (path.with_name(f"{path.stem} ({name}){path.suffix}") for name in names)
    return next(one for one in paths if not one.exists())


def _read_hashes(out: Path) -> dict[str, dict[str, str]]:
    """Read what was copied the last time: hashes by submission and name; none if it is unknown."""
    try:
        found = json.loads(read_file(out / HASHES, LARGEST))
        return {name: {str(k): str(v) for k, v in own.items()} for name, own in found.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


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
        key = re.match(r"## ([^:\n]*)", section)[1]
        factor = points[key] / POINTS[key] if key in POINTS else 1
        if factor:
            kept.append(re.sub(r"(?m)^\| ([0-9.]+) \|", scaled, section))
    return "".join(kept)


# The table


@dataclass(frozen=True)
class Row:
    """What a person gave a submission: points and remarks by question, and a comment."""

    scores: dict[str, float] = field(default_factory=dict)
    comment: str = ""
    remarks: dict[str, str] = field(default_factory=dict)


def read_sheet(path: Path, points: Mapping[str, float], names: list[str]) -> dict[str, Row]:
    """Read the table of a class, and add a row for each submission that it lacks.

    A column such as "3.1 comment" has remarks about a question.

    Args:
        path: path of a CSV file; it is created if it does not exist
        points: by question; questions without points are left out
        names: names of the submissions

    Returns:
        rows by names

    Raises:
        UserError: it cannot be read, or has impossible points; it is not changed
    """
    keys = [q.key for q in QUESTIONS if q.kind != "code" and points[q.key]]
    cells = {name: report.cell(name) for name in names}
    if len(set(cells.values())) < len(names):
        alike = [name for name in names if list(cells.values()).count(cells[name]) > 1]
        raise UserError(f"submissions have names that differ only in spaces, such as {alike[0]!r}")
    try:
        text = read_file(path, LARGEST_SHEET).decode("utf-8-sig")
    except FileNotFoundError:
        text = _rows([["submission", *keys, COMMENT]], ",")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}: save it as CSV in UTF-8") from None
    remove_leftovers(path.parent, path.name)
    first = text.splitlines()[0] if text else ""
    delimiter = max(",;\t", key=first.count)
    found = _read_rows(path, text, delimiter, keys, points)
    for name in found.keys() - set(cells.values()):
        print(f"{path}: no submission is named {name}: its points are ignored", file=sys.stderr)
    missing = [cell for cell in cells.values() if cell not in found]
    if missing:
        columns = len(next(csv.reader([first], delimiter=delimiter)))
        added = _rows([[cell] + [""] * (columns - 1) for cell in missing], delimiter)
        joined = text if text.endswith(("\r", "\n")) else f"{text}\n"
        write_atomically(path, f"{joined}{added}".encode("utf-8-sig"))
    return {name: found.get(cell, Row()) for name, cell in cells.items()}


def _read_rows(
    path: Path, text: str, delimiter: str, keys: list[str], points: Mapping[str, float]
) -> dict[str, Row]:
    """Rows by names; UserError if anything in them is unclear, because marks may be at stake."""
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        head, *rows = list(reader) or [[]]
    except csv.Error as error:
        raise UserError(f"{path} cannot be read: {error}: check quotes and long cells") from None
    head = [cell.strip() for cell in head]
    for column in {"submission": 0, **dict.fromkeys(keys, 0), **dict.fromkeys(head, 0)}:
        if column and head.count(column) != 1:
            raise UserError(
                f"{path}: expected one column {column}, got {head.count(column)}: correct the "
                "first row, or add the column; spreadsheets may turn 1.3 into a date"
            )
    found = {}
    for number, cells in enumerate(rows, 2):
        row = dict(zip(head, map(str.strip, cells), strict=False))
        name = report.one_line(row.get("submission", ""))
        where = f"{path}, row {number}" + (f" ({name})" if name else "")
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
            remarks = {key: report.one_line(row.get(f"{key} {COMMENT}") or "") for key in scores}
            found[name] = Row(scores, report.one_line(row.get(COMMENT) or ""), remarks)
    return found


def _rows(rows: list[list[str]], delimiter: str) -> str:
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


def _is_by_hand(content: dict | None, points: Mapping[str, float]) -> bool:
    """Whether results have points that a person gave, for a question that still has some."""
    tests = [test["extra_data"] for test in (content or {}).get("tests", ())]
    return any(test.get("by hand") and points[test["question"]] for test in tests)


def merged(content: dict, row: Row, points: Mapping[str, float]) -> dict:
    """Add what a person gave to a submission's results.

    Args:
        content: content of results.json, with or without earlier points
        row: the points that count now
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
        own = tests.get(key)  # which explains the values
        remark = row.remarks.get(key) or "Marked by hand."
        said = [remark, own["output"]] if own else [remark]
        entry = report.entry(BY_KEY[key], score, points[key], "\n".join(said), visibility)
        entry["extra_data"] |= {"by hand": True, "explained": said != ["Marked by hand."]}
        tests[key] = entry
    ordered = [tests[question.key] for question in QUESTIONS if question.key in tests]
    open_points = {key: 0 if key in tests else value for key, value in points.items()}
    waiting = [key for key, value in open_points.items() if value]
    usual, bonus = totals(open_points)
    sums = ((usual, "points"), (bonus, "bonus points"))
    open_sums = " and ".join(f"{report.number(value)} {kind}" for value, kind in sums if value)
    sentence = f"Not graded yet: {open_sums} ({', '.join(waiting)})."
    said = {"comment": row.comment, "waiting": sentence if waiting else "", "replaced": replaced}
    said["said"] = extra.get("said", content["output"])
    output = "\n".join(filter(None, [said["said"], row.comment, said["waiting"]]))
    score = round(sum(test["score"] for test in ordered), 2)
    added = {"score": score, "output": output, "tests": ordered, "extra_data": extra | said}
    return content | added
