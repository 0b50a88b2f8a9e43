"""python -m codebase submit: create the zip that you hand in, and try each function once"""

import ast
import io
import traceback
import zipfile
from pathlib import Path

from codebase import ROOT, UserError
from codebase.machine.files import one_line, read_file, write_atomically
from codebase.runs.flags import SWITCH, Parser
from codebase.runs.main import Trouble

GRADED = (
    *("sample_gaussian", "VAE.negative_elbo_bound", "log_normal", "log_normal_mixture"),
    *("GMVAE.negative_elbo_bound", "VAE.negative_iwae_bound", "GMVAE.negative_iwae_bound"),
    *("SSVAE.negative_elbo_bound", "FSVAE.negative_elbo_bound"),
)
LARGEST_SOURCE, LARGEST_WEIGHTS, LARGEST_TEXT = 1 << 20, 64 << 20, 32 << 20  # bytes of a file
LARGEST_ZIP = 256 << 20
TEXTS = (".md", ".pdf", ".txt", ".png", ".jpg", ".jpeg")


def main() -> None:
    """The one command of `python -m codebase` that students have."""
    parser = Parser(prog="python -m codebase", description=__doc__)
    parser.add_argument("command", choices=("submit",))
    add_arguments(parser)
    with Trouble(parser):
        act(parser.parse_args())


def add_arguments(parser: Parser) -> None:
    """Add the flags of the command."""
    parser.add_argument("--out", type=Path, default="submission.zip", help="file of the zip")
    parser.add_argument(
        "--weights", **SWITCH, help="1: add the last weights and the results of each run"
    )


def act(args) -> None:
    """Make the zip, and print which functions are not written yet or fail."""
    blank, others = submit(args.out, bool(args.weights))
    texts = [name for name in others if name.startswith("writeup")]
    if texts == ["writeup.md"] and _has_no_answers(ROOT / texts[0]):
        texts = ["writeup.md, which has no answers yet"]
    print(f"Write-up: {', '.join(texts) or 'none, so write writeup.md or writeup.pdf'}")
    runs = sorted(
        {part for name in others for part in name.split("/") if part.startswith("model=")}
    )
    print(f"{'Runs' if args.weights else 'Pictures of runs'}: {', '.join(runs) or 'none'}")
    if not args.weights:
        print("Without --weights 1, the values that you report are not graded")
    if blank:
        print(f"Not written yet: {', '.join(blank)}")
    failing = list(dict.fromkeys(line for function in GRADED for line in _trial(function)))
    for line in failing:
        print(line)
    if not blank and not failing:
        print("Every function is written and ran without an error")
    print(f"Hand in this file: {args.out}")


def _trial(function: str) -> list[str]:
    """Call a function with small inputs; a line about what it raises, if it does."""
    import torch

    model, _, name = function.rpartition(".")
    m, v, images = torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(2, 784)
    args = {"sample_gaussian": (m, v), "log_normal": (m, m, v)}.get(name, (images,))
    if name == "log_normal_mixture":
        args = (m, m.unsqueeze(1), v.unsqueeze(1))
    elif name == "negative_iwae_bound":
        args = (images, 2)
    elif model == "FSVAE":
        args = (torch.zeros(2, 3072), torch.eye(10)[:2])
    try:
        with torch.random.fork_rng([]):
            from codebase import models, utils

            result = getattr(getattr(models, model)() if model else utils, name)(*args)
        count = 0 if not model else 4 if model == "SSVAE" else 3
        if count and (not isinstance(result, tuple | list) or len(result) != count):
            return [f"{function} does not return {count} values"]
    except NotImplementedError:
        return []  # it is listed as not written, or calls one that is
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        places = [(Path(frame.filename).resolve(), frame.lineno) for frame in frames]
        if isinstance(error, SyntaxError) and error.filename:
            places.append((Path(error.filename).resolve(), error.lineno))
        path, line = [place for place in places if place[0].is_relative_to(ROOT)][-1]
        place = f"{_name(path)}, line {line}"
        return [f"{function} fails: {type(error).__name__}: {one_line(error)} ({place})"]
    return []


def submit(out: Path, weights: bool) -> tuple[list[str], list[str]]:
    """Write the zip: the code, the write-up, pictures of runs.

    Args:
        out: its path
        weights: whether it has the last weights and the results of each run, too

    Returns:
        the graded functions that are not written yet, and the names of files that are not code

    Raises:
        UserError: a file is not Python, or a graded function is missing
    """
    if out.suffix != ".zip":
        raise UserError(f"--out {out} must end in .zip")
    paths = sorted((ROOT / "codebase").rglob("*.py"))
    contents = {_name(path): _source(path) for path in paths if "homework" not in path.parts}
    blank = [function for function in GRADED if _is_blank(function, contents)]
    others = [*_write_up(), *_of_runs(weights)]
    contents |= {_name(path): _read(path) for path in others}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name)  # without a time: the same code gives the same bytes
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            archive.writestr(entry, content)
    if buffer.tell() > LARGEST_ZIP:
        size, most = buffer.tell() >> 20, LARGEST_ZIP >> 20
        raise UserError(
            f"{out} would be {size} MB, but the grader reads at most {most} MB: delete runs that "
            "you do not hand in"
        )
    write_atomically(out, buffer.getvalue())
    return blank, [_name(path) for path in others]


def _write_up() -> list[Path]:
    """The student's answers: writeup.md, writeup.pdf, and pictures in a folder writeup/."""
    found = sorted([*ROOT.glob("writeup.*"), *(ROOT / "writeup").rglob("*")])
    return [path for path in found if path.suffix.lower() in TEXTS and path.is_file()]


def _has_no_answers(path: Path) -> bool:
    """Whether a write-up has only headings and lines to fill in."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return all(not line.strip() or line.startswith("#") or line.endswith(":") for line in lines)


def _of_runs(weights: bool) -> list[Path]:
    """The sample grid of each run; and its last weights and results, if they are asked for."""
    found = []
    for folder in sorted((ROOT / "checkpoints").glob("model=*")):
        from codebase import checkpoints  # which imports torch

        steps = checkpoints.steps_in(folder)
        logs = ROOT / "logs" / folder.name
        evaluated = logs / f"evaluation-{steps[-1]:05d}" if steps else logs
        pictures = [place / "samples.png" for place in (logs, evaluated)]
        found += [picture for picture in pictures if picture.is_file()][:1]
        if weights and steps:
            found += [checkpoints.file_of(folder, steps[-1]), folder / "run.json"]
            found += dict.fromkeys([evaluated / "results.json", logs / "results.json"])
    return [path for path in found if path.is_file()]


def _read(path: Path) -> bytes:
    """A file that is not code."""
    try:
        str(path).encode()
        return bytes(read_file(path, LARGEST_WEIGHTS if path.suffix == ".pt" else LARGEST_TEXT))
    except UnicodeEncodeError:
        raise UserError(f"{_name(path)!r} has a name that is not UTF-8: rename it") from None
    except OSError as error:
        raise UserError(f"{_name(path)}: {error.strerror}: replace or delete it") from None


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _source(path: Path) -> bytes:
    """A file of Python, which must be one."""
    try:
        content = bytes(read_file(path, LARGEST_SOURCE))
        ast.parse(content)
    except OSError as error:
        raise UserError(f"{_name(path)}: {error.strerror}: correct or delete it") from None
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        reason = getattr(error, "msg", None) or str(error)
        raise UserError(
            f"{_name(path)}{line}: {reason}: correct it, because the grader cannot read it"
        ) from None
    return content


def _is_blank(function: str, sources: dict[str, bytes]) -> bool:
    """Whether a graded function is still blank. Raises UserError if it is missing."""
    model, _, name = function.rpartition(".")
    file = f"codebase/models/{model.lower()}.py" if model else "codebase/utils.py"
    if file not in sources:
        raise UserError(f"{file} is missing: {function} belongs there")
    body = ast.parse(sources[file]).body
    owner = [node for node in body if isinstance(node, ast.ClassDef) and node.name == model]
    inside = body if not model else [node for own in owner for node in own.body]
    found = [node for node in inside if isinstance(node, ast.FunctionDef) and node.name == name]
    if not found:
        if owner and any("VAE" in ast.unparse(base) for base in owner[0].bases):
            return False  # it inherits the VAE's
        raise UserError(f"{file} has no {function}: put it back, if only as a blank")
    last = found[-1].body[-1]
    return isinstance(last, ast.Raise) and "NotImplementedError" in ast.unparse(last)


if __name__ == "__main__":
    main()
