"""The project's folder, the names of runs and of their files, and UserError."""

import re
import string
from collections.abc import Callable, Mapping
from pathlib import Path

# data/, checkpoints/ and logs/ are beside the run scripts, wherever those are called from.
ROOT = Path(__file__).resolve().parents[1]

# The homework's names of runs, and for each the model of such a run.
VAE_RUN = "model=vae_z={z:02d}_run={run:04d}"
GMVAE_RUN = "model=gmvae_z={z:02d}_k={k:03d}_run={run:04d}"
SSVAE_RUN = "model=ssvae_gw={gw:03d}_cw={cw:03d}_run={run:04d}"
FSVAE_RUN = "model=fsvae_run={run:04d}"
MODELS: dict[str, Callable[..., dict]] = {
    VAE_RUN: lambda z: {"class": "VAE", "z_dim": z},
    GMVAE_RUN: lambda z, k: {"class": "GMVAE", "z_dim": z, "k": k},
    SSVAE_RUN: lambda gw, cw: {"class": "SSVAE", "gen_weight": gw, "class_weight": cw},
    FSVAE_RUN: lambda: {"class": "FSVAE"},
}


class UserError(Exception):
    """An invalid request. The message is one line: the cause and what to do."""


def name_of_run(form: str, flags: Mapping, defaults: Mapping) -> str:
    """Return the name of a run: its folder in checkpoints/ and logs/.

    Args:
        form: format string, such as VAE_RUN
        flags: the run's flags, keyed by name
        defaults: default values of the flags that are added to the name if changed
    """
    name = form.format(**flags)
    if flags["data"] == "synthetic":
        name += "_data=synthetic"
    in_form = {field for _, field, _, _ in string.Formatter().parse(form)}
    for flag, default in defaults.items():
        if flag not in in_form and flags[flag] != default:
            name += f"_{flag}={str(flags[flag]).removesuffix('.0')}"
    return name


def model_of_name(name: str) -> dict:
    """Return the class and arguments of the model that a homework run name describes.

    Raises:
        UserError: the name is not one of the homework's run names
    """
    for form, describe in MODELS.items():
        pattern = re.sub(r"\{(\w+):0(\d)d\}", r"(?P<\1>[0-9]{\2,7})", form)
        if match := re.fullmatch(pattern, name):
            numbers = {flag: int(value) for flag, value in match.groupdict().items()}
            del numbers["run"]
            return describe(**numbers)
    raise UserError(f"{name!r} is not the name of a run, such as model=vae_z=10_run=0000")


def group_of(name: str) -> str:
    """Return the part of a run's name that its replicates share: all but the number."""
    return re.sub(r"_run=[0-9]+", "", name)


def weights_file(folder: Path, step: int) -> Path:
    """Return the file of an iteration's weights: model-<step, 5 digits>.pt."""
    return folder / f"model-{step:05d}.pt"


def step_of(path: Path) -> int | None:
    """Return the iteration of a file of weights; None for any other file."""
    match = re.fullmatch(r"model-([0-9]{5,})\.pt", path.name)
    return match and int(match[1])


def steps_in(folder: Path) -> list[int]:
    """Return the iterations whose weights are in a folder, in order."""
    found = map(step_of, folder.glob("model-*.pt"))
    return sorted(step for step in found if step is not None)
