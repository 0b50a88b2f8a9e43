"""A trained model by its run's name or path."""

import re
from pathlib import Path

import torch

from codebase import UserError, checkpoints
from codebase.machine import generators
from codebase.runs.run import Run, read_run

# The homework's run names, which describe the models of other people's weights (no run.json).
_NUMBER = r"_run=[0-9]{4,6}"
HOMEWORK = {
    rf"model=vae_z=([0-9]{{2,5}}){_NUMBER}": lambda z: {"class": "VAE", "z_dim": z},
    rf"model=gmvae_z=([0-9]{{2,5}})_k=([0-9]{{3,6}}){_NUMBER}": (
        lambda z, k: {"class": "GMVAE", "z_dim": z, "k": k}
    ),
    rf"model=ssvae_gw=([0-9]{{3,7}})_cw=([0-9]{{3,7}}){_NUMBER}": (
        lambda gw, cw: {"class": "SSVAE", "gen_weight": gw, "class_weight": cw}
    ),
    rf"model=fsvae{_NUMBER}": lambda: {"class": "FSVAE"},
}


def load_run(run: str | Path, step: int | None = None) -> torch.nn.Module:
    """See `codebase.load_run`."""
    folder, step, found = located(run, step)
    with generators.isolated(torch.device("cpu")):  # the weights drawn here are replaced
        model = found.build()
    checkpoints.load_weights(model, checkpoints.file_of(folder, step))
    return model.eval().requires_grad_(False)


def located(run: str | Path, step: int | None = None) -> tuple[Path, int, Run]:
    """A run's folder of weights, an iteration that is there, and the run; see `load_run`."""
    path = Path(run)
    if path.suffix == ".pt":
        of_file = checkpoints.step_of(path)
        if not path.exists() or of_file is None:
            raise UserError(f"{path} does not exist, or is not named model-<iteration>.pt")
        if step not in (None, of_file):
            raise UserError(f"{path} has the weights of iteration {of_file}, not {step}")
        path, step = path.parent, of_file
    elif len(path.parts) == 1:
        for place in (checkpoints.run_folder, checkpoints.reference_folder):
            if place(str(run)).is_dir():
                path = place(str(run))
                break
    elif path.parts[:-1] == (checkpoints.REFERENCE,) and not path.exists():
        path = checkpoints.reference_folder(path.name)
    if not path.is_dir():
        raise UserError(
            f"{path} does not exist: pass the name of a run in {checkpoints.CHECKPOINTS}, or a path"
        )
    folder = path.absolute()
    found = read_run(folder) or run_named(folder.name)
    steps = checkpoints.steps_in(folder)
    if step is None and steps:
        step = steps[-1]
    if step not in steps:
        there = f" of iteration {step}; it has iterations {steps}" if steps else ""
        raise UserError(f"{folder} has no weights{there}")
    return folder, step, found


def run_named(name: str) -> Run:
    """The run that one of the homework's names describes.

    Raises:
        UserError: it is not such a name
    """
    for pattern, describe in HOMEWORK.items():
        if match := re.fullmatch(pattern, name):
            return Run(name, {}, describe(*map(int, match.groups())))
    raise UserError(f"{name!r} is not the name of a run, such as model=vae_z=10_run=0000")


def data_of(run: Run, model: torch.nn.Module) -> str:
    """The name of the data that a run was trained on: "mnist", "svhn" or "synthetic"."""
    return run.flags.get("data") or {784: "mnist", 3072: "svhn"}[model.enc.x_dim]
