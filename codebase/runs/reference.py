"""The weights that come with the project: runs of its own, in half precision."""

from pathlib import Path

from codebase import UserError, checkpoints
from codebase.runs import records


def keep_as_reference(name: str) -> Path:
    """Copy a finished run's record and last weights to checkpoints/reference/.

    Half precision rounds a weight by a two-thousandth at most, and halves the file.

    Args:
        name: of a run in checkpoints/

    Returns:
        the file of weights

    Raises:
        UserError: there is no such run, or it is not recorded or not finished
    """
    folder = checkpoints.run_folder(name)
    record = records.read_record(folder)
    if record is None:
        raise UserError(f"{folder} has no {records.RECORD_FILE}: train the run first")
    step = record.run.experiment.iter_max
    if records.finished(record.run, step) is None:
        raise UserError(f"{name} is not finished at iteration {step}: take --resume 1 first")
    model = record.run.build()
    checkpoints.load_weights(model, folder / f"model-{step:05d}.pt")
    place = checkpoints.reference_folder(name)
    records.write_json(place / records.RECORD_FILE, records.read_json(folder / records.RECORD_FILE))
    path = place / f"model-{step:05d}.pt"
    checkpoints.write_weights(model.half(), path)
    return path
