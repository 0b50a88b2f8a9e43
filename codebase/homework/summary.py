"""A class at a glance: grades.csv; summary.md with points, mistakes and similar submissions."""

import csv
import io
import math
import statistics
from collections import defaultdict
from pathlib import Path

from codebase import figures
from codebase.homework import report, similarity
from codebase.homework.files import child_folder
from codebase.homework.problems import BY_KEY, POINTS
from codebase.machine.files import write_atomically

GRADES, SUMMARY, PICTURE = "grades.csv", "summary.md", "points.png"
MOST_CLUSTERS = 50


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
    marked = {name: results for name, results in graded.items() if not _ungraded(results)}
    write_atomically(out / PICTURE, figures.png(_picture(marked)))
    text = summary(graded, similarity.clusters(found), skipped)
    write_atomically(out / SUMMARY, text.encode(errors="replace"))


def grades(graded: dict[str, dict]) -> str:
    """One row per submission, one column per question; one that is not graded yet is empty."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["submission", *BY_KEY, "total", "note"])
    for name, results in graded.items():
        note = f"not graded: {ungraded}" if (ungraded := _ungraded(results)) else ""
        scores = _scores(results)
        points = [scores.get(key, "") for key in BY_KEY]
        table.writerow([report.cell(name), *points, results["score"], report.cell(note)])
    return text.getvalue()


def _ungraded(results: dict) -> str:
    """Why there was nothing to grade; empty for others."""
    return str(results["extra_data"].get("ungraded") or "")


def _scores(results: dict) -> dict[str, float]:
    """Points by question."""
    return {test["extra_data"]["question"]: test["score"] for test in results["tests"]}


def _by_question(graded: dict[str, dict]) -> dict[str, list[float]]:
    """The points of all submissions, for each question that is graded."""
    scores = [_scores(results) for results in graded.values()]
    found = {key: [own[key] for own in scores if key in own] for key in BY_KEY}
    return {key: points for key, points in found.items() if points}


def _most(graded: dict[str, dict], key: str) -> float:
    """The most points that a question may get."""
    tests = [test for results in graded.values() for test in results["tests"]]
    found = [test["max_score"] for test in tests if test["extra_data"]["question"] == key]
    return max(found, default=POINTS[key])


def summary(graded: dict[str, dict], clusters: list[similarity.Cluster], skipped: list[str]) -> str:
    """Format the page in Markdown."""
    ungraded = {name: why for name, results in graded.items() if (why := _ungraded(results))}
    graded = {name: results for name, results in graded.items() if name not in ungraded}
    totals = [results["score"] for results in graded.values()]
    lines = ["# Summary", ""]
    if totals:
        middle = report.number(statistics.median(totals))
        lines += [f"Submissions: {len(totals)}. Median: {middle} points, with the bonus.", ""]
    lines += [f"![points by problem]({PICTURE})", ""]
    lines += ["| question | points | graded | mean | full | none |", "|---|---|---|---|---|---|"]
    for key, scores in _by_question(graded).items():
        question, most = BY_KEY[key], _most(graded, key)
        cells = [
            f"{question.number} {question.title}{' (bonus)' if question.bonus else ''}",
            report.number(most),
            len(scores),
            report.number(statistics.fmean(scores)),
            sum(score == most for score in scores),
            sum(score == 0 for score in scores),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "## Mistakes", ""]
    lines += ["| function | mistake | count | who |", "|---|---|---|---|"]
    for (function, mistake), names in _mistakes(graded):
        who = ", ".join(map(report.in_markdown, names))
        lines.append(f"| `{function}` | {mistake} | {len(names)} | {who} |")
    lines += ["", "## Similarity", ""]
    lines += [
        "These submissions share at least 60 % of the code patterns in their graded functions. "
        "Names of variables and layout are ignored. Code that few students wrote counts most; "
        "code that nearly all wrote counts little. This is a reason to look, not a proof.",
        "",
    ]
    if not clusters:
        lines.append("None.")
    for names, least, most in clusters[:MOST_CLUSTERS]:
        who = ", ".join(map(report.in_markdown, names))
        low, high = f"{least:.0%}", f"{most:.0%}"
        share = high if low == high or len(names) == 2 else f"{low} to {high}"
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
                who[test["extra_data"]["question"], mistake].append(name)
    return sorted(who.items(), key=lambda item: (-len(item[1]), item[0]))


def _picture(graded: dict[str, dict]):
    """Histograms of points, one a question: a matplotlib Figure."""
    from matplotlib.figure import Figure

    found = _by_question(graded) or dict.fromkeys(BY_KEY, [])
    rows = math.ceil(len(found) / 3)
    figure = Figure(figsize=(9, 2.4 * rows), layout="constrained")
    for i, (key, scores) in enumerate(found.items(), 1):
        ax, question = figure.add_subplot(rows, 3, i), BY_KEY[key]
        ax.hist(scores, bins=12, range=(0, _most(graded, key) or 1), color="tab:blue")
        ax.set_title(f"{question.number} {question.title}", fontsize=9)
        ax.set_xlabel("points", fontsize=8)
        ax.set_ylabel("submissions", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.yaxis.get_major_locator().set_params(integer=True)
    return figure
