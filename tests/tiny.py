"""Experiments on few images with short evaluations, for tests of anything else."""

import argparse
import dataclasses
import functools

import numpy as np
import torch
from numpy.random import RandomState
from tqdm import tqdm

from codebase import data, evaluate
from codebase.data import Data
from codebase.datasets import synthetic
from codebase.minibatches import Minibatches
from codebase.runs.experiment import Experiment

PER_CLASS = 20  # images; every other one is a test image


def tiny(experiment: Experiment) -> Experiment:
    """The experiment on 100 training and 100 test images, evaluated twice and up to IWAE-10."""
    return dataclasses.replace(
        experiment, data=functools.partial(_data, experiment), evaluate=_evaluate
    )


@functools.cache
def _digits(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in the synthetic digits' hand, class by class: (200, size²) uint8, labels (200,)."""
    labels = np.repeat(np.arange(10), PER_CLASS)
    n, random = len(labels), RandomState(0)
    height, centre = np.full(n, 0.65 * size), np.full((n, 2), size / 2)
    pen = np.full(n, 1.4), np.full(n, 1.2)
    with tqdm(disable=True) as progress:
        ink = synthetic.draw_ink(random, labels, size, height, centre, pen, progress)
    return torch.from_numpy(ink).flatten(1), torch.from_numpy(labels)


def _data(experiment: Experiment, flags: argparse.Namespace, where: dict) -> Data:
    if experiment.dataset == "svhn":
        x, y = _digits(32)
        colours = torch.stack([x, 255 - x, x // 2], dim=1).flatten(1)
        y = data.one_hot(y)
        batches = Minibatches(colours, y, batch_size=flags.batch_size, binarised=False)
        return Data(batches, (colours[::2].float() / 255, y[::2]), (None, None))
    x, y = _digits(28)
    binary = getattr(flags, "likelihood", "bernoulli") == "bernoulli"
    options = {"batch_size": flags.batch_size, "binarised": binary}
    test = x[1::2].float() / 255, y[1::2]
    subset = (test[0] > 0.5).float() if binary else test[0]
    if "gw" in vars(flags):
        options["labelled"] = x[::2].float() / 255, data.one_hot(y[::2])
    return Data(Minibatches(x[::2], **options), (subset, data.one_hot(test[1])), test)


def _evaluate(model: torch.nn.Module, found: Data) -> dict[str, float]:
    if hasattr(model, "cls"):
        return {"accuracy": evaluate.evaluate_classifier(model, found.test)}
    return evaluate.evaluate_lower_bound(model, found.subset, repeats=2, importance_weights=(1, 10))
