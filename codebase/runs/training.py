"""The training of one run: what it starts from, and what it saves, logs and reports.

A run writes run.json first. Each save writes the training state, then the weights, so that a run
can continue wherever it ends.
"""

import contextlib
import sys
from argparse import Namespace
from pathlib import Path

import torch
from tqdm import tqdm

from codebase import UserError, checkpoints
from codebase.checkpoints import CheckpointError
from codebase.data import Source, find_or_download
from codebase.machine.files import remove_leftovers
from codebase.runs import run as runs
from codebase.runs.experiment import Experiment
from codebase.runs.run import Run
from codebase.train import Trainer

BANNER = """\
************************************************************************
*  SYNTHETIC DATA: digits drawn by this program, in place of {:<5}     *
*  Do not compare the metrics with metrics of the real data set.       *
************************************************************************"""
CURVES = ("train", "test")  # keys of Training.curves; a row is iteration, NELBO, KL, Rec


def source_of(
    experiment: Experiment, given: dict, args: Namespace, device: torch.device, train: bool = True
) -> Source:
    """Find the data to use.

    The --data flag decides. Without it, an existing run keeps its data, except that a new run
    prefers the real data set to an existing run's synthetic digits. Otherwise the real data set is
    used if it is available, else synthetic digits.

    Raises:
        DataError: the real data set is needed and cannot be had
    """
    wanted = given.get("data", "auto")
    if wanted == "auto":
        begun = [
            name
            for name in (experiment.dataset, "synthetic")
            if runs.has_begun(
                checkpoints.run_folder(experiment.name_of(experiment.identity(given, name)))
            )
        ]
        new = args.train and not args.resume and not args.replicates
        if len(begun) == 1 and not (new and begun == ["synthetic"]):
            wanted = begun[0]
    name = find_or_download(experiment.dataset, wanted, args.data_dir)
    if name == "synthetic":
        print(BANNER.format(experiment.dataset.upper()), file=sys.stderr)
    return Source(name, args.data_dir, device, train)


def find(
    experiment: Experiment,
    given: dict,
    source: str,
    resume: bool = True,
    folder: Path | None = None,
) -> Run:
    """Find the run that flags describe; run.json has the values of flags that were not given.

    Args:
        experiment: the run script's
        given: the flags that were given, by their names
        source: the name of its data
        resume: True to continue an existing run; False to start a new one in its place
        folder: folder of its weights; None: the one in checkpoints/

    Raises:
        UserError: a flag that was given contradicts run.json
    """
    flags = experiment.identity(given, source)
    name = experiment.name_of(flags)
    recorded = runs.read_run(folder or checkpoints.run_folder(name)) if resume else None
    if recorded is None:
        return Run(name, flags, {})
    kinds, own = ({flag: type(v) for flag, v in of.items()} for of in (recorded.flags, flags))
    if kinds != own or experiment.name_of(recorded.flags) != name:
        raise UserError(
            f"{(folder or recorded.folder) / runs.RUN_FILE} has flags of another run or version: "
            f"{runs.WAYS_OUT}"
        )
    for flag, value in given.items():
        was = recorded.flags.get(flag)
        if flag in flags and flag != "data" and value != was:
            raise UserError(
                f"--{flag} {value}: {name} was trained with --{flag} {was}: omit the flag to use "
                "that, or pass another --run, or --overwrite 1 to train anew"
            )
    return recorded


class Training:
    """A context manager that trains one run and holds the run's lock.

    It replaces an existing run only after the first iterations have worked: a run that does not fit
    into memory replaces nothing.

    Args:
        experiment: the run script's
        given: the flags that were given, by their names
        args: all flags
        source: where its data are

    Attributes, from entering it on:
        run: what is trained
        data: what it is trained and evaluated on
        trainer: has the model, and trains it; it calls `save` and `log`
        iter_max, iter_save: the last iteration, and iterations between saved weights
        bar: shows the progress
        curves: rows of curves.png so far
        saved: the iteration of the training state on disk
        has_begun: whether --resume 1 continues it

    Raises:
        UserError: training would lose a run, or contradict run.json; or the data or the
            training state is not what it should be
    """

    def __init__(self, experiment: Experiment, given: dict, args: Namespace, source: Source):
        self.experiment, self.given, self.args, self.source = experiment, given, args, source
        self.has_begun, self.events = False, None

    def __enter__(self) -> "Training":
        given, args = self.given, self.args
        name = self.experiment.name_of(self.experiment.identity(given, self.source.name))
        with contextlib.ExitStack() as stack:
            stack.enter_context(runs.locked(name, "training"))
            resume = args.resume or args.replicates
            run = find(self.experiment, given, self.source.name, resume)
            if not resume and not args.overwrite:
                _check_nothing_is_there(run)
            state = _state(run) if resume else None
            self.iter_max, self.iter_save = (
                given.get(flag) or (state and state[flag]) or getattr(args, flag)
                for flag in ("iter_max", "iter_save")
            )
            if state is not None and state["step"] > self.iter_max:
                raise UserError(
                    f"--iter_max {self.iter_max}: {name} is at iteration {state['step']} already: "
                    "pass a larger one to continue, or --train 0 to evaluate saved weights"
                )
            flags = Namespace(**run.flags)
            self.data = self.experiment.data(flags, self.source)
            model = self.experiment.build(run.flags).to(self.source.device)
            if args.resume and state is None:
                print(
                    f"note: there is no run {name} to resume, so a new run starts", file=sys.stderr
                )
            self.run = run
            self.trainer = Trainer(model, self.data.batches, flags.lr)
            self.curves: dict[str, list[list[float]]] = {kind: [] for kind in CURVES}
            if state is not None:
                self._resume(state)
            if flags.compile:
                from codebase.machine.compiled import compile_or_warn

                compile_or_warn(self.trainer)
            for what, now in self._circumstances().items():
                if state is not None and state.get(what) != now:
                    note = f"note: this run was trained with {what} {state.get(what)!r:.20} and "
                    note += f"continues with {now!r}; its last digits may differ from an "
                    print(f"{note}uninterrupted run's", file=sys.stderr)
            self.saved, self.has_begun = self.trainer.step, state is not None
            self.bar = stack.enter_context(
                tqdm(
                    desc=run.name,
                    total=self.iter_max,
                    initial=self.trainer.step,
                    smoothing=0.05,
                    unit="it",
                    mininterval=0.1 if sys.stderr.isatty() else 60,  # in a log, a line a minute
                )
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def _resume(self, state: dict) -> None:
        try:
            if not all(isinstance(state.get(kind), list) for kind in CURVES):
                raise CheckpointError("it has no curves")
            self.trainer.load_state_dict(state)
        except CheckpointError as error:
            raise UserError(_damaged(self.run, str(error))) from None
        self.curves = {kind: state[kind] for kind in CURVES}
        step, model = self.trainer.step, self.trainer.model
        due = step == state["iter_max"] or (step and step % state["iter_save"] == 0)
        if (due or self._has_weights(step)) and step not in checkpoints.steps_in(self.run.folder):
            checkpoints.save_model_by_name(model, step)  # the process ended before saving them

    def _begin(self) -> None:
        """Set an old run aside, write run.json and open the events, unless that is done."""
        if self.events is not None:
            return
        from codebase.runs.events import Events

        if not self.has_begun and self.args.overwrite:  # nothing else may move a user's files
            runs.set_aside(self.run.name)
        for folder in (self.run.folder, self.run.logs):
            remove_leftovers(folder)
        if not self.has_begun:
            description = self.trainer.model.describe()
            Run(self.run.name, self.run.flags, description).write(self.source.device)
            self.has_begun = True
        first = self.saved + 1 if self.saved else 0
        self.events = self._stack.enter_context(Events(self.run.logs, first))

    # What the trainer calls

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Record a minibatch's scalars."""
        self._begin()
        self.events.scalars(step, scalars)
        self._add_to_curve("train", step, scalars)

    def save(self, step: int) -> None:
        """Save the training state; every iter_save steps and at the last step, save weights too."""
        from codebase.runs import report

        self._begin()
        model, whole = self.trainer.model, self._has_weights(step)
        if whole:
            bound = report.held_out_bound(model, self.data)
            if bound:  # none of a model whose generative part is not trained
                self.events.scalars(step, bound)
                self._add_to_curve("test", step, bound)
        state = {"flags": dict(self.run.flags), "iter_max": self.iter_max}
        state |= {"iter_save": self.iter_save, **self.curves, **self._circumstances()}
        try:  # the state first: if the process ends here, _resume writes the weights from it
            checkpoints.save_training_state(self.run.name, self.trainer.state_dict() | state)
            self.saved = step
            if whole:
                checkpoints.save_model_by_name(model, step)
        except OSError as error:
            reached = f"training had reached iteration {step}; iteration {self.saved} is saved"
            reason = f"{error.strerror}; {reached}"
            raise OSError(error.errno, reason, str(self.run.folder)) from None
        if whole:
            path = self.run.logs / f"samples-{step:05d}.png"
            heading = f"{self.run.name}, iteration {step}"
            sheet = report.write_sheet(model, self.args.sheet, path, heading)
            if sheet is not None:
                self.events.picture(step, "samples", sheet)

    def report(self) -> dict:
        """Evaluate the trained model, print and write its report; return its results."""
        from codebase import figures
        from codebase.runs import report

        self.bar.close()
        self._begin()
        model, step, run = self.trainer.model, self.iter_max, self.run
        if any(row[1] for row in self.curves["train"]):  # there is a bound to show
            heading = f"{run.name}, iteration {step}"
            path = run.logs / "curves.png"
            report.write_picture(model, lambda: figures.curves(self.curves, heading), path)
        own = {"seconds": self.trainer.seconds, "compiled": self.trainer.compiled}

        def save(results: dict) -> None:
            results |= own
            runs.write_json(run.logs / runs.RESULTS_FILE, results)

        results, pictures = report.make_report(
            run,
            model,
            step,
            self.data,
            self.experiment,
            self.args.sheet,
            run.logs,
            save,
        )
        metrics = {f"final/{name}": value for name, value in results["figures"].items()}
        self.events.hyperparameters(dict(run.flags), metrics)
        for name, picture in pictures.items():
            self.events.picture(step, name, picture)
        runs.forget_what_was_set_aside(run.name)
        if not self.args.replicates:
            report.say_what_now(self.experiment, run, run.logs)
        return results

    def _has_weights(self, step: int) -> bool:
        """Return whether an iteration's weights are kept beside the training state."""
        return step > 0 and (step % self.iter_save == 0 or step == self.iter_max)

    def _add_to_curve(self, kind: str, step: int, scalars: dict[str, float]) -> None:
        terms = {tag.partition("/")[2]: value for tag, value in scalars.items()}
        kl = terms["kl_z"] + terms.get("kl_y", 0)
        self.curves[kind].append([step, -terms["elbo"], kl, terms["rec"]])

    def _circumstances(self) -> dict:
        """What changes the weights' last digits, besides the run's flags."""
        threads, device = torch.get_num_threads(), self.source.device.type
        return {"threads": threads, "device": device, "compiled": self.trainer.compiled}


# What may begin


def _check_nothing_is_there(run: Run) -> None:
    steps = checkpoints.steps_in(run.folder)
    if not steps and not (run.folder / checkpoints.STATE_FILE).exists():
        return
    results = runs.read_results(run.name)
    what = "a run" if results and results["iterations"] in steps else "an unfinished run"
    weights = f"with weights of iterations {steps}" if steps else "without weights yet"
    files = (runs.RUN_FILE, checkpoints.STATE_FILE)
    resume = "--resume 1 to continue it, " if all((run.folder / f).exists() for f in files) else ""
    evaluate = "--train 0 to evaluate it, " if steps else ""
    raise UserError(
        f"{run.folder} holds {what}, {weights}: pass {resume}{evaluate}"
        "--overwrite 1 to replace it, or another --run"
    )


def _state(run: Run) -> dict | None:
    """The training state to continue from; None if nothing has begun.

    Raises:
        UserError: there is a run without one, or it is damaged
    """
    steps = checkpoints.steps_in(run.folder)
    if not run.model and (steps or (run.folder / checkpoints.STATE_FILE).exists()):
        raise UserError(
            f"{run.folder} holds weights but no {runs.RUN_FILE} that says how they were trained: "
            "pass --train 0 to evaluate them, --overwrite 1 to train anew, or another --run"
        )
    try:
        state = checkpoints.load_training_state(run.name)
    except CheckpointError as error:
        raise UserError(f"{error}: {_ways_out(run)}") from None
    if state is None:
        if steps:
            raise UserError(
                f"{run.name} has weights of iterations {steps} but no {checkpoints.STATE_FILE} to "
                f"resume from: {_ways_out(run)}"
            )
        return None
    if state.get("flags") != dict(run.flags):
        raise UserError(_damaged(run, "it belongs to another run"))
    for key in ("step", "iter_max", "iter_save"):
        if type(state.get(key)) is not int:
            raise UserError(_damaged(run, f"its {key} is not a number of iterations"))
    return state


def _damaged(run: Run, reason: str) -> str:
    """What to say of a training state that cannot be used."""
    path = run.folder / checkpoints.STATE_FILE
    return f"{path} cannot be resumed from ({reason}): {_ways_out(run)}"


def _ways_out(run: Run) -> str:
    steps = checkpoints.steps_in(run.folder)
    evaluate = f", or --train 0 to evaluate iterations {steps}" if steps else ""
    return f"pass --overwrite 1 to train anew{evaluate}"
