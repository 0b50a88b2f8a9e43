"""The run scripts' main function; errors are printed in one line, with an exit status."""

import os
import re
import shlex
import sys
from dataclasses import dataclass

from codebase import UserError
from codebase.machine import tuning
from codebase.machine.files import one_line
from codebase.machine.signals import Interrupted, end_on_signals, raise_on_signals, restore
from codebase.runs import flags
from codebase.runs.experiment import Experiment


def main(experiment: Experiment, description: str) -> None:
    """Do what the command line asks: train and report, or evaluate.

    The exit status is 2 if the request cannot be met, such as a wrong flag, a missing run or too
    little memory. It is 1 if something failed on the way, such as a full disk or a loss that is not
    finite; 130 on SIGINT and 143 on SIGTERM.

    Args:
        experiment: model, data and evaluation
        description: the text that --help prints
    """
    parser = flags.make_parser(experiment, description)
    args, given = flags.parse(parser)
    with Trouble(parser) as trouble:
        tuning.load_packages()
        # Only now: --help and wrong flags do not wait for torch.
        from codebase.runs.training import Training, source_of

        raise_on_signals()
        device = tuning.pick_device(args.device)
        tuning.tune_process(args.threads)
        if not args.train:
            from codebase.runs.evaluation import evaluate_saved

            evaluate_saved(experiment, given, args, device)
        elif args.replicates:
            from codebase.runs.replicates import replicate

            replicate(experiment, given, args, device)
        else:
            source = source_of(experiment, given, args, device)
            training = trouble.training = Training(experiment, given, args, source)
            with training:
                training.trainer.train(
                    training.iter_max, training.iter_save, training.save, training.log, training.bar
                )
                training.report()


@dataclass
class Trouble:
    """A context manager that ends the process with one line if what is inside it fails.

    Args:
        parser: parser of the command
        training: the run in training; once it has begun, --resume 1 continues it
    """

    parser: flags.Parser
    training: object = None

    def __enter__(self) -> "Trouble":
        self._handlers = end_on_signals()
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # it was closed before the start
                setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
            elif hasattr(getattr(sys, name), "reconfigure"):
                # Consoles may lack some characters.
                getattr(sys, name).reconfigure(errors="backslashreplace")
        return self

    def __exit__(self, kind, error, trace) -> None:
        restore(self._handlers)
        try:
            sys.stdout.flush()
        except OSError as lost:
            error = error or lost
            sys.stdout = None  # otherwise Python flushes it again at exit
        if error and (found := self._found(error)):
            self.parser.end(*found)

    def _found(self, error: BaseException) -> tuple[int, str] | None:
        """Return exit status and message; None if the error is a bug in this program."""
        if isinstance(error, UserError):
            return 2, f"error: {error}"
        if isinstance(error, Interrupted):
            return 128 + error.number, f"{error}{self._go_on()}"
        if isinstance(error, NotImplementedError):
            if not error.args:  # a blank of the homework's starter
                return 1, f"error: {_blank(error)} is not written yet"
            return 1, f"error: {str(error).splitlines()[0]}; --device cpu supports every operation"
        if isinstance(error, OSError):
            path = f"{error.filename}: " if error.filename else ""
            return 1, f"error: {path}{error.strerror or error}{self._go_on()}"
        words = str(error).lower()
        if isinstance(error, MemoryError) or (
            isinstance(error, RuntimeError)
            and re.search("out of memory|enough memory|allocate", words)
        ):
            return 2, (
                f"error: this machine does not have the memory for that ({one_line(error):.100}): "
                f"pass a smaller --batch_size, or use a smaller model{self._go_on()}"
            )
        if (
            type(error).__name__ == "NotFinite"
        ):  # by its name, because importing it would import torch
            return 1, f"error: {error}"
        return None

    def _go_on(self) -> str:
        """How to continue."""
        if "TORCHELASTIC_RUN_ID" in os.environ:
            return "; to continue: the same torchrun command"
        words = ["python", *sys.argv]
        if sys.argv[0].endswith("__main__.py"):
            words = ["python", "-m", "codebase", *sys.argv[1:]]
        if self.training is not None and self.training.has_begun:
            words = ["python", *_without(sys.argv, "--overwrite", "--resume"), "--resume", "1"]
        return f"; to continue: {shlex.join(words)}"


def _blank(error: NotImplementedError) -> str:
    """Return the function that raised the error, with file and line."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    code, owner = trace.tb_frame.f_code, trace.tb_frame.f_locals.get("self")
    name = code.co_name if owner is None else f"{type(owner).__name__}.{code.co_name}"
    return f"{name} ({code.co_filename}, line {trace.tb_lineno})"


def _without(words: list[str], *names: str) -> list[str]:
    """Return the command line without these flags and their values."""
    kept, skip = [], False
    for word in words:
        if not skip and word.partition("=")[0] not in names:
            kept.append(word)
        skip = not skip and word in names
    return kept
