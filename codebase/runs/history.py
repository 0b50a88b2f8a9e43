"""The course of a training: what curves.png shows, kept in the training state."""

from collections.abc import Sequence

import torch
from torch import Tensor

KINDS = ("train", "test")


class History:
    """Iteration, NELBO, KL and Rec of one run, on training minibatches and on held-out images."""

    def __init__(self):
        self.rows: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}

    def add(self, kind: str, step: int, scalars: dict[str, float]) -> None:
        """Add some scalars, which have TensorBoard's tags."""
        terms = {tag.partition("/")[2]: value for tag, value in scalars.items()}
        kl = terms["kl_z"] + terms.get("kl_y", 0)
        self.rows[kind].append([step, -terms["elbo"], kl, terms["rec"]])

    def tensors(self) -> dict[str, Tensor]:
        """The rows by their kinds, (n, 4)."""
        return {
            kind: torch.tensor(rows, dtype=torch.float64).view(-1, 4)
            for kind, rows in self.rows.items()
        }

    @property
    def is_empty(self) -> bool:
        """Whether there is no bound to show: none was computed, or only one step."""
        return not any(row[1] != 0 for row in self.rows["train"])


def restored(states, count: int, step: int) -> Sequence[History]:
    """The histories of `count` runs from their tensors.

    Raises:
        ValueError: they are not those of a training that has reached this step
    """
    if not isinstance(states, list) or len(states) != count:
        raise ValueError("its history is not that of its runs")
    histories = []
    for state in states:
        history = History()
        for kind in KINDS:
            rows = state.get(kind) if isinstance(state, dict) else None
            if not isinstance(rows, Tensor) or rows.dtype != torch.float64 or rows.dim() != 2:
                raise ValueError(f"its history.{kind} is no table")
            if rows.shape[1] != 4 or rows.is_meta or not rows.isfinite().all():
                raise ValueError(f"its history.{kind} has shape {tuple(rows.shape)}")
            steps = rows[:, 0]
            if len(steps) and not (steps[0] > 0 and (steps.diff() > 0).all() and steps[-1] <= step):
                raise ValueError(f"its history.{kind} has iterations that it did not have")
            history.rows[kind] = rows.tolist()
        histories.append(history)
    return histories
