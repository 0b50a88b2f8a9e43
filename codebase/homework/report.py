"""What grading says: a table for the terminal, Gradescope's results.json, Markdown for students."""

import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from codebase.homework.files import read_file
from codebase.homework.marks import Mark
from codebase.homework.problems import BY_FUNCTION, BY_KEY, Question

if TYPE_CHECKING:  # grading needs Linux; what only reads results does not
    from codebase.homework.grade import Graded

RESULTS, REPORT = "results.json", "report.md"
LARGEST_RESULTS = 8 << 20  # bytes


def plain(text: str) -> str:
    """Remove terminal control sequences from a text that a submission may have written."""
    kept = (
        character if character == "\n" or unicodedata.category(character)[0] != "C" else "�"
        for character in text
    )
    return "".join(kept)


def one_line(text: str) -> str:
    """Remove control sequences and line breaks: a second line might look like the grader's."""
    return " ".join(plain(text).split())


def in_markdown(text: str) -> str:
    """Escape a text for Markdown, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!$])", r"\\\1", one_line(text))


def cell(text: str) -> str:
    """Return a text, in one line, that no spreadsheet reads as a formula."""
    text = one_line(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def number(points: float) -> str:
    """Format points without needless digits."""
    return f"{points:.2f}".rstrip("0").rstrip(".")


def explanation(mark: Mark) -> list[str]:
    """The sentences of a mark: the mistake, the wrong parts, and notes."""
    lines = []
    if mark.mistakes:
        told = [mistake.sentence for mistake in mark.mistakes]
        same = len({mistake.loses for mistake in mark.mistakes}) == 1  # or one for each term
        lines += [" Or: ".join(told)] if same else told
    return [one_line(line) for line in [*lines, *mark.reasons, *mark.notes]]


def results(
    graded: "Graded", key: str = "", show_points: bool = True, show_output: bool = False
) -> dict:
    """Build Gradescope's results.json, from which the other reports are made."""
    visibility = "visible" if show_points else "hidden"
    notes = [one_line(note) for note in graded.notes]
    said = [f"Note: {note}" for note in notes]
    if not show_points:  # what explains them is hidden with them
        told = ((mark.problem.title, explanation(mark)) for mark in graded.marks)
        said += [f"{title}: {' '.join(lines)}" for title, lines in told if lines]
    printed = plain(graded.printed) if show_output else ""
    if printed:
        said.append(f"Your code prints:\n{printed}")
    return {
        "score": graded.score,
        "stdout_visibility": "visible" if show_output else "hidden",
        "output": "\n".join(said),
        "output_format": "text",
        "tests": [_test(mark, visibility) for mark in graded.marks],
        "extra_data": {
            "name": graded.name,
            "key": key,
            "ungraded": graded.ungraded,
            "notes": notes,
            "printed": printed,
        },
    }


def encoded(content: dict) -> bytes:
    """Encode results.json."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(errors="replace")


def _test(mark: Mark, visibility: str) -> dict:
    lines = explanation(mark)
    nothing = "Nothing was graded; see the note at the top." if mark.lost else "Correct."
    test = entry(mark.problem, mark.score, mark.points, "\n".join(lines) or nothing, visibility)
    test["extra_data"] |= {
        "explained": bool(lines),
        "lost": mark.lost,
        "mistakes": [mistake.name for mistake in mark.mistakes],
    }
    return test


def entry(question: Question, score: float, points: float, output: str, visibility: str) -> dict:
    """Build the entry of results.json for a question."""
    return {
        "number": question.number,
        "name": f"{question.title}{' (bonus)' if question.bonus else ''}",
        "score": score,
        "max_score": points,
        "status": "passed" if score == points else "failed",
        "output": output,
        "output_format": "text",
        "visibility": visibility,
        "extra_data": {"question": question.key, "explained": True, "lost": [], "mistakes": []},
    }


def question_of(test: dict) -> Question:
    """The question of an entry of results.json."""
    return BY_KEY[test["extra_data"]["question"]]


def total(content: dict) -> str:
    """Format the points of results.json, such as 48.5 of 52, and 4 bonus."""
    tests = content["tests"]
    bonus = sum(test["score"] for test in tests if question_of(test).bonus)
    of = sum(test["max_score"] for test in tests if not question_of(test).bonus)
    text = f"{number(content['score'] - bonus)} of {number(of)}"
    return f"{text}, and {number(bonus)} bonus" if bonus else text


def table(content: dict, seconds: Mapping[str, float] = MappingProxyType({})) -> str:
    """Format a submission for the terminal: a line per question, and why points were lost.

    Args:
        content: content of results.json
        seconds: that functions took
    """
    lines = [f"{one_line(content['extra_data']['name'])}:"]
    for test in content["tests"]:
        question = question_of(test)
        points = f"{number(test['score']):>5} of {number(test['max_score'])}"
        took = f"{seconds[question.key]:.1f} s" if question.key in seconds else ""
        bonus = "  bonus" if question.bonus else ""
        line = f"  {question.number} {question.title:<34}{points:<12}{took:>7}{bonus}"
        lines.append(line.rstrip())
        if test["extra_data"]["explained"]:
            lines += [f"        {line}" for line in test["output"].splitlines()]
    lines.append(f"  {'total':<38}{total(content):>8}")
    lines += [f"  note: {note}" for note in _notes(content)]
    return "\n".join(lines)


def markdown(content: dict) -> str:
    """Format the report for the student.

    Args:
        content: content of results.json
    """
    tests, extra = content["tests"], content["extra_data"]
    show_points = all(test["visibility"] == "visible" for test in tests)
    lines = [f"# {in_markdown(extra['name'])}", ""]
    if show_points:
        lines += [f"**{total(content)} points**", "", "| question | points |", "|---|---|"]
    for test in tests if show_points else ():
        points = f"{number(test['score'])} of {number(test['max_score'])}"
        lines.append(f"| {test['number']} {_title(question_of(test))} | {points} |")
    for test in tests:
        if test["extra_data"]["explained"]:
            lines += ["", f"## {test['number']} {question_of(test).title}", ""]
            if (lost := test["extra_data"]["lost"]) and show_points:
                lines += [f"Points were lost for: {', '.join(lost)}.", ""]
            lines += [f"- {in_markdown(line)}" for line in test["output"].splitlines()]
    if notes := _notes(content):
        lines += ["", "## Notes", ""]
        lines += [f"- {in_markdown(note)}" for note in notes]
    if extra["printed"]:
        lines += ["", "## What the code prints", ""]
        lines += [f"    {line}" for line in extra["printed"].splitlines()]
    return "\n".join(lines) + "\n"


def _notes(content: dict) -> list[str]:
    extra = content["extra_data"]
    more = [extra.get("comment"), extra.get("waiting")]
    return [*extra["notes"], *(note for note in more if note)]


def _title(question: Question) -> str:
    title = f"`{question.title}`" if question.kind == "code" else question.title
    return f"{title} (bonus)" if question.bonus else title


def read_results(folder: Path) -> dict | None:
    """Read a submission's results.json; None if it cannot be read."""
    try:
        content = json.loads(read_file(folder / RESULTS, LARGEST_RESULTS))
    except (OSError, ValueError, RecursionError):
        return None
    try:
        numbers, keys = [content["score"]], set()
        for test in content["tests"]:
            numbers += [test["score"], test["max_score"]]
            keys.add(question_of(test).key)
            set(test["extra_data"]["mistakes"])
        if not keys >= BY_FUNCTION.keys() or any(type(one) not in (int, float) for one in numbers):
            return None
        table(content), markdown(content)
        content["extra_data"]["key"], str(content["extra_data"].get("ungraded") or "")
    except (TypeError, LookupError, ValueError, AttributeError, ArithmeticError):
        return None
    return content
