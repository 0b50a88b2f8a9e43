"""python -m codebase submit: create the zip that you hand in, and run the public tests"""

import ast
import io
import re
import subprocess
import sys
import zipfile
from argparse import Namespace
from pathlib import Path
from urllib.parse import unquote

from codebase.machine.files import write_atomically
from codebase.project import ROOT, UserError, steps_in, weights_file
from codebase.runs.flags import SWITCH, Parser
from codebase.runs.main import errors_in_one_line

GRADED = (
    *("sample_gaussian", "VAE.negative_elbo_bound", "log_normal", "log_normal_mixture"),
    *("GMVAE.negative_elbo_bound", "VAE.negative_iwae_bound", "GMVAE.negative_iwae_bound"),
    *("SSVAE.negative_elbo_bound", "FSVAE.negative_elbo_bound"),
)
# The runs whose values are reported, without their numbers, and their iterations.
REPORTED = {
    "model=vae_z=10": 20_000,
    "model=gmvae_z=10_k=500": 20_000,
    "model=ssvae_gw=000_cw=100": 30_000,
    "model=ssvae_gw=001_cw=100": 30_000,
}
SECONDS = 300  # for the public tests, which take 20
LARGEST = 256 << 20  # bytes
TEXTS = (".md", ".pdf", ".txt", ".png", ".jpg", ".jpeg")


def main() -> None:
    """Run `submit`, the only command of the starter's `python -m codebase`."""
    with errors_in_one_line():
        parser = Parser(prog="python -m codebase", description=__doc__)
        parser.add_argument("command", choices=("submit",))
        add_arguments(parser)
        act(parser.parse_args())


def add_arguments(parser: Parser) -> None:
    """Add the flags of the command."""
    parser.add_argument("--out", type=Path, default="submission.zip", help="file of the zip")
    parser.add_argument(
        "--weights", **SWITCH, default=0, help="1: add the last weights of each run"
    )


def act(args: Namespace) -> None:
    """Create the zip, print what is missing from it, and run the public tests."""
    blank, others = submit(args.out, bool(args.weights))
    texts = [name for name in others if not name.startswith(("checkpoints/", "logs/"))]
    if texts == ["writeup.md"] and _has_no_answers(ROOT / texts[0]):
        texts = ["writeup.md, which has no answers yet"]
    print(f"Write-up: {', '.join(texts) or 'none, so write writeup.md or writeup.pdf'}")
    for link in dict.fromkeys(pictures_in(_text_of_write_up())):
        if "://" not in link and not link.startswith("data:") and _picture(link) is None:
            print(f"writeup.md shows {link:.100}, which is not in the zip: expected a PNG or JPEG")
    kind, end = ("checkpoints", ".pt") if args.weights else ("logs", "/samples.png")
    runs = {name.split("/")[1] for name in others if name.startswith(kind) and name.endswith(end)}
    names = ", ".join(sorted(runs)) or "none"
    print(f"{'Weights' if args.weights else 'Pictures'} of runs: {names}")
    if args.weights:
        for line in _unfinished(runs):
            print(line)
    else:
        print("Without --weights 1, the values that you report are not graded")
    if blank:
        print(f"Not written yet: {', '.join(blank)}")
    print(f"Hand in this file: {args.out}", flush=True)
    tests = ROOT / "tests" / "test_public.py"
    if tests.exists():
        print("Running the public tests", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line"]
        try:
            subprocess.run([*command, str(tests)], cwd=ROOT, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            print(f"The tests took over {SECONDS} s: perhaps a function has an infinite loop")


def submit(out: Path, weights: bool) -> tuple[list[str], list[str]]:
    """Write the zip with the code, the write-up and pictures of runs.

    Args:
        out: path of the zip
        weights: whether to include the last weights of each run

    Returns:
        graded functions that are still blank, and the names of files that are not code

    Raises:
        UserError: a file cannot be parsed, a graded function is missing, the zip would be too
            large, or its suffix is not .zip
    """
    if out.suffix != ".zip":
        raise UserError(f"--out {out} must end in .zip")
    paths = sorted((ROOT / "codebase").rglob("*.py"))
    sources = {_name(path): path.read_bytes() for path in paths}
    sources = {name: one for name, one in sources.items() if "codebase/homework/" not in name}
    trees = {name: _parsed(name, content) for name, content in sources.items()}
    blank = [function for function in GRADED if _is_blank(function, trees)]
    others = [*_write_up(), *_of_runs(weights)]
    contents = sources | {_name(path): path.read_bytes() for path in others}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name)  # without a time: the same code gives the same bytes
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            archive.writestr(entry, content)
    if buffer.tell() > LARGEST:
        size, most = buffer.tell() >> 20, LARGEST >> 20
        raise UserError(
            f"{out} would be {size} MB, expected at most {most} MB: delete runs that you do not "
            "hand in"
        )
    write_atomically(out, buffer.getvalue())
    return blank, [_name(path) for path in others]


def pictures_in(text: str) -> list[str]:
    """Return the targets of pictures in a Markdown text, in Markdown or HTML syntax."""
    # No part can match where another begins, so the time is linear.
    markdown = r"!\[[^\[\]]*\]\(\s*(?:<([^<>\n]+)>|([^()<>\"'\n]+))"
    html = r"<img\b[^<>]*?\bsrc=(?:\"([^<>\"]+)\"|'([^<>']+)'|([^<>\"'\s]+))"
    return [unquote("".join(g)).strip() for g in re.findall(f"{markdown}|{html}", text, re.I)]


def _write_up() -> list[Path]:
    """Return the student's answers: writeup.*, files in writeup/, pictures of writeup.md."""
    found = sorted([*ROOT.glob("writeup.*"), *(ROOT / "writeup").rglob("*")])
    found = [path for path in found if path.suffix.lower() in TEXTS and path.is_file()]
    pictures = map(_picture, pictures_in(_text_of_write_up()))
    return list(dict.fromkeys([*found, *filter(None, pictures)]))


def _text_of_write_up() -> str:
    path = ROOT / "writeup.md"
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _has_no_answers(path: Path) -> bool:
    """Return whether a write-up has only headings and blanks."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return all(not line.strip() or line.startswith("#") or line.endswith(":") for line in lines)


def _picture(link: str) -> Path | None:
    """Return the path of a write-up's picture; None if it is not in this folder."""
    try:
        path = (ROOT / link.partition("?")[0].partition("#")[0]).resolve()
        there = path.is_file() and path.suffix.lower() in TEXTS and path.is_relative_to(ROOT)
        return path if there else None
    except (OSError, ValueError, RuntimeError):  # a loop of links, a name of 5,000 letters, a NUL
        return None


def _of_runs(weights: bool) -> list[Path]:
    """Return the sample grid of each run and, with `weights`, its last weights."""
    found = []
    for folder in sorted((ROOT / "checkpoints").glob("model=*")):
        step, logs = _last_step(folder.name), ROOT / "logs" / folder.name
        pictures = [logs / "samples.png", logs / f"evaluation-{step:05d}" / "samples.png"]
        found += [picture for picture in pictures if picture.is_file()][:1]
        if weights and step:
            found += [weights_file(folder, step), folder / "run.json"]
    return [path for path in found if path.is_file()]


def _unfinished(runs: set[str]) -> list[str]:
    """Return warnings about missing runs and unfinished training."""
    lines = []
    for group, iterations in REPORTED.items():
        of_group = [run for run in sorted(runs) if re.fullmatch(rf"{group}_run=\d+", run)]
        if not of_group:
            lines.append(f"No weights of {group}_run=0000 were found, so its values are not graded")
        for run in of_group:
            if (step := _last_step(run)) < iterations:
                lines.append(
                    f"{run} is at iteration {step:,} of {iterations:,}: continue it with --resume 1"
                )
    return lines


def _last_step(run: str) -> int:
    """Return the iteration of a run's last weights; 0 if it has none."""
    return max(steps_in(ROOT / "checkpoints" / run), default=0)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _parsed(name: str, content: bytes) -> ast.Module:
    """Parse a Python file. Raises UserError if it cannot be parsed."""
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        reason = getattr(error, "msg", None) or str(error)
        raise UserError(
            f"{name}{line}: {reason}: correct it, because the grader cannot read it"
        ) from None


def _is_blank(function: str, trees: dict[str, ast.Module]) -> bool:
    """Return whether a graded function is still blank. Raises UserError if it is missing."""
    model, _, name = function.rpartition(".")
    file = f"codebase/models/{model.lower()}.py" if model else "codebase/utils.py"
    if file not in trees:
        raise UserError(f"{file} is missing: {function} belongs there")
    body = trees[file].body
    owner = [node for node in body if isinstance(node, ast.ClassDef) and node.name == model]
    inside = [node for own in owner for node in own.body] if model else body
    found = [node for node in inside if isinstance(node, ast.FunctionDef) and node.name == name]
    if not found:
        if owner and any("VAE" in ast.unparse(base) for base in owner[0].bases):
            return False  # it inherits the VAE's
        raise UserError(f"{file} has no {function}: restore it, even if blank")
    last = found[-1].body[-1]
    return isinstance(last, ast.Raise) and "NotImplementedError" in ast.unparse(last)


if __name__ == "__main__":
    main()
