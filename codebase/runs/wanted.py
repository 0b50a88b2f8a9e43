"""What a command line asks for: which run, and how."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from codebase import UserError, checkpoints, data
from codebase.runs import records
from codebase.runs.experiment import Experiment, Run


@dataclass(frozen=True)
class Wanted:
    """The run that a command means: the flags of its identity that were given.

    Args:
        experiment: what the run script does
        given: values by their flags
    """

    experiment: Experiment
    given: Mapping[str, int | float | str]

    def run(self, source: str) -> Run:
        """The run on some data, with default values of the flags that were not given."""
        return self.experiment.run(self.given, source)

    def source(self, data_dir: Path) -> str:
        """The data to take: what was given; else what the run that is there was trained on.

        Raises:
            DataError: the real data set was asked for and cannot be had
        """
        dataset = self.experiment.dataset
        given = self.given.get("data", "auto")
        if given == "auto":
            real, synthetic = (has_begun(self.run(s).name) for s in (dataset, "synthetic"))
            given = "synthetic" if synthetic and not real else "auto"
        return data.find_or_download(dataset, given, data_dir)

    def agreed(self, recorded: Run) -> Run:
        """The recorded run, unless a flag that was given contradicts it.

        Raises:
            UserError: names the flag, both values, and the ways out
        """
        for flag, value in self.given.items():
            was = recorded.identity()[flag]
            if value != was:
                raise UserError(
                    f"--{flag} {value}: {recorded.name} is recorded with --{flag} {was}: leave the "
                    f"flag out to take that, or take another --run, or --overwrite 1 to train anew"
                )
        return recorded


def has_begun(name: str) -> bool:
    """Whether there is a run of this name: its record, or weights."""
    folder = checkpoints.run_folder(name)
    return bool(checkpoints.steps_in(folder)) or (folder / records.RECORD_FILE).exists()


@dataclass(frozen=True)
class Settings:
    """How far and in what way to train or evaluate: nothing here changes a run's identity.

    Args:
        iter_max: the last iteration; None: as recorded, else the default
        iter_save: iterations between saved weights; None: as recorded, else the default
        device: to compute on
        threads: of the processor; None: torch's choice, or under torchrun a share of the cores
        data_dir: folder of the data sets
        sheet: rows and columns of the sheets of samples
    """

    iter_max: int | None
    iter_save: int | None
    device: torch.device
    threads: int | None
    data_dir: Path
    sheet: tuple[int, int]
