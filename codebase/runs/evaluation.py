"""--train 0: evaluate saved weights. The results of their training stay unchanged."""

import contextlib
import sys
from argparse import Namespace

import torch

from codebase import UserError, checkpoints
from codebase.checkpoints import REFERENCE
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
        UserError: there are no such weights, or a flag contradicts their run.json
    """
    own, kept = _own_and_reference(experiment, given)
    if args.reference and not kept:
        folders = (checkpoints.CHECKPOINTS / REFERENCE).glob("model=*")
        there = ", ".join(sorted(folder.name for folder in folders)) or "no run"
        raise UserError(
            f"--reference 1: no reference weights were trained with these flags; there are weights "
            f"of {there}"
        )
    reference, missing = None, None
    if kept and (args.reference or not own):
        [(data_name, run_name), *_] = kept.items()
        given, reference = given | {"data": data_name}, checkpoints.reference_folder(run_name)
    try:
        source = source_of(experiment, given, args, device, train=False)
    except DataError as error:
        if given.get("data") == "synthetic":
            raise
        source, missing = Source(experiment.dataset, args.data_dir, device), error
    name = experiment.name_of(experiment.identity(given, source.name))
    folder = reference or checkpoints.run_folder(name)
    if missing and not checkpoints.steps_in(folder):
        raise missing  # without weights there are no samples to draw
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # the folder may be read-only
            stack.enter_context(runs.locked(name, "evaluation"))
        run = find(experiment, given, source.name, folder=folder)
        steps, is_recorded = checkpoints.steps_in(folder), bool(run.model)
        step = given.get("iter_max") or (is_recorded and steps and steps[-1]) or args.iter_max
        model = experiment.build(run.flags).to(device)
        path = checkpoints.file_of(folder, step)
        if step not in steps:
            advice = _what_there_is(experiment, given, run, steps, bool(kept) and not reference)
            raise checkpoints.CheckpointError(f"{path} does not exist: {advice}")
        checkpoints.load_weights(model, path)
        whose = "your run" if is_recorded else "weights without a run.json"
        if reference is not None:
            whose = "reference weights"
            logs = child_folder(runs.LOGS / REFERENCE, run.name)
        else:
            before = runs.read_results(run.name)
            replaces = not is_recorded and step == steps[-1]
            replaces &= before is None or before["trained"] == runs.NOT_RECORDED
            logs = run.logs if replaces else runs.evaluation_folder(run.name, step)
        if missing:
            if not model.generates:
                raise DataError(f"{missing} (--gw 0 trains no decoder: it has no samples to draw)")
            heading = f"{run.name}, iteration {step}"
            note = f"{heading}, {whose}: only samples are drawn, which need no data.\n  {missing}"
            print(note.replace("; ", ";\n  "), file=sys.stderr)
            report.write_sheet(model, args.sheet, logs / "samples.png", heading)
            return
        data = experiment.data(Namespace(**run.flags), source)
        remove_leftovers(logs)
        more = {} if is_recorded else {"trained": runs.NOT_RECORDED}

        def save(results: dict) -> None:
            try:
                runs.write_json(logs / runs.RESULTS_FILE, results | more)
            except OSError as error:
                print(f"warning: results not written: {error}", file=sys.stderr)

        report.make_report(run, model, step, data, experiment, args.sheet, logs, save, whose)
    report.say_what_now(experiment, run, logs)
    if kept and reference is None:
        print("To evaluate the reference weights instead: --reference 1", file=sys.stderr)


def _own_and_reference(experiment: Experiment, given: dict) -> tuple[bool, dict[str, str]]:
    """Whether a run of yours fits the flags; and names of reference runs that do, by their data."""
    wanted = given.get("data", "auto")
    sources = (experiment.dataset, "synthetic") if wanted == "auto" else (wanted,)
    names = {source: experiment.name_of(experiment.identity(given, source)) for source in sources}
    own = any(runs.has_begun(checkpoints.run_folder(name)) for name in names.values())
    place = checkpoints.CHECKPOINTS / REFERENCE
    return own, {s: name for s, name in names.items() if checkpoints.steps_in(place / name)}


def _what_there_is(
    experiment: Experiment, given: dict, run: runs.Run, steps: list[int], reference: bool
) -> str:
    """Return advice for an iteration without weights."""
    advice = "train first"
    if steps:
        advice = f"pass a saved iteration (--iter_max {', '.join(map(str, steps))})"
    elif (run.folder / checkpoints.STATE_FILE).exists():
        advice = "the run was stopped before its first --iter_save, and --resume 1 continues it"
    other = experiment.dataset if run.is_synthetic else "synthetic"
    name = experiment.name_of(experiment.identity(given, other))
    places = checkpoints.run_folder(name), checkpoints.CHECKPOINTS / REFERENCE / name
    if any(checkpoints.steps_in(place) for place in places):
        advice += f"; or use the weights trained on {other} data, with --data {other}"
    return advice + ("; or use the reference weights, with --reference 1" if reference else "")
