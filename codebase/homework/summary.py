"""A class at a glance: grades.csv; summary.md with points, mistakes and similar submissions."""

import csv
import io
import statistics
from collections import defaultdict
from pathlib import Path

from codebase import figures
from codebase.homework import report, similarity
from codebase.homework.problems import BY_FUNCTION, PROBLEMS
from codebase.machine.files import child_folder, write_atomically

GRADES, SUMMARY, PICTURE = "grades.csv", "summary.md", "points.png"
MOST_CLUSTERS = 50
FUNCTIONS = [problem.function for problem in PROBLEMS]


def write(out: Path, found: dict[str, Path], skipped: list[str]) -> None:
    """Write the three files from the reports in a folder.

    Args:
        out: folder of the reports
        found: paths of the submissions by name
        skipped: a line for each entry that is not a submission
    """
    graded = {}
    for name in sorted(found):
        results = report.read_results(child_folder(out, name))
        if results is not None:
            graded[name] = results
    write_atomically(out / GRADES, grades(graded).encode(errors="replace"))
    marked = [results for results in graded.values() if not _ungraded(results)]
    write_atomically(out / PICTURE, figures.png(_picture(marked)))
    text = summary(graded, similarity.clusters(found), skipped)
    write_atomically(out / SUMMARY, text.encode(errors="replace"))


def grades(graded: dict[str, dict]) -> str:
    """One row per submission, one column per function."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["submission", *FUNCTIONS, "total", "note"])
    for name, results in graded.items():
        note = f"not graded: {ungraded}" if (ungraded := _ungraded(results)) else ""
        table.writerow([_cell(name), *_scores(results), results["score"], _cell(note)])
    return text.getvalue()


def _cell(name: str) -> str:
    """A name that no spreadsheet reads as a formula."""
    name = report.one_line(name)
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


def _ungraded(results: dict) -> str:
    """Why there was nothing to grade; empty for others."""
    return str(results["extra_data"].get("ungraded") or "")


def _scores(results: dict) -> list[float]:
    by_function = {test["extra_data"]["function"]: test["score"] for test in results["tests"]}
    return [by_function[function] for function in FUNCTIONS]


def summary(graded: dict[str, dict], clusters: list[similarity.Cluster], skipped: list[str]) -> str:
    """Format the page in Markdown."""
    ungraded = {name: why for name, results in graded.items() if (why := _ungraded(results))}
    graded = {name: results for name, results in graded.items() if name not in ungraded}
    totals = [results["score"] for results in graded.values()]
    lines = ["# Summary", ""]
    if totals:
        middle = report.number(statistics.median(totals))
        lines += [f"{len(totals)} submissions; the median is {middle} points, with the bonus.", ""]
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
    lines += ["", "## Similarity", ""]
    lines += [
        "These submissions share at least 60 % of their graded functions' fingerprints, whatever "
        "their names and layout. Code that few students wrote counts most. This is a reason to "
        "look, not a proof.",
        "",
    ]
    if not clusters:
        lines.append("None.")
    for names, least, most in clusters[:MOST_CLUSTERS]:
        who = ", ".join(map(report.in_markdown, names))
        share = f"{most:.0%}" if len(names) == 2 else f"{least:.0%} to {most:.0%}"
        lines.append(f"- {who}: {share}")
    if len(clusters) > MOST_CLUSTERS:
        lines.append(f"- … and {len(clusters) - MOST_CLUSTERS} more")
    if ungraded:
        rows = [
            f"{report.in_markdown(name)}: {report.in_markdown(ungraded[name])}" for name in ungraded
        ]
        lines += ["", "## Not graded", "", *(f"- {row}" for row in rows)]
    if skipped:
        lines += ["", "## Skipped", "", *(f"- {report.in_markdown(line)}" for line in skipped)]
    return "\n".join(lines) + "\n"


def _mistakes(graded: dict[str, dict]) -> list[tuple[tuple[str, str], list[str]]]:
    """Who made which mistake, the most frequent mistake first."""
    who = defaultdict(list)
    for name, results in graded.items():
        for test in results["tests"]:
            for mistake in test["extra_data"]["mistakes"]:
                who[test["extra_data"]["function"], mistake].append(name)
    return sorted(who.items(), key=lambda item: (-len(item[1]), item[0]))


def _picture(marked: list[dict]):
    """Histograms of points, one a function: a matplotlib Figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots(3, 3).flatten()
    for ax, problem in zip(axes, PROBLEMS, strict=True):
        index = FUNCTIONS.index(problem.function)
        scores = [_scores(results)[index] for results in marked]
        most = max([problem.points, *scores])
        ax.hist(scores, bins=12, range=(0, most), color="tab:blue")
        ax.set_title(f"{problem.number} {problem.function}", fontsize=9)
        ax.set_xlabel("points", fontsize=8)
        ax.set_ylabel("submissions", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.yaxis.get_major_locator().set_params(integer=True)
    return figure
