"""python -m codebase submit: create the zip that you hand in, and run the public tests"""

import ast
import io
import re
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections.abc import Iterator
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
    print(f"With the code: {', '.join(others) or 'nothing, so write writeup.md or writeup.pdf'}")
    if args.weights:
        for line in _unfinished({name.split("/")[1] for name in others if name.endswith(".pt")}):
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
        subprocess.run([*command, str(tests)], cwd=ROOT)


def submit(out: Path, weights: bool) -> tuple[list[str], list[str]]:
    """Write the zip with the code, texts and pictures.

    Args:
        out: path of the zip
        weights: whether to include the last weights of each run

    Returns:
        graded functions that are still blank, and the names of files that are not code

    Raises:
        UserError: a file cannot be parsed, or the suffix of the zip is not .zip
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
    paths = [*_answers(), *(_weights() if weights else [])]
    others = {_name(path): path.read_bytes() for path in paths}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (sources | others).items():
            archive.writestr(name, content)
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


def _weights() -> list[Path]:
    """Return the last weights of each run, and its run.json."""
    found = []
    for folder in sorted((ROOT / "checkpoints").glob("model=*")):
        if steps := steps_in(folder):
            found += [weights_file(folder, steps[-1]), folder / "run.json"]
    return [path for path in found if path.is_file()]


def _unfinished(runs: set[str]) -> Iterator[str]:
    """Yield lines about missing runs and unfinished training."""
    for group, iterations in REPORTED.items():
        of_group = [run for run in sorted(runs) if re.fullmatch(rf"{group}_run=\d+", run)]
        if not of_group:
            yield f"No weights of {group}_run=0000 were found, so its values are not graded"
        for run in of_group:
            if (step := steps_in(ROOT / "checkpoints" / run)[-1]) < iterations:
                yield f"{run} is at iteration {step:,} of {iterations:,}: use --resume 1"


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
