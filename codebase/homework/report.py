"""Reports: a table for the terminal, Gradescope's results.json, Markdown for students.

All are made from two inputs: the grader's results, and points entered by hand (`written.Row`).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from codebase.homework.marking import Mark
from codebase.homework.problems import BY_KEY, Question, totals
from codebase.homework.written import Row, quoted

RESULTS, REPORT = "results.json", "report.md"


@dataclass(frozen=True)
class Found:
    """The results of grading a submission.

    Args:
        name: its name
        marks: marks of questions, in the homework's order
        notes: notes about the submission as a whole
        copies: a sentence for the teacher, see `submission.Submission`
        printed: what its code printed
        ungraded: why it was not graded; empty if it was
        prints: fingerprints of its functions, see `summary.fingerprints`
        key: hash of everything that the marks depend on; empty: do not reuse them
    """

    name: str
    marks: tuple[Mark, ...] = ()
    notes: tuple[str, ...] = ()
    copies: str = ""
    printed: str = ""
    ungraded: str = ""
    prints: tuple[tuple[str, int], ...] = ()
    key: str = ""

    @property
    def score(self) -> float:
        """The points, including the bonus."""
        return round(sum(mark.score for mark in self.marks), 2)

    def encoded(self) -> bytes:
        """Encode the results as JSON."""
        marks = [vars(mark) | {"question": mark.question.key} for mark in self.marks]
        return json.dumps(asdict(replace(self, marks=())) | {"marks": marks}).encode()

    @classmethod
    def decoded(cls, content: bytes) -> "Found":
        """Decode the output of `encoded`. Raises ValueError, TypeError or LookupError."""
        fields = json.loads(content)
        marks = (one | {"question": BY_KEY[one["question"]]} for one in fields["marks"])
        return cls(**fields | {"marks": tuple(Mark(**one) for one in marks)})


def merged(found: Found, row: Row, points: Mapping[str, float]) -> Found:
    """Add points entered by hand, and a note about questions that are not graded yet.

    Args:
        found: the grader's results
        row: points entered by hand
        points: points keyed by question
    """
    marks = {mark.question.key: mark for mark in found.marks}
    for key, score in row.scores.items():
        own = marks[key].said if key in marks else ()  # which explains the values
        marks[key] = Mark(BY_KEY[key], points[key], score, (), ("Marked by hand.", *own))
    open_points = {key: 0 if key in marks else value for key, value in points.items()}
    sums = zip(totals(open_points), ("points", "bonus points"), strict=True)
    waiting = " and ".join(f"{number(value)} {kind}" for value, kind in sums if value)
    keys = ", ".join(key for key, value in open_points.items() if value)
    ungraded = found.ungraded and f"Not graded: {found.ungraded}"
    missing = waiting and f"Not graded yet: {waiting} ({keys})."
    notes = tuple(filter(None, (*found.notes, ungraded, row.comment, missing)))
    ordered = tuple(marks[key] for key in BY_KEY if key in marks)
    return replace(found, marks=ordered, notes=notes)


# Texts that a submission may have written


def plain(text: str) -> str:
    """Remove terminal control sequences from a text that a submission may have written."""
    return "".join(one if one == "\n" or one.isprintable() else "�" for one in text)


def one_line(text: str) -> str:
    """Remove control sequences and line breaks, so a text cannot imitate the grader's lines."""
    return " ".join(plain(text).split())


def in_markdown(text: str) -> str:
    """Escape a text for Markdown and put it on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!$])", r"\\\1", one_line(text))


def cell(text: str) -> str:
    """Return a text in one line, quoted if spreadsheets would treat it as a formula."""
    return quoted(one_line(text))


def number(points: float) -> str:
    """Format points without trailing zeros."""
    return f"{points:.2f}".rstrip("0").rstrip(".")


# Reports


def results(found: Found, show_points: bool = True, show_output: bool = False) -> bytes:
    """Encode Gradescope's results.json. Without marks, omit the score: 0 would look real."""
    visibility = "visible" if show_points else "hidden"
    output = [f"Note: {one_line(note)}" for note in found.notes]
    if not show_points:  # what explains them is hidden with them
        told = ((mark.question.title, one_line(" ".join(mark.said))) for mark in found.marks)
        output += [f"{title}: {lines}" for title, lines in told if lines]
    if show_output and found.printed:
        output.append(f"Your code prints:\n{plain(found.printed)}")
    tests = [
        {
            "number": mark.question.number,
            "name": titled(mark.question),
            "score": mark.score,
            "max_score": mark.points,
            "status": "passed" if mark.score == mark.points else "failed",
            "output": "\n".join(map(one_line, mark.said)) or "Correct.",
            "output_format": "text",
            "visibility": visibility,
            "extra_data": {"question": mark.question.key, "lost": mark.lost},
        }
        for mark in found.marks
    ]
    content: dict[str, Any] = {"score": found.score} if tests else {}
    content |= {
        "stdout_visibility": "visible" if show_output else "hidden",
        "output": "\n".join(output),
        "output_format": "text",
        "tests": tests,
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(errors="replace")


def total(found: Found) -> str:
    """Format a submission's points, such as 48.5 of 52, and 4 bonus."""
    bonus = sum(mark.score for mark in found.marks if mark.question.bonus)
    of = sum(mark.points for mark in found.marks if not mark.question.bonus)
    text = f"{number(found.score - bonus)} of {number(of)}"
    return f"{text}, and {number(bonus)} bonus" if bonus else text


def table(found: Found) -> str:
    """Format a submission for the terminal: a line per question, and why points were lost."""
    lines = [f"{one_line(found.name)}:"]
    for mark in found.marks:
        question = mark.question
        points = f"{number(mark.score):>5} of {number(mark.points)}"
        lines.append(f"  {question.number} {titled(question):<42}{points}")
        lines += [f"        {one_line(said)}" for said in mark.said]
    lines.append(f"  {'total':<46}{total(found):>8}" if found.marks else "  not graded")
    lines += [f"  note: {one_line(note)}" for note in found.notes]
    return "\n".join(lines)


def markdown(found: Found, show_points: bool = True, show_output: bool = False) -> bytes:
    """Encode the report for the student."""
    lines = [f"# {in_markdown(found.name)}", ""]
    if show_points and found.marks:
        lines += [f"**{total(found)} points**", "", "| question | points |", "|---|---|"]
        for mark in found.marks:
            points = f"{number(mark.score)} of {number(mark.points)}"
            lines.append(f"| {mark.question.number} {titled(mark.question)} | {points} |")
    for mark in found.marks:
        if mark.said:
            lines += ["", f"## {mark.question.number} {mark.question.title}", ""]
            if mark.lost and show_points:
                lines += [f"Points were lost for: {', '.join(mark.lost)}.", ""]
            lines += [f"- {in_markdown(line)}" for line in mark.said]
    if found.notes:
        lines += ["", "## Notes", "", *(f"- {in_markdown(note)}" for note in found.notes)]
    if show_output and found.printed:
        lines += ["", "## What the code prints", ""]
        lines += [f"    {line}" for line in plain(found.printed).splitlines()]
    return ("\n".join(lines) + "\n").encode(errors="replace")


def titled(question: Question) -> str:
    """Return a question's title, and whether it is a bonus."""
    return f"{question.title} (bonus)" if question.bonus else question.title
