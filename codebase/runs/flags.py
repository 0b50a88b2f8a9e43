"""The flags of the run scripts, their default values and ranges, and their parser."""

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn


def number(kind: type, least: float, most: float) -> Callable[[str], int | float]:
    """Return an argparse type for int or float numbers in a range."""

    def parse(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            what = f"a {'whole ' * (kind is int)}number from {least:,} to {most:,}"
            raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected {what}")
        return value

    return parse


def sheet(text: str) -> tuple[int, int]:
    """Parse rows and columns, such as 10x20."""
    match = re.fullmatch(r"([0-9]{1,3})x([0-9]{1,3})", text)
    if match is None or not all(1 <= int(side) <= 200 for side in match.groups()):
        expected = "rows x columns from 1x1 to 200x200, such as 10x20"
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected {expected}")
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Flag:
    """A flag of a run script.

    Args:
        name: name of the flag
        default: the homework's value
        help: description
        type: parser of the flag's text
        choices: allowed values; None: any value of the type
        shown: the default value as --help prints it
    """

    name: str
    default: Any
    help: str
    type: Callable = str
    choices: tuple | None = None
    shown: str = ""


def switch(name: str, help: str) -> Flag:
    """Make a flag that is 0 or 1, by default 0."""
    return Flag(name, 0, help, **SWITCH)


SWITCH: dict[str, Any] = {"type": int, "choices": (0, 1)}
COUNT = number(int, 1, 10**9)
Z = Flag("z", 10, "dimensions of the latent variable", number(int, 1, 10_000))
K = Flag("k", 500, "components of the mixture", number(int, 1, 100_000))
NN = Flag("nn", "v1", "architecture, in codebase/models/nns", choices=("v1", "v3"))
KINDS = ("bernoulli", "gaussian")
LIKELIHOOD = Flag("likelihood", "bernoulli", "p(x|z) of each pixel", choices=KINDS)
SIGMA2 = Flag("sigma2", 0.392, "variance of the Gaussian likelihood", number(float, 1e-6, 1e6))
BETA = Flag("beta", 1.0, "weight of KL in the loss (not in the report)", number(float, 1e-6, 1e6))
PRIOR = Flag("prior", "gaussian", "family of p(z) and q(z|x)", choices=("gaussian", "laplace"))
GW = Flag("gw", 1, "weight of the negative ELBO", number(int, 0, 1_000_000))
CW = Flag("cw", 100, "weight of the cross-entropy", number(int, 0, 1_000_000))


def described(flags: argparse.Namespace) -> str | dict:
    """Return the likelihood that --likelihood and --sigma2 describe, in run.json's format."""
    if flags.likelihood == "bernoulli":
        return flags.likelihood
    return {"variance": flags.sigma2, "squash": "sigmoid"}


class Parser(argparse.ArgumentParser):
    """An argparse parser that prints errors in one line, without the usage."""

    def __init__(self, **options):
        formatter = argparse.ArgumentDefaultsHelpFormatter
        super().__init__(allow_abbrev=False, formatter_class=formatter, **options)

    def error(self, message: str) -> NoReturn:
        end(2, f"error: {message} (--help lists the flags)")


def end(status: int, message: str) -> NoReturn:
    """End the process with one line on standard error."""
    program = Path(sys.argv[0]).name.replace("__main__.py", "python -m codebase")
    print(f"{program}: {message}".replace("\n", "\\n"), file=sys.stderr)
    raise SystemExit(status) from None


def parse(experiment, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a run script's command line: all flags and, as `given`, the flags that it contains."""
    parser, defaults = Parser(description=experiment.about), {"replicates": None, "test_set": 0}
    groups = {
        "how to run": experiment.how_to_run(),
        "flags that determine a run's weights": experiment.of_weights(),
    }
    for title, flags in groups.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            help = f"{flag.help} (default: {flag.shown or flag.default})"
            options = {"type": flag.type, "choices": flag.choices, "default": argparse.SUPPRESS}
            group.add_argument(f"--{flag.name}", help=help, **options)
            defaults[flag.name] = flag.default
    given = vars(parser.parse_args(argv))
    args = argparse.Namespace(**defaults | given, given=given)
    if args.overwrite and args.resume:
        parser.error("--overwrite 1 and --resume 1 cannot be used together")
    for flag in ("reference", "test_set"):
        if getattr(args, flag) and args.train:
            parser.error(f"--{flag} 1 evaluates weights: pass --train 0 too")
    if args.replicates and (args.overwrite or not args.train):
        parser.error("--replicates trains what is missing: omit --overwrite 1 and --train 0")
    return args
