"""The figures that the homework reports: lower bounds, and the classifier's accuracy."""

from collections.abc import Callable

import torch
from torch import Tensor

REPEATS = 100
IMPORTANCE_WEIGHTS = (1, 10, 100, 1000)


@torch.no_grad()
def evaluate_lower_bound(
    model: torch.nn.Module, subset: tuple[Tensor, Tensor], run_iwae: bool = True
) -> dict[str, float]:
    """Print and return the bounds of a model on a subset, in nats.

    model: has `negative_elbo_bound` and, with run_iwae, `negative_iwae_bound`
    subset: (x, one-hot y): (batch, x_dim), (batch, y_dim)

    Returns NELBO, KL and Rec, means over 100 evaluations, and IWAE-m for m in 1, 10, 100, 1000,
    means over max(100 // m, 1) evaluations.
    """
    x, y = subset
    given = (x, y) if model.needs_labels else (x,)
    nelbo, *kl, rec = _mean(lambda: model.negative_elbo_bound(*given), REPEATS)
    figures = {"NELBO": nelbo, "KL": sum(kl), "Rec": rec}
    print(f"NELBO: {nelbo}. KL: {figures['KL']}. Rec: {rec}")
    for iw in IMPORTANCE_WEIGHTS if run_iwae else ():
        niwae, _, _ = _mean(lambda iw=iw: model.negative_iwae_bound(x, iw), max(REPEATS // iw, 1))
        figures[f"IWAE-{iw}"] = niwae
        print(f"Negative IWAE-{iw}: {niwae}")
    return figures


@torch.no_grad()
def evaluate_classifier(model: torch.nn.Module, test_set: tuple[Tensor, Tensor]) -> float:
    """Print and return the share of images whose label the model's classifier finds.

    test_set: (x, y): grey levels (n, x_dim), labels (n,)
    """
    x, y = test_set
    correct = (model.cls.classify(x).argmax(-1) == y).sum().item()
    accuracy = correct / len(y)
    print(f"Test set classification accuracy: {accuracy}")
    return accuracy


def _mean(bound: Callable[[], tuple[Tensor, ...]], repeats: int) -> list[float]:
    """Means of each of a bound's terms over repeated evaluations."""
    terms = torch.stack([torch.stack(bound()) for _ in range(repeats)])
    return terms.double().mean(0).tolist()
