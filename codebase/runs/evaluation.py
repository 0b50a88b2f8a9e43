"""--train 0: evaluate saved weights. What their training recorded stays unchanged."""

import contextlib
import sys
from argparse import Namespace
from pathlib import Path

import torch

from codebase import checkpoints
from codebase.data import Source
from codebase.datasets.download import DataError
from codebase.machine.files import child_folder, remove_leftovers
from codebase.runs import report
from codebase.runs import run as runs
from codebase.runs.experiment import Experiment
from codebase.runs.training import find, source_of


def evaluate_saved(
    experiment: Experiment, given: dict, args: Namespace, device: torch.device
) -> None:
    """Load weights and report them: your own run's or, if there is none, the reference weights.

    Args:
        experiment: the run script's
        given: the flags that were given, by their names
        args: all flags
        device: to compute on

    Raises:
        UserError: there are no such weights, or a flag contradicts what is recorded of them
    """
    reference, missing = _reference(experiment, given), None
    if reference is not None:
        given = given | {"data": experiment.dataset}
    try:
        source = source_of(experiment, given, args, device, train=False)
    except DataError as error:
        if given.get("data") == "synthetic":
            raise
        source, missing = Source(experiment.dataset, args.data_dir, device), error
    name = experiment.name_of(experiment.identity(given, source.name))
    if missing and not checkpoints.steps_in(reference or checkpoints.run_folder(name)):
        raise missing  # without weights there are no samples to draw
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # the folder may be read-only
            stack.enter_context(runs.locked(name, "evaluation"))
        run = find(experiment, given, source.name, folder=reference)
        folder = reference or run.folder
        steps, is_recorded = checkpoints.steps_in(folder), bool(run.model)
        step = given.get("iter_max") or (is_recorded and steps and steps[-1]) or args.iter_max
        model = experiment.build(run.flags).to(device)
        path = checkpoints.file_of(folder, step)
        if not steps:
            advice = _what_there_is(experiment, given, run)
            raise checkpoints.CheckpointError(f"{path} does not exist: {advice}")
        checkpoints.load_weights(model, path)
        if reference is not None:
            note = f"No run of your own: using the reference weights in {reference}"
            print(note, file=sys.stderr)
            logs = child_folder(runs.LOGS / checkpoints.REFERENCE, run.name)
        else:
            before = runs.read_results(run.name)
            replaces = not is_recorded and step == steps[-1]
            replaces &= before is None or before["trained"] == runs.NOT_RECORDED
            logs = run.logs if replaces else runs.evaluation_folder(run.name, step)
        if missing:
            print(f"Only samples are drawn, which need no data: {missing}", file=sys.stderr)
            heading = f"{run.name}, iteration {step}"
            report.write_sheet(model, args.sheet, logs / "samples.png", heading)
            return
        data = experiment.data(Namespace(**run.flags), source)
        remove_leftovers(logs)
        more = {} if is_recorded else {"trained": runs.NOT_RECORDED}
        if not is_recorded:
            print(f"Weights: {path}, trained: not recorded")

        def save(results: dict) -> None:
            try:
                runs.write_json(logs / runs.RESULTS_FILE, results | more)
            except OSError as error:
                print(f"warning: results not written: {error}", file=sys.stderr)

        report.make_report(run, model, step, data, experiment, args.sheet, logs, save)
    report.say_what_now(experiment, logs)


def _reference(experiment: Experiment, given: dict) -> Path | None:
    """The folder of a run's reference weights, if there is no such run of the user's own."""
    dataset = experiment.dataset
    if given.get("data", "auto") not in ("auto", dataset):
        return None
    names = [experiment.name_of(experiment.identity(given, s)) for s in (dataset, "synthetic")]
    if any(runs.has_begun(checkpoints.run_folder(name)) for name in names):
        return None
    folder = checkpoints.reference_folder(names[0])
    return folder if checkpoints.steps_in(folder) else None


def _what_there_is(experiment: Experiment, given: dict, run: runs.Run) -> str:
    """Return advice for a run without weights."""
    if (run.folder / checkpoints.STATE_FILE).exists():
        return "the run was stopped before its first --iter_save, and --resume 1 continues it"
    other = experiment.dataset if run.is_synthetic else "synthetic"
    name = experiment.name_of(experiment.identity(given, other))
    if not checkpoints.steps_in(checkpoints.run_folder(name)):
        return "train first"
    return f"train first; or use the weights trained on {other} data, with --data {other}"
