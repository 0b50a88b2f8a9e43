"""A catalogue of mistakes: what students write instead of the right functions.

Each is a function that runs in the place of the right one; for a method, the model comes first.
README.md has their names, the parts that they lose, and what the student reads.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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


def _table() -> dict[str, tuple[list[str], dict[str, tuple[str, str]]]]:
    """README.md's sections: the functions; and parts and sentence by the mistake's name."""
    sections = {}
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            kind, functions = line.removeprefix("## ").split(":")
            rows = {}
            sections[kind] = (re.findall("`(.+?)`", functions), rows)
        elif line.startswith("| ") and not line.startswith("| mistake |"):
            _, name, parts, sentence, _ = re.split(r" ?(?<!\\)\| ?", line)
            rows[name.replace("\\|", "|")] = (parts, sentence.replace("\\|", "|"))
    return sections


def enter(kind: str, runs: dict[str, Callable], wrap: Callable = lambda run: run) -> None:
    """Enter mistakes in the catalogue.

    Args:
        kind: section of README.md
        runs: by the names there
        wrap: makes of each the function that takes the right function's arguments
    """
    functions, rows = _SECTIONS[kind]
    for name, run in runs.items():
        parts, sentence = rows.pop(name)
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
