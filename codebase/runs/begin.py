"""What a training starts from, decided from what is on disk while the runs' locks are held."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from codebase import UserError, checkpoints
from codebase.runs import records
from codebase.runs.experiment import Run
from codebase.runs.records import Record
from codebase.runs.wanted import Settings, Wanted

DEFAULT_ITER_SAVE = 10_000


class Beginning(NamedTuple):
    """What a training starts from.

    runs: those to train, with the recorded values of flags that were not given
    state: the training state to go on from; None to start from the beginning
    iter_max, iter_save: the last iteration, and iterations between saved weights
    """

    runs: list[Run]
    state: dict | None
    iter_max: int
    iter_save: int

    @property
    def together(self) -> tuple[int, ...]:
        """The runs' numbers, where several are trained as one ensemble."""
        return numbers_together(self.runs)


def numbers_together(runs: Sequence[Run]) -> tuple[int, ...]:
    """The numbers of runs that are trained as one ensemble; none of a run that is trained alone."""
    return tuple(run.run for run in runs) if len(runs) > 1 else ()


def begin(wanted: Sequence[Wanted], source: str, settings: Settings, start: str) -> Beginning:
    """What to start from.

    Args:
        wanted: one run, or those of one ensemble
        source: the data
        settings: how to train
        start: "new", "overwrite" or "resume"

    Raises:
        UserError: that would lose a run, or contradict its record; the message names the ways out
    """
    runs, state = [one.run(source) for one in wanted], None
    if start == "new":
        for run in runs:
            _check_nothing_is_there(run.name)
    elif start == "resume":
        runs = [_as_recorded(run, one, runs) for run, one in zip(runs, wanted, strict=True)]
        state = _state(runs)
    default = wanted[0].experiment.iter_max
    iter_max = settings.iter_max or (state and state["iter_max"]) or default
    iter_save = settings.iter_save or (state and state["iter_save"]) or DEFAULT_ITER_SAVE
    if state is not None and state["step"] > iter_max:
        raise UserError(
            f"--iter_max {iter_max}: {runs[0].name} is at iteration {state['step']} already: name "
            "a larger one to go on, or --train 0 to evaluate saved weights"
        )
    return Beginning(runs, state, iter_max, iter_save)


def _check_nothing_is_there(name: str) -> None:
    folder = checkpoints.run_folder(name)
    steps = checkpoints.steps_in(folder)
    if not steps and not (folder / checkpoints.STATE_FILE).exists():
        return
    results = records.read_results(name)
    what = "a run" if results and results["iterations"] in steps else "an unfinished run"
    weights = f"with weights of iterations {steps}" if steps else "without weights yet"
    raise UserError(
        f"{folder} holds {what}, {weights}: take --resume 1 to go on with it, --train 0 to "
        "evaluate it, --overwrite 1 to replace it, or another --run"
    )


def _as_recorded(run: Run, wanted: Wanted, runs: Sequence[Run]) -> Run:
    """A run to go on with as it is recorded, or as it is wanted where it has not begun."""
    folder = checkpoints.run_folder(run.name)
    record = records.read_record(folder)
    if record is None:
        if checkpoints.steps_in(folder) or (folder / checkpoints.STATE_FILE).exists():
            raise UserError(
                f"{folder} holds weights but no {records.RECORD_FILE} that says how they were "
                "trained: take --train 0 to evaluate them, --overwrite 1 to train anew, or another "
                "--run"
            )
        return run
    if record.run.name != run.name:
        raise UserError(
            f"{folder / records.RECORD_FILE} is that of {record.run.name}: give the folder that "
            "name, or take --overwrite 1 to train anew"
        )
    if record.together != numbers_together(runs):
        raise UserError(in_other_company(record))
    return wanted.agreed(record.run)


def in_other_company(record: Record) -> str:
    """What to say where a run goes on alone but did not begin so, or the other way round."""
    name, number, numbers = record.run.name, record.run.run, record.together
    if not numbers:
        return f"{name} has begun alone: --run {number} --resume 1 goes on with it"
    flags = f"--run {numbers[0]} --replicates {len(numbers)} --ensemble {len(numbers)}"
    return (
        f"{name} is trained together with others, as runs {', '.join(map(str, numbers))}: {flags} "
        "goes on with them, and --overwrite 1 trains it alone and anew"
    )


def _state(runs: Sequence[Run]) -> dict | None:
    """The training state of runs, which lies with the first of them."""
    name = runs[0].name
    try:
        state = checkpoints.load_training_state(name)
    except checkpoints.CheckpointError as error:
        raise UserError(f"{error}: {_ways_out(name)}") from None
    if state is None:
        for run in runs:
            if steps := checkpoints.saved_steps(run.name):
                raise UserError(
                    f"{run.name} has weights of iterations {steps} but no {checkpoints.STATE_FILE} "
                    f"to resume from: {_ways_out(run.name)}"
                )
        return None
    if state.get("runs") != [run.identity() for run in runs]:
        raise UserError(damaged(name, "it is of another run"))
    for key in ("step", "iter_max", "iter_save"):
        if type(state.get(key)) is not int or not 0 <= state[key] < 1 << 40:
            raise UserError(damaged(name, f"its {key} is no number of iterations"))
    return state


def damaged(name: str, reason: str) -> str:
    """What to say of a training state that is not to be trusted."""
    path = checkpoints.run_folder(name) / checkpoints.STATE_FILE
    return f"{path} cannot be resumed from ({reason}): {_ways_out(name)}"


def _ways_out(name: str) -> str:
    steps = checkpoints.saved_steps(name)
    evaluate = f", or --train 0 to evaluate iterations {steps}" if steps else ""
    return f"take --overwrite 1 to train anew{evaluate}"


def note_what_differs(state: dict, now: dict) -> None:
    """Say so where a resumed run may not end with an uninterrupted one's last digits."""
    for what, value in now.items():
        if state.get(what) != value:
            print(
                f"note: trained so far with {what} {state.get(what)!r:.20}, from here on with "
                f"{value!r}: the last digits may differ from those of an uninterrupted run",
                file=sys.stderr,
            )
