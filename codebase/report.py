"""What a trained model shows of itself: pictures, the printed report, results.json, TensorBoard."""

import platform
import sys
from collections.abc import Callable

import torch
from tqdm import tqdm

from codebase import checkpoints, figures, records
from codebase import data as datasets
from codebase.experiment import seed_of


def report(args, experiment, source, model, subset, test, seconds=None) -> dict[str, float]:
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
    results = {
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
    }
    try:
        records.write_results(model.name, results)
    except OSError as error:
        if args.train:
            raise
        print(f"warning: results.json not written: {error}", file=sys.stderr)
    return outcome


def _draw_all(args, model, subset, test) -> None:
    """Draw every picture of a trained model."""
    draw_sheet(args, model, "samples.png")
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


def draw_sheet(args, model, file_name: str):
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


def record_outcome(events, args, source, model, outcome: dict[str, float], subset, test) -> None:
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
