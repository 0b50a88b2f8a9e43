"""Summarise a class: grades.csv, and summary.md with points, mistakes and similar submissions.

Similarity compares the syntax trees of graded functions (Baxter et al. 1998), without names, layout
and comments. Rare subtrees have larger weights.
"""

import ast
import csv
import io
import math
import re
import statistics
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import combinations

from codebase.homework import report
from codebase.homework.handout.submit import function_in, is_blank
from codebase.homework.problems import BY_KEY, PROBLEMS
from codebase.homework.report import Found
from codebase.homework.submission import Submission

GRADES, SUMMARY, PICTURE = "grades.csv", "summary.md", "points.png"
MOST_CLUSTERS = 50
SIMILAR = 0.6  # weighted share of the larger submission's fingerprints that is worth a look
EVIDENCE = 20.0  # nats of rarity; below this, the shared code is too short or too common
SHORTEST = 100  # characters of a subtree, as ast.dump writes it
Cluster = tuple[list[str], float, float]


def grades(graded: list[Found]) -> str:
    """Format grades.csv: a row per submission, a column per question; ungraded cells are empty."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["submission", *BY_KEY, "total", "note"])
    for found in graded:
        broken = " ".join(note for note in found.notes if "cannot be imported" in note)
        note = f"not graded: {found.ungraded}" if found.ungraded else broken
        scores = {mark.question.key: report.number(mark.score) for mark in found.marks}
        points = [scores.get(key, "") for key in BY_KEY]
        total = report.number(found.score) if found.marks else ""
        table.writerow([report.cell(found.name), *points, total, report.cell(note)])
    return text.getvalue()


def _by_question(graded: list[Found]) -> dict[str, list[float]]:
    """Return the points of all submissions, for each question that is graded."""
    found = defaultdict(list)
    for one in graded:
        for mark in one.marks:
            found[mark.question.key].append(mark.score)
    return {key: found[key] for key in BY_KEY if key in found}


def summary(graded: list[Found], skipped: list[str], points: Mapping[str, float]) -> str:
    """Format the summary page in Markdown.

    Args:
        graded: the submissions
        skipped: a line for each entry of the class that is not a submission
        points: maximum scores, keyed by question
    """
    counted = [found for found in graded if not found.ungraded]
    lines = ["# Summary", ""]
    if counted:
        middle = report.number(statistics.median(found.score for found in counted))
        lines += [f"Submissions: {len(counted)}. Median: {middle} points, with the bonus.", ""]
    lines += [f"![points by problem]({PICTURE})", ""]
    lines += ["| question | points | graded | mean | full | none |", "|---|---|---|---|---|---|"]
    for key, scores in _by_question(counted).items():
        cells = [
            f"{BY_KEY[key].number} {report.titled(BY_KEY[key])}",
            report.number(points[key]),
            len(scores),
            report.number(statistics.fmean(scores)),
            sum(score == points[key] for score in scores),
            sum(score == 0 for score in scores),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "## Mistakes", ""]
    lines += ["| function | what the student reads | count | who |", "|---|---|---|---|"]
    who = defaultdict(list)
    for found in counted:
        for mark in found.marks:
            for sentence in mark.mistakes:
                who[mark.question.key, sentence].append(report.in_markdown(found.name))
    for (function, sentence), names in sorted(who.items(), key=lambda one: (-len(one[1]), one[0])):
        sentence = report.in_markdown(sentence)
        lines.append(f"| `{function}` | {sentence} | {len(names)} | {', '.join(names)} |")
    lines += ["", "## Similarity", ""]
    lines += [
        "These submissions share at least 60 % of the code patterns in their graded functions. "
        "Names of variables and layout are ignored. Code that few students wrote counts most; "
        "code that nearly all wrote counts little. This is a reason to look, not a proof.",
        "",
    ]
    groups = clusters(graded)
    for names, least, most in groups[:MOST_CLUSTERS]:
        low, high = f"{least:.0%}", f"{most:.0%}"
        share = high if low == high or len(names) == 2 else f"{low} to {high}"
        lines.append(f"- {', '.join(map(report.in_markdown, names))}: {share}")
    if len(groups) > MOST_CLUSTERS:
        lines.append(f"- … and {len(groups) - MOST_CLUSTERS} more")
    lines += [] if groups else ["None."]
    told = {
        "Several copies of the code": [f"{one.name}: {one.copies}" for one in graded if one.copies],
        "Not graded": [f"{one.name}: {one.ungraded}" for one in graded if one.ungraded],
        "Entries to look at": skipped,
    }
    for title, rows in told.items():
        if rows:
            lines += ["", f"## {title}", "", *(f"- {report.in_markdown(row)}" for row in rows)]
    return "\n".join(lines) + "\n"


def picture(graded: list[Found], points: Mapping[str, float]):
    """Draw a histogram of points for each question: a matplotlib Figure."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    graded = [one for one in graded if not one.ungraded]
    found = _by_question(graded) or dict.fromkeys(BY_KEY, [])
    rows = math.ceil(len(found) / 3)
    figure = Figure(figsize=(9, 2.4 * rows), layout="constrained")
    for i, (key, scores) in enumerate(found.items(), 1):
        ax, question = figure.add_subplot(rows, 3, i), BY_KEY[key]
        ax.hist(scores, bins=12, range=(0, points[key] or 1), color="tab:blue")
        ax.set_title(f"{question.number} {question.title}", fontsize=9)
        ax.set_xlabel("points", fontsize=8)
        ax.set_ylabel("submissions", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


# Similarity


def clusters(graded: list[Found]) -> list[Cluster]:
    """Find groups of similar submissions, the most similar first.

    Returns:
        (names, least, most) per group: the names, and the range of its pairs' similarities
    """
    prints = {found.name: {tuple(one) for one in found.prints} for found in graded}
    count = Counter(one for own in prints.values() for one in own)
    weight = {one: math.log((len(prints) + 1) / often) for one, often in count.items()}

    def total(some: set) -> float:
        return math.fsum(weight[one] for one in some)  # in any order of the set

    totals = {name: total(own) for name, own in prints.items()}
    similar = {}
    for one, other in combinations(prints, 2):
        shared, largest = total(prints[one] & prints[other]), max(totals[one], totals[other])
        if shared >= max(EVIDENCE, SIMILAR * largest):
            similar[one, other] = shared / largest
    groups = {name: {name} for name in prints}
    for one, other in similar:
        merged = groups[one] | groups[other]
        for name in merged:
            groups[name] = merged
    listed = []
    for group in {frozenset(group) for group in groups.values() if len(group) > 1}:
        shares = [share for pair, share in similar.items() if group.issuperset(pair)]
        listed.append((sorted(group), min(shares), max(shares)))
    return sorted(listed, key=lambda one: (-one[2], one[0]))


def fingerprints(handed_in: Submission) -> tuple[tuple[str, int], ...]:
    """Hash the longer expressions and statements of a submission's graded functions.

    Returns:
        (function, hash) pairs; names of variables are left out of the hashes
    """
    found = set()
    for problem in PROBLEMS:
        source = handed_in.sources.get(f"{handed_in.package}/{problem.file}", "")
        node = function_in(source, problem.model, problem.method)
        if node is None or is_blank(node):
            continue
        body = node.body[1:] if ast.get_docstring(node) else node.body
        for inner in (inner for statement in body for inner in ast.walk(statement)):
            text = re.sub(r"(Name\(id|arg\(arg)='\w+'", r"\1", ast.dump(inner))
            if len(text) >= SHORTEST:
                found.add((problem.key, zlib.crc32(text.encode(errors="replace"))))
    return tuple(sorted(found))
