"""python -m codebase submit: create the zip that you hand in, and run the public tests"""

import ast
import io
import re
import subprocess
import sys
import zipfile
from argparse import Namespace
from pathlib import Path

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
GIVEN = ("codebase", "tests", "data", "checkpoints", "README.md", "requirements.txt")


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
    """Write the zip with the code, texts and pictures.

    Args:
        out: path of the zip
        weights: whether to include the last weights of each run

    Returns:
        graded functions that are still blank, and the names of files that are not code

    Raises:
        UserError: a file cannot be parsed, the zip would be too large, or its suffix is not .zip
    """
    if out.suffix != ".zip":
        raise UserError(f"--out {out} must end in .zip")
    paths = sorted((ROOT / "codebase").rglob("*.py"))
    sources = {_name(path): path.read_bytes() for path in paths}
    sources = {name: one for name, one in sources.items() if "codebase/homework/" not in name}
    for name, content in sources.items():
        try:
            ast.parse(content, name)
        except (SyntaxError, ValueError) as error:
            raise UserError(f"{name}: {error}: correct it, or the grader cannot read it") from None
    blank = [function for function in GRADED if _is_blank(function, sources)]
    others = {_name(path): path.read_bytes() for path in [*_answers(), *_weights(weights)]}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (sources | others).items():
            archive.writestr(name, content)
    if buffer.tell() > LARGEST:
        size, most = buffer.tell() >> 20, LARGEST >> 20
        raise UserError(
            f"{out} would be {size} MB, expected at most {most} MB: delete runs that you do not "
            "hand in"
        )
    write_atomically(out, buffer.getvalue())
    return blank, list(others)


def _answers() -> list[Path]:
    """Return the texts and pictures in this folder, except the homework's own."""
    found = []
    for path in ROOT.iterdir():
        virtual_environment = (path / "pyvenv.cfg").exists()
        if path.name not in GIVEN and not path.name.startswith(".") and not virtual_environment:
            found += [path, *path.rglob("*")]
    return sorted(path for path in found if path.suffix.lower() in TEXTS and path.is_file())


def _has_no_answers(path: Path) -> bool:
    """Return whether a write-up has only headings and blanks."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return all(not line.strip() or line.startswith("#") or line.endswith(":") for line in lines)


def _weights(wanted: bool) -> list[Path]:
    """Return the last weights of each run, if `wanted`."""
    found = []
    for folder in sorted((ROOT / "checkpoints").glob("model=*")) if wanted else ():
        if step := _last_step(folder.name):
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


def _is_blank(function: str, sources: dict[str, bytes]) -> bool:
    """Return whether a graded function is blank, or missing and not inherited from the VAE."""
    model, _, name = function.rpartition(".")
    file = f"codebase/models/{model.lower()}.py" if model else "codebase/utils.py"
    node = function_in(sources.get(file, b""), model, name)
    node = node or function_in(sources.get("codebase/models/vae.py", b""), "VAE", name)
    return node is None or is_blank(node)


def function_in(source: bytes | str, model: str, method: str) -> ast.FunctionDef | None:
    """Find a function, or a class's method, in a file; None if there is none."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if model:
        owners = [n for n in body if isinstance(n, ast.ClassDef) and n.name == model]
        body = owners[-1].body if owners else []
    named = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == method]
    return named[-1] if named else None


def is_blank(node: ast.FunctionDef) -> bool:
    """Return whether a function's last statement still raises NotImplementedError."""
    last = node.body[-1]
    return isinstance(last, ast.Raise) and "NotImplementedError" in ast.unparse(last)


if __name__ == "__main__":
    main()
