"""The command line of the run scripts: flags, and one line and an exit status for trouble."""

from codebase.machine import packages

packages.check()  # before what it checks is imported

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from codebase import UserError, data
from codebase.machine.files import one_line
from codebase.machine.signals import Interruption, raise_on_signals
from codebase.machine.streams import keep_going, loss_of_output
from codebase.machine.tuning import pick_device
from codebase.runs import options
from codebase.runs.experiment import EXPERIMENTS, Experiment
from codebase.runs.options import OneOf, Whole
from codebase.runs.replicates import replicate
from codebase.runs.report import Trained
from codebase.runs.run import Begun, evaluate, train
from codebase.runs.wanted import Settings, Wanted
from codebase.train import Interrupted, NotFinite


class Parser(argparse.ArgumentParser):
    """An argparse parser that says what is wrong in one line, without the usage."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)

    def error(self, message: str):
        self.end(2, f"error: {message} (--help lists the flags)")

    def end(self, status: int, message: str):
        """End the process with one line on standard error."""
        self.exit(status, f"{self.prog}: {message}".replace("\n", "\\n") + "\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def of(kind):
    """A type of flag whose trouble argparse prints as it is."""

    def parse(text: str):
        try:
            return kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def sheet(text: str) -> tuple[int, int]:
    """A type of flag: rows and columns, as in 10x20. Raises ValueError."""
    rows, _, columns = text.partition("x")
    side = Whole(1, 200)
    try:
        return side(rows), side(columns)
    except ValueError:
        raise ValueError(
            f"{text[:40]!r} is not rows x columns, such as 10x20, each {side}"
        ) from None


COMPILE = (
    "1: let torch.compile make the loss faster, where there is a C++ compiler; it pays from about "
    "10,000 iterations on"
)
_ITERATIONS = Whole(1, 10**9)
_SWITCH = {"type": of(options.SWITCH), "default": 0}


def parser(experiment: Experiment, description: str) -> argparse.ArgumentParser:
    """The flags of a run script."""
    flags = Parser(description=description)
    iter_max, dataset = experiment.iter_max, experiment.dataset
    how_far = flags.add_argument_group("how far")
    add = how_far.add_argument
    add("--iter_max", type=of(_ITERATIONS), default=iter_max, help="training iterations")
    add(
        "--iter_save",
        type=of(_ITERATIONS),
        default=10_000,
        help="iterations between saved weights",
    )
    add(
        "--train",
        type=of(Whole(0, 2)),
        default=1,
        help="1 or 2: train, then evaluate; 0: evaluate the weights saved at iter_max",
    )
    add("--overwrite", **_SWITCH, help="1: replace an existing run")
    add("--resume", **_SWITCH, help="1: go on with an interrupted run")
    add(
        "--replicates",
        type=of(Whole(1, 100_000)),
        help="train so many runs, from --run on; print a table",
    )
    add(
        "--ensemble",
        type=of(Whole(1, 10_000)),
        default=1,
        help="replicates to train at once, as one model",
    )
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps; auto: the fastest there is")
    add("--threads", type=of(Whole(1, 1024)), help="of the processor (default: torch's choice)")
    add("--data_dir", type=Path, default=data.DATA_DIR, help="folder of the data sets")
    add("--sheet", type=of(sheet), default="10x20", help="rows x columns of the sheets of samples")

    identity = flags.add_argument_group("which run: what determines its weights")
    add = identity.add_argument
    for option in experiment.options:
        add(f"--{option.flag}", type=of(option.type), default=option.default, help=option.help)
    add(
        "--run",
        type=of(options.RUN_NUMBER),
        default=0,
        help="number of the run, part of the model's name",
    )
    add("--seed", type=of(options.SEED), help="seed of all random draws (default: the run number)")
    add(
        "--batch_size",
        type=of(options.BATCH_SIZE),
        default=experiment.batch_size,
        help="images in a minibatch",
    )
    add("--lr", type=of(options.LEARNING_RATE), default=1e-3, help="Adam's learning rate")
    add("--compile", **_SWITCH, help=COMPILE)
    add(
        "--data",
        type=of(OneOf("auto", dataset, "synthetic")),
        default="auto",
        help=f"auto: {dataset} if it is there or can be downloaded, else synthetic digits",
    )
    return flags


_NOT_GIVEN = object()


def main(model: str, description: str) -> None:
    """Do what the command line asks; trouble ends in one line on standard error.

    Exit status 2 where something was asked for that cannot be done, 1 where the machine failed (a
    full disk, a loss that is not finite), 130 and 143 on SIGINT and SIGTERM.

    Args:
        model: the kind of model that the script trains
        description: of the script
    """
    experiment = EXPERIMENTS[model]
    flags = parser(experiment, description)
    defaults = vars(flags.parse_args([]))
    args = vars(
        flags.parse_args(namespace=argparse.Namespace(**dict.fromkeys(defaults, _NOT_GIVEN)))
    )
    given = {flag: value for flag, value in args.items() if value is not _NOT_GIVEN}
    args = defaults | given
    if args["overwrite"] and args["resume"]:
        flags.error("--overwrite 1 and --resume 1 exclude each other")
    if args["replicates"] is not None and (args["overwrite"] or not args["train"]):
        flags.error("--replicates trains what is missing: it takes no --overwrite 1 or --train 0")
    if args["replicates"] is None and args["ensemble"] > 1:
        flags.error("--ensemble needs --replicates")
    if args["ensemble"] > 1 and args["compile"]:
        flags.error("--ensemble and --compile 1 exclude each other")
    if experiment.classes not in (0, args["sheet"][0]):
        flags.error(f"--sheet: a row is a class here, and there are {experiment.classes} classes")
    if given.get("data") == "auto":
        del given["data"]
    packages.load("torchvision")  # for the pictures: --help and wrong flags do not wait for it
    wanted = Wanted(experiment, {f: v for f, v in given.items() if f in experiment.types()})

    def act() -> None:
        settings = Settings(
            iter_max=given.get("iter_max"),
            iter_save=given.get("iter_save"),
            device=pick_device(args["device"]),
            threads=args["threads"],
            data_dir=args["data_dir"],
            sheet=args["sheet"],
        )
        if args["replicates"] is not None:
            replicate(wanted, settings, args["replicates"], args["ensemble"])
        elif args["train"]:
            start = "overwrite" if args["overwrite"] else "resume" if args["resume"] else "new"
            train(wanted, settings, start, _page_to_play_with)
        else:
            evaluate(wanted, settings)

    run_command(flags, act, _go_on(one_run=args["replicates"] is None))


def _page_to_play_with(trained: Trained, folder: Path) -> None:
    """Write the explorer's page beside a run's pictures; trouble with it is a warning."""
    if find_spec("codebase.explorer") is None:  # students do not have it
        return
    from codebase.explorer import explore

    path = folder / explore.FILE
    try:
        explore.write_page(trained, path)
    except Exception as error:
        print(f"warning: {path.name} not written: {one_line(error)}", file=sys.stderr)
    else:
        print(f"Page: {path}", file=sys.stderr)


def run_command(
    flags: Parser, act: Callable, go_on: Callable[[bool], str] = lambda begun: ""
) -> None:
    """Do something; end the process with a line and an exit status where that failed."""
    raise_on_signals()
    keep_going()
    status, message = outcome_of(act, go_on)
    if lost := loss_of_output():
        status = status or 1
        message = f"{message}; " if message else "error: "
        message += f"standard output could not be written ({lost}); what was saved is kept"
    if status:
        flags.end(status, message)


def outcome_of(act: Callable, go_on: Callable[[bool], str]) -> tuple[int, str]:
    """Do something. Returns the exit status and a line that says what went wrong.

    Args:
        act: what to do
        go_on: how to go on where it was interrupted, after it has begun or before
    """
    try:
        act()
    except (Exception, KeyboardInterrupt, Interruption) as error:
        begun = isinstance(error, Begun)
        cause = error.__cause__ if begun else error
        if isinstance(cause, UserError):
            return 2, f"error: {cause}"
        if isinstance(cause, Interrupted):
            return 128 + cause.number, f"{cause}, which is saved{go_on(begun)}"
        if isinstance(cause, KeyboardInterrupt | Interruption):
            return 128 + getattr(cause, "number", 2), f"interrupted{go_on(begun)}"
        if isinstance(cause, NotFinite):
            return 1, f"error: {cause}"
        if isinstance(cause, NotImplementedError):  # a blank of the homework's starter
            return 1, f"error: {_blank(cause)} is not written yet"
        if isinstance(cause, OSError):
            path = f"{cause.filename}: " if cause.filename else ""
            return 1, f"error: {path}{cause.strerror or cause}{go_on(begun)}"
        if isinstance(cause, MemoryError):
            return 1, "error: the memory of this machine does not suffice"
        raise
    return 0, ""


def _blank(error: NotImplementedError) -> str:
    """The function that raised it, and where."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    code, owner = trace.tb_frame.f_code, trace.tb_frame.f_locals.get("self")
    name = code.co_name if owner is None else f"{type(owner).__name__}.{code.co_name}"
    return f"{name} ({code.co_filename}, line {trace.tb_lineno})"


def _go_on(one_run: bool) -> Callable[[bool], str]:
    def command(begun: bool) -> str:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            return "; to go on: the same torchrun command"
        words = ["python", *sys.argv]
        if one_run and begun:
            words = ["python", *_without(sys.argv, "--overwrite", "--resume"), "--resume", "1"]
        return f"; to go on: {shlex.join(words)}"

    return command


def _without(words: list[str], *flags: str) -> list[str]:
    """The command line less these flags, whose values are separate words or follow an =."""
    kept, skip = [], False
    for word in words:
        if not skip and word.partition("=")[0] not in flags:
            kept.append(word)
        skip = not skip and word in flags
    return kept
