"""One run, or several as one ensemble: train, record and report; or evaluate what was trained.

A run writes its record before its first weights, and its training state after each of them, so
that it can go on from wherever it ends.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from codebase import UserError, checkpoints
from codebase.data import find_or_download
from codebase.datasets.checked import DataError
from codebase.figures import curves
from codebase.machine.compiled import why_not_compiled
from codebase.machine.files import one_line, remove_leftovers
from codebase.machine.signals import Interruption
from codebase.machine.tuning import tune_process
from codebase.runs import begin, records
from codebase.runs.begin import Beginning
from codebase.runs.ensemble import Ensemble
from codebase.runs.experiment import Experiment, Run
from codebase.runs.folders import (
    evaluation_lock,
    forget_what_was_set_aside,
    set_aside,
    training_lock,
)
from codebase.runs.history import History, restored
from codebase.runs.load import reference_for, run_in
from codebase.runs.progress import Display
from codebase.runs.report import (
    Trained,
    held_out_bound,
    record_outcome,
    report,
    write_picture,
    write_sheet,
)
from codebase.runs.wanted import Settings, Wanted
from codebase.train import Trainer

BANNER = """\
************************************************************************
*  SYNTHETIC DATA: digits drawn by this program in the place of {:<5}  *
*  The figures are not comparable with those of the real data set.     *
************************************************************************"""


Finish = Callable[[Trained, Path], None]


class Begun(Exception):
    """A run that has begun was ended by `__cause__`: --resume 1 goes on with it."""


# Training


def train(
    wanted: Wanted, settings: Settings, start: str, finish: Finish | None = None
) -> dict[str, float]:
    """Train a run and report it.

    Args:
        wanted: which run
        settings: how
        start: "new"; "overwrite" to replace a run; "resume" to go on with one, if there is one
        finish: is called with the trained model and the folder of its report

    Returns:
        the figures by their names

    Raises:
        UserError: it cannot be done; nothing has changed
        Begun: it was ended after its first step; the cause says how
    """
    source = wanted.source(settings.data_dir)
    [results] = train_together([wanted], source, settings, start, Display(), finish)
    say_what_now(wanted.experiment, records.logs_folder(results["name"]))
    return results["figures"]


def train_together(
    wanted: Sequence[Wanted],
    source: str,
    settings: Settings,
    start: str,
    display: Display,
    finish: Finish | None = None,
) -> list[dict]:
    """Train one run, or several as one ensemble, and report each.

    Args:
        wanted: which runs
        source: the data
        settings, start, finish: see `train`
        display: how the training shows itself

    Returns:
        the results of each, as in results.json
    """
    tune_process(settings.threads)
    if source == "synthetic" and not display.nested:
        print(BANNER.format(wanted[0].experiment.dataset.upper()), file=sys.stderr)
    with contextlib.ExitStack() as locks:
        for one in wanted:
            locks.enter_context(training_lock(one.run(source).name))
        training = Training(begin.begin(wanted, source, settings, start), settings, finish)
        if training.state is None:
            for run in training.runs:
                set_aside(run.name)
        try:
            results = training.carry_out(display)
        except (Exception, Interruption) as error:
            if training.has_begun:
                raise Begun from error
            raise
        for run in training.runs:
            forget_what_was_set_aside(run.name)
    return results


class Training:
    """The training of one run, or of several as one ensemble, with all that it writes.

    Making it changes nothing on disk: what cannot be trained shows here.

    Args:
        beginning: what it starts from
        settings: how
        finish: see `train`

    Raises:
        UserError: the data, the training state or the memory is not what it should be
    """

    def __init__(self, beginning: Beginning, settings: Settings, finish: Finish | None = None):
        self.runs, self.state, self.iter_max, self.iter_save = beginning
        self.together = beginning.together
        self.settings, self.device, self.finish = settings, settings.device, finish
        self.has_begun = self.state is not None
        run = self.runs[0]
        self.data = run.experiment.load(run, self.device, settings.data_dir, train=True)
        with _short_of_memory(run):
            self.models = [build(run, self.device) for run in self.runs]
            trained, batches = self.models[0], self.data.batches
            if self.together:
                trained, batches = Ensemble(self.models), batches.replicated(len(self.models))
                torch.manual_seed(run.seed)
            self.trainer = Trainer(trained, batches, run.lr)
            self.histories: Sequence[History] = [History() for _ in self.runs]
            if self.state is None:
                self.trainer.rehearse()
            else:
                self._resume()
        self.saved = self.trainer.step  # iterations
        if run.compile:
            self._compile()
        if self.state is not None:
            begin.note_what_differs(self.state, self._circumstances())

    def _compile(self) -> None:
        started = time.perf_counter()
        try:
            self.trainer.compile()
        except Exception as error:
            print(f"warning: not compiled: {why_not_compiled(error)}", file=sys.stderr)
        else:
            took = time.perf_counter() - started
            print(f"compiled in {took:.0f} s", file=sys.stderr)

    def _resume(self) -> None:
        name = self.runs[0].name
        try:
            self.histories = restored(self.state.get("history"), len(self.runs), self.state["step"])
            self.trainer.load_state_dict(self.state)
        except (checkpoints.CheckpointError, ValueError) as error:
            raise UserError(begin.damaged(name, str(error))) from None

    def carry_out(self, display: Display) -> list[dict]:
        """Train up to iter_max and report. Returns the results of each run."""
        for run in self.runs:
            for folder in (checkpoints.run_folder(run.name), records.logs_folder(run.name)):
                remove_leftovers(folder)
        if self.state is None:
            for run in self.runs:
                records.write_record(records.Record(run, self.together), self.device)
                self.has_begun = True
            self._save_state()
        with _events_of(self.runs, self.trainer.step) as events:
            with display.bar(self.runs, self.trainer.step, self.iter_max) as bar:
                self._train(events, bar)
            return [self._report(i, events[i], display) for i in range(len(self.runs))]

    def _train(self, events: list[records.Events], bar) -> None:
        def log(step: int, scalars: dict) -> None:
            for i, (own, history) in enumerate(zip(events, self.histories, strict=True)):
                one = {k: v[i] if isinstance(v, list) else v for k, v in scalars.items()}
                own.scalars(step, one)
                history.add("train", step, one)

        def save(step: int) -> None:
            whole = step % self.iter_save == 0 or step == self.iter_max  # not where it is ended
            if whole:
                self._write_back()
                for model, own, history in zip(self.models, events, self.histories, strict=True):
                    bound = held_out_bound(model, self.data)
                    own.scalars(step, bound)
                    history.add("test", step, bound)
            self._save(step, whole)
            if whole:
                self._write_sheets(step, events)

        self.trainer.train(self.iter_max, self.iter_save, save, log, bar)
        self._write_back()

    def _write_back(self) -> None:
        if self.together:
            self.trainer.model.write_back()

    def _save(self, step: int, weights: bool) -> None:
        try:
            if weights:
                for model in self.models:
                    checkpoints.save_model_by_name(model, step)
            self._save_state()
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}; training had reached iteration {step}, of which {self.saved} "
                "are saved",
                str(checkpoints.run_folder(self.runs[0].name)),
            ) from None
        self.saved = step

    def _save_state(self) -> None:
        """Save all that the rest of the training depends on, in the first run's folder."""
        state = (
            self.trainer.state_dict()
            | {
                "runs": [run.identity() for run in self.runs],
                "iter_max": self.iter_max,
                "iter_save": self.iter_save,
                "history": [history.tensors() for history in self.histories],
            }
            | self._circumstances()
        )
        checkpoints.save_training_state(self.runs[0].name, state)

    def _circumstances(self) -> dict:
        """What changes the last digits, beside the identity."""
        return {
            "threads": torch.get_num_threads(),
            "device": self.device.type,
            "compiled": self.trainer.compiled,
        }

    def _write_sheets(self, step: int, events: list[records.Events]) -> None:
        for run, model, own in zip(self.runs, self.models, events, strict=True):
            path = records.logs_folder(run.name) / f"samples-{step:05d}.png"
            heading = Trained(run, model, step, self.data).heading
            sheet = write_sheet(model, self.settings.sheet, path, heading)
            if sheet is not None:
                own.add(lambda writer, sheet=sheet: writer.add_image("samples", sheet.grid, step))

    def _report(self, i: int, events: records.Events, display: Display) -> dict:
        """Report a run; write results.json unless that was done before."""
        run, model, history = self.runs[i], self.models[i], self.histories[i]
        before = records.finished(run, self.iter_max)
        if before is not None and display.nested:
            return before
        folder = records.logs_folder(run.name)
        if before is not None:
            folder = records.evaluation_folder(run.name, self.iter_max)
        trained = Trained(run, model, self.iter_max, self.data)
        if not history.is_empty:
            course = history.tensors()
            write_picture(model, lambda: curves(course, trained.heading), folder / "curves.png")
        outcome, pictures = report(trained, self.settings.sheet, folder)
        results = results_of(trained, outcome) | {
            "together": list(self.together),
            "seconds": self.trainer.seconds,
            "compiled": self.trainer.compiled,
        }
        records.write_results(folder, results)
        if self.finish is not None:
            self.finish(trained, folder)
        if before is None:
            record_outcome(events, trained, results, pictures)
        return results


@contextlib.contextmanager
def _short_of_memory(run: Run) -> Iterator[None]:
    """Where an allocation fails, say so in one line."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        words = str(error).lower()
        if not isinstance(error, MemoryError) and not ("memory" in words or "alloc" in words):
            raise
        raise UserError(
            f"this machine has not the memory for {run.name} with --batch_size {run.batch_size} "
            f"({one_line(error):.100}): take smaller ones; nothing was changed"
        ) from None


@contextlib.contextmanager
def _events_of(runs: Sequence[Run], step: int) -> Iterator[list[records.Events]]:
    with contextlib.ExitStack() as stack:
        events = []
        for run in runs:
            own = records.Events(records.logs_folder(run.name), step + 1 if step else 0)
            events.append(stack.enter_context(own))
            own.add(lambda writer, run=run: writer.add_text("data", run.data))
        yield events


def build(run: Run, device: torch.device) -> torch.nn.Module:
    """A run's model as it is before training; torch's generator goes on from there."""
    torch.manual_seed(run.seed)
    return run.build().to(device)


# Evaluation


def evaluate(wanted: Wanted, settings: Settings) -> dict[str, float]:
    """Load a trained run's weights and report them. What its training recorded stays as it is.

    Where there is no such run of one's own, the reference weights are evaluated, if any.

    Returns:
        the figures by their names; none where the data of reference weights cannot be had

    Raises:
        UserError: it cannot be done; nothing has changed
    """
    tune_process(settings.threads)
    if (reference := reference_for(wanted)) is not None:
        return _evaluate_reference(reference, wanted, settings)
    run = wanted.run(wanted.source(settings.data_dir))
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # of a folder that only others may write to
            stack.enter_context(evaluation_lock(run.name))
        record = records.read_record(checkpoints.run_folder(run.name))
        steps = checkpoints.saved_steps(run.name)
        step = settings.iter_max or wanted.experiment.iter_max
        if record is not None:
            run = wanted.agreed(record.run)
            step = settings.iter_max or (steps[-1] if steps else step)
        with _short_of_memory(run):
            model = build(run, settings.device)
        try:
            checkpoints.load_model_by_name(model, step)
        except checkpoints.CheckpointMissing as error:
            raise UserError(f"{error}{_what_there_is(wanted, run)}") from None
        data = run.experiment.load(run, settings.device, settings.data_dir, train=False)
        if run.data == "synthetic":
            print(BANNER.format(run.experiment.dataset.upper()), file=sys.stderr)
        if record is None:
            print(f"Weights: {checkpoints.model_path(run.name, step)}, trained: not recorded")
        folder = records.logs_folder(run.name)
        if record is not None or step != steps[-1]:
            folder = records.evaluation_folder(run.name, step)
        trained = Trained(run, model, step, data)
        return _report_again(trained, settings, folder, recorded=record is not None)


def _evaluate_reference(folder: Path, wanted: Wanted, settings: Settings) -> dict[str, float]:
    recorded = run_in(folder)
    if recorded.name != folder.name:
        raise UserError(
            f"{folder / records.RECORD_FILE} is that of {recorded.name}: git checkout {folder} "
            "brings back the project's own"
        )
    run = wanted.agreed(recorded)
    steps = checkpoints.steps_in(folder)
    step = settings.iter_max or steps[-1]
    if step not in steps:
        raise UserError(
            f"{folder} has no weights of iteration {step}; iterations {steps} are there"
        )
    model = build(run, settings.device)
    checkpoints.load_weights(model, folder / f"model-{step:05d}.pt")
    print(f"No run of your own: the reference weights in {folder} are taken", file=sys.stderr)
    logs = records.reference_logs_folder(run.name)
    try:
        find_or_download(wanted.experiment.dataset, run.data, settings.data_dir)
        data = run.experiment.load(run, settings.device, settings.data_dir, train=False)
    except DataError as error:
        print(f"Only samples, which need no data: {error}", file=sys.stderr)
        write_sheet(model, settings.sheet, logs / "samples.png", f"{run.name}, iteration {step}")
        return {}
    return _report_again(Trained(run, model, step, data), settings, logs, recorded=True)


def _report_again(
    trained: Trained, settings: Settings, folder: Path, recorded: bool
) -> dict[str, float]:
    """Report an evaluation into a folder; returns the figures."""
    remove_leftovers(folder)
    outcome, _ = report(trained, settings.sheet, folder)
    results = results_of(trained, outcome)
    if not recorded:
        results["trained"] = records.NOT_RECORDED
    try:
        records.write_results(folder, results)
    except OSError as error:
        print(f"warning: results not written: {error}", file=sys.stderr)
    say_what_now(trained.run.experiment, folder)
    return outcome


def results_of(trained: Trained, outcome: dict[str, float]) -> dict:
    """What results.json says of a report."""
    run, model, step, data = trained
    results = records.results(run, step, outcome, data.subset[0].device)
    return results | run.experiment.details(model, data)


def _what_there_is(wanted: Wanted, run: Run) -> str:
    """In the place of weights that are missing."""
    state = checkpoints.run_folder(run.name) / checkpoints.STATE_FILE
    if state.exists() and not checkpoints.saved_steps(run.name):
        return ". It was stopped before its first --iter_save: --resume 1 goes on with it"
    other = wanted.experiment.dataset if run.data == "synthetic" else "synthetic"
    if not checkpoints.saved_steps(wanted.run(other).name):
        return ""
    return f". There are weights trained on {other} data: --data {other} takes those"


def say_what_now(experiment: Experiment, folder: Path) -> None:
    """Where results are, and what to try next: to standard error."""
    for line in (
        f"Results and pictures: {folder}",
        f"TensorBoard: tensorboard --logdir {records.LOGS} (after pip install tensorboard)",
        f"Next: {experiment.next}",
    ):
        print(line, file=sys.stderr)
