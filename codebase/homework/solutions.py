"""Write a document with the solutions to all questions, as Markdown and as one HTML page.

Questions come from the hand-out, code from the sources, derivations from the page of equations,
values and pictures from the trained weights.
"""

import ast
import base64
import platform
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from latex2mathml import converter
from markdown_it import MarkdownIt

from codebase import checkpoints, data, figures
from codebase.homework import report, starter, weights, written
from codebase.homework.problems import QUESTIONS, Question, totals
from codebase.machine.files import write_atomically
from codebase.project import ROOT, UserError, group_of, steps_in
from codebase.runs import published
from codebase.runs.run import load_run

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
        UserError: MNIST or the weights are missing, or the folder is a file
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose a folder")
    data.find_or_download("mnist", "mnist", data_dir)
    document = _Document(points, data_dir)
    text = document.text()
    for name, content in document.pictures.items():
        write_atomically(folder / name, content)
    write_atomically(folder / "solutions.md", text.encode())
    write_atomically(folder / "solutions.html", _page(text, document.pictures).encode())


class _Document:
    """The document under construction."""

    def __init__(self, points: Mapping[str, float], data_dir: Path):
        self.points, self.data_dir = points, data_dir
        self.pictures: dict[str, bytes] = {}
        self.values: dict[str, dict[str, float]] = {}  # of metrics, by run

    def text(self) -> str:
        """Return the document in Markdown."""
        handout = starter.handed_out("README.md", self.points)
        rubric = _sections(written.rubric(self.points), r"## ([^:\n]+): ")
        usual, bonus = map(report.number, totals(self.points))
        parts = [
            f"# Solutions: variational autoencoders\n\n{usual} points, and {bonus} bonus points.\n"
        ]
        for number, section in _sections(handout, r"##+ (\d(?:\.\d)?)").items():
            parts.append(section.strip() + "\n")
            for question in QUESTIONS:
                if question.number == number and self.points[question.key]:
                    parts.append(f"#### Solution: {question.title}\n\n{self._answer(question)}\n")
                    if question.key in rubric:
                        about = rubric[question.key].partition(": ")[2].strip()
                        parts.append(f"#### Rubric: {about}\n")
        parts.append(
            "## How this document was made\n\n"
            f"`python -m codebase solutions` made it with Python {platform.python_version()} and "
            f"PyTorch {torch.__version__}. Bounds are in nats, on the homework's 100-image "
            f"evaluation subset, with draws of seed {weights.SEED}; other draws change them by 0.1 "
            "or 0.2. Full points are given within four standard deviations of the mean. The "
            "standard deviation is this project's or the published one, whichever is larger.\n"
        )
        return "\n".join(parts)

    def _answer(self, question: Question) -> str:
        if question.kind == "report":
            return self._report(question)
        if question.kind == "picture":
            return self._picture(question)
        code = _code(question) if question.kind == "code" else ""
        derived = self._derivation(question) if question.number in DERIVATIONS else ""
        return "\n\n".join(filter(None, (code, derived)))

    def _report(self, asked: Question) -> str:
        folder, whose = _run(f"{asked.group}_run=0000")
        if folder.name not in self.values:
            self.values[folder.name] = weights.metrics_of(load_run(folder), self.data_dir)
        lines = [
            f"| metric | {whose} | mean ± standard deviation | runs | full points |",
            "|---|---|---|---|---|",
        ]
        for metric in asked.parts:
            mean, deviation, number = published.REPLICATES[asked.group][metric]
            found = self.values[folder.name][metric]
            shown = (found, mean, deviation, *weights.expected(asked.group, metric))
            value, middle, spread, low, high = (weights.in_words(metric, x) for x in shown)
            lines.append(
                f"| {metric} | {value} | {middle} ± {spread} | {number} | {low} to {high} |"
            )
        return "\n".join(lines)

    def _picture(self, question: Question) -> str:
        there = [_run(name) for name in RUNS[question.key]]
        folder, whose = next((one for one in there if one[0].is_dir()), there[0])
        name, model = folder.name, load_run(folder)
        with figures.isolated_draws(torch.device("cpu")):
            sheet = figures.sample_sheet(model)
        step = steps_in(folder)[-1]
        self.pictures[f"{name}.png"] = figures.png(sheet, f"{name}, iteration {step}")
        return f"![Samples of {name}]({name}.png)\n\n{name}, iteration {step:,}, {whose}."

    def _derivation(self, question: Question) -> str:
        number, end = DERIVATIONS[question.number]
        equations = _sections(EQUATIONS.read_text(encoding="utf-8"), r"## (\d+)\. ")
        text = equations[number].partition("\n")[2].partition(end)[0].strip()
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


def _code(problem: Question) -> str:
    """Return the code of a function, and of helpers that only graded functions use."""
    source = (ROOT / "codebase" / problem.file).read_text(encoding="utf-8")
    lines, found = source.splitlines(), starter.nodes(ast.parse(source))
    names = {problem.key, *starter.PARTS.get(problem.key, ())} & found.keys()
    text = f"In `codebase/{problem.file}`:"
    if problem.key not in found:
        text = f"`{problem.model}` inherits it from `VAE`, with its own prior."
        text += f" What differs, in `codebase/{problem.file}`:" if names else ""
    cut = ["\n".join(_dedented(lines, found[name])) for name in found if name in names]
    return f"{text}\n\n```python\n" + "\n\n".join(cut) + "\n```" if cut else text


def _dedented(lines: list[str], node: ast.stmt) -> list[str]:
    """Return the lines of a node without indentation, with its decorators."""
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
    return [line[node.col_offset :] for line in lines[first - 1 : node.end_lineno]]


def _sections(text: str, pattern: str) -> dict[str, str]:
    """Split a page into sections, keyed by the pattern's first group in their headings."""
    found = {}
    for section in re.split(r"(?m)^(?=##+ )", text):
        if match := re.match(pattern, section):
            found[match[1]] = section
    return found


def _run(name: str) -> tuple[Path, str]:
    """Return your run's folder if its training is complete, else the reference run's, and whose."""
    own, reference = checkpoints.run_folder(name), checkpoints.reference_folder(name)
    usual = published.ITERATIONS.get(group_of(name), max(steps_in(reference), default=1))
    yours = max(steps_in(own), default=0) >= usual
    return (own, "your run") if yours else (reference, "reference weights")


# HTML


def _mathml(tex: str, display: str) -> str:
    tex = re.sub(r"\\(log|liminf)(?![a-z])", r"\\\1\\,", tex)  # a name touches its argument
    return converter.convert(re.sub(r"\\!", "", tex), display=display)


def _page(text: str, pictures: Mapping[str, bytes]) -> str:
    """Convert Markdown and pictures (PNGs keyed by name) to an HTML page."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in tokens:
        if token.type == "fence" and token.info == "math":
            token.type, token.content = "html_block", _mathml(token.content.strip(), "block")
        inner = token.children or []
        for before, code, after in zip(inner, inner[1:], inner[2:], strict=False):
            formula = before.content.endswith("$") and after.content.startswith("$")
            if code.type == "code_inline" and formula:  # GitHub's form of a formula in a line
                before.content, after.content = before.content[:-1], after.content[1:]
                code.type, code.content = "html_inline", _mathml(code.content, "inline")
        for image in inner:
            if image.type == "image":
                content = base64.b64encode(pictures[str(image.attrs["src"])]).decode()
                image.attrs["src"] = f"data:image/png;base64,{content}"
    return PAGE + markdown.renderer.render(tokens, markdown.options, {})
