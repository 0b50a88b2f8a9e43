"""The weights that come with the project: runs of its own, in half precision."""

from pathlib import Path

from codebase import UserError, checkpoints
from codebase.runs import run as runs


def keep_as_reference(name: str) -> Path:
    """Copy a finished run's run.json and last weights to checkpoints/reference/.

    Half precision changes a weight by at most 1/2000 of its value, and halves the file.

    Args:
        name: name of a run in checkpoints/

    Returns:
        the file of weights

    Raises:
        UserError: there is no such run, it has no run.json or is not finished, or its weights are
            not finite in half precision
    """
    folder = checkpoints.run_folder(name)
    run, steps = runs.read_run(folder), checkpoints.steps_in(folder)
    if run is None:
        raise UserError(f"{folder} has no {runs.RUN_FILE}: train the run first")
    if not steps or run.finished(steps[-1]) is None:
        raise UserError(f"{name} is not finished: finish it with its run script and --resume 1")
    model = run.build()
    checkpoints.load_weights(model, checkpoints.file_of(folder, steps[-1]))
    if not all(tensor.isfinite().all() for tensor in model.half().state_dict().values()):
        raise UserError(f"{name} has weights too large for half precision: train it anew")
    place = checkpoints.reference_folder(name)
    path = checkpoints.file_of(place, steps[-1])
    checkpoints.write_weights(model, path)
    runs.write_json(place / runs.RUN_FILE, runs.read_json(folder / runs.RUN_FILE))
    for step in set(checkpoints.steps_in(place)) - {steps[-1]}:  # of weights kept before
        checkpoints.file_of(place, step).unlink()
    return path
