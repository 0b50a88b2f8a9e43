"""One run, from its flags to its figures: find the data, train or load, report."""

import argparse
import os
import shutil
import sys

import filelock
import torch

from codebase import UserError, checkpoints, records
from codebase import data as datasets
from codebase.experiment import Experiment, model_name, seed_of
from codebase.report import draw_sheet, record_outcome, report
from codebase.train import train, tune_process


def run(
    args: argparse.Namespace, experiment: Experiment, bar_options: dict | None = None
) -> dict[str, float]:
    """Train a model, or load a trained one; draw and report. Returns the figures.

    bar_options: tqdm's, for another bar than the usual one while training

    Raises UserError, with nothing changed, where the flags ask for what cannot be done.
    """
    tune_process()
    device = pick_device(args.device)
    source = datasets.find(experiment.dataset, args.data, args.data_dir)
    name = model_name(args, experiment, source)
    torch.manual_seed(seed_of(args))
    model = experiment.build(args, name).to(device)
    if model.y_dim and args.sheet[0] != model.y_dim:
        raise UserError(f"--sheet: a row is a class here, and there are {model.y_dim} classes")
    if args.train:
        state = state_to_start_from(args, name)
    else:
        _load_weights(args, experiment, source, model)
    if source == "synthetic":
        print(_BANNER.format(experiment.dataset.upper()), file=sys.stderr)
    batches, subset, test = experiment.load(args, device, source)
    if not args.train:
        return report(args, experiment, source, model, subset, test)
    with lock(name):
        _clear_for(args, name)
        with records.Events(name, state["step"] + 1 if state else 0) as events:
            events.add(lambda writer: writer.add_text("data", source))
            seconds = _train(args, model, batches, state, events, bar_options)
            outcome = report(args, experiment, source, model, subset, test, seconds)
            record_outcome(events, args, source, model, outcome, subset, test)
    return outcome


_BANNER = """\
************************************************************************
*  SYNTHETIC DATA: digits drawn by this program in the place of {:<5}  *
*  The figures are not comparable with those of the real data set.     *
************************************************************************"""


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
    if device.type == "cuda":
        if device.index is None:  # torchrun's processes share the machine's GPUs out
            local_rank = int(os.environ.get("LOCAL_RANK", 0))
            device = torch.device("cuda", local_rank % torch.cuda.device_count())
        if device.index >= torch.cuda.device_count():
            raise UserError(f"--device {name}: this machine has {torch.cuda.device_count()} such")
    return device


# Training


def state_to_start_from(args: argparse.Namespace, name: str) -> dict | None:
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


def _clear_for(args: argparse.Namespace, name: str) -> None:
    """Make room for a run that has passed every check: the old run goes, unless it is resumed."""
    checkpoints.remove_leftovers(name)
    if not args.resume:
        checkpoints.remove_run(name)
        shutil.rmtree(records.LOGS / name, ignore_errors=True)


def _train(args, model, batches, state, events, bar_options) -> float:
    """Train, saving weights, states and sheets as it goes. Returns the seconds that it took."""
    saved = state["step"] if state else 0

    def save(step: int, state: dict) -> None:
        nonlocal saved
        whole = step % args.iter_save == 0 or step == args.iter_max  # not where it was interrupted
        try:
            if whole:
                checkpoints.save_model_by_name(model, step)
            checkpoints.save_training_state(model.name, state)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}; training had reached iteration {step}, of which {saved} are "
                "saved",
                str(checkpoints.run_folder(model.name)),
            ) from None
        saved = step
        if whole:
            sheet = draw_sheet(args, model, f"samples-{step:05d}.png")
            if sheet is not None:
                events.add(lambda writer: writer.add_image("samples", sheet, step))

    state = train(
        model,
        batches,
        args.iter_max,
        args.iter_save,
        save=save,
        log=events.scalars,
        state=state,
        bar_options=bar_options,
    )
    return state["seconds"]


def lock(name: str) -> filelock.FileLock:
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
