"""Grading submissions, one or a class of them: in parallel, each once, with reports on disk."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from types import MappingProxyType

import torch
from tqdm import tqdm

from codebase import data
from codebase.homework import grade, report, sandbox, submission, summary, weights, written
from codebase.homework.files import child_folder, read_file
from codebase.homework.problems import QUESTIONS
from codebase.homework.sandboxed import limits
from codebase.machine.files import write_atomically
from codebase.project import UserError


@dataclass(frozen=True)
class Settings:
    """How to grade.

    Args:
        points: points by question
        kind: kind of sandbox
        with_weights: evaluate the submissions' checkpoints
        data_dir: folder of the data sets, for those
        show_points, show_output: in the reports: the points; what a submission prints
    """

    points: dict[str, float]
    kind: str
    with_weights: bool = False
    data_dir: Path = Path("data")
    show_points: bool = True
    show_output: bool = False

    def key(self, path: Path, handed_in: submission.Submission) -> str:
        """Hash everything that a submission's report depends on."""
        checkpoints = weights.digest(path, handed_in) if self.with_weights else None
        shown = (self.show_points, self.show_output)
        name = handed_in.name
        return grade.key_of(handed_in, self.points, self.kind, checkpoints, shown, name)


@dataclass(frozen=True)
class Outcome:
    """A graded submission: the contents of results.json, and the seconds that functions took."""

    name: str
    results: dict
    seconds: dict[str, float]
    ungraded: str = ""

    @property
    def table(self) -> str:
        """For the terminal."""
        return report.table(self.results, self.seconds)


def find(paths: list[Path]) -> tuple[dict[str, Path], list[str]]:
    """Find submissions by name: zips and folders, and the entries of a class's folder.

    Returns:
        (found, skipped): paths by name; and a line for each entry that is not a submission

    Raises:
        UserError: there is none at a path, or two have one name
    """
    found: dict[str, Path] = {}
    skipped = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: there is no such zip or folder")
        members, others = _members(path)
        skipped += others
        if path.is_dir() and not any(path.iterdir()):
            raise UserError(f"{path} is empty: pass a zip, a submission or a folder of them")
        for one in members or [path]:
            name = submission.name_of(one)
            if name in found:
                raise UserError(f"{found[name]} and {one} have the same name: rename one of them")
            found[name] = one
    return found, skipped


def _members(path: Path) -> tuple[list[Path], list[str]]:
    """The submissions in a folder, and what else is in it; none if it is a submission itself."""
    if not path.is_dir():
        return [], []
    if submission.has_package(path):
        archives = [
            one.name for one in sorted(path.iterdir()) if submission.archive_suffix(one.name)
        ]
        note = f"{path}: graded as one submission, because it has the homework's code at its top"
        return [], [note] if archives else []
    entries = sorted(path.iterdir())
    named = [one for one in entries if not submission.is_noise(one.name)]
    folders = [one for one in named if one.is_dir()]
    archives = [one for one in named if submission.archive_suffix(one.name) and one not in folders]
    several = len(folders) > 1 and any(map(_is_like_one, folders))
    if not (archives or several or (folders and _holds_archive(folders[0]))):
        return [], []
    members = [*archives, *folders]
    others = [one for one in entries if one not in members]
    return members, [f"{one}: skipped, not a zip or folder of a submission" for one in others]


def _is_like_one(folder: Path) -> bool:
    """Whether a folder has the homework's code or an archive, at its top or one level down."""
    return any(map(submission.has_package, [folder, *folder.glob("*")])) or _holds_archive(folder)


def _holds_archive(folder: Path) -> bool:
    try:
        return any(submission.archive_suffix(one.name) for one in folder.iterdir())
    except OSError:  # an unreadable folder is reported when it is graded
        return False


def grade_one(path: Path, settings: Settings, another: bool = False) -> Outcome:
    """Grade a submission; one that cannot be read gets no points and a reason."""
    try:
        handed_in = submission.read(path)
        key = settings.key(path, handed_in)
        graded = grade.grade(handed_in, settings.points, settings.kind, another)
        if settings.with_weights:
            code = {mark.problem.function: mark for mark in graded.marks}
            more = weights.marks(path, handed_in, settings.points, code, settings.data_dir)
            graded = replace(graded, marks=(*graded.marks, *more))
    except Exception as error:  # one submission must not stop a class
        reason = f"grading failed, look at it by hand: {type(error).__name__}: {error}"
        if isinstance(error, UserError):
            reason = str(error).replace(str(path), path.name)
        graded = grade.unreadable(submission.name_of(path), settings.points, reason)
        if settings.with_weights:
            more = weights.nothing(settings.points, reason)
            graded = replace(graded, marks=(*graded.marks, *more))
        key = ""  # so it is graded again the next time
    results = report.results(graded, key, settings.show_points, settings.show_output)
    results = written.merged(results, written.Row(), settings.points)
    return Outcome(graded.name, results, graded.seconds, graded.ungraded)


def grade_all(
    found: dict[str, Path],
    settings: Settings,
    out: Path | None,
    jobs: int,
    rows: Mapping[str, written.Row] = MappingProxyType({}),
) -> Iterator[Outcome]:
    """Grade submissions, and write each one's reports as soon as it is graded.

    A submission is skipped if its reports exist for the same code and settings.

    Args:
        found: paths by name
        settings: how to grade
        out: folder of the reports; None writes none
        jobs: submissions that are graded at once
        rows: what a person gave, by name

    Yields:
        those that were graded
    """
    wanted = {}
    for name, path in found.items():
        old = None if out is None else _graded(child_folder(out, name), path, settings)
        if old is None:
            wanted[name] = path
        else:
            row = rows.get(name, written.Row())
            _write(child_folder(out, name), written.merged(old, row, settings.points))
    for outcome in _in_parallel(list(wanted.values()), settings, jobs):
        row = rows.get(outcome.name, written.Row())
        outcome = replace(outcome, results=written.merged(outcome.results, row, settings.points))
        if out is not None:
            _write(child_folder(out, outcome.name), outcome.results)
        yield outcome


def _write(folder: Path, results: dict) -> None:
    page = report.markdown(results).encode(errors="replace")
    for name, content in ((report.REPORT, page), (report.RESULTS, report.encoded(results))):
        if not _has(folder / name, content):
            write_atomically(folder / name, content)


def _has(path: Path, content: bytes) -> bool:
    """Whether a file has these contents."""
    try:
        return read_file(path, len(content)) == content
    except OSError:
        return False


def _graded(folder: Path, path: Path, settings: Settings) -> dict | None:
    """The results in a folder, if they are of this code and these settings; otherwise None."""
    results = report.read_results(folder)
    if results is None:
        return None
    try:
        key = settings.key(path, submission.read(path))
        report.markdown(written.merged(results, written.Row(), settings.points))
    except (UserError, TypeError, LookupError, ValueError, AttributeError, ArithmeticError):
        return None
    return results if results["extra_data"]["key"] == key else None


def _in_parallel(paths: list[Path], settings: Settings, jobs: int) -> Iterator[Outcome]:
    if jobs == 1 or len(paths) < 2:
        try:
            for i, path in enumerate(paths, 1):
                yield grade_one(path, settings, another=i < len(paths))
        finally:
            sandbox.Sandbox.discard()
        return
    # Removed at the end, even if grading processes are killed and leave files in it.
    with tempfile.TemporaryDirectory(prefix="grader-") as folder:
        os.chmod(folder, 0o711)  # another user passes through it
        yield from _in_a_pool(paths, settings, jobs, folder)


def _in_a_pool(paths: list[Path], settings: Settings, jobs: int, folder: str) -> Iterator[Outcome]:
    arguments = (os.getpid(), folder)
    pool = ProcessPoolExecutor(min(jobs, len(paths)), get_context("spawn"), _begin, arguments)
    try:
        last = len(paths) - jobs  # from here on, no submission follows in the same process
        waiting = [
            pool.submit(grade_one, path, settings, another=i < last) for i, path in enumerate(paths)
        ]
        for future in as_completed(waiting):
            yield future.result()
    except BrokenProcessPool:
        raise UserError(
            "a grading process was killed, probably because memory ran out: pass fewer --jobs and "
            "run the same command to continue"
        ) from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in active_children():  # their sandboxes end with them
            process.terminate()
        raise
    pool.shutdown()


def _begin(parent: int, folder: str) -> None:
    """Set up a grading process: it leaves interrupts to its parent, and ends with it."""
    sandbox.Sandbox.folder = folder
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        limits.end_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)
    torch.set_num_threads(1)


RESERVED = {summary.GRADES, summary.SUMMARY, summary.PICTURE}
RESERVED |= {written.FOLDER, written.SHEET, written.RUBRIC}
LONGEST_NAME = 200  # bytes


def _check_out(out: Path, paths: list[Path], found: dict[str, Path]) -> None:
    """Raise UserError if reports would be written over a file, or among the submissions."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file: choose a folder for the reports")
    for name in found.keys() & RESERVED:
        raise UserError(f"{found[name]}: rename it, because reports have a file {name}")
    for name in found:
        if not name.strip() or len(name.encode(errors="replace")) > LONGEST_NAME:
            raise UserError(f"{found[name]}: its name is empty or too long: rename it")
    for name, path in found.items():
        if (out / name).resolve() == path.resolve():
            raise UserError(f"--out {out} has the submission {name} in it: choose another folder")
    for path in paths:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise UserError(f"--out {out} is inside {path}: choose a folder outside of it")


def command(paths: list[Path], settings: Settings, out: Path | None, jobs: int) -> None:
    """Grade submissions and print how they did."""
    found, skipped = find(paths)
    if out is not None:
        _check_out(out, paths, found)
    for line in skipped:
        print(report.one_line(line), file=sys.stderr)
    print(sandbox.guarantees(settings.kind), file=sys.stderr)
    if settings.with_weights:
        data.find_or_download("mnist", "mnist", settings.data_dir)
    rows = {}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        rows = _written(found, settings, out)
    a_class = len(found) > 3
    done = 0
    with tqdm(total=len(found), disable=not a_class, desc="graded", unit="submission") as bar:
        for outcome in grade_all(found, settings, out, jobs, rows):
            done += 1
            bar.update()
            if not a_class:
                print(outcome.table)
            elif outcome.ungraded:
                line = f"{outcome.name} was not graded: {outcome.ungraded}"
                bar.write(report.one_line(line), file=sys.stderr)
        bar.update(len(found) - done)
    if done < len(found):
        print(f"unchanged since they were graded: {len(found) - done}", file=sys.stderr)
    if out is not None:
        if rows:
            marked = sum(bool(row.scores) for row in rows.values())
            print(f"Marked by hand: {marked} of {len(rows)}, in {out / written.SHEET}")
        if len(found) > 1:
            summary.write(out, found, skipped)
            print(f"Summary: {out / summary.SUMMARY}")
            reports = {path.parent.name for path in out.glob(f"*/{report.RESULTS}")}
            if others := len(reports - found.keys()):
                print(
                    f"{out} has other reports ({others}) that {summary.GRADES} does not list: to "
                    "list all submissions, grade them with one command",
                    file=sys.stderr,
                )
        print(f"Reports: {out}")


def _written(found: dict[str, Path], settings: Settings, out: Path) -> dict[str, written.Row]:
    """Collect what a person marks, and read the marks; nothing if nothing of it has points."""
    if not any(settings.points[q.key] for q in QUESTIONS if q.kind != "code"):
        return {}
    rows, lines = written.prepare(out, found, settings.points)
    for line in lines:
        print(report.one_line(line), file=sys.stderr)
    return rows
