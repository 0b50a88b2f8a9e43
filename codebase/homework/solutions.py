"""Write a document with the solutions to all questions, as Markdown and as one HTML page.

Questions come from the hand-out, code from the sources, derivations from the page of equations,
values and pictures from the trained weights.
"""

import ast
import base64
import html
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from codebase import checkpoints, data, figures
from codebase.homework import report, starter, weights, written
from codebase.homework.problems import QUESTIONS, Problem, Question, Report, totals
from codebase.machine.files import write_atomically
from codebase.project import ROOT, UserError, group_of, steps_in
from codebase.runs import published, table
from codebase.runs import run as runs
from codebase.runs.run import load_run, located

EQUATIONS = ROOT / "codebase" / "models" / "README.md"
# Sections of the equations' page, and the paragraph before which each is cut.
DERIVATIONS = {
    "1.5": ("8", "\nCode:"),
    "3.1": ("5", "**The limit.**"),
    "4.2": ("6", "**Why the classifier"),
    "5.1": ("7", "\nCode:"),
}
RUNS = {  # of which samples are drawn
    "1.4": ("model=vae_z=10_run=0000",),
    "2.3": ("model=gmvae_z=10_k=500_run=0000",),
    "5.2 picture": ("model=fsvae_run=0000", "model=fsvae_run=0000_data=synthetic"),
}
PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Solutions</title>
<style>
@page { margin: 18mm 16mm }
body { max-width: 54rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif }
pre { padding: .8rem; background: #f4f4f6; font-size: .8rem; line-height: 1.35; overflow: auto }
table { border-collapse: collapse; margin: 1rem 0; max-width: 99% }
th, td { border: 1px solid #bbb; padding: .25rem .6rem; text-align: left; vertical-align: top }
img { max-width: 100% }
code { white-space: nowrap }
pre code { white-space: inherit }
math { font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math", math }
math[display=block] { margin: 1rem 0 }
h3 { border-top: 1px solid #bbb; padding-top: 1rem }
h2, h3, h4 { break-after: avoid }
img, table, math, pre { break-inside: avoid }
@media print { body { margin: 0; padding: 0; max-width: none; font-size: 10.5pt }
    pre { white-space: pre-wrap; overflow: visible; font-size: 8pt } }
</style>
"""


def make(folder: Path, points: Mapping[str, float], data_dir: Path) -> None:
    """Write solutions.md and its pictures, and solutions.html, which embeds them.

    Args:
        folder: folder of the document; existing files with these names are replaced
        points: points keyed by question
        data_dir: folder of MNIST

    Raises:
        UserError: MNIST or a package is missing, or the folder is a file
    """
    convert = _converter()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose a folder")
    data.find_or_download("mnist", "mnist", data_dir)
    document = _Document(points, data_dir)
    text = document.text()
    for name, content in document.pictures.items():
        write_atomically(folder / name, content)
    write_atomically(folder / "solutions.md", text.encode())
    write_atomically(folder / "solutions.html", convert(text, document.pictures).encode())


class _Document:
    """The document under construction."""

    def __init__(self, points: Mapping[str, float], data_dir: Path):
        self.points, self.data_dir = points, data_dir
        self.pictures: dict[str, bytes] = {}
        self.rubric = _sections(written.rubric(points), r"## ([^:\n]+): ")
        self.equations = _sections(EQUATIONS.read_text(encoding="utf-8"), r"## (\d+)\. ")
        self.trained: dict[str, _Trained] = {}
        self.replicates = _replicates()

    def text(self) -> str:
        """Return the document in Markdown."""
        handout = starter.handed_out("README.md", self.points)
        usual, bonus = map(report.number, totals(self.points))
        parts = [
            f"# Solutions: variational autoencoders\n\n{usual} points, and {bonus} bonus points.\n"
        ]
        for number, section in _sections(handout, r"##+ (\d(?:\.\d)?)").items():
            parts.append(section.strip() + "\n")
            for question in QUESTIONS:
                if question.number == number and self.points[question.key]:
                    parts.append(self._answer(question))
        return "\n".join([*parts, self._how_it_was_made()])

    def _answer(self, question: Question) -> str:
        if isinstance(question, Problem):
            text = _code(question)
            if question.number in DERIVATIONS:
                text += f"\n\n{self._derivation(question)}"
        elif isinstance(question, Report):
            text = self._report(question)
        elif question.kind == "picture":
            text = self._picture(question)
        else:
            text = self._derivation(question)
        answer = f"#### Solution: {question.title}\n\n{text}\n"
        if rubric := self.rubric.get(question.key):
            answer += f"\n#### Rubric: {rubric.partition(': ')[2].strip()}\n"
        return answer

    def _report(self, asked: Report) -> str:
        trained = self._trained(f"{asked.group}_run=0000")
        lines = [
            f"| metric | {_whose(trained.run)} | mean ± standard deviation | runs | full points |",
            "|---|---|---|---|---|",
        ]
        for metric in asked.metrics:
            mean, deviation, number = self.replicates[asked.group][metric]
            low, high = weights.expected(asked.group, metric)
            cells = [weights.in_words(metric, x) for x in (mean, deviation, low, high)]
            value = weights.in_words(metric, trained.values[metric])
            lines.append(
                f"| {metric} | {value} | {cells[0]} ± {cells[1]} | {number} | "
                f"{cells[2]} to {cells[3]} |"
            )
        return "\n".join(lines)

    def _trained(self, name: str) -> "_Trained":
        if name not in self.trained:
            folder = _folder(name)
            _, step, run = located(folder)
            values = weights.metrics_of(load_run(folder), self.data_dir)
            self.trained[name] = _Trained(run, step, values)
        return self.trained[name]

    def _picture(self, question: Question) -> str:
        there = [folder for name in RUNS[question.key] if (folder := _folder(name)).is_dir()]
        if not there:
            raise UserError(f"there are no weights of {RUNS[question.key][0]}: train it first")
        _, step, run = located(there[0])
        model = load_run(there[0])
        with figures.isolated_draws(torch.device("cpu")):
            sheet = figures.sample_sheet(model)
        file = f"{run.name}.png"
        self.pictures[file] = figures.png(sheet, f"{run.name}, iteration {step}")
        return f"![Samples of {run.name}]({file})\n\n{run.name}, iteration {step:,}, {_whose(run)}."

    def _derivation(self, question: Question) -> str:
        number, end = DERIVATIONS[question.number]
        text = self.equations[number].partition("\n")[2].partition(end)[0].strip()
        text = re.sub(r"<!--.*?-->\s?", "", text)
        text = re.sub(r"\b([Ss]ection) (\d+)", r"\1 \2 of the equations", text)

        def kept(match: re.Match) -> str:
            path = (EQUATIONS.parent / match[3]).resolve()
            if not match[1]:
                return match[2]  # of a link to another page: its text
            self.pictures[path.name] = path.read_bytes()
            return f"![{match[2]}]({path.name})"

        text = re.sub(r"(!?)\[([^\]]+)\]\(([^)]+)\)", kept, text)
        return f"*Section {number} of the equations (codebase/models/README.md).*\n\n{text}"

    def _how_it_was_made(self) -> str:
        found = {str(trained.run.flags.get("seed")) for trained in self.trained.values()}
        seeds = ", ".join(sorted(found))
        names = ", ".join(f"{one.run.name} ({_whose(one.run)})" for one in self.trained.values())
        return (
            "## How this document was made\n\n"
            f"`python -m codebase solutions` made it with Python {platform.python_version()} and "
            f"PyTorch {torch.__version__}. It evaluated the weights of {names}, trained with "
            f"seed {seeds}; the evaluation draws with seed {weights.SEED}. Bounds are in nats, on "
            "the homework's 100-image evaluation subset; other draws change them by 0.1 or 0.2. "
            "Full points are given within four standard deviations of the mean. The standard "
            "deviation is this project's or the published one, whichever is larger.\n"
        )


@dataclass(frozen=True)
class _Trained:
    """A run with its metrics."""

    run: runs.Run
    step: int
    values: dict[str, float]


def _code(problem: Problem) -> str:
    """Return the code of a function, and of helpers that only graded functions use."""
    source = (ROOT / "codebase" / problem.file).read_text(encoding="utf-8")
    lines, found = source.splitlines(), starter.nodes(ast.parse(source))
    names = {problem.function, *starter.PARTS.get(problem.function, ())} & found.keys()
    text = f"In `codebase/{problem.file}`:"
    if problem.function not in found:
        text = f"`{problem.model}` inherits it from `VAE`, with its own prior."
        text += f" What differs, in `codebase/{problem.file}`:" if names else ""
    cut = ["\n".join(_dedented(lines, found[name])) for name in found if name in names]
    return f"{text}\n\n```python\n" + "\n\n".join(cut) + "\n```" if cut else text


def _dedented(lines: list[str], node: ast.stmt) -> list[str]:
    """Return the lines of a node without indentation, with its decorators."""
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
    return [line[node.col_offset :] for line in lines[first - 1 : node.end_lineno]]


def _replicates() -> dict[str, dict[str, tuple[float, float, int]]]:
    """Return mean, standard deviation and number of runs, from your runs if there are several."""
    try:
        rows = table.rows(table.collect())
    except UserError:
        rows = []
    found = {group: dict(values) for group, values in published.REPLICATES.items()}
    for row in rows:
        if row["n"] > 1 and row["figure"] in found.get(row["group"], {}):
            found[row["group"]][row["figure"]] = (row["mean"], row["sd"], row["n"])
    return found


def _sections(text: str, pattern: str) -> dict[str, str]:
    """Split a page into sections, keyed by the pattern's first group in their headings."""
    found = {}
    for section in re.split(r"(?m)^(?=##+ )", text):
        if match := re.match(pattern, section):
            found[match[1]] = section
    return found


def _folder(name: str) -> Path:
    """Return your run's folder if its training is complete, else the reference run's folder."""
    own, reference = checkpoints.run_folder(name), checkpoints.reference_folder(name)
    usual = published.ITERATIONS.get(group_of(name), max(steps_in(reference), default=1))
    return own if max(steps_in(own), default=0) >= usual else reference


def _whose(run: runs.Run) -> str:
    own = _folder(run.name) == checkpoints.run_folder(run.name)
    return "your run" if own else "reference weights"


# HTML


def _converter():
    """Return a function that converts Markdown and pictures (PNGs keyed by name) to HTML."""
    try:
        from latex2mathml import converter
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed: run `pip install -r requirements.txt`"
        ) from None

    def mathml(tex: str, display: str) -> str:
        tex = re.sub(r"\\(log|liminf)(?![a-z])", r"\\\1\\,", tex)  # a name touches its argument
        tex = re.sub(r"\\!", "", tex)
        return converter.convert(tex, display=display)

    def convert(text: str, pictures: Mapping[str, bytes]) -> str:
        markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
        tokens = markdown.parse(text)
        for token in tokens:
            if token.type == "fence" and token.info == "math":
                token.type, token.content = "html_block", mathml(token.content.strip(), "block")
            inner = token.children or []
            for before, code, after in zip(inner, inner[1:], inner[2:], strict=False):
                formula = before.content.endswith("$") and after.content.startswith("$")
                if code.type == "code_inline" and formula:  # GitHub's form of a formula in a line
                    before.content, after.content = before.content[:-1], after.content[1:]
                    code.type, code.content = "html_inline", mathml(code.content, "inline")
            for image in inner:
                if image.type == "image":
                    content = base64.b64encode(pictures[str(image.attrs["src"])]).decode()
                    image.attrs["src"] = f"data:image/png;base64,{content}"
        body = markdown.renderer.render(tokens, markdown.options, {})
        title = html.escape(text.partition("\n")[0].strip("# "))
        return PAGE.replace("Solutions</title>", f"{title}</title>") + body

    return convert
