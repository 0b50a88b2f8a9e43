"""What the run scripts share: flags, names, and the order of a run's steps."""

import argparse
import json
import platform
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import filelock
import torch
import torchvision  # noqa: F401
from tensorboardX import SummaryWriter
from torch import Tensor

from codebase import ROOT, UserError, checkpoints
from codebase import data as datasets
from codebase.train import Interrupted, NotFinite, keep_freed_memory, train

LOGS = ROOT / "logs"


@dataclass
class Experiment:
    """What one run script brings to a run.

    dataset: "mnist" or "svhn"
    name: (flags) → the model's name, without the run
    build: (flags, name) → the model
    load: (flags, device, source) → (minibatches, subset, test set), as `get_mnist_data` returns
    report: (model, subset, test set) → the figures, after printing them
    """

    dataset: str
    name: Callable[[argparse.Namespace], str]
    build: Callable[[argparse.Namespace, str], torch.nn.Module]
    load: Callable[[argparse.Namespace, torch.device, str], tuple]
    report: Callable[[torch.nn.Module, tuple[Tensor, Tensor], tuple], dict[str, float]]


# Flags


def parser(description: str, dataset: str, iter_max: int) -> argparse.ArgumentParser:
    """The flags of all run scripts."""
    flags = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = flags.add_argument
    add("--iter_max", type=at_least(1), default=iter_max, help="training iterations")
    add("--iter_save", type=at_least(1), default=10_000, help="save the weights every so many")
    add("--run", type=at_least(0), default=0, help="run number, part of the model's name")
    add(
        "--train",
        type=int,
        choices=(0, 1, 2),
        default=1,
        help="1 (or 2): train, then evaluate; 0: evaluate the weights of iteration iter_max",
    )
    add("--overwrite", type=int, choices=(0, 1), default=0, help="1: replace an existing run")
    add("--resume", type=int, choices=(0, 1), default=0, help="1: go on where the run stopped")
    add("--seed", type=at_least(0), help="seed of all random draws (default: the run number)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto: the first there is")
    add("--data", choices=("auto", dataset, "synthetic"), default="auto", help="data set")
    add("--data_dir", type=Path, default=datasets.DATA_DIR, help="folder of the data sets")
    return flags


def at_least(least: int) -> Callable[[str], int]:
    """A type of flag: a whole number not below `least`."""

    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        return value

    return integer


def pick_device(name: str) -> torch.device:
    """The device of a --device flag. Raises UserError where this machine has none such."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, available in there.items() if available)
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not there.get(device.type, False):
        usable = ", ".join(kind for kind, available in there.items() if available)
        raise UserError(f"--device {name}: not on this machine; it has {usable}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return device


# A run


def main(flags: argparse.ArgumentParser, experiment: Experiment) -> None:
    """Parse the flags and do what they ask for; trouble ends in one line and an exit status."""
    args = flags.parse_args()
    try:
        run(args, experiment)
    except UserError as error:
        flags.exit(2, f"{flags.prog}: error: {error}\n")
    except Interrupted as interrupt:
        command = f"python {shlex.join(_without_resume(sys.argv))} --resume 1"
        flags.exit(128 + interrupt.number, f"{flags.prog}: {interrupt}; to go on: {command}\n")
    except KeyboardInterrupt:
        flags.exit(130, f"{flags.prog}: interrupted\n")
    except NotFinite as error:
        flags.exit(1, f"{flags.prog}: error: {error}\n")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        flags.exit(1, f"{flags.prog}: error: {where}{error.strerror or error}\n")


def run(args: argparse.Namespace, experiment: Experiment) -> dict[str, float]:
    """One run: check, load, train or read weights, evaluate, record. Returns the figures."""
    device = pick_device(args.device)
    seed = args.run if args.seed is None else args.seed
    source = datasets.find(experiment.dataset, args.data, args.data_dir)
    name = f"{experiment.name(args)}_run={args.run:04d}"
    if source == "synthetic":
        name += "_data=synthetic"
    print(f"Model name: {name}", file=sys.stderr)

    keep_freed_memory()
    torch.manual_seed(seed)
    model = experiment.build(args, name).to(device)
    if args.train:
        _check_new_or_resumed(args, name)
    else:
        checkpoints.load_model_by_name(model, args.iter_max)
    batches, subset, test = experiment.load(args, device, source)
    seconds = None
    if args.train:
        with _lock(name):
            seconds = _train(args, model, batches)

    torch.manual_seed(seed)  # so that --train 0 repeats the report of training to the last digit
    figures = experiment.report(model, subset, test)
    results = {
        "name": name,
        "data": source,
        "seed": seed,
        "iterations": args.iter_max,
        "seconds": seconds,
        "device": str(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "flags": {key: value for key, value in vars(args).items()},
        "figures": figures,
    }
    content = json.dumps(results, indent=2, default=str) + "\n"
    checkpoints.write_atomically(LOGS / name / "results.json", content.encode())
    return figures


def _train(args: argparse.Namespace, model: torch.nn.Module, batches) -> float:
    """Train, resumed or from the start, saving as it goes. Returns the seconds it took."""
    state = checkpoints.load_training_state(model.name) if args.resume else None
    if not args.resume:
        _remove_run(model.name)
    writer = SummaryWriter(str(LOGS / model.name), purge_step=state and state["step"] + 1)

    def save(step: int, state: dict) -> None:
        if step % args.iter_save == 0 or step == args.iter_max:
            checkpoints.save_model_by_name(model, step)
        checkpoints.save_training_state(model.name, state)

    def log(step: int, scalars: dict[str, float]) -> None:
        for tag, value in scalars.items():
            writer.add_scalar(tag, value, step)

    with writer:
        state = train(
            model, batches, args.iter_max, args.iter_save, save=save, log=log, state=state
        )
    return state["seconds"]


def _check_new_or_resumed(args: argparse.Namespace, name: str) -> None:
    """Raise UserError where training would lose an existing run."""
    steps = checkpoints.saved_steps(name)
    if steps and not (args.overwrite or args.resume):
        raise UserError(
            f"{checkpoints.run_folder(name)} has weights of iterations {steps}: take --overwrite 1 to "
            "replace that run, --resume 1 to go on with it, or another --run"
        )


def _remove_run(name: str) -> None:
    for path in checkpoints.run_folder(name).glob("*.pt"):
        path.unlink()
    shutil.rmtree(LOGS / name, ignore_errors=True)


def _lock(name: str) -> filelock.BaseFileLock:
    """The run's lock, which the system releases however the process ends."""
    folder = checkpoints.run_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        return lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"{name} is being trained by another process: wait, or take another --run"
        ) from None


def _without_resume(argv: list[str]) -> list[str]:
    kept = list(argv)
    while "--resume" in kept:
        at = kept.index("--resume")
        del kept[at : at + 2]
    return kept
