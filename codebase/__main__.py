"""The commands beside the run scripts: python -m codebase <command>."""

import os
import sys
from pathlib import Path

from codebase import ROOT, UserError
from codebase.homework import SANDBOXES
from codebase.homework.handout import submit
from codebase.machine import tuning
from codebase.machine.signals import raise_on_signals
from codebase.runs.flags import SWITCH, Parser, number
from codebase.runs.main import Trouble


def main() -> None:
    parser = Parser(prog="python -m codebase", description=__doc__)
    commands = parser.add_subparsers(metavar="command", parser_class=Parser)

    def command(name: str, about: str, act) -> Parser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(act=act)
        return added

    _add_runs(command)
    submit.add_arguments(command("submit", submit.__doc__.partition(": ")[2], submit.act))
    _add_teaching(command)

    args = parser.parse_args()
    if "act" not in args:
        parser.print_help()
        return
    with Trouble(parser):
        tuning.load_packages()
        raise_on_signals()
        args.act(args)


def _add_runs(command) -> None:
    table = command("table", "means and deviations of runs, beside the published results", _table)
    table.add_argument("--all", action="store_true", help="every run in logs/, whatever its flags")

    compare = command("compare", "a picture of several runs' reconstructions, a row each", _compare)
    compare.add_argument("runs", nargs="+", help="names or paths of runs, of one kind of images")
    compare.add_argument("--labels", nargs="+", help="labels of the rows (default: runs' names)")
    compare.add_argument(
        "--data_dir", type=Path, default=ROOT / "data", help="folder of the data sets"
    )
    compare.add_argument("--out", type=Path, default="comparison.png", help="the picture's file")

    explore = command("explore", "make an interactive page of a trained model", _explore)
    explore.add_argument(
        "run", nargs="?", help="name or path (default: your last run, else the reference weights)"
    )
    explore.add_argument(
        "--data_dir", type=Path, default=ROOT / "data", help="folder of the data sets"
    )
    explore.add_argument("--out", type=Path, default="explore.html", help="the page's file")
    explore.add_argument("--open", **SWITCH | {"default": 1}, help="0: in no browser")


def _add_teaching(command) -> None:
    """The commands of those who teach."""
    reference = command("reference", "keep runs as the weights that come with the project", _keep)
    reference.add_argument("runs", nargs="+", help="names of finished runs with default iterations")

    starter = command(
        "starter", "make the homework for students: the solution with blanks", _starter
    )
    starter.add_argument("folder", type=Path, help="a new folder")
    equations = {"help": "0: docstrings without the equations that are asked for"}
    starter.add_argument("--equations", **SWITCH | {"default": 1} | equations)

    gradescope = command("gradescope", "make the zip that Gradescope grades with", _gradescope)
    gradescope.add_argument("zip", type=Path, help="such as autograder.zip")
    gradescope.add_argument("--points", type=Path, help="JSON file: function → points")

    grade = command("grade", "mark submissions of the homework, and say what is wrong", _grade)
    add = grade.add_argument
    add("submissions", nargs="+", type=Path, help="zips or folders; a folder of those is a class")
    add("--out", type=Path, help="folder of reports; of a class, of grades.csv and summary.md too")
    add("--points", type=Path, help="JSON file: function → points (default: the homework's)")
    add("--weights", **SWITCH, help="1: evaluate the submissions' checkpoints")
    add("--data_dir", type=Path, default=ROOT / "data", help="folder of MNIST, for --weights 1")
    add("--jobs", type=number(int, 1, 1024), default=os.cpu_count(), help="gradings at once")
    add(
        "--sandbox",
        choices=("best", *SANDBOXES),
        default="best",
        help=f"where code runs: {', '.join(SANDBOXES)}",
    )
    for one in (gradescope, grade):
        points = SWITCH | {"default": 1, "help": "1: students see their points"}
        one.add_argument("--show_points", **points)
        one.add_argument("--show_output", **SWITCH, help="1: students see what their code prints")


def _table(args) -> None:
    from codebase.runs import run, table

    table.write(table.rows(table.collect(args.all)), run.LOGS / "table")


def _compare(args) -> None:
    from codebase.runs.compare import compare

    print(f"Picture: {compare(args.runs, args.labels or args.runs, args.data_dir, args.out)}")


def _explore(args) -> None:
    from codebase.explorer import explore

    explore.explore(args.run, args.data_dir, args.out)
    print(f"Page: {args.out}")
    if args.open:
        explore.open_in_browser(args.out)


def _keep(args) -> None:
    from codebase.runs.reference import keep_as_reference

    for name in args.runs:
        print(f"Weights: {keep_as_reference(name)}")


def _starter(args) -> None:
    from codebase.homework import starter

    starter.make(args.folder, bool(args.equations))
    print(f"Starter: {args.folder}")


def _gradescope(args) -> None:
    from codebase.homework import gradescope

    gradescope.make(args.zip, args.points, args.show_points, args.show_output)
    print(f"To upload as the autograder: {args.zip}")


def _grade(args) -> None:
    if sys.platform != "linux":
        raise UserError(
            "marking needs Linux, whose sandboxes keep submissions apart: use a Linux machine, WSL "
            "2 on Windows, or `python -m codebase gradescope`, which makes Gradescope's grader "
            "anywhere"
        )
    from codebase.homework import grading, problems, sandbox

    points = problems.POINTS if args.points is None else problems.read_points(args.points)
    kind = (
        sandbox.kind_of_this_machine() if args.sandbox == "best" else sandbox.wanted(args.sandbox)
    )
    settings = grading.Settings(
        points,
        kind,
        bool(args.weights),
        args.data_dir,
        bool(args.show_points),
        bool(args.show_output),
    )
    grading.command(args.submissions, settings, args.out, args.jobs)


if __name__ == "__main__":
    main()
