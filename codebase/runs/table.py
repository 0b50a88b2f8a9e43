"""The reference table: means and standard deviations over runs, beside the published results."""

import csv
import io
import math
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

from codebase.machine.files import write_atomically
from codebase.project import UserError, group_of
from codebase.runs import run as runs
from codebase.runs.published import ITERATIONS, PUBLISHED, USUAL

NOTE = """\
The published rows probably are not means over the same images: a VAE's NELBO and IWAE-1 estimate
the same number, yet the published ones are 1.7 nats apart. The VAE's NELBO, KL and Rec agree with
the 100-image subset of this table. The VAE's IWAE and the GMVAE's row agree with the whole test
set (--train 0 --test_set 1), where values are about 1.5 nats lower.
"""
OWN = ("run", "seed")  # the flags in which a run differs from its replicates
FIELDS = ("figure", "mean", "sd", "se", "n", "published", "published sd", "difference")


def rows(all_results: Iterable[dict]) -> list[dict]:
    """Return a row for each kind of run and metric.

    Runs are of one kind if they differ only in their numbers and seeds. The difference is
    between the means, in published standard deviations.

    Args:
        all_results: results of runs, as in results.json

    Returns:
        rows with the keys `group`, the flags of the runs, `iterations`, and FIELDS
    """
    kinds: dict[tuple, list[dict]] = {}
    for results in all_results:
        kinds.setdefault(tuple(_kind(results).items()), []).append(results)
    table = []
    for kind, members in sorted(kinds.items(), key=lambda item: str(item[0])):
        published = _published(dict(kind))
        flags = [one["trained"] for one in members if one["trained"] != runs.NOT_RECORDED]
        own = {key: " ".join(str(one.get(key)) for one in flags) for key in OWN}
        for figure in members[0]["figures"]:
            values = [one["figures"][figure] for one in members if figure in one["figures"]]
            n, mean = len(values), statistics.fmean(values)
            sd = statistics.stdev(values) if n > 1 else None
            theirs, their_sd = published.get(figure, (None, None))
            difference = (mean - theirs) / their_sd if theirs and their_sd else None
            cells = (figure, mean, sd, sd and sd / math.sqrt(n), n, theirs, their_sd, difference)
            table.append({**dict(kind), **own, **dict(zip(FIELDS, cells, strict=True))})
    return table


def _kind(results: dict) -> dict:
    """Return the flags that the runs of one row share."""
    flags = dict.fromkeys(USUAL) if results["trained"] == runs.NOT_RECORDED else results["trained"]
    kept = {flag: value for flag, value in flags.items() if flag not in OWN}
    return {"group": group_of(results["name"]), **kept, "iterations": results["iterations"]}


def _published(kind: dict) -> dict[str, tuple[float, float | None]]:
    """Return a kind's published results; none if its runs had other flags."""
    usual = {"iterations": ITERATIONS.get(kind["group"]), **USUAL}
    if any(kind.get(key) not in (value, None) for key, value in usual.items()):
        return {}
    return PUBLISHED.get(kind["group"], {})


def markdown(table: list[dict]) -> str:
    """Return the table in Markdown, with the flags that differ between a model's rows."""
    values: dict[tuple, set] = {}
    for row in table:
        for key in row.keys() - {"group", *OWN, *FIELDS}:
            values.setdefault((row["group"], key), set()).add(row[key])
    apart = {key for (_, key), found in values.items() if len(found) > 1}
    shown = [key for key in dict.fromkeys(key for row in table for key in row) if key in apart]
    heads = ["model", *shown, "figure", "mean ± sd", "standard error", "N", "published"]
    lines = [[*heads, "difference / sd"], ["---"] * (len(heads) + 1)]
    for row in table:
        digits = 4 if row["figure"] == "accuracy" else 2

        def number(key: str, form: str, row=row) -> str:
            return "" if row[key] is None else format(row[key], form)

        mean, sd, theirs, their_sd = (
            number(key, f".{digits}f") for key in ("mean", "sd", "published", "published sd")
        )
        lines.append(
            [
                row["group"].removeprefix("model="),
                *("" if row.get(key) is None else str(row[key]) for key in shown),
                row["figure"],
                f"{mean} ± {sd}" if sd else mean,
                number("se", f".{digits + 1}f"),
                str(row["n"]),
                f"{theirs} ± {their_sd}" if their_sd else theirs,
                number("difference", "+.1f"),
            ]
        )
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def write(table: list[dict], path: Path) -> None:
    """Print the table, and write it to path.csv and path.md."""
    text = markdown(table)
    if any(row["published"] is not None and row["figure"] != "accuracy" for row in table):
        text += "\n" + NOTE
    print(text, end="")
    columns = dict.fromkeys(key for row in table for key in row if key not in FIELDS)
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, [*columns, *FIELDS])
    writer.writeheader()
    writer.writerows(table)
    for suffix, content in ((".csv", buffer.getvalue()), (".md", text)):
        file = path.with_name(path.name + suffix)
        write_atomically(file, content.encode())
        print(f"Table: {file}", file=sys.stderr)


def collect(everything: bool = False) -> list[dict]:
    """Return the results in logs/ of runs with the published flags, or of all runs.

    Raises:
        UserError: there are no such results
    """
    read = (runs.read_results(folder.name) for folder in sorted(runs.LOGS.glob("model=*")))
    found = [one for one in read if one and (everything or _published(_kind(one)))]
    if not found:
        which = "" if everything else " with the published flags (pass --all to include every run)"
        raise UserError(f"no finished runs{which} in {runs.LOGS}: train some first")
    return found
