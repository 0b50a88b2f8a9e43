"""The metrics that the homework reports: lower bounds, and the classifier's accuracy."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from codebase.models.base import LatentVariableModel

REPEATS = 100
IMPORTANCE_WEIGHTS = (1, 10, 100, 1000)


@torch.no_grad()
def evaluate_lower_bound(
    model: LatentVariableModel,
    subset: tuple[Tensor, Tensor],
    run_iwae: bool = True,
    repeats: int = REPEATS,
    importance_weights: tuple[int, ...] = IMPORTANCE_WEIGHTS,
) -> dict[str, float]:
    """Print and return the bounds of a model on a subset, in nats.

    Args:
        model: model with `negative_elbo_bound` and perhaps `negative_iwae_bound`
        subset: (x, y): x is (batch, x_dim), images; y is (batch, y_dim), one-hot labels
        run_iwae: bool: whether to evaluate the IWAE bounds too, if the model has them
        repeats: int: number of evaluations of the NELBO
        importance_weights: numbers m of importance weights

    Returns:
        NELBO, KL (for the SSVAE, KL_z and KL_y) and Rec, means over the repeated evaluations, and
        IWAE-m for each m, means over max(repeats // m, 1) evaluations

    Raises:
        ValueError: x has the wrong shape, dtype or range
    """
    x, y = subset
    model.check_images(x)
    observed = model.observed(x, y)
    nelbo, *kl, rec = _mean(lambda: model.negative_elbo_bound(*observed), repeats)
    names = ("KL",) if len(kl) == 1 else ("KL_z", "KL_y")
    figures = {"NELBO": nelbo, **dict(zip(names, kl, strict=True)), "Rec": rec}
    print(". ".join(f"{name}: {value}" for name, value in figures.items()))
    bound = getattr(model, "negative_iwae_bound", None)
    if not run_iwae or bound is None:
        return figures
    for iw in importance_weights:
        try:
            niwae, *_ = _mean(functools.partial(bound, x, iw), max(repeats // iw, 1))
        except NotImplementedError:  # the other metrics are reported without it
            print("negative_iwae_bound is not written yet: no IWAE bounds", file=sys.stderr)
            break
        figures[f"IWAE-{iw}"] = niwae
        print(f"Negative IWAE-{iw}: {niwae}")
    return figures


@torch.no_grad()
def evaluate_classifier(model: LatentVariableModel, test_set: tuple[Tensor, Tensor]) -> float:
    """Print and return the accuracy of the model's classifier.

    Args:
        model: model with a classifier `cls`
        test_set: (x, y): x is (n, x_dim), grey levels in [0, 1]; y is (n,), labels, or (n, y_dim),
            one-hot labels

    Raises:
        ValueError: x has the wrong shape, dtype or range
    """
    found, labels = _found(model, test_set)
    accuracy = (found == labels).sum().item() / len(labels)
    print(f"Test set classification accuracy: {accuracy}")
    return accuracy


def evaluate(model: LatentVariableModel, data) -> dict[str, float]:
    """Print and return the metrics that the homework reports for a model; see `data.Data`."""
    if hasattr(model, "cls"):
        return {"accuracy": evaluate_classifier(model, data.test)}
    return evaluate_lower_bound(model, data.subset)


@torch.no_grad()
def accuracy_by_class(model: LatentVariableModel, test_set: tuple[Tensor, Tensor]) -> list[float]:
    """Return the classifier's accuracy for each class."""
    found, labels = _found(model, test_set)
    counts = labels.bincount(minlength=model.y_dim)
    right = labels[found == labels].bincount(minlength=model.y_dim)
    return (right / counts.clamp(min=1)).tolist()


def _found(model: LatentVariableModel, test_set: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    x, y = test_set
    model.check_images(x)
    return model.cls.classify(x).argmax(-1), y if y.dim() == 1 else y.argmax(-1)


def _mean(bound: Callable[[], tuple[Tensor, ...]], repeats: int) -> list[float]:
    """Return the mean of each of a bound's terms over repeated evaluations."""
    terms = torch.stack([torch.stack(bound()) for _ in range(repeats)])
    return terms.cpu().double().mean(0).tolist()  # some devices have no float64
