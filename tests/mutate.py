"""Do the tests notice? Changes the code in one place at a time and runs them; not a test.

    python tests/mutate.py --count 20 --seed 0

Operators, constants, conditions and statements of codebase/ are changed at random, each in a copy
of the project of its own. A change is caught if a test fails (its name is printed) or does not end.
Each change that survives is harmless, or asks for a test. A change that is caught takes some
seconds. One that survives takes as long as all the tests in one process, some minutes.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIRST = {  # what is changed, by the beginning of its path, and the tests to try first
    "utils": ("utils", "models"),
    "models": ("models", "runs", "equations"),
    "minibatches": ("minibatches", "train"),
    "train": ("train",),
    "evaluate": ("evaluate",),
    "checkpoints": ("checkpoints", "runs"),
    "data": ("data",),
    "runs": ("runs", "run_scripts", "replicates", "table", "figures"),
}
OPERATORS = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
}
SECONDS = 1200


def changes(source: str) -> Iterator[tuple[ast.AST, str]]:
    """Nodes of a file, and what could stand in their place."""
    for node in ast.walk(ast.parse(source)):
        other = copy.deepcopy(node)
        if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OPERATORS:
            other.op = OPERATORS[type(node.op)]()
            yield node, f"({ast.unparse(other)})"
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPERATORS:
            other.ops[0] = OPERATORS[type(node.ops[0])]()
            yield node, f"({ast.unparse(other)})"
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
            yield node, f"({ast.unparse(node.operand)})"
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            value = not node.value if type(node.value) is bool else node.value + 1
            yield node, repr(value)
        elif isinstance(node, ast.If | ast.While | ast.IfExp):
            yield node.test, f"(not ({ast.unparse(node.test)}))"
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.Expr | ast.Raise):
            documents = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not documents:
                yield node, "pass"


def changed(source: str, node: ast.AST, new: str) -> str:
    """A file with one node replaced."""
    lines = source.encode().splitlines(keepends=True)
    first, last = node.lineno - 1, node.end_lineno - 1
    before, after = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
    lines[first : last + 1] = [before + new.encode() + after]
    return b"".join(lines).decode()


def caught_by(file: Path, source: str) -> str | None:
    """The test that fails with other contents of a file, in a copy of the project; None if none."""
    start = next(start for start in FIRST if file.parts[1].startswith(start))
    tests = [*(f"tests/test_{name}.py" for name in FIRST[start]), "tests"]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # some tests run as another user
        place = Path(folder, "project")
        ignore = shutil.ignore_patterns(".git", ".venv", "logs", "__pycache__", "data")
        shutil.copytree(ROOT, place, ignore=ignore)
        (place / file).write_text(source, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", *tests]
        try:
            done = subprocess.run(
                command, cwd=place, capture_output=True, timeout=SECONDS, encoding="utf-8"
            )
        except subprocess.TimeoutExpired:
            return f"no end after {SECONDS} seconds"
        lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return f"{lines[-1:] or done.stderr[-200:]}" if done.returncode else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20, help="number of changes")
    parser.add_argument("--seed", type=int, default=0, help="seed that draws them")
    args = parser.parse_args()
    paths = [path for name in FIRST for path in (ROOT / "codebase").glob(f"{name}*")]
    files = [f for p in paths for f in (sorted(p.rglob("*.py")) if p.is_dir() else [p])]
    sources = {path: path.read_text(encoding="utf-8") for path in files}
    candidates = [(p, *change) for p, source in sources.items() for change in changes(source)]
    chosen = random.Random(args.seed).sample(candidates, args.count)

    def attempt(change: tuple[Path, ast.AST, str]) -> bool:
        path, node, new = change
        file = path.relative_to(ROOT)
        by = caught_by(file, changed(sources[path], node, new))
        old = ast.get_source_segment(sources[path], node)
        what = f"{file}:{node.lineno}: {old!r:.80} -> {new:.80}"
        print(f"caught {what} by {by:.120}" if by else f"SURVIVED {what}", flush=True)
        return bool(by)

    # Shells let background processes ignore it, and then tests of interruptions fail.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        caught = sum(pool.map(attempt, chosen))
    print(f"{caught} of {len(chosen)} changes were caught")


if __name__ == "__main__":
    main()
