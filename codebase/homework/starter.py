"""Create the students' version of the homework by blanking the solution's graded functions."""

import ast
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from codebase.homework import problems, report, weights
from codebase.homework.problems import POINTS, PROBLEMS, QUESTIONS, Question
from codebase.machine.files import write_atomically
from codebase.project import ROOT, UserError

HANDOUT = Path(__file__).parent / "handout"
BLANK = "raise NotImplementedError"
SCRIPTS = ("run_vae.py", "run_gmvae.py", "run_ssvae.py", "run_fsvae.py", "requirements.txt")
LEFT_OUT = {
    "codebase/__main__.py",
    "codebase/explorer",
    "codebase/homework",
    "codebase/models/README.md",
    "codebase/runs/README.md",
    "codebase/models/laplace_vae.py",
    *(
        f"codebase/runs/{name}.py"
        for name in ("compare", "published", "reference", "replicates", "table", "test_set")
    ),
}
PLACES = {"submit.py": "codebase/__main__.py", "test_public.py": "tests/test_public.py"}
# What only graded functions use, by the function; it goes with them.
PARTS: dict[str, tuple[str, ...]] = {
    "log_normal": ("LOG_2PI",),
    "log_normal_mixture": ("_log_normal_all_pairs",),
    "VAE.negative_elbo_bound": ("VAE.log_p_z", "VAE.sample_q", "VAE.kl_to_prior"),
    "GMVAE.negative_elbo_bound": ("GMVAE.log_p_z", "GMVAE.kl_to_prior"),
    "VAE.negative_iwae_bound": ("MAX_ROWS", "VAE.log_q", "VAE.importance_terms"),
    "SSVAE.negative_elbo_bound": ("NEGLIGIBLE_EPSILONS", "SSVAE.pairs_that_count"),
}
# The Laplace prior changes parts of the bounds that are blanks, and is not part of this homework.
LAPLACE = ("sample_laplace", "log_laplace", "kl_laplace")
CHANGES = (  # file, old, new
    ("run_vae.py", '"LaplaceVAE" if flags.prior == "laplace" else "VAE"', '"VAE"'),
    ("run_vae.py", ", PRIOR", ""),
    ("codebase/models/__init__.py", "from codebase.models.laplace_vae import LaplaceVAE\n", ""),
    ("codebase/models/__init__.py", '"LaplaceVAE", ', ""),
    ("codebase/models/__init__.py", "LaplaceVAE, ", ""),
    ("codebase/models/fsvae.py", "from torch import", "import torch\nfrom torch import"),
    ("requirements.txt", "markdown-it-py>=3.0  # the solutions as HTML\nlatex2mathml>=3.77\n", ""),
)


def make(
    folder: Path, equations: bool = False, points: Mapping[str, float] = MappingProxyType(POINTS)
) -> None:
    """Write the starter.

    Args:
        folder: a new or empty folder
        equations: whether blanked functions keep the equations in their docstrings, as a hint
        points: points keyed by question

    Raises:
        UserError: the folder is not empty
        OSError: the folder cannot be written
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: choose a new or empty folder")
    for name, content in starter_files(equations, points).items():
        write_atomically(folder / name, content)
    for name in ("checkpoints", "logs"):
        (folder / name).mkdir(exist_ok=True)


def starter_files(
    equations: bool = False, points: Mapping[str, float] = MappingProxyType(POINTS)
) -> dict[str, bytes]:
    """Return the contents of the starter's files, keyed by path."""
    sources = solution()
    files = {}
    for name, source in sources.items():
        for file, old, new in CHANGES:
            source = source.replace(old, new) if file == name else source
        source = re.sub(r"(?m)^PRIOR = .*\n", "", source)
        graded = [problem for problem in PROBLEMS if f"codebase/{problem.file}" == name]
        if graded:
            source = _blanked(source, graded, equations)
        files[name] = source.encode()
    for path in sorted(HANDOUT.iterdir()):
        if path.suffix in (".md", ".py"):
            files[PLACES.get(path.name, path.name)] = handed_out(path.name, points).encode()
    files["tests/public.json"] = (json.dumps(public_values(), indent=1) + "\n").encode()
    files["pytest.ini"] = b"[pytest]\ntestpaths = tests\npythonpath = .\naddopts = -v --tb=short\n"
    return files


def handed_out(name: str, points: Mapping[str, float]) -> str:
    """Return a file of the hand-out with this course's points and the ranges of metrics."""

    def filled(match: re.Match) -> str:
        kind, *of = match[1].split()
        if kind == "range":
            low, high = weights.expected(*of)
            return f"{weights.in_words(of[1], low)} to {weights.in_words(of[1], high)}"
        return report.number(values[" ".join(match[1].split())])

    values = dict(zip(("total", "bonus"), problems.totals(points), strict=True))
    for question in QUESTIONS:  # a question's points are its parts'
        values[question.number] = values.get(question.number, 0) + points[question.key]
    asked = {number for number, value in values.items() if number[0].isdigit() and value}
    values |= {"count": len(asked), **points}
    sections = re.split(r"(?m)^(?=##)", (HANDOUT / name).read_text(encoding="utf-8"))
    numbers = [re.match(r"## ?#? (\d\.\d)", section) for section in sections]
    kept = [s for s, n in zip(sections, numbers, strict=True) if n is None or n[1] in asked]
    text = re.sub(r"\{\{(.+?)\}\}", filled, "".join(kept), flags=re.DOTALL)
    return re.sub(r"(?<![\d.])1((?: bonus)?) points", r"1\1 point", text)


def solution() -> dict[str, str]:
    """Read the solution's files that are part of the starter."""
    paths = [ROOT / name for name in SCRIPTS]
    for path in sorted((ROOT / "codebase").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not any(name == out or name.startswith(f"{out}/") for out in LEFT_OUT):
            paths.append(path)
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


# Blanks


def nodes(tree: ast.Module) -> dict[str, Any]:
    """Return functions, methods and constants of a file, keyed by name, such as VAE.loss."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    found[f"{node.name}.{inner.name}"] = inner
    return found


def _blanked(source: str, graded: list[Question], equations: bool) -> str:
    """Blank the graded functions of a file, and remove helpers that only they use."""
    found, lines = nodes(ast.parse(source)), source.splitlines()
    edits = []  # (first line, line after the last, new lines)
    for problem in graded:
        if problem.key in found:
            edits.append(_blank(found[problem.key], problem, lines, equations))
    gone = [name for problem in graded for name in PARTS.get(problem.key, ())]
    for name in {*gone, *LAPLACE} & found.keys():
        node = found[name]
        first = node.lineno - 1
        while lines[first - 1].lstrip().startswith("#"):
            first -= 1
        edits.append((first, node.end_lineno, []))
    for first, last, new in sorted(edits, reverse=True):
        lines[first:last] = new
    for problem in graded:
        if problem.key not in found:  # what the solution inherits
            lines += ["", *_inherited(problem, equations)]
    return _tidied(lines)


def _blank(
    node: Any, problem: Question, lines: list[str], equations: bool
) -> tuple[int, int, list[str]]:
    """Return the edit that blanks a function, but keeps its signature and docstring."""
    indent = " " * (node.col_offset + 4)
    docstring = node.body[0]
    kept = lines[docstring.lineno - 1 : docstring.end_lineno]
    headings = [line.strip() for line in kept]
    if "Raises:" in headings:
        kept = [*kept[: headings.index("Raises:") - 1], kept[-1]]
    if not equations:
        rest = kept[headings.index("Args:") :]
        kept = [
            f'{indent}"""See question {problem.number} of the homework, in README.md.',
            "",
            *rest,
        ]
    return docstring.lineno - 1, node.end_lineno, [*kept, f"{indent}{BLANK}"]


def _inherited(problem: Question, equations: bool) -> list[str]:
    """Return the blank of a method that the solution inherits from the VAE."""
    lines = (ROOT / "codebase" / "models" / "vae.py").read_text(encoding="utf-8").splitlines()
    node = nodes(ast.parse("\n".join(lines)))[f"VAE.{problem.method}"]
    _, _, blank = _blank(node, problem, lines, equations)
    return [*lines[node.lineno - 1 : node.body[0].lineno - 1], *blank]


def _tidied(lines: list[str]) -> str:
    """Join lines; remove comments above empty sections, and surplus empty lines."""
    text = "\n".join(lines) + "\n"
    text = re.sub(r"(?m)^( *)# .*\n(?:\n)+(?=\1# )", "", text)
    text = re.sub(r"\n{4,}", "\n\n\n", text)
    return re.sub(r"\n\n\n+( +)", r"\n\n\1", text).rstrip("\n") + "\n"


# Public values


@functools.cache
def public_values() -> dict[str, list[list[float]]]:
    """Compute the public values that the students' tests use, see handout/test_public.py.

    Returns:
        for each function, its values with seed 0, and their means and standard deviations over
        seeds
    """
    import codebase.homework.handout.test_public as public
    from codebase import models, utils

    with torch.random.fork_rng([]), torch.no_grad():
        return {
            function: [recipe(utils, models), *public.over_draws(recipe, utils, models)]
            for function, recipe in public.RECIPES.items()
        }
