"""Commands for finished runs, the explorer and the homework."""

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

SAID = "%(default).0s"  # in a help text: argparse adds no default to it


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
    table = command(
        "table",
        "print means and standard deviations of your runs beside the published results",
        _table,
    )
    table.add_argument(
        "--all",
        action="store_true",
        help="include every run in logs/, not only those like the published runs",
    )

    compare = command(
        "compare", "draw the reconstructions of several runs, one row per run", _compare
    )
    compare.add_argument("runs", nargs="+", help="names or paths of runs on the same data set")
    compare.add_argument(
        "--labels", nargs="+", help=f"labels of the rows; default: the names of the runs{SAID}"
    )
    compare.add_argument(
        "--data_dir", type=Path, default=ROOT / "data", help="folder of the data sets"
    )
    compare.add_argument("--out", type=Path, default="comparison.png", help="file of the picture")

    explore = command("explore", "create an interactive page for a trained model", _explore)
    explore.add_argument(
        "run",
        nargs="?",
        help=f"name or path; default: your last run, otherwise the reference weights{SAID}",
    )
    explore.add_argument(
        "--data_dir", type=Path, default=ROOT / "data", help="folder of the data sets"
    )
    explore.add_argument("--out", type=Path, default="explore.html", help="file of the page")
    explore.add_argument(
        "--open", **SWITCH | {"default": 1}, help="0: do not open the page in a browser"
    )


def _add_teaching(command) -> None:
    """The commands of those who teach."""
    reference = command(
        "reference", "store runs as the reference weights that come with the project", _keep
    )
    reference.add_argument("runs", nargs="+", help="names of finished runs")

    starter = command("starter", "create the students' version: the solution with blanks", _starter)
    starter.add_argument("folder", type=Path, help="new folder")
    equations = {"help": "1: as a hint, docstrings of the blanks give their equations"}
    starter.add_argument("--equations", **SWITCH | equations)

    solutions = command(
        "solutions", "create the solutions to all questions as Markdown and HTML", _solutions
    )
    solutions.add_argument("folder", type=Path, help="folder of the document and its pictures")
    solutions.add_argument(
        "--data_dir", type=Path, default=ROOT / "data", help="folder of the data sets"
    )

    gradescope = command("gradescope", "create an autograder for Gradescope", _gradescope)
    gradescope.add_argument("zip", type=Path, help="file of the autograder, such as autograder.zip")
    grade = command("grade", "grade submissions, and explain what is wrong", _grade)
    add = grade.add_argument
    add(
        "submissions",
        nargs="+",
        type=Path,
        help="zips, folders, or a folder with the submissions of a whole class",
    )
    add(
        "--out",
        type=Path,
        help=f"folder for the reports, and for grades.csv and summary.md of a class{SAID}",
    )
    add("--weights", **SWITCH, help="1: grade reported values, by evaluating submitted weights")
    add("--data_dir", type=Path, default=ROOT / "data", help="folder of MNIST, used by --weights 1")
    add(
        "--jobs",
        type=number(int, 1, 1024),
        default=os.cpu_count(),
        help="number of submissions graded at once",
    )
    add(
        "--sandbox",
        choices=("best", *SANDBOXES),
        default="best",
        help="sandbox: bubblewrap, or only limits; best: bubblewrap if it works here, else limits",
    )
    for one in (starter, solutions, gradescope, grade):
        one.add_argument(
            "--points",
            type=Path,
            help=f"JSON file of points by question; default: the homework's points{SAID}",
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
    from codebase.homework import problems, starter

    starter.make(args.folder, bool(args.equations), problems.read_points(args.points))
    print(f"Starter: {args.folder}")


def _solutions(args) -> None:
    from codebase.homework import problems, solutions

    solutions.make(args.folder, problems.read_points(args.points), args.data_dir)
    print(f"Solutions: {args.folder / 'solutions.md'}, {args.folder / 'solutions.html'}")


def _gradescope(args) -> None:
    from codebase.homework import gradescope

    gradescope.make(args.zip, args.points, args.show_points, args.show_output)
    print(f"Upload this autograder: {args.zip}")


def _grade(args) -> None:
    if sys.platform != "linux":
        raise UserError(
            "grading needs Linux for its sandbox: use a Linux machine, WSL 2 on Windows, or "
            "`python -m codebase gradescope`, which creates an autograder anywhere"
        )
    from codebase.homework import grading, problems, sandbox

    points = problems.read_points(args.points)
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
