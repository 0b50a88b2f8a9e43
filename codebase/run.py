"""One run from its flags to its report: find the data, train or load, evaluate, record."""

import argparse
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

import filelock
import torch
from torch import Tensor

from codebase import UserError, checkpoints, records
from codebase import data as datasets
from codebase.train import keep_freed_memory, train


@dataclass
class Experiment:
    """What one run script brings to its runs.

    dataset: "mnist" or "svhn"
    name: (flags) → the model's name, without the run's number
    build: (flags, name) → the model
    load: (flags, device, source) → (minibatches, subset, test set), as `get_mnist_data` returns
    report: (model, subset, test set) → the figures, after printing them
    """

    dataset: str
    name: Callable[[argparse.Namespace], str]
    build: Callable[[argparse.Namespace, str], torch.nn.Module]
    load: Callable[[argparse.Namespace, torch.device, str], tuple]
    report: Callable[[torch.nn.Module, tuple[Tensor, Tensor], tuple], dict[str, float]]


def run(args: argparse.Namespace, experiment: Experiment) -> dict[str, float]:
    """Train a model, or load a trained one, and report. Returns the figures.

    Raises UserError, with nothing changed, where the flags ask for what cannot be done.
    """
    device = pick_device(args.device)
    seed = args.run if args.seed is None else args.seed
    source = datasets.find(experiment.dataset, args.data, args.data_dir)
    name = model_name(args, experiment, source)
    keep_freed_memory()
    torch.manual_seed(seed)
    model = experiment.build(args, name).to(device)
    if args.train:
        state = _state_to_start_from(args, name)
    else:
        _load_weights(args, experiment, source, model)
    if source == "synthetic":
        print(_BANNER.format(dataset=experiment.dataset.upper()), file=sys.stderr)
    batches, subset, test = experiment.load(args, device, source)
    seconds = _train(args, model, batches, state) if args.train else None

    if source == "synthetic":
        print(f"Data: synthetic digits, not comparable with {experiment.dataset.upper()}")
    torch.manual_seed(seed)  # so that --train 0 repeats training's report to the last digit
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
        "flags": vars(args),
        "figures": figures,
    }
    records.write_results(name, results)
    return figures


_BANNER = """\
**************************************************************************
*  SYNTHETIC DATA: digits drawn by this program, in the place of {dataset:<5}.   *
*  The figures are not comparable with those of the real data set.       *
**************************************************************************"""


def model_name(args: argparse.Namespace, experiment: Experiment, source: str) -> str:
    """The folder of the run in checkpoints/ and logs/: synthetic data have their own."""
    name = f"{experiment.name(args)}_run={args.run:04d}"
    return f"{name}_data=synthetic" if source == "synthetic" else name


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
        raise UserError(f"--device {name}: not on this machine, which has {usable}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: this machine has {torch.cuda.device_count()} such")
    return device


# Training


def _state_to_start_from(args: argparse.Namespace, name: str) -> dict | None:
    """The training state to resume from, None to start. Raises UserError rather than lose a run."""
    folder = checkpoints.run_folder(name)
    state, steps = checkpoints.load_training_state(name), checkpoints.saved_steps(name)
    if not args.resume:
        if (steps or state) and not args.overwrite:
            raise UserError(
                f"{folder} holds a run, with weights of iterations {steps}: take --overwrite 1 to "
                "replace it, --resume 1 to go on with it, or another --run"
            )
        return None
    if state is None and steps:
        raise UserError(
            f"{folder} holds weights but no {checkpoints.STATE_FILE} to resume from: take "
            "--overwrite 1 to train anew, or another --run"
        )
    if state is not None and state["step"] > args.iter_max:
        raise UserError(
            f"--iter_max {args.iter_max}: the run is at iteration {state['step']} already: name a "
            "larger one to go on, or --train 0 to evaluate saved weights"
        )
    return state


def _train(args, model, batches, state: dict | None) -> float:
    """Train, saving weights and states as it goes. Returns the seconds that it took."""
    with _lock(model.name):
        checkpoints.remove_leftovers(model.name)
        if not args.resume:  # every check of the new run is passed
            checkpoints.remove_run(model.name)
            shutil.rmtree(records.LOGS / model.name, ignore_errors=True)
        saved = state["step"] if state else 0

        def save(step: int, state: dict) -> None:
            nonlocal saved
            try:
                if step % args.iter_save == 0 or step == args.iter_max:
                    checkpoints.save_model_by_name(model, step)
                checkpoints.save_training_state(model.name, state)
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"{error.strerror}; training had reached iteration {step}, and iteration "
                    f"{saved} is saved",
                    str(checkpoints.run_folder(model.name)),
                ) from None
            saved = step

        with records.Events(model.name, from_step=saved + 1) as events:
            state = train(
                model,
                batches,
                args.iter_max,
                args.iter_save,
                save=save,
                log=events.scalars,
                state=state,
            )
    return state["seconds"]


def _lock(name: str) -> filelock.FileLock:
    """The run's lock, held. The system releases it however the process ends."""
    folder = checkpoints.run_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"{name} is being trained by another process: wait for it, or take another --run"
        ) from None
    return lock


# Trained weights


def _load_weights(args, experiment: Experiment, source: str, model) -> None:
    try:
        checkpoints.load_model_by_name(model, args.iter_max)
    except checkpoints.CheckpointMissing as error:
        other = experiment.dataset if source == "synthetic" else "synthetic"
        if checkpoints.saved_steps(model_name(args, experiment, other)):
            raise UserError(
                f"{error}. There are weights trained on {other} data: --data {other} takes those"
            ) from None
        raise
