"""--train 0: evaluate saved weights. The results of their training stay unchanged."""

import sys
from argparse import Namespace
from pathlib import Path

import torch

from codebase import checkpoints, figures
from codebase.checkpoints import REFERENCE, CheckpointError
from codebase.datasets.download import DataError
from codebase.project import UserError, steps_in, weights_file
from codebase.runs import report
from codebase.runs import run as runs
from codebase.runs.experiment import Experiment
from codebase.runs.training import find_source


def evaluate_saved(experiment: Experiment, args: Namespace) -> None:
    """Load and evaluate your run's weights or, if you have no run, the reference weights.

    Raises:
        UserError: there are no such weights, or a flag contradicts their run.json
    """
    data_name, folder, others = _choose(experiment, args)
    run, steps = runs.find_run(experiment, args, data_name, folder), steps_in(folder)
    step = args.iter_max
    if "iter_max" not in args.given and steps and (run.recorded or step not in steps):
        step = steps[-1]
    if step not in steps:
        advice = "no weights are saved yet; if the run was stopped, --resume 1 continues it"
        if steps:
            advice = f"pass a saved iteration (--iter_max {', '.join(map(str, steps))})"
        advice += "".join(f"; or use other weights, with {other}" for other in others)
        raise CheckpointError(f"{weights_file(folder, step)} does not exist: {advice}")
    torch.manual_seed(run.flags["seed"])
    model = run.build().to(args.device)
    checkpoints.load_weights(model, weights_file(folder, step))
    if folder.parent.name == REFERENCE:
        whose, logs = "reference weights", runs.LOGS / REFERENCE / run.name
    else:
        before = runs.read_results(run.name)
        of_training = run.recorded or (before and before["trained"] != runs.NOT_RECORDED)
        logs = run.logs / f"evaluation-{step:05d}" if of_training else run.logs
        whose = "your run" if run.recorded else "weights without a run.json"
    try:
        source = find_source(experiment, args, data_name)
    except DataError as missing:
        if not model.generates:
            raise DataError(f"{missing} (--gw 0 trains no decoder: it draws no samples)") from None
        heading = f"{run.name}, iteration {step}"
        note = f"{heading}, {whose}: only samples are drawn, which need no data.\n  {missing}"
        print(note.replace("; ", ";\n  "), file=sys.stderr)
        draw, path = figures.sample_sheet, logs / "samples.png"
        report.write_picture(path, heading, model, draw, *args.sheet)
        return
    data = experiment.data(Namespace(**run.flags), source)
    more = {} if run.recorded else {"trained": runs.NOT_RECORDED}
    results, _ = report.make_report(
        experiment, run, model, step, data, args.sheet, logs, more, whose
    )
    if args.test_set:
        from codebase.runs.test_set import evaluate_test_set

        bounds = evaluate_test_set(model, data.test[0])  # type: ignore[arg-type]  # a VAE or GMVAE
        runs.write_json(logs / "test-set.json", bounds)
    if logs.exists():  # the project's folder may be read-only
        report.say_what_now(experiment, run, logs, results["figures"])
    for other in others:
        print(f"To evaluate other weights instead: {other}", file=sys.stderr)


def _choose(experiment: Experiment, args: Namespace) -> tuple[str, Path, list[str]]:
    """Choose weights: your run before the reference weights, real data before synthetic.

    Returns:
        the name of the data that they were trained on, their folder, and the flags that choose
        other weights

    Raises:
        UserError: there are no such weights
    """
    own, kept = [], []
    sources = (experiment.dataset, "synthetic") if args.data == "auto" else (args.data,)
    for data in sources:
        name = experiment.name_of(experiment.identity(args.given, data))
        if runs.has_begun(checkpoints.run_folder(name)):
            own.append((data, checkpoints.run_folder(name), f"--data {data}"))
        if steps_in(checkpoints.reference_folder(name)):
            kept.append((data, checkpoints.reference_folder(name), "--reference 1"))
    found = kept if args.reference else own + kept
    if not found:
        if args.reference:
            there = (checkpoints.CHECKPOINTS / REFERENCE).glob("model=*")
            raise UserError(
                "--reference 1: no reference weights were trained with these flags; there are "
                f"weights of {', '.join(sorted(folder.name for folder in there)) or 'no run'}"
            )
        name = experiment.name_of(experiment.identity(args.given, sources[0]))
        path = weights_file(checkpoints.run_folder(name), args.iter_max)
        raise CheckpointError(f"{path} does not exist: train first")
    (data, folder, _), *others = found
    return data, folder, [other for _, _, other in others]
