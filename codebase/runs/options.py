"""The choices that a run script leaves, with their flags, ranges and default values."""

import math
from dataclasses import dataclass


class Whole:
    """Whole numbers in a range, as a type of flag."""

    def __init__(self, least: int, most: int):
        self.least, self.most = least, most

    def __call__(self, text: str) -> int:
        """The number that a text stands for. Raises ValueError, which names the range."""
        if len(text) > 40:  # so many digits that Python may refuse to read them
            raise ValueError(f"{text[:40]}… is not {self}")
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not {self}") from None
        self.check(value)
        return value

    def check(self, value) -> None:
        """Raise ValueError unless a value is such a number."""
        if type(value) is not int or not self.least <= value <= self.most:
            raise ValueError(f"{value!r} is not {self}")

    def __str__(self) -> str:
        return f"a whole number from {self.least} to {self.most}"


class Real:
    """Numbers in a range, as a type of flag."""

    def __init__(self, least: float, most: float):
        self.least, self.most = least, most

    def __call__(self, text: str) -> float:
        """The number that a text stands for. Raises ValueError, which names the range."""
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"{text[:40]!r} is not {self}") from None
        self.check(value)
        return value

    def check(self, value) -> None:
        """Raise ValueError unless a value is such a number."""
        if type(value) is not float or math.isnan(value) or not self.least <= value <= self.most:
            raise ValueError(f"{value!r} is not {self}")

    def __str__(self) -> str:
        return f"a number from {self.least:g} to {self.most:g}"


class OneOf:
    """Some words, as a type of flag."""

    def __init__(self, *words: str):
        self.words = words

    def __call__(self, text: str) -> str:
        """The word itself. Raises ValueError, which names the words."""
        self.check(text)
        return text

    def check(self, value) -> None:
        """Raise ValueError unless a value is one of the words."""
        if value not in self.words:
            raise ValueError(f"{value!r:.42} is not {self}")

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Option:
    """A choice that determines a run's weights.

    Args:
        flag: its name, of the flag and in records
        default: the homework's value
        type: what it may be
        help: what it is
        digits: to which every name has it padded; None: names have it where it is not the default
    """

    flag: str
    default: int | float | str
    type: Whole | Real | OneOf
    help: str
    digits: int | None = None


RUN_NUMBER = Whole(0, 999_999)
SEED = Whole(0, 2**63 - 1)
BATCH_SIZE = Whole(1, 1_000_000)
LEARNING_RATE = Real(1e-9, 10)
SWITCH = Whole(0, 1)


def exactly(value: int | float | str) -> str:
    """A value as names have it: short, and another for every other value."""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
