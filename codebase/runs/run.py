"""A run: the flags that determine its weights, and its files run.json and results.json.

checkpoints/<name>/run.json, written before the first weights, describes how the model was built
and trained; only --overwrite 1 replaces it. logs/<name>/results.json has the metrics.
"""

import contextlib
import datetime
import json
import platform
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock
import torch

from codebase import checkpoints, models
from codebase.machine.files import one_line, write_atomically
from codebase.project import ROOT, UserError, model_of_name, step_of, steps_in, weights_file
from codebase.runs.experiment import Experiment

LOGS = ROOT / "logs"
RUN_FILE, RESULTS_FILE = "run.json", "results.json"
NOT_RECORDED = "not recorded"  # of weights without a run.json, which other people trained


@dataclass(frozen=True)
class Run:
    """One training of one model.

    Args:
        name: its folder in checkpoints/ and logs/
        flags: the flags that determine its weights, keyed by name; empty if only its name is known
        model: class and arguments of its model, see `codebase.models.build`
        recorded: whether it has a run.json; new runs and other people's runs have none
    """

    name: str
    flags: Mapping
    model: Mapping
    recorded: bool = False

    @property
    def folder(self) -> Path:
        return checkpoints.run_folder(self.name)

    @property
    def logs(self) -> Path:
        return LOGS / self.folder.name

    @property
    def is_synthetic(self) -> bool:
        return self.flags.get("data") == "synthetic"

    def build(self) -> models.LatentVariableModel:
        """Build the model with initial weights."""
        return models.build(self.model, self.name)

    def write(self, device: torch.device) -> None:
        """Write run.json."""
        content = {"name": self.name, "model": dict(self.model), "flags": dict(self.flags)}
        write_json(self.folder / RUN_FILE, content | circumstances(device))

    def results(self, step: int, metrics: dict[str, float], device: torch.device) -> dict:
        """Return the metrics of its weights, in the form of results.json."""
        return {
            "name": self.name,
            "data": self.flags.get("data"),
            "seed": self.flags.get("seed"),
            "iterations": step,
            "trained": dict(self.flags),
            **circumstances(device),
            "figures": metrics,
        }


def find_run(experiment: Experiment, args: Namespace, data: str, folder: Path | None = None) -> Run:
    """Return the run that flags describe; the values of omitted flags come from its run.json.

    Args:
        experiment: the run script
        args: its parsed flags
        data: name of the run's data set
        folder: folder of its weights; None: the one in checkpoints/, unless --overwrite replaces it

    Raises:
        UserError: a flag that was given contradicts run.json
    """
    flags = experiment.identity(args.given, data)
    name = experiment.name_of(flags)
    own = checkpoints.run_folder(name)
    is_new = folder is None and (args.overwrite or not has_begun(own))
    run = None if is_new else read_run(folder or own)
    if run is None:
        return Run(name, flags, experiment.model(Namespace(**flags)))
    for flag, value in args.given.items():
        was = run.flags.get(flag)
        if flag in flags and flag != "data" and value != was:
            anew = "" if folder else ", or pass another --run, or --overwrite 1 to train anew"
            raise UserError(
                f"--{flag} {value}: {name} was trained with --{flag} {was}: omit the flag to use "
                f"that{anew}"
            )
    return run


def read_run(folder: Path) -> Run | None:
    """Read the run.json in a run's folder; None if there is none.

    Raises:
        UserError: the file is damaged
    """
    content = read_json(folder / RUN_FILE)
    if content is None:
        return None
    return Run(folder.name, content["flags"], content["model"], recorded=True)


def has_begun(folder: Path) -> bool:
    """Return whether a folder holds a run: weights, or a training state."""
    return bool(steps_in(folder)) or (folder / checkpoints.STATE_FILE).exists()


def circumstances(device: torch.device) -> dict:
    """Return what may change the last digits of metrics: date, machine and versions."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a run's lock while it trains. The system releases it when the process ends.

    Raises:
        UserError: another process holds the lock
    """
    path = checkpoints.CHECKPOINTS / ".locks" / checkpoints.run_folder(name).name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(path, timeout=0):
            yield
    except filelock.Timeout:
        raise UserError(
            f"{name} is being trained by another process: wait for it, or pass another --run"
        ) from None


# Results


def read_results(name: str) -> dict | None:
    """Read logs/<name>/results.json; None if there is no such file, or it is of another run."""
    results = read_json(LOGS / name / RESULTS_FILE)
    return results if results and results["name"] == name else None


def write_json(path: Path, content: dict) -> None:
    """Write an object as JSON, atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict | None:
    """Read the object in a JSON file; None if there is no file.

    Raises:
        UserError: the file is damaged
    """
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({one_line(error)}): delete it to use the run without it, or pass "
            "--overwrite 1 to train anew"
        ) from None


# Trained models


def load_run(run: str | Path, step: int | None = None) -> models.LatentVariableModel:
    """Load a trained model of any kind that the run scripts make, ready to evaluate, on the CPU.

        model = codebase.load_run("model=vae_z=10_run=0000")
        images = model.sample_sigmoid(16)

    Args:
        run: name of a run in checkpoints/ or, if there is none, in checkpoints/reference/;
            "reference/<name>" for the latter even if both exist; or path to its folder or to a file
            model-<step>.pt. The kind of model is read from run.json or, for runs that other people
            trained, from the name
        step: iteration; None: the last one with saved weights

    Returns:
        the model, with its weights, which require no gradient

    Raises:
        UserError: there is no such run, or its weights do not fit the model
    """
    folder, step, found = located(run, step)
    with torch.random.fork_rng([]):  # the weights drawn here are replaced
        model = found.build()
    checkpoints.load_weights(model, weights_file(folder, step))
    return model.eval().requires_grad_(False)


def located(run: str | Path, step: int | None = None) -> tuple[Path, int, Run]:
    """Return a run's folder of weights, a saved iteration, and the run; see `load_run`."""
    path = Path(run)
    if path.suffix == ".pt":
        of_file = step_of(path)
        if not path.exists() or of_file is None:
            raise UserError(f"{path} does not exist, or is not named model-<iteration>.pt")
        if step not in (None, of_file):
            raise UserError(f"{path} has the weights of iteration {of_file}, not {step}")
        path, step = path.parent, of_file
    elif not path.is_dir() or len(path.parts) == 1:
        reference = checkpoints.CHECKPOINTS / checkpoints.REFERENCE
        places = (checkpoints.CHECKPOINTS / path, reference / path)
        path = next((place for place in places if place.is_dir()), path)
    if not path.is_dir():
        raise UserError(
            f"{path} does not exist: pass the name of a run in {checkpoints.CHECKPOINTS}, or a path"
        )
    folder = path.absolute()
    found = read_run(folder) or Run(folder.name, {}, model_of_name(folder.name))
    steps = steps_in(folder)
    if step is None and steps:
        step = steps[-1]
    if step not in steps:
        there = f" of iteration {step}; it has iterations {steps}"
        if not steps:
            there = " yet: continue the run with its script and --resume 1"
        raise UserError(f"{folder} has no weights{there}")
    return folder, step, found


def data_of(run: Run, model: models.LatentVariableModel) -> str:
    """Return the name of the data that a run was trained on: "mnist", "svhn" or "synthetic"."""
    return run.flags.get("data") or model.dataset
