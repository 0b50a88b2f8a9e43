"""A trained model by its run's name or path."""

from pathlib import Path

import torch

from codebase import UserError, checkpoints
from codebase.runs import records
from codebase.runs.experiment import Run, run_named
from codebase.runs.wanted import Wanted, has_begun


def load_run(run: str | Path, step: int | None = None) -> torch.nn.Module:
    """See `codebase.load_run`."""
    folder, step, identity = located(run, step)
    with torch.random.fork_rng([]):  # the weights drawn here are replaced
        model = identity.build()
    checkpoints.load_weights(model, folder / f"model-{step:05d}.pt")
    return model.eval().requires_grad_(False)


def located(run: str | Path, step: int | None = None) -> tuple[Path, int, Run]:
    """A run's folder of weights, an iteration that is there, and the run; see `load_run`."""
    folder, step = _folder_and_step(run, step)
    identity = run_in(folder)
    steps = checkpoints.steps_in(folder)
    if step is None and steps:
        step = steps[-1]
    if step not in steps:
        there = f"it has iterations {steps}" if steps else "it has none"
        which = "" if step is None else f" of iteration {step}"
        raise UserError(f"{folder} has no weights{which}: {there}")
    return folder, step, identity


def identity_of(run: str | Path) -> Run:
    """The run of a name or path; see `codebase.load_run`."""
    return run_in(_folder_and_step(run, None)[0])


def run_in(folder: Path) -> Run:
    """The run whose weights lie in a folder: by its record, else by the folder's name.

    Raises:
        UserError: neither tells
    """
    record = records.read_record(folder)
    return run_named(folder.name) if record is None else record.run


def reference_for(wanted: Wanted) -> Path | None:
    """The folder of the reference weights of a run, where there is no such run of one's own."""
    experiment = wanted.experiment
    sources = (experiment.dataset, "synthetic")
    if wanted.given.get("data", experiment.dataset) != experiment.dataset:
        return None
    if any(has_begun(wanted.run(source).name) for source in sources):
        return None
    folder = checkpoints.reference_folder(wanted.run(experiment.dataset).name)
    return folder if checkpoints.steps_in(folder) else None


def _folder_and_step(run: str | Path, step: int | None) -> tuple[Path, int | None]:
    path = Path(run)
    if path.suffix == ".pt":
        stem = path.stem.removeprefix("model-")
        if not path.exists() or not stem.isascii() or not stem.isdecimal():
            raise UserError(f"{path} is no file model-<iteration>.pt")
        if step is not None and step != int(stem):
            raise UserError(f"{path} has the weights of iteration {int(stem)}, not {step}")
        return path.absolute().parent, int(stem)
    if len(path.parts) == 1:
        own, reference = checkpoints.run_folder(str(run)), checkpoints.reference_folder(str(run))
        path = next((folder for folder in (own, reference) if folder.is_dir()), path)
    if not path.is_dir():
        raise UserError(
            f"{path} does not exist: name a run in {checkpoints.CHECKPOINTS}, or a path"
        )
    return path.absolute(), step
