"""Keep a run's weights as reference weights, which the project includes in half precision."""

from pathlib import Path

from codebase import checkpoints
from codebase.project import UserError, steps_in, weights_file
from codebase.runs import run as runs


def keep_as_reference(name: str) -> Path:
    """Copy a finished run's run.json and last weights to checkpoints/reference/.

    Weights are saved in half precision. That changes a weight above 6e-5 by at most 1/2000 of its
    value, and halves the size of the file.

    Args:
        name: name of a run in checkpoints/

    Returns:
        path of the file of weights

    Raises:
        UserError: there is no such run, it is not finished, or its weights are not finite in half
            precision
    """
    folder = checkpoints.run_folder(name)
    run, steps, results = runs.read_run(folder), steps_in(folder), runs.read_results(name)
    if run is None or not steps or not results or results["iterations"] != steps[-1]:
        raise UserError(f"{folder} is not a finished run: train it with its run script first")
    model = run.build()
    checkpoints.load_weights(model, weights_file(folder, steps[-1]))
    if not all(tensor.isfinite().all() for tensor in model.half().state_dict().values()):
        raise UserError(f"{name} has weights too large for half precision: train it anew")
    place = checkpoints.reference_folder(name)
    for step in steps_in(place):  # of weights kept before
        weights_file(place, step).unlink()
    checkpoints.write_weights(model, weights_file(place, steps[-1]))
    runs.write_json(place / runs.RUN_FILE, runs.read_json(folder / runs.RUN_FILE) or {})
    return weights_file(place, steps[-1])
