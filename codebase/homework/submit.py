"""Making the zip that students hand in, and refusing what a grader could not read."""

import ast
import io
import zipfile
from pathlib import Path

from codebase import ROOT, UserError
from codebase.homework import submission
from codebase.homework.problems import PROBLEMS
from codebase.machine.files import read_file, write_atomically

LARGEST_WEIGHTS = 64 << 20  # bytes of a file


def submit(out: Path, weights: bool) -> list[str]:
    """Write the zip.

    Args:
        out: its path
        weights: whether it has the last weights of each run

    Returns:
        the graded functions that are not written yet

    Raises:
        UserError: a file is no Python, or a graded function is missing
    """
    if out.suffix != ".zip":
        raise UserError(f"--out {out} must end in .zip")
    found = submission.read(ROOT / "codebase")
    for note in found.notes:
        raise UserError(f"{ROOT}: {note}: mend or delete it")
    trees = {name: _parsed(name, source) for name, source in found.sources.items()}
    blank = []
    for problem in PROBLEMS:
        file = f"codebase/{problem.file}"
        if file not in trees:
            raise UserError(f"{file} is missing: {problem.function} belongs there")
        node = submission.function_in(trees[file], problem.model, problem.method)
        if node is None and not submission.inherits(trees[file], problem.model):
            raise UserError(f"{file} has no {problem.function}: put it back, if only as a blank")
        if node is not None and submission.is_blank(node):
            blank.append(problem.function)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in sorted(found.sources.items()):
            archive.writestr(_entry(name), source)
        for name, path in _weights() if weights else ():
            archive.writestr(_entry(name), bytes(read_file(path, LARGEST_WEIGHTS)))
    write_atomically(out, content.getvalue())
    return blank


def _entry(name: str) -> zipfile.ZipInfo:
    """Of the zip: without a time, so that the same code gives the same bytes."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
    return entry


def _parsed(name: str, source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        reason = getattr(error, "msg", None) or str(error)
        raise UserError(f"{name}{line}: {reason}: no grader could read it") from None


def _weights() -> list[tuple[str, Path]]:
    """The last weights of each of one's runs."""
    last: dict[str, tuple[int, Path]] = {}
    for path in (ROOT / "checkpoints").glob("model=*/model-*.pt"):
        step = path.stem.removeprefix("model-")
        if step.isdecimal():
            last[path.parent.name] = max(last.get(path.parent.name, (0, path)), (int(step), path))
    return [(p.relative_to(ROOT).as_posix(), p) for _, (_, p) in sorted(last.items())]
