"""What a run script brings to its runs, and what a run is called."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Experiment:
    """A run script, as seen by what all of them share.

    dataset: "mnist" or "svhn"
    name: (flags) → the model's name, without the run's number
    build: (flags, name) → the model
    load: (flags, device, source) → (minibatches, subset, test set), as `get_mnist_data` returns
    report: (model, subset, test set) → the figures, after printing them
    variants: flags that the name tells where they differ from the homework's value, given here
    """

    dataset: str
    name: Callable[[argparse.Namespace], str]
    build: Callable[[argparse.Namespace, str], torch.nn.Module]
    load: Callable[[argparse.Namespace, torch.device, str], tuple]
    report: Callable[[torch.nn.Module, tuple[Tensor, Tensor], tuple], dict[str, float]]
    variants: dict[str, int | float | str] = field(default_factory=dict)


def seed_of(args: argparse.Namespace) -> int:
    """The seed of a run: by default its number."""
    return args.run if args.seed is None else args.seed


def model_name(args: argparse.Namespace, experiment: Experiment, source: str) -> str:
    """The folder of the run in checkpoints/ and logs/.

    The homework's name, and what a run has that the homework has not: other data, another model.
    """
    name = f"{experiment.name(args)}_run={args.run:04d}"
    if source == "synthetic":
        name += "_data=synthetic"
    for flag, homework in experiment.variants.items():
        value = getattr(args, flag)
        if value != homework:
            name += f"_{flag}={value:g}" if isinstance(value, float) else f"_{flag}={value}"
    return name
