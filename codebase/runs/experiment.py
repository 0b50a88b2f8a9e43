"""The description of a run script, and the names and models of its runs."""

import string
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from codebase.runs.flags import Flag


@dataclass(frozen=True)
class Experiment:
    """A model, its data and its evaluation.

    Args:
        name: format string for run names, with {flag} replaced by its value
        flags: the script's flags. A flag that is not in the format is added to the name of a run
            if its value differs from the default
        model: function of the flags that returns the model with initial weights
        data: function of the flags and a `data.Source` that returns minibatches and evaluation data
        evaluate: function that prints and returns the metrics of a model on such data
        iter_max: iterations of training by default
        dataset: "mnist" or "svhn"
        batch_size: images in a minibatch by default
        next: function of the flags that returns what to try next
    """

    name: str
    flags: Sequence[Flag]
    model: Callable
    data: Callable
    evaluate: Callable
    iter_max: int
    dataset: str = "mnist"
    batch_size: int = 97
    next: Callable = lambda flags: ""

    def identity(self, given: Mapping, source: str) -> dict:
        """Return the flags that determine a run's weights, by their names.

        Args:
            given: the flags that were given
            source: the name of the data: "mnist", "svhn" or "synthetic"
        """
        number = given.get("run", 0)
        return {flag.name: given.get(flag.name, flag.default) for flag in self.flags} | {
            "data": source,
            "run": number,
            "seed": given.get("seed", number),
            "batch_size": given.get("batch_size", self.batch_size),
            "lr": given.get("lr", 1e-3),
            "compile": given.get("compile", 0),
        }

    def name_of(self, identity: Mapping) -> str:
        """Return the name of a run: its folder in checkpoints/ and logs/."""
        name = self.name.format(**identity)
        if identity["data"] == "synthetic":
            name += "_data=synthetic"
        in_name = {field for _, field, _, _ in string.Formatter().parse(self.name)}
        for flag in self.flags:
            value = identity[flag.name]
            if flag.name not in in_name and value != flag.default:
                name += f"_{flag.name}={str(value).removesuffix('.0')}"
        return name

    def build(self, identity: Mapping):
        """Build the model of a run, with initial weights drawn by its seed."""
        import torch

        torch.manual_seed(identity["seed"])
        model = self.model(Namespace(**identity))
        model.name = self.name_of(identity)
        return model
