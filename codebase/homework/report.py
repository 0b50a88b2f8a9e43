"""What grading says: a table for the terminal, Gradescope's results.json, Markdown for students."""

import json
import re
import unicodedata
from pathlib import Path

from codebase.homework.grade import Graded
from codebase.homework.marking import Mark
from codebase.homework.problems import BY_FUNCTION, Problem
from codebase.machine.files import read_file

RESULTS, REPORT = "results.json", "report.md"
LARGEST_RESULTS = 8 << 20  # bytes


def plain(text: str) -> str:
    """Remove what commands a terminal from a text that a submission may have written."""
    kept = (
        character if character == "\n" or unicodedata.category(character)[0] != "C" else "�"
        for character in text
    )
    return "".join(kept)


def one_line(text: str) -> str:
    """The same, in one line: a second line might look like the grader's."""
    return " ".join(plain(text).split())


def in_markdown(text: str) -> str:
    """Escape a text for Markdown, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!$])", r"\\\1", one_line(text))


def number(points: float) -> str:
    """Format points without needless digits."""
    return f"{points:.2f}".rstrip("0").rstrip(".")


def _total(graded: Graded) -> str:
    total = f"{number(graded.score - graded.bonus):>5} of {number(graded.of)}"
    return f"{total}, and {number(graded.bonus)} bonus" if graded.bonus else total


def explanation(mark: Mark) -> list[str]:
    """The sentences of a mark: the mistake, the wrong parts, and notes."""
    lines = []
    if mark.mistakes:
        told = [mistake.sentence for mistake in mark.mistakes]
        same = len({mistake.loses for mistake in mark.mistakes}) == 1  # or one for each term
        lines += [" Or: ".join(told)] if same else told
    return [one_line(line) for line in [*lines, *mark.reasons, *mark.notes]]


def table(graded: Graded) -> str:
    """Format a submission for the terminal: a line per function, and why points were lost."""
    lines = [f"{one_line(graded.name)}:"]
    for mark in graded.marks:
        problem = mark.problem
        points = f"{number(mark.score):>5} of {number(mark.points)}"
        seconds = f"{graded.seconds[problem.function]:.1f} s"
        bonus = "  bonus" if problem.bonus else ""
        lines.append(f"  {problem.number} {problem.function:<28}{points:<12}{seconds:>7}{bonus}")
        lines += [f"        {line}" for line in explanation(mark)]
    lines.append(f"  {'total':<32}{_total(graded)}")
    lines += [f"  note: {one_line(note)}" for note in graded.notes]
    return "\n".join(lines)


def results(
    graded: Graded, key: str = "", show_points: bool = True, show_output: bool = False
) -> str:
    """Format Gradescope's results.json."""
    visibility = "visible" if show_points else "hidden"
    notes = [f"Note: {one_line(note)}" for note in graded.notes]
    if not show_points:  # what explains them is hidden with them
        told = ((mark.problem.function, explanation(mark)) for mark in graded.marks)
        notes += [f"{function}: {' '.join(lines)}" for function, lines in told if lines]
    if show_output and graded.printed:
        notes.append(f"Your code prints:\n{plain(graded.printed)}")
    content = {
        "score": graded.score,
        "stdout_visibility": "visible" if show_output else "hidden",
        "output": "\n".join(notes),
        "output_format": "text",
        "tests": [_test(mark, visibility) for mark in graded.marks],
        "extra_data": {"name": graded.name, "key": key, "ungraded": graded.ungraded},
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _test(mark: Mark, visibility: str) -> dict:
    return {
        "number": mark.problem.number,
        "name": name(mark.problem),
        "score": mark.score,
        "max_score": mark.points,
        "status": "passed" if mark.score == mark.points else "failed",
        "output": "\n".join(explanation(mark)) or _nothing_to_say(mark),
        "output_format": "text",
        "visibility": visibility,
        "extra_data": {
            "function": mark.problem.function,
            "lost": mark.lost,
            "mistakes": [mistake.name for mistake in mark.mistakes],
        },
    }


def _nothing_to_say(mark: Mark) -> str:
    return "Nothing was graded; see the note at the top." if mark.lost else "Right."


def name(problem: Problem) -> str:
    """A function's name in reports."""
    return f"{problem.function}{' (bonus)' if problem.bonus else ''}"


def markdown(
    graded: Graded, weights: list[str] = (), show_output: bool = False, show_points: bool = True
) -> str:
    """Format the report for the student."""
    lines = [f"# {in_markdown(graded.name)}", ""]
    if show_points:
        lines += [f"**{_total(graded).strip()} points**", ""]
        lines += ["| problem | function | points |", "|---|---|---|"]
    for mark in graded.marks if show_points else ():
        points = f"{number(mark.score)} of {number(mark.points)}"
        lines.append(f"| {mark.problem.heading} | `{mark.problem.function}` | {points} |")
    for mark in graded.marks:
        if said := explanation(mark):
            lines += ["", f"## {mark.problem.number} {mark.problem.function}", ""]
            if mark.lost and show_points:
                lines += [f"Points were lost for: {', '.join(mark.lost)}.", ""]
            lines += [f"- {in_markdown(line)}" for line in said]
    if graded.notes:
        lines += ["", "## Notes", ""]
        lines += [f"- {in_markdown(note)}" for note in graded.notes]
    if weights:
        lines += ["", "## Weights", "", *weights]
    if show_output and graded.printed:
        lines += ["", "## What the code prints", ""]
        lines += [f"    {line}" for line in plain(graded.printed).splitlines()]
    return "\n".join(lines) + "\n"


def read_results(folder: Path) -> dict | None:
    """Read a submission's results.json; None if it cannot be read."""
    try:
        content = json.loads(read_file(folder / RESULTS, LARGEST_RESULTS))
    except (OSError, ValueError, RecursionError):
        return None
    try:
        numbers, functions = [content["score"]], set()
        for test in content["tests"]:
            numbers += [test["score"], test["max_score"]]
            functions.add(test["extra_data"]["function"])
            set(test["extra_data"]["mistakes"])
        if functions != BY_FUNCTION.keys() or any(type(one) not in (int, float) for one in numbers):
            return None
        content["extra_data"]["key"], str(content["extra_data"].get("ungraded") or "")
    except (TypeError, LookupError, ValueError):
        return None
    return content
