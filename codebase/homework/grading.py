"""Grade one submission or a class, in parallel; read each submission once and cache its results."""

import contextlib
import hashlib
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

import torch
from tqdm.auto import tqdm

from codebase import data, figures
from codebase.homework import marking, report, submission, summary, weights, written
from codebase.homework.marking import Mark
from codebase.homework.problems import PROBLEMS, QUESTIONS
from codebase.homework.report import Found
from codebase.homework.sandbox import Output, Sandbox, check
from codebase.homework.sandboxed import PRINTED, WAITING, Case
from codebase.homework.submission import Entry, Submission
from codebase.machine.files import write_atomically
from codebase.project import ROOT, UserError

SECONDS = 240  # CPU time for a submission; a right one takes 2
ORDER = sorted(PROBLEMS, key=lambda problem: bool(problem.model))  # see `cases.helpers_for`
CACHE = ".cache"  # in the folder of the reports: what was found, by name
RESERVED = {summary.GRADES, summary.SUMMARY, summary.PICTURE}
RESERVED |= {written.FOLDER, written.SHEET, written.RUBRIC}
HELPED = "Your code raises an error with this project's helper functions."


@dataclass(frozen=True)
class Settings:
    """Settings for grading.

    Args:
        points: points keyed by question
        kind: kind of sandbox
        with_weights: whether to evaluate the submissions' weights
        data_dir: folder of MNIST, for the evaluation
        show_points, show_output: whether reports show points, and printed output
    """

    points: Mapping[str, float]
    kind: str
    with_weights: bool = False
    data_dir: Path = Path("data")
    show_points: bool = True
    show_output: bool = False

    def key(self, handed_in: Submission) -> str:
        """Hash everything that the marks depend on: code, weights, points, and the grader."""
        about = (handed_in.digest, handed_in.notes, handed_in.copies, sorted(self.points.items()))
        found = hashlib.sha256(repr(about).encode(errors="replace"))
        if self.with_weights:
            for path in sorted(handed_in.files):
                if path.endswith(".pt"):
                    found.update(path.encode(errors="replace") + handed_in.files[path])
        for file in sorted((ROOT / "codebase").rglob("*.py")):
            found.update(file.read_bytes())
        return f"{found.hexdigest()} {self.with_weights}"


# One submission


class _Running:
    """Runs a submission's cases until its time is used up; collects notes and printed output."""

    def __init__(self, sandbox: Sandbox, handed_in: Submission):
        self.sandbox, self.handed_in, self.left = sandbox, handed_in, float(SECONDS)
        self.printed = ""
        self.missing: set[str] = set()
        self.broken: dict[str, str] = {}

    def __call__(self, case: Case, helpers: Mapping[str, str] | None) -> Output:
        if self.left <= 0:
            return Output((), f"Your submission's {SECONDS} seconds are used up.")
        begun = time.monotonic()
        given = self.handed_in.helped(helpers or {}, self.broken)
        output = self.sandbox.run(given, case)
        # CPU time, because a busy machine costs no points; but sleep is not free either.
        self.left -= max(output.cpu, (time.monotonic() - begun) / WAITING)
        if helpers is not None:  # what it says could be the source of the helpers it was given
            calls = (one if isinstance(one, list) else HELPED for one in output.calls)
            return replace(output, error=output.error and HELPED, calls=tuple(calls))
        if output.printed not in self.printed:
            self.printed = (self.printed + output.printed)[:PRINTED]
        self.missing |= set(output.missing)
        self.broken |= dict(output.broken)
        return output

    def notes(self) -> list[str]:
        """Return notes about missing packages, and files that cannot be imported."""
        notes = []
        if self.missing:
            names = ", ".join(sorted(self.missing))[:200]
            notes.append(
                f"Your code imports packages that the grader does not have: {names}. Stand-ins "
                "replaced them."
            )
        for file, reason in sorted(self.broken.items())[:20]:
            notes.append(f"Your file {file[:100]} cannot be imported: {reason[:300]}.")
        return notes


def grade_code(handed_in: Submission, points: Mapping[str, float], sandbox: Sandbox) -> Found:
    """Grade the functions of a submission.

    Args:
        handed_in: the submission
        points: points keyed by question
        sandbox: the sandbox in which it runs
    """
    running, seed = _Running(sandbox, handed_in), int(handed_in.digest[:15], 16)
    marks: dict[str, Mark] = {}
    for problem in ORDER:
        marks[problem.key] = marking.mark(problem, points[problem.key], running, marks, seed)
    return Found(
        handed_in.name,
        tuple(marks[problem.key] for problem in PROBLEMS),
        (*handed_in.notes, *running.notes()),
        handed_in.copies,
        running.printed,
        prints=summary.fingerprints(handed_in),
    )


def grade_one(
    name: str, entry: Entry, settings: Settings, sandbox: Sandbox, out: Path | None = None
) -> tuple[Found, list[str]]:
    """Grade a submission, unless the same code was graded before with the same settings.

    Args:
        name: name for its reports
        entry: its location
        settings: see `Settings`
        sandbox: the sandbox in which it runs
        out: folder for the reports, the cache and the copied texts; None: write nothing

    Returns:
        the results, and lines for the teacher
    """
    lines: list[str] = []
    cache = None if out is None else out / CACHE / f"{name}.json"
    try:
        handed_in = submission.read(entry, settings.with_weights)
        if out is not None and any(settings.points[q.key] for q in QUESTIONS if q.kind != "code"):
            lines += written.collect(handed_in, out / written.FOLDER / name)
        if not handed_in.sources:
            return Found(name, ungraded=handed_in.notes[0]), lines
        key = settings.key(handed_in)
        if cache is not None:
            with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
                found = Found.decoded(cache.read_bytes())
                if found.key == key:
                    return replace(found, name=name), lines
        found = grade_code(handed_in, settings.points, sandbox)
        if settings.with_weights:
            code = {mark.question.key: mark for mark in found.marks}
            more = weights.marks(handed_in, settings.points, code, settings.data_dir)
            found = replace(found, marks=(*found.marks, *more))
        found = replace(found, name=name, key=key)
        if cache is not None:
            write_atomically(cache, found.encoded())
        return found, lines
    except Exception as error:  # one submission must not stop a class; it is graded again
        reason = f"grading failed, look at it by hand: {type(error).__name__}: {error}"
        if isinstance(error, UserError):
            reason = str(error).replace(str(entry.path), entry.path.name)
        return Found(name, ungraded=report.one_line(reason)), lines


# A class


def find(paths: list[Path]) -> tuple[dict[str, Entry], list[str]]:
    """Find submissions: zips and folders, and the entries of a class's folder or zip.

    Returns:
        (found, skipped): submissions keyed by name, and a line for each other entry

    Raises:
        UserError: a path has no submission, or two have the same name
    """
    found: dict[str, Entry] = {}
    skipped = []
    for path in paths:
        # One zip may be a class's; of several, each is a student's, whatever it holds.
        whole = len(paths) == 1 or not path.is_file()
        entries, others = submission.entries(path) if whole else ([Entry(path)], [])
        skipped += others
        for entry in entries:
            name = report.one_line(entry.name).encode()[:200].decode(errors="ignore").strip()
            if name in RESERVED or not name.strip(". "):
                raise UserError(f"{entry}: rename it, because {name!r:.40} cannot name a report")
            if name in found:
                raise UserError(f"{found[name]} and {entry} have the same name: rename one of them")
            found[name] = entry
    versions: dict[str, str] = {}
    for name in found:  # as Canvas names them: name, LATE, number, number, file
        if match := re.match(r"([^_]+)_(?:LATE_)?(\d+)_\d{3,}_", name):
            first = versions.setdefault(f"{match[1]}_{match[2]}", name)
            if first != name:
                skipped.append(f"{first} and {name} are two versions of one student: both count")
    return found, skipped


def grade_all(
    found: Mapping[str, Entry], settings: Settings, out: Path | None, jobs: int
) -> Iterator[tuple[Found, list[str]]]:
    """Grade submissions in threads: see `grade_one`. Their sandboxes do nearly all the work."""
    torch.set_num_threads(1)
    waiting: SimpleQueue = SimpleQueue()
    done: SimpleQueue = SimpleQueue()
    for item in found.items():
        waiting.put(item)

    def work():
        with Sandbox(settings.kind) as sandbox, contextlib.suppress(Empty):
            while True:
                name, entry = waiting.get_nowait()
                done.put(grade_one(name, entry, settings, sandbox, out))

    for _ in range(min(jobs, len(found))):
        Thread(target=work, daemon=True).start()
    for _ in found:
        yield done.get()


def command(paths: list[Path], settings: Settings, out: Path | None, jobs: int) -> None:
    """Grade submissions, print their tables, and write reports."""
    found, skipped = find(paths)
    a_class = len(found) > 3
    if out is not None:
        _check_out(out, paths, found)
    elif a_class:
        raise UserError(f"there are {len(found)} submissions: pass --out, a folder for the reports")
    check(settings.kind)
    for line in skipped:
        print(report.one_line(line), file=sys.stderr)
    if settings.with_weights:
        data.find_or_download("mnist", "mnist", settings.data_dir)
    rows = {}
    if out is not None:
        rows = written.read_sheet(out / written.SHEET, settings.points, list(found))
        write_atomically(out / written.RUBRIC, written.rubric(settings.points).encode())
        for name in rows.keys() - found.keys():
            print(f"{written.SHEET}: {report.one_line(name)} is not graded now", file=sys.stderr)
    graded = []
    with tqdm(total=len(found), disable=not a_class, desc="graded", unit="submission") as bar:
        for one, lines in grade_all(found, settings, out, jobs):
            row = rows.get(one.name, written.Row())
            one = report.merged(one, row, settings.points)
            graded.append(one)
            bar.update()
            if one.copies:
                lines = [*lines, f"{one.name}: {one.copies}"]
            if a_class and one.ungraded:
                lines = [*lines, f"{one.name} was not graded: {one.ungraded}"]
            elif not a_class:
                print(report.table(one))
            for line in lines:
                bar.write(report.one_line(line), file=sys.stderr)
            if out is not None:
                shown = (settings.show_points, settings.show_output)
                write_atomically(out / one.name / report.REPORT, report.markdown(one, *shown))
                write_atomically(out / one.name / report.RESULTS, report.results(one, *shown))
    if out is None:
        return
    marked = sum(bool(rows[name].scores) for name in rows.keys() & found.keys())
    print(f"Marked by hand: {marked} of {len(found)}, in {out / written.SHEET}")
    if len(found) > 1 or (out / summary.GRADES).exists():
        graded.sort(key=lambda one: one.name)
        table = summary.grades(graded).encode("utf-8-sig", errors="replace")
        page = summary.summary(graded, skipped, settings.points).encode(errors="replace")
        write_atomically(out / summary.GRADES, table)
        write_atomically(
            out / summary.PICTURE, figures.png(summary.picture(graded, settings.points))
        )
        write_atomically(out / summary.SUMMARY, page)
        print(f"Summary: {out / summary.SUMMARY}")
    print(f"Reports: {out}")


def _check_out(out: Path, paths: list[Path], found: Mapping[str, Entry]) -> None:
    """Raise UserError if --out is a file, or reports would overwrite a submission."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: choose a folder for the reports")
    for name, entry in found.items():
        if (out / name).resolve() == entry.path.resolve():
            raise UserError(f"--out {out} has the submission {name} in it: choose another folder")
    for path in paths:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise UserError(f"--out {out} is inside {path}: choose a folder outside of it")
