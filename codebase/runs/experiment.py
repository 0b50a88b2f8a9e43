"""The description of a run script."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from codebase.project import ROOT, name_of_run
from codebase.runs.flags import COUNT, Flag, number, sheet, switch

MODES = "1: train, then evaluate (2 does the same); 0: only evaluate the last weights or, if you "
MODES += "pass --iter_max, the weights of that iteration"
COMPILE = "1: let torch.compile make the loss faster, if there is a C++ compiler; that saves time "
COMPILE += "from about 10,000 iterations on (on a CPU not with the SSVAE's bound)"


@dataclass(frozen=True)
class Experiment:
    """A run script: a model, its data and its evaluation.

    Args:
        about: description of the script, which --help prints
        name: format string of run names, see `codebase.project`
        flags: the script's own flags. A flag that is not in the format is added to the name of a
            run if its value differs from the default
        model: function of the flags that returns the class and arguments of the model
        data: function of the flags and of arguments of `get_mnist_data` (device, data_dir, source)
            that returns minibatches and evaluation data
        evaluate: function that prints and returns the metrics of a model on such data
        iter_max: default number of training iterations
        dataset: "mnist" or "svhn"
        batch_size: default number of images in a minibatch
        next: function of the flags that returns a command to try next
        weighted: whether the model has an importance-weighted bound
    """

    about: str
    name: str
    flags: Sequence[Flag]
    model: Callable[[Namespace], dict]
    data: Callable
    evaluate: Callable
    iter_max: int
    dataset: str = "mnist"
    batch_size: int = 97
    next: Callable[[Namespace], str] = lambda flags: ""
    weighted: bool = False

    def how_to_run(self) -> list[Flag]:
        """Return the flags that control the run; of these, only --iter_max changes the weights."""
        flags = [
            Flag("iter_max", self.iter_max, "training iterations", COUNT),
            Flag("iter_save", 10_000, "iterations between saved weights", COUNT),
            Flag("train", 1, MODES, int, (0, 1, 2)),
            switch("reference", "1: with --train 0, evaluate the project's reference weights"),
            switch("overwrite", "1: replace an existing run, once the new one has begun"),
            switch("resume", "1: continue an interrupted run"),
            Flag("device", "auto", "cpu, cuda, cuda:1, mps; auto: cuda if there is one"),
            Flag("threads", None, "CPU threads", number(int, 1, 1024), shown="torch's choice"),
            Flag("data_dir", ROOT / "data", "folder of the data sets", Path),
            Flag("sheet", (10, 20), "rows x columns of samples.png", sheet, shown="10x20"),
        ]
        if find_spec("codebase.runs.replicates"):  # students do not have it
            about = "number of runs to train, with run numbers from --run upwards"
            flags.append(Flag("replicates", None, about, number(int, 1, 100_000), shown="one run"))
            about = "1: with --train 0, also evaluate the bounds on all 10,000 test images"
            flags += [switch("test_set", about)] if self.weighted else []
        return flags

    def of_weights(self) -> list[Flag]:
        """Return the flags that determine a run's weights."""
        auto = f"auto: {self.dataset} if it is there or can be downloaded, else synthetic digits"
        if self.dataset == "mnist":
            auto += "; binary images are drawn anew at each use in training, once for the report"
        seed, most = "seed of all random draws", 2**63 - 1
        return [
            *self.flags,
            Flag("run", 0, "number of the run, part of its name", number(int, 0, 999_999)),
            Flag("seed", None, seed, number(int, 0, most), shown="the run's number"),
            Flag("batch_size", self.batch_size, "images in a minibatch", COUNT),
            Flag("lr", 1e-3, "Adam's learning rate", number(float, 1e-9, 10)),
            switch("compile", COMPILE),
            Flag("data", "auto", auto, choices=("auto", self.dataset, "synthetic")),
        ]

    def identity(self, given: Mapping, data: str) -> dict:
        """Return the values of the flags `of_weights`; data: mnist, svhn or synthetic."""
        flags = {flag.name: given.get(flag.name, flag.default) for flag in self.of_weights()}
        seed = flags["run"] if flags["seed"] is None else flags["seed"]
        return flags | {"seed": seed, "data": data}

    def name_of(self, identity: Mapping) -> str:
        """Return the name of a run: its folder in checkpoints/ and logs/."""
        return name_of_run(self.name, identity, {flag.name: flag.default for flag in self.flags})
