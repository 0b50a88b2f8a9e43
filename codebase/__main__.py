"""The commands beside the run scripts: python -m codebase <command>."""

from pathlib import Path

from codebase import ROOT
from codebase.runs import cli


def main() -> None:
    parser = cli.Parser(prog="python -m codebase", description=__doc__)
    commands = parser.add_subparsers(metavar="command", parser_class=cli.Parser)

    def command(name: str, about: str, act) -> cli.Parser:
        added = commands.add_parser(name, help=about, description=about)
        added.set_defaults(act=act)
        return added

    table = command("table", "means and deviations of runs, beside the published figures", _table)
    table.add_argument("--all", action="store_true", help="every run in logs/, whatever its flags")

    compare = command("compare", "a picture of several runs' reconstructions, a row each", _compare)
    compare.add_argument("runs", nargs="+", help="names or paths of runs, of one kind of images")
    compare.add_argument("--labels", nargs="+", help="of the rows (default: the runs' names)")
    compare.add_argument(
        "--data_dir", type=Path, default=ROOT / "data", help="folder of the data sets"
    )
    compare.add_argument("--out", type=Path, default="comparison.png", help="the picture's file")

    reference = command("reference", "keep runs as the weights that come with the project", _keep)
    reference.add_argument("runs", nargs="+", help="names of finished runs with default iterations")

    args = parser.parse_args()
    if "act" not in args:
        parser.print_help()
        return
    cli.run_command(parser, lambda: args.act(args))


def _table(args) -> None:
    from codebase.runs import records, table

    table.write(table.rows(table.collect(args.all)), records.LOGS / "table")


def _compare(args) -> None:
    from codebase.runs.compare import compare

    print(f"Picture: {compare(args.runs, args.labels or args.runs, args.data_dir, args.out)}")


def _keep(args) -> None:
    from codebase.runs.reference import keep_as_reference

    for name in args.runs:
        print(f"Weights: {keep_as_reference(name)}")


if __name__ == "__main__":
    main()
