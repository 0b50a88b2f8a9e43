"""Train one run: find its data and state, save, log, and report."""

import shutil
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from codebase import checkpoints, figures
from codebase.data import Data, find_or_download
from codebase.project import UserError, steps_in, weights_file
from codebase.runs import report
from codebase.runs import run as runs
from codebase.runs.experiment import Experiment
from codebase.runs.run import Run
from codebase.train import Trainer

if TYPE_CHECKING:
    from codebase.runs.events import Events

BANNER = """\
************************************************************************
*  SYNTHETIC DATA: digits drawn by this program, in place of {:<5}     *
*  Do not compare the metrics with metrics of the real data set.       *
************************************************************************"""
CURVES = ("train", "test")  # of curves.png; a row is iteration, NELBO, KL, Rec


def train_run(experiment: Experiment, args: Namespace) -> dict:
    """Train a run, or continue it; print its report and return its results.

    Raises:
        UserError: training would lose a run or contradict run.json, or the data or the training
            state are invalid
    """
    source = find_source(experiment, args)
    name = experiment.name_of(experiment.identity(args.given, source["source"]))
    with runs.locked(name):
        run = runs.find_run(experiment, args, source["source"])
        state = _state_to_continue(run, args)
        flags = Namespace(**run.flags)
        data = experiment.data(flags, source)
        torch.manual_seed(flags.seed)
        trainer = Trainer(run.build().to(args.device), data.batches, flags.lr)
        if flags.compile:
            if not trainer.model.compiles and args.device.type == "cpu":
                print("note: this model trains faster without --compile 1", file=sys.stderr)
            trainer.compile()
        if state is not None:
            trainer.load_state_dict(state)
        record, every = Record(run, trainer, data, args, state), 0.1
        if not sys.stderr.isatty():
            every = 60  # seconds: in a log, a line a minute
        options = {"total": args.iter_max, "initial": trainer.step, "mininterval": every}
        with tqdm(desc=name, unit="it", smoothing=0.05, **options) as bar:
            try:
                if state is not None and not weights_file(run.folder, trainer.step).exists():
                    record.save(trainer.step)  # the process may have ended before it wrote them
                trainer.train(args.iter_max, args.iter_save, record.save, record.log, bar)
                bar.close()
                return record.report(experiment)
            except (KeyboardInterrupt, OSError) as stopped:
                again = "add --resume 1" + (" and omit --overwrite 1" if args.overwrite else "")
                again = "repeat the command" if args.replicates else again
                reason = getattr(stopped, "strerror", None) or str(stopped) or "stopped"
                reason += f"; to continue: {again}" if record.events else ""
                if isinstance(stopped, OSError):
                    raise OSError(stopped.errno, reason, stopped.filename) from None
                raise KeyboardInterrupt(reason) from None


def find_source(experiment: Experiment, args: Namespace, name: str | None = None) -> dict:
    """Find the data that --data names, that a resumed run uses, or the real data if available.

    Args:
        name: "mnist", "svhn" or "synthetic", if it is known

    Raises:
        DataError: the real data set is needed and unavailable
    """
    name = name or args.data
    if name == "auto" and (args.resume or args.replicates):
        for known in (experiment.dataset, "synthetic"):
            run = experiment.name_of(experiment.identity(args.given, known))
            if runs.has_begun(checkpoints.run_folder(run)):
                name = known
                break
    name = find_or_download(experiment.dataset, name, args.data_dir)
    if name == "synthetic":
        print(BANNER.format(experiment.dataset.upper()), file=sys.stderr)
    return {"source": name, "data_dir": args.data_dir, "device": args.device}


def _state_to_continue(run: Run, args: Namespace) -> dict | None:
    """Read the training state that a run continues from; None if it is new.

    Raises:
        UserError: a run exists but no flag continues or replaces it, or it cannot be continued
    """
    path, steps = run.folder / checkpoints.STATE_FILE, steps_in(run.folder)
    evaluate = f"--train 0 to evaluate iterations {steps}, " if steps else ""
    ways_out = f"pass {evaluate}--overwrite 1 to train anew, or another --run"
    if args.overwrite or not runs.has_begun(run.folder):
        if args.resume:
            print(f"note: there is no run {run.name}, so a new run starts", file=sys.stderr)
        return None
    if not path.exists() or not run.recorded:
        lacks = checkpoints.STATE_FILE if run.recorded else runs.RUN_FILE
        raise UserError(f"{run.folder} has weights but no {lacks} to continue from: {ways_out}")
    try:
        state = checkpoints.read_state(path)
    except checkpoints.CheckpointError as error:
        raise UserError(f"{error}: {ways_out}") from None
    if not args.resume and not args.replicates:
        there = f"a run at iteration {state['step']}: pass --resume 1 to continue it, or"
        raise UserError(f"{run.folder} holds {there} {ways_out.partition(' ')[2]}")
    if state["step"] > args.iter_max:
        raise UserError(
            f"--iter_max {args.iter_max}: {run.name} is at iteration {state['step']} already: pass "
            "a larger one to continue, or --train 0 to evaluate saved weights"
        )
    return state


class Record:
    """The files of a training run: run.json, training states, weights, events, pictures.

    Nothing is written before the first call of `log`, after 50 iterations, or of `save`.

    Args:
        run, trainer, data: the run, its trainer and its data
        args: all flags
        state: training state that the run continues from; None: the run is new

    Attributes:
        events: TensorBoard's events; None before the first write
    """

    def __init__(self, run: Run, trainer: Trainer, data: Data, args: Namespace, state: dict | None):
        self.run, self.trainer, self.data, self.args, self.state = run, trainer, data, args, state
        self.curves: dict[str, list[list[float]]] = {k: (state or {}).get(k, []) for k in CURVES}
        self.events: Events | None = None

    def _begin(self) -> "Events":
        """On the first call, open the events. A new run deletes an old one first."""
        from codebase.runs.events import Events

        if self.events is None:
            if self.state is None:
                if self.args.overwrite:
                    shutil.rmtree(self.run.logs, ignore_errors=True)
                    for step in steps_in(self.run.folder):  # first: run.json says whose they are
                        weights_file(self.run.folder, step).unlink()
                    shutil.rmtree(self.run.folder, ignore_errors=True)
                self.run.write(self.trainer.device)
            self.events = Events(self.run.logs, self.state["step"] + 1 if self.state else 0)
        return self.events

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Record a minibatch's scalars; the first time, save the training state too."""
        is_first = self.events is None
        self._begin().scalars(step, scalars)
        self._add("train", step, scalars)
        if is_first:
            self._save_state()

    def save(self, step: int) -> None:
        """Save the training state; every iter_save steps and at the last step, save weights too."""
        events, model = self._begin(), self.trainer.model
        if step % self.args.iter_save and step != self.args.iter_max:
            self._save_state()
            return
        if model.generates:
            bound = report.held_out_bound(model, self.data)
            events.scalars(step, bound)
            self._add("test", step, bound)
        self._save_state()
        checkpoints.write_weights(model, weights_file(self.run.folder, step))
        if model.generates:
            path = self.run.logs / f"samples-{step:05d}.png"
            heading = f"{self.run.name}, iteration {step}"
            draw = figures.sample_sheet
            if sheet := report.write_picture(path, heading, model, draw, *self.args.sheet):
                events.picture(step, "samples", sheet)

    def report(self, experiment: Experiment) -> dict:
        """Evaluate the trained model, print and write its report; return its results."""
        events, run, model, step = self._begin(), self.run, self.trainer.model, self.args.iter_max
        if self.curves["train"] and model.generates:
            heading, path = f"{run.name}, iteration {step}", run.logs / "curves.png"
            report.write_picture(path, heading, model, lambda _: figures.curves(self.curves))
        more = {"seconds": self.trainer.seconds, "compiled": self.trainer.loss != model.loss}
        results, pictures = report.make_report(
            experiment, run, model, step, self.data, self.args.sheet, run.logs, more
        )
        metrics = {f"final/{name}": value for name, value in results["figures"].items()}
        events.hyperparameters(dict(run.flags), metrics)
        for name, picture in pictures.items():
            events.picture(step, name, picture)
        if not self.args.replicates:
            report.say_what_now(experiment, run, run.logs, results["figures"])
        return results

    def _save_state(self) -> None:
        state = self.trainer.state_dict() | self.curves
        checkpoints.write_state(self.run.folder / checkpoints.STATE_FILE, state)

    def _add(self, kind: str, step: int, scalars: dict[str, float]) -> None:
        terms = {tag.partition("/")[2]: value for tag, value in scalars.items()}
        kl = terms["kl_z"] + terms.get("kl_y", 0)
        before = [row for row in self.curves[kind] if row[0] < step]  # a step may come twice
        self.curves[kind] = [*before, [step, -terms["elbo"], kl, terms["rec"]]]
