"""A class at a glance: grades.csv, and summary.md with the points, the mistakes, and likenesses."""

import ast
import csv
import io
import statistics
from collections import defaultdict
from itertools import combinations
from pathlib import Path

from codebase import UserError, figures
from codebase.homework import report, submission
from codebase.homework.problems import BY_FUNCTION, PROBLEMS
from codebase.machine.files import child_folder, write_atomically

GRADES, SUMMARY, PICTURE = "grades.csv", "summary.md", "points.png"
ALIKE = 2 / 3  # of the graded code, by which two submissions are worth a look
MOST_PAIRS = 50
FUNCTIONS = [problem.function for problem in PROBLEMS]


def write(out: Path, found: dict[str, Path]) -> None:
    """Write the three files from the reports in a folder.

    Args:
        out: folder of the reports
        found: paths of the submissions by name
    """
    graded = {}
    for name in sorted(found):
        results = report.read_results(child_folder(out, name))
        if results is not None:
            graded[name] = results
    write_atomically(out / GRADES, grades(graded).encode(errors="replace"))
    write_atomically(out / PICTURE, figures.png(_picture(graded)))
    text = summary(graded, _alike(found))
    write_atomically(out / SUMMARY, text.encode(errors="replace"))


def grades(graded: dict[str, dict]) -> str:
    """A row a submission, a column a function."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["submission", *FUNCTIONS, "total"])
    for name, results in graded.items():
        table.writerow([_cell(name), *_scores(results), results["score"]])
    return text.getvalue()


def _cell(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    name = report.one_line(name)
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


def _scores(results: dict) -> list[float]:
    by_function = {test["extra_data"]["function"]: test["score"] for test in results["tests"]}
    return [by_function[function] for function in FUNCTIONS]


def summary(graded: dict[str, dict], alike: list[tuple[str, str, float]]) -> str:
    """The page."""
    totals = [results["score"] for results in graded.values()]
    lines = ["# Summary", ""]
    if totals:
        middle = report.number(statistics.median(totals))
        lines += [f"{len(totals)} submissions; median {middle} points, the bonus included.", ""]
    lines += [f"![points by problem]({PICTURE})", ""]
    lines += ["| function | points | mean | full | none |", "|---|---|---|---|---|"]
    table = list(zip(*map(_scores, graded.values()), strict=True)) or [()] * len(FUNCTIONS)
    most = {
        test["extra_data"]["function"]: test["max_score"]
        for results in graded.values()
        for test in results["tests"]
    }
    for function, scores in zip(FUNCTIONS, table, strict=True):
        if scores:
            full = sum(score == most[function] for score in scores)
            none = sum(score == 0 for score in scores)
            mean = report.number(statistics.fmean(scores))
            bonus = " (bonus)" if BY_FUNCTION[function].bonus else ""
            points = report.number(most[function])
            lines.append(f"| `{function}`{bonus} | {points} | {mean} | {full} | {none} |")
    lines += ["", "## Mistakes", ""]
    lines += ["| function | mistake | count | who |", "|---|---|---|---|"]
    for (function, mistake), names in _mistakes(graded):
        who = ", ".join(map(report.in_markdown, names))
        lines.append(f"| `{function}` | {mistake} | {len(names)} | {who} |")
    lines += ["", "## Alike", ""]
    lines += [
        "Pairs of which two thirds of the graded code, of the one that has more, is the same but "
        "for names and layout. A hint to look, no proof: short functions have few right forms.",
        "",
    ]
    if not alike:
        lines.append("None.")
    for one, other, share in alike[:MOST_PAIRS]:
        names = f"{report.in_markdown(one)} and {report.in_markdown(other)}"
        lines.append(f"- {names}: {share:.0%}")
    if len(alike) > MOST_PAIRS:
        lines.append(f"- … and {len(alike) - MOST_PAIRS} more pairs")
    return "\n".join(lines) + "\n"


def _mistakes(graded: dict[str, dict]) -> list[tuple[tuple[str, str], list[str]]]:
    """Who made which mistake, the most frequent first."""
    who = defaultdict(list)
    for name, results in graded.items():
        for test in results["tests"]:
            for mistake in test["extra_data"]["mistakes"]:
                who[test["extra_data"]["function"], mistake].append(name)
    return sorted(who.items(), key=lambda item: (-len(item[1]), item[0]))


def _picture(graded: dict[str, dict]):
    """Histograms of points, one a function: a matplotlib Figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots(3, 3).flatten()
    for ax, problem in zip(axes, PROBLEMS, strict=True):
        index = FUNCTIONS.index(problem.function)
        scores = [_scores(results)[index] for results in graded.values()]
        most = max([problem.points, *scores])
        ax.hist(scores, bins=12, range=(0, most), color="tab:blue")
        ax.set_title(f"{problem.number} {problem.function}", fontsize=9)
        ax.set_xlabel("points", fontsize=8)
        ax.set_ylabel("submissions", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.yaxis.get_major_locator().set_params(integer=True)
    return figure


# Code that is alike


def _alike(found: dict[str, Path]) -> list[tuple[str, str, float]]:
    """Pairs of submissions, and the share of their graded code that is the same."""
    shapes = {name: _shapes(path) for name, path in sorted(found.items())}
    sizes = {name: sum(size for _, size in shape.values()) for name, shape in shapes.items()}
    pairs = []
    for one, other in combinations(shapes, 2):
        same = sum(
            size
            for function, (shape, size) in shapes[one].items()
            if shapes[other].get(function) == (shape, size)
        )
        largest = max(sizes[one], sizes[other])
        if largest and same >= ALIKE * largest:
            pairs.append((one, other, same / largest))
    return sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))


def _shapes(path: Path) -> dict[str, tuple[str, int]]:
    """Of each graded function: its syntax tree without names and layout, and its size."""
    try:
        handed_in = submission.read(path)
    except UserError:
        return {}
    shapes = {}
    for problem in PROBLEMS:
        source = handed_in.sources.get(f"{handed_in.package}/{problem.file}", "")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        node = submission.function_in(tree, problem.model, problem.method)
        if node is not None and not submission.is_blank(node):
            shapes[problem.function] = _shape(node)
    return shapes


def _shape(node: ast.FunctionDef) -> tuple[str, int]:
    body = node.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]  # the docstring
    numbers: dict[str, int] = {}  # names by the order in which they come
    words = []
    for statement in body:
        for inner in ast.walk(statement):
            words.append(type(inner).__name__)
            if isinstance(inner, ast.Name):
                words.append(str(numbers.setdefault(inner.id, len(numbers))))
            elif isinstance(inner, ast.Attribute):
                words.append(inner.attr)
            elif isinstance(inner, ast.Constant):
                value = inner.value  # an integer may have more digits than repr allows
                words.append(hex(value) if type(value) is int else repr(value))
    return " ".join(words), len(words)
