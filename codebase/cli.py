"""The command line of the run scripts: flags, and one line and an exit status for trouble."""

import argparse
import math
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from codebase import environment

environment.check()  # before what it checks is imported

from codebase import UserError, data
from codebase.experiment import Experiment
from codebase.replicates import replicate
from codebase.run import run
from codebase.train import Interrupted, NotFinite


class Parser(argparse.ArgumentParser):
    """An argparse parser that says what is wrong in one line, without the usage."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


def parser(
    description: str, dataset: str, iter_max: int, batch_size: int = 97
) -> argparse.ArgumentParser:
    """The flags of all run scripts."""
    flags = Parser(description=description, formatter_class=_Help)
    add = flags.add_argument
    add("--iter_max", type=at_least(1), default=iter_max, help="training iterations")
    add("--batch_size", type=at_least(1), default=batch_size, help="images in a minibatch")
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
    add("--replicates", type=at_least(1), help="train so many runs, from --run on; print a table")
    add("--ensemble", type=at_least(1), default=1, help="replicates to train at once, as one model")
    add("--seed", type=at_least(0), help="seed of all random draws (default: the run number)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps; auto: the fastest there is")
    add(
        "--data",
        choices=("auto", dataset, "synthetic"),
        default="auto",
        help=f"auto: {dataset} if it is there or can be downloaded, else synthetic digits",
    )
    add("--data_dir", type=Path, default=data.DATA_DIR, help="folder of the data sets")
    add("--sheet", type=sheet, default="10x20", help="rows x columns of the sheets of samples")
    return flags


def add_vae_flags(flags: argparse.ArgumentParser) -> None:
    """The flags of the models that differ only in their priors: see `VAE`."""
    add = flags.add_argument
    add("--z", type=at_least(1), default=10, help="dimensions of the latent variable")
    add("--nn", choices=("v1", "v3"), default="v1", help="architecture, in codebase/models/nns")
    likelihoods = ("bernoulli", "gaussian")
    add("--likelihood", choices=likelihoods, default="bernoulli", help="p(x|z) of each pixel")
    add("--sigma2", type=positive, default=0.392, help="variance of the Gaussian likelihood")
    add("--beta", type=positive, default=1.0, help="weight of KL in the loss (not in the report)")


# The homework's values of these flags: the model's name tells where a run has others.
VAE_VARIANTS = {"nn": "v1", "likelihood": "bernoulli", "sigma2": 0.392, "beta": 1.0}


def vae_options(args: argparse.Namespace) -> dict:
    """The arguments of VAE's constructor that its flags give."""
    return {"z_dim": args.z} | {name: getattr(args, name) for name in VAE_VARIANTS}


def at_least(least: int) -> Callable[[str], int]:
    """A type of flag: a whole number not below `least`."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        return value

    number.__name__ = "whole number"  # argparse names it where int() fails
    return number


def positive(text: str) -> float:
    """A type of flag: a finite number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0, or not finite")
    return value


def sheet(text: str) -> tuple[int, int]:
    """A type of flag: rows and columns, as in 10x20."""
    rows, _, columns = text.partition("x")
    return at_least(1)(rows), at_least(1)(columns)


def main(flags: argparse.ArgumentParser, experiment: Experiment) -> None:
    """Do what the command line asks; trouble ends in one line on standard error.

    Exit status 2 where something was asked for that cannot be done, 1 where the machine failed (a
    full disk, a loss that is not finite), 130 and 143 on SIGINT and SIGTERM.
    """
    args = flags.parse_args()
    if args.overwrite and args.resume:
        flags.error("--overwrite 1 and --resume 1 exclude each other")
    if args.replicates is not None and (args.overwrite or not args.train):
        flags.error("--replicates trains what is missing: it takes no --overwrite 1 or --train 0")
    if args.replicates is None and args.ensemble > 1:
        flags.error("--ensemble needs --replicates")
    status, message = 0, None
    try:
        if args.replicates is None:
            run(args, experiment)
        else:
            replicate(args, experiment)
    except UserError as error:
        status, message = 2, f"error: {error}"
    except Interrupted as interrupt:
        words = ["python", *_without(sys.argv, "--overwrite", "--resume")]
        command = shlex.join(words if args.replicates else [*words, "--resume", "1"])
        status = 128 + interrupt.number
        message = f"{interrupt}, which is saved; to go on: {command}"
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
