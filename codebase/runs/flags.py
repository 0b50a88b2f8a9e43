"""The flags of the run scripts: their default values and ranges, and what a command line gives."""

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from codebase import ROOT


def number(kind: type, least: float, most: float) -> Callable[[str], int | float]:
    """Make an argparse type for numbers of a kind, int or float, in a range."""
    name = "a whole number" if kind is int else "a number"

    def parse(text: str) -> int | float:
        try:
            value = kind(text[:40])  # int() refuses very long texts with an error of its own
        except ValueError:
            value = math.nan
        if not least <= value <= most or len(text) > 40:
            raise argparse.ArgumentTypeError(
                f"got {text[:40]!r}, expected {name} from {least:{'d' if kind is int else 'g'}} to "
                f"{most:{'d' if kind is int else 'g'}}"
            )
        return value

    return parse


def sheet(text: str) -> tuple[int, int]:
    """Parse rows and columns, such as 10x20."""
    match = re.fullmatch(r"([0-9]{1,3})x([0-9]{1,3})", text)
    if match is None or not all(1 <= int(side) <= 200 for side in match.groups()):
        raise argparse.ArgumentTypeError(
            f"got {text[:40]!r}, expected rows x columns from 1x1 to 200x200, such as 10x20"
        )
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Flag:
    """A choice that determines a run's weights.

    Args:
        name: name of the flag
        default: the homework's value
        help: what it is
        type: parses the flag's text
        choices: the values that it may have; None: any value of the type
    """

    name: str
    default: int | float | str
    help: str
    type: Callable = str
    choices: tuple | None = None


Z = Flag("z", 10, "dimensions of the latent variable", number(int, 1, 10_000))
K = Flag("k", 500, "components of the mixture", number(int, 1, 100_000))
NN = Flag("nn", "v1", "architecture, in codebase/models/nns", choices=("v1", "v3"))
LIKELIHOOD = Flag(
    "likelihood", "bernoulli", "p(x|z) of each pixel", choices=("bernoulli", "gaussian")
)
SIGMA2 = Flag("sigma2", 0.392, "variance of the Gaussian likelihood", number(float, 1e-6, 1e6))
BETA = Flag("beta", 1.0, "weight of KL in the loss (not in the report)", number(float, 1e-6, 1e6))
PRIOR = Flag("prior", "gaussian", "family of p(z) and q(z|x)", choices=("gaussian", "laplace"))
GW = Flag("gw", 1, "weight of the negative ELBO", number(int, 0, 1_000_000))
CW = Flag("cw", 100, "weight of the cross-entropy", number(int, 0, 1_000_000))


class Parser(argparse.ArgumentParser):
    """An argparse parser that says what is wrong in one line, without the usage."""

    def __init__(self, **options):
        formatter = argparse.ArgumentDefaultsHelpFormatter
        super().__init__(allow_abbrev=False, formatter_class=formatter, **options)

    def error(self, message: str):
        self.end(2, f"error: {message} (--help lists the flags)")

    def end(self, status: int, message: str):
        """End the process with one line on standard error."""
        self.exit(status, f"{self.prog}: {message}".replace("\n", "\\n") + "\n")


NO_DEFAULT = {"replicates": None, "threads": None, "seed": None, "sheet": (10, 20)}
_ITERATIONS = number(int, 1, 10**9)
SWITCH = {"type": int, "choices": (0, 1), "default": 0}


def make_parser(experiment, description: str) -> Parser:
    """Make the parser of a run script."""
    parser, none = Parser(description=description), {"default": argparse.SUPPRESS}
    add = parser.add_argument_group("how to run").add_argument
    add("--iter_max", type=_ITERATIONS, default=experiment.iter_max, help="training iterations")
    add("--iter_save", type=_ITERATIONS, default=10_000, help="iterations between saved weights")
    about = (
        "1: train, then evaluate (2 does the same); 0: only evaluate the last weights or, "
        "if you pass --iter_max, the weights of that iteration"
    )
    add("--train", **SWITCH | {"choices": (0, 1, 2), "default": 1}, help=about)
    about = "1: with --train 0, evaluate the project's reference weights instead of your run"
    add("--reference", **SWITCH, help=about)
    add("--overwrite", **SWITCH, help="1: replace an existing run")
    add("--resume", **SWITCH, help="1: continue an interrupted run")
    if find_spec("codebase.runs.replicates"):  # students do not have it
        add(
            "--replicates",
            **none,
            type=number(int, 1, 100_000),
            help="number of runs to train, with run numbers from --run upwards",
        )
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps; auto: cuda if there is one")
    add(
        "--threads",
        **none,
        type=number(int, 1, 1024),
        help="number of CPU threads (default: torch's choice)",
    )
    add("--data_dir", type=Path, default=ROOT / "data", help="folder of the data sets")
    about = "rows x columns of samples.png; with labels, each row is one class (default: 10x20)"
    add("--sheet", **none, type=sheet, help=about)

    add = parser.add_argument_group("flags that determine a run's weights").add_argument
    for flag in experiment.flags:
        add(
            f"--{flag.name}",
            type=flag.type,
            choices=flag.choices,
            default=flag.default,
            help=flag.help,
        )
    add(
        "--run", type=number(int, 0, 999_999), default=0, help="number of the run, part of its name"
    )
    add(
        "--seed",
        **none,
        type=number(int, 0, 2**63 - 1),
        help="seed of all random draws (default: the run's number)",
    )
    add(
        "--batch_size",
        type=number(int, 1, 1_000_000),
        default=experiment.batch_size,
        help="images in a minibatch",
    )
    add("--lr", type=number(float, 1e-9, 10), default=1e-3, help="Adam's learning rate")
    add(
        "--compile",
        **SWITCH,
        help="1: let torch.compile make the loss faster, if there is a C++ compiler; that saves "
        "time from about 10,000 iterations on",
    )
    add(
        "--data",
        choices=("auto", experiment.dataset, "synthetic"),
        default="auto",
        help=f"auto: {experiment.dataset} if it is there or can be downloaded, else synthetic "
        "digits",
    )
    return parser


def parse(parser: Parser) -> tuple[argparse.Namespace, dict]:
    """Read the command line.

    Returns:
        all flags; and those that were given, by their names
    """
    # Twice: in the second parse every flag starts as `nothing`, so any other value was given.
    defaults, nothing = vars(parser.parse_args([])), object()
    parsed = parser.parse_args(namespace=argparse.Namespace(**dict.fromkeys(defaults, nothing)))
    given = {flag: value for flag, value in vars(parsed).items() if value is not nothing}
    args = argparse.Namespace(**NO_DEFAULT | defaults | given)
    if args.overwrite and args.resume:
        parser.error("--overwrite 1 and --resume 1 cannot be used together")
    if args.reference and args.train:
        parser.error("--reference 1 evaluates weights: pass --train 0 too")
    if args.replicates and (args.overwrite or not args.train):
        parser.error("--replicates trains what is missing: omit --overwrite 1 and --train 0")
    return args, given
