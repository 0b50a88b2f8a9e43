"""A catalogue of mistakes: what students write instead of the right functions.

Each is a function that runs in the place of the right one; for a method, the model comes first.
README.md has their names, the parts that they lose, and what the student reads.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from codebase.project import UserError

TABLE = Path(__file__).with_name("README.md")


@dataclass(frozen=True)
class Mistake:
    """A mistake.

    Args:
        function: the function
        name: short name, for tables
        sentence: sentence for the student
        loses: parts of the function whose points it loses
        run: what the student wrote
    """

    function: str
    name: str
    sentence: str
    loses: frozenset[str]
    run: Callable


MISTAKES: dict[str, list[Mistake]] = {}


class _Table(dict):
    """Sections of README.md. A row that an edit has broken, or removed, is named."""

    def __missing__(self, key):
        raise UserError(f"{TABLE}: there is no row or section {key!r} any more: restore it")


def _table() -> dict[str, tuple[list[str], dict[str, tuple[str, str]]]]:
    """README.md's sections: the functions; and parts and sentence by the mistake's name."""
    sections, rows = _Table(), _Table()
    try:
        lines = TABLE.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{TABLE}: {error}: save it as UTF-8") from None
    for number, line in enumerate(lines, 1):
        if line.startswith("## "):
            kind, _, functions = line.removeprefix("## ").partition(":")
            rows = _Table()
            sections[kind] = (re.findall("`(.+?)`", functions), rows)
        elif line.startswith("| ") and not line.startswith("| mistake |"):
            cells = re.split(r" ?(?<!\\)\| ?", line)
            if len(cells) != 5:
                raise UserError(f"{TABLE}, line {number}: expected three cells; write \\| for |")
            _, name, parts, sentence, _ = cells
            rows[name.replace("\\|", "|")] = (parts, sentence.replace("\\|", "|"))
    return sections


def enter(kind: str, runs: dict[str, Callable], wrap: Callable = lambda run: run) -> None:
    """Enter mistakes in the catalogue.

    Args:
        kind: section of README.md
        runs: by the names there
        wrap: turns each into a function that takes the same arguments as the right function
    """
    functions, rows = _SECTIONS[kind]
    for name, run in runs.items():
        parts, sentence = rows[name]
        del rows[name]
        entered = wrap(run)
        for i, function in enumerate(functions):
            of_function = parts.split(" / ")[i if " / " in parts else 0]
            loses = frozenset(of_function.split(", "))
            mistake = Mistake(function, name, sentence, loses, entered)
            MISTAKES.setdefault(function, []).append(mistake)


_SECTIONS = _table()


def without_code() -> list[str]:
    """The names in README.md that no code has entered."""
    return [name for _, rows in _SECTIONS.values() for name in rows]


def count() -> int:
    """How many mistakes there are."""
    return sum(map(len, MISTAKES.values()))
