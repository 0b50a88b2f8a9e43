"""The command line of the run scripts: flags, and one line and an exit status for trouble."""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from codebase import UserError, data
from codebase.run import Experiment, run
from codebase.train import Interrupted, NotFinite


def parser(description: str, dataset: str, iter_max: int) -> argparse.ArgumentParser:
    """The flags of all run scripts."""
    flags = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = flags.add_argument
    add("--iter_max", type=at_least(1), default=iter_max, help="training iterations")
    add("--iter_save", type=at_least(1), default=10_000, help="iterations between saved weights")
    add("--run", type=at_least(0), default=0, help="number of the run, part of the model's name")
    add(
        "--train",
        type=int,
        choices=(0, 1, 2),
        default=1,
        help="1 or 2: train, then evaluate; 0: evaluate the weights saved at iter_max",
    )
    add("--overwrite", type=int, choices=(0, 1), default=0, help="1: replace an existing run")
    add("--resume", type=int, choices=(0, 1), default=0, help="1: go on with an interrupted run")
    add("--seed", type=at_least(0), help="seed of all random draws (default: the run number)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps; auto: the fastest there is")
    add(
        "--data",
        choices=("auto", dataset, "synthetic"),
        default="auto",
        help=f"auto: {dataset} if it is there or can be downloaded, else synthetic digits",
    )
    add("--data_dir", type=Path, default=data.DATA_DIR, help="folder of the data sets")
    return flags


def at_least(least: int) -> Callable[[str], int]:
    """A type of flag: a whole number not below `least`."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        return value

    number.__name__ = "whole number"  # argparse names it where int() fails
    return number


def main(flags: argparse.ArgumentParser, experiment: Experiment) -> None:
    """Do what the command line asks; trouble ends in one line on standard error.

    Exit status 2 where something was asked for that cannot be done, 1 where the machine failed (a
    full disk, a loss that is not finite), 130 and 143 on SIGINT and SIGTERM.
    """
    args = flags.parse_args()
    if args.overwrite and args.resume:
        flags.error("--overwrite 1 and --resume 1 exclude each other")
    status, message = 0, None
    try:
        run(args, experiment)
    except UserError as error:
        status, message = 2, f"error: {error}"
    except Interrupted as interrupt:
        command = shlex.join(["python", *_without(sys.argv, "--overwrite", "--resume")])
        status = 128 + interrupt.number
        message = f"{interrupt}, which is saved; to go on: {command} --resume 1"
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
    except NotFinite as error:
        status, message = 1, f"error: {error}"
    except OSError as error:
        path = f"{error.filename}: " if error.filename else ""
        status, message = 1, f"error: {path}{error.strerror or error}"
    if status:
        flags.exit(status, f"{flags.prog}: {message}\n")


def _without(words: list[str], *flags: str) -> list[str]:
    """The command line less these flags, whose values are separate words or follow an =."""
    kept, skip = [], False
    for word in words:
        if not skip and word.partition("=")[0] not in flags:
            kept.append(word)
        skip = word in flags
    return kept
