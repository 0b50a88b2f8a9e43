"""How a training shows itself while it runs: by a bar of its own, or by its share of one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codebase.machine.terminal import bar
from codebase.runs.experiment import Run


@dataclass(frozen=True)
class Display:
    """The bar of one training.

    Args:
        report: of one of many trainings, which one bar shows: takes a number of iterations
    """

    report: Callable[[int], None] | None = None

    @property
    def nested(self) -> bool:
        """Whether the training is one of many."""
        return self.report is not None

    def bar(self, runs: Sequence[Run], step: int, iter_max: int):
        """A bar that has reached a step; closing it ends it."""
        if self.report is not None:
            return _Reporting(self.report, len(runs), step)
        return bar(desc="training", total=iter_max, initial=step, smoothing=0.05, unit="it")


class _Reporting:
    """A bar that shows nothing, and reports the iterations of each of its models."""

    def __init__(self, report: Callable[[int], None], models: int, step: int):
        self._report, self._models, self._count = report, models, 0
        report(step * models)

    def update(self) -> None:
        self._count += 1
        if self._count == 100:
            self._report(100 * self._models)
            self._count = 0

    def set_postfix(self, shown, refresh: bool) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        self._report(self._count * self._models)
