"""One run from its flags to its report: find the data, train or load, draw, evaluate, record."""

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import filelock
import torch
from torch import Tensor
from tqdm import tqdm

from codebase import UserError, checkpoints, figures, records
from codebase import data as datasets
from codebase.train import train, tune_process


@dataclass
class Experiment:
    """What one run script brings to its runs.

    dataset: "mnist" or "svhn"
    name: (flags) → the model's name, without the run's number
    build: (flags, name) → the model
    load: (flags, device, source) → (minibatches, subset, test set), as `get_mnist_data` returns
    report: (model, subset, test set) → the figures, after printing them
    variants: flags that the name tells where they differ from the homework's value, given here
    """

    dataset: str
    name: Callable[[argparse.Namespace], str]
    build: Callable[[argparse.Namespace, str], torch.nn.Module]
    load: Callable[[argparse.Namespace, torch.device, str], tuple]
    report: Callable[[torch.nn.Module, tuple[Tensor, Tensor], tuple], dict[str, float]]
    variants: dict[str, int | float | str] = field(default_factory=dict)


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
        return _report(args, experiment, source, model, subset, test)
    with lock(name):
        _clear_for(args, name)
        with records.Events(name, state["step"] + 1 if state else 0) as events:
            events.add(lambda writer: writer.add_text("data", source))
            seconds = _train(args, model, batches, state, events, bar_options)
            outcome = _report(args, experiment, source, model, subset, test, seconds)
            _record_outcome(events, args, source, model, outcome, subset, test)
    return outcome


_BANNER = """\
***********************************************************************
*  SYNTHETIC DATA: digits drawn by this program in the place of {:<5}  *
*  The figures are not comparable with those of the real data set.    *
***********************************************************************"""


def seed_of(args: argparse.Namespace) -> int:
    """The seed of a run: by default its number."""
    return args.run if args.seed is None else args.seed


def model_name(args: argparse.Namespace, experiment: Experiment, source: str) -> str:
    """The folder of the run in checkpoints/ and logs/.

    The homework's name, and what a run has that the homework has not: other data, another model.
    """
    name = f"{experiment.name(args)}_run={args.run:04d}"
    if source == "synthetic":
        name += "_data=synthetic"
    for flag, homework in experiment.variants.items():
        value = getattr(args, flag)
        if value != homework:
            name += f"_{flag}={value:g}" if isinstance(value, float) else f"_{flag}={value}"
    return name


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
            sheet = _draw_sheet(args, model, f"samples-{step:05d}.png")
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


# Reporting


def _report(args, experiment, source, model, subset, test, seconds=None) -> dict[str, float]:
    """Draw, print the report, and write results.json. Returns the figures."""
    _draw_all(args, model, subset, test)
    if source == "synthetic":
        print(f"Data: synthetic digits, not comparable with {experiment.dataset.upper()}")
    torch.manual_seed(seed_of(args))  # so that --train 0 repeats training's report to the digit
    outcome = experiment.report(model, subset, test)
    if seconds is None:  # evaluated again: keep the time that training took
        before = records.read_results(model.name)
        if before is not None and before.get("iterations") == args.iter_max:
            seconds = before.get("seconds")
    records.write_results(
        model.name,
        {
            "name": model.name,
            "data": source,
            "seed": seed_of(args),
            "iterations": args.iter_max,
            "seconds": seconds,
            "device": str(subset[0].device),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "flags": vars(args),
            "figures": outcome,
        },
    )
    return outcome


def _draw_all(args, model, subset, test) -> None:
    """Draw every picture of a trained model."""
    _draw_sheet(args, model, "samples.png")
    _draw(
        model,
        "reconstructions.png",
        lambda model: figures.reconstructions(
            model, *datasets.examples(subset, test, model.binary)
        ),
    )
    if model.z_dim == 2:
        _draw(model, "latent.png", lambda model: figures.latent_plane(model, *test))
        _draw(model, "manifold.png", lambda model: figures.manifold(model, *test))


def _draw_sheet(args, model, file_name: str):
    return _draw(model, file_name, lambda model: figures.sample_sheet(model, *args.sheet))


def _draw(model, file_name: str, picture_of: Callable):
    """Draw, write logs/<name>/<file_name> and print its path. Returns the picture.

    A picture that cannot be drawn is None, and a warning, never the loss of a trained model.
    """
    try:
        with figures.own_draws(next(model.parameters()).device):
            picture = picture_of(model)
        path = records.LOGS / model.name / file_name
        checkpoints.write_atomically(path, figures.png(picture))
    except Exception as error:
        print(f"warning: {file_name} not drawn: {error}", file=sys.stderr)
        return None
    tqdm.write(f"Picture: {path}")
    return picture


def _record_outcome(events, args, source, model, outcome: dict[str, float], subset, test) -> None:
    """The figures for TensorBoard's hparams tab, posterior means for its embedding projector."""
    flags = {
        key: value for key, value in vars(args).items() if isinstance(value, int | float | str)
    }
    metrics = {f"final/{key}": value for key, value in outcome.items()}
    events.add(lambda writer: writer.add_hparams(flags | {"data": source}, metrics, name="hparams"))
    try:
        with figures.own_draws(subset[0].device):
            x, y = datasets.examples(subset, test, model.binary)
            means, *_ = model.infer_latents(x, y)
            events.add(
                lambda writer: writer.add_embedding(
                    means.cpu(),
                    metadata=y.argmax(-1).tolist(),
                    label_img=figures.as_images(x),
                    global_step=args.iter_max,
                    tag="posterior_means",
                )
            )
    except Exception as error:
        print(f"warning: no embedding for TensorBoard: {error}", file=sys.stderr)
