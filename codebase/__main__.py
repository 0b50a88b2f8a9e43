"""Commands for finished runs, the explorer and the homework."""

import os
import sys
from pathlib import Path

from codebase.homework import SANDBOXES
from codebase.homework.handout import submit
from codebase.machine import tuning
from codebase.project import ROOT, UserError
from codebase.runs.flags import SWITCH, Parser, number
from codebase.runs.main import errors_in_one_line

OFF, ON = {**SWITCH, "default": 0}, {**SWITCH, "default": 1}
NO_DEFAULT = "%(default).0s"  # in a help text: argparse adds no default to it
DATA_DIR = {"type": Path, "default": ROOT / "data", "help": "folder of the data sets"}


def main() -> None:
    with errors_in_one_line():
        parser = Parser(prog="python -m codebase", description=__doc__)
        commands = parser.add_subparsers(metavar="command", parser_class=Parser)

        def command(act, about: str) -> Parser:
            added = commands.add_parser(act.__name__.strip("_"), help=about, description=about)
            added.set_defaults(act=act)
            return added

        _add_runs(command)
        submit.add_arguments(command(_submit, submit.__doc__.partition(": ")[2]))
        _add_teaching(command)
        args = parser.parse_args()
        if "act" not in args:
            parser.print_help()
            return
        tuning.load_torch()
        args.act(args)


def _add_runs(command) -> None:
    """Add the commands for finished runs."""
    table = command(
        _table, "print means and standard deviations of your runs beside the published results"
    )
    about = "include every run in logs/, not only those like the published runs"
    table.add_argument("--all", action="store_true", help=about)

    add = command(
        _compare, "draw the reconstructions of several runs, one row per run"
    ).add_argument
    add("runs", nargs="+", help="names or paths of runs on the same data set")
    about = f"labels of the rows; default: the names of the runs{NO_DEFAULT}"
    add("--labels", nargs="+", help=about)
    add("--data_dir", **DATA_DIR)
    add("--out", type=Path, default="comparison.png", help="file of the picture")

    add = command(_explore, "create an interactive page for a trained model").add_argument
    about = f"name or path; default: your last run, otherwise the reference weights{NO_DEFAULT}"
    add("run", nargs="?", help=about)
    add("--data_dir", **DATA_DIR)
    add("--out", type=Path, default="explore.html", help="file of the page")
    add("--open", **ON, help="0: do not open the page in a browser")


def _add_teaching(command) -> None:
    """Add the commands for teachers."""
    about = "store runs as the reference weights that come with the project"
    command(_reference, about).add_argument("runs", nargs="+", help="names of finished runs")

    starter = command(_starter, "create the students' version: the solution with blanks")
    starter.add_argument("folder", type=Path, help="new folder")
    about = "1: as a hint, docstrings of the blanks give their equations"
    starter.add_argument("--equations", **OFF, help=about)

    about = "create the solutions to all questions as Markdown and HTML"
    solutions = command(_solutions, about)
    solutions.add_argument("folder", type=Path, help="folder of the document and its pictures")
    solutions.add_argument("--data_dir", **DATA_DIR)

    gradescope = command(_gradescope, "create an autograder for Gradescope")
    gradescope.add_argument("zip", type=Path, help="file of the autograder, such as autograder.zip")

    grade = command(_grade, "grade submissions, and explain what is wrong")
    add = grade.add_argument
    about = "zips, folders, or a folder with the submissions of a whole class"
    add("submissions", nargs="+", type=Path, help=about)
    about = f"folder for the reports, and for grades.csv and summary.md of a class{NO_DEFAULT}"
    add("--out", type=Path, help=about)
    add("--weights", **OFF, help="1: grade reported values, by evaluating submitted weights")
    add("--data_dir", **DATA_DIR | {"help": "folder of MNIST, used by --weights 1"})
    jobs = {"type": number(int, 1, 1024), "default": os.cpu_count()}
    add("--jobs", **jobs, help="number of submissions graded at once")
    about = "container: in a container of its own, as root; none: your own code, which is trusted"
    add("--sandbox", choices=SANDBOXES, default=SANDBOXES[0], help=about)

    about = f"JSON file of points by question; default: the homework's points{NO_DEFAULT}"
    for one in (starter, solutions, gradescope, grade):
        one.add_argument("--points", type=Path, help=about)
    for one in (gradescope, grade):
        one.add_argument("--show_points", **ON, help="1: students see their points")
        one.add_argument("--show_output", **OFF, help="1: students see what their code prints")


def _table(args) -> None:
    from codebase.runs import run, table

    table.write(table.rows(table.collect(args.all)), run.LOGS / "table")


def _compare(args) -> None:
    from codebase.runs.compare import compare

    compare(args.runs, args.labels or args.runs, args.data_dir, args.out)
    print(f"Picture: {args.out}")


def _explore(args) -> None:
    from codebase.explorer import explore

    explore.explore(args.run, args.data_dir, args.out)
    print(f"Page: {args.out}")
    if args.open:
        explore.open_in_browser(args.out)


def _reference(args) -> None:
    from codebase.runs.reference import keep_as_reference

    for name in args.runs:
        print(f"Weights: {keep_as_reference(name)}")


def _submit(args) -> None:
    submit.act(args)


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
            "grading needs Linux for its sandbox: use Docker (homework/README.md, The sandbox), "
            "WSL 2 on Windows, or `python -m codebase gradescope`, which works anywhere"
        )
    from codebase.homework import grading, problems

    settings = grading.Settings(
        problems.read_points(args.points),
        args.sandbox,
        bool(args.weights),
        args.data_dir,
        bool(args.show_points),
        bool(args.show_output),
    )
    grading.command(args.submissions, settings, args.out, args.jobs)


if __name__ == "__main__":
    main()
