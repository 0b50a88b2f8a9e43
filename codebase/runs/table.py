"""The reference table: means and standard deviations over runs, beside the published results."""

import csv
import io
import math
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

import filelock

from codebase import UserError
from codebase.machine.files import remove_leftovers, write_atomically
from codebase.runs import run as runs

# The results published with the homework: mean and standard deviation of 100 runs in nats, and the
# classifier's accuracy, which with gw 0 is of a single run.
PUBLISHED = {
    "model=vae_z=10": {
        "NELBO": (101.5, 0.55),
        "KL": (19.29, 0.17),
        "Rec": (82.57, 0.56),
        "IWAE-1": (99.83, 0.55),
        "IWAE-10": (97.13, 0.48),
        "IWAE-100": (96.10, 0.42),
        "IWAE-1000": (95.62, 0.42),
    },
    "model=gmvae_z=10_k=500": {
        "NELBO": (97.22, 0.54),
        "KL": (17.65, 0.18),
        "Rec": (79.58, 0.60),
        "IWAE-1": (97.22, 0.54),
        "IWAE-10": (94.74, 0.48),
        "IWAE-100": (93.80, 0.47),
        "IWAE-1000": (93.38, 0.46),
    },
    "model=ssvae_gw=000_cw=100": {"accuracy": (0.735, None)},
    "model=ssvae_gw=001_cw=100": {"accuracy": (0.9340, 0.0139)},
}
# This project's replicates of those runs, on two x86-64 cores: mean, standard deviation, number.
REPLICATES = {
    "model=vae_z=10": {
        "NELBO": (101.35, 0.49, 10),
        "KL": (19.36, 0.15, 10),
        "Rec": (81.99, 0.59, 10),
        "IWAE-1": (101.35, 0.48, 10),
        "IWAE-10": (98.66, 0.41, 10),
        "IWAE-100": (97.61, 0.44, 10),
        "IWAE-1000": (97.14, 0.44, 10),
    },
    "model=gmvae_z=10_k=500": {
        "NELBO": (98.94, 0.46, 10),
        "KL": (17.75, 0.21, 10),
        "Rec": (81.20, 0.52, 10),
        "IWAE-1": (98.95, 0.44, 10),
        "IWAE-10": (96.44, 0.44, 10),
        "IWAE-100": (95.52, 0.35, 10),
        "IWAE-1000": (95.05, 0.41, 10),
    },
    "model=ssvae_gw=000_cw=100": {"accuracy": (0.7472, 0.0048, 5)},
    "model=ssvae_gw=001_cw=100": {"accuracy": (0.9428, 0.0062, 4)},
}
# How the published ones were trained.
USUAL = {"batch_size": 97, "lr": 1e-3}
ITERATIONS = dict(zip(PUBLISHED, (20_000, 20_000, 30_000, 30_000), strict=True))
NOTE = """\
The published rows probably do not share one binarisation of the evaluation subset: a VAE's NELBO
and IWAE-1 estimate the same number, yet the published ones are 1.7 nats apart. The VAE's NELBO, KL
and Rec fit the binarisation that this program uses; the VAE's IWAE,
and the GMVAE's NELBO, Rec and IWAE, do not. Expect these to be 1.5 to 1.7 nats lower than here.
"""
OWN = ("run", "seed")  # the fields of its identity in which a run differs from its replicates
FIELDS = ("figure", "mean", "sd", "se", "n", "published", "published sd", "difference")


def rows(all_results: Iterable[dict]) -> list[dict]:
    """A row for each kind of run and figure.

    Runs are of one kind if they differ in nothing but their numbers and seeds. The difference is
    between the means, in published standard deviations.

    Args:
        all_results: as in results.json

    Returns:
        rows with the keys `group`, the fields of the runs' identities, `iterations`, and FIELDS
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
            mean = statistics.fmean(values)
            sd = statistics.stdev(values) if len(values) > 1 else None
            theirs, their_sd = published.get(figure, (None, None))
            cells = {
                "figure": figure,
                "mean": mean,
                "sd": sd,
                "se": sd and sd / math.sqrt(len(values)),
                "n": len(values),
                "published": theirs,
                "published sd": their_sd,
                "difference": their_sd and (mean - theirs) / their_sd,
            }
            table.append({**dict(kind), **own, **cells})
    return table


def _kind(results: dict) -> dict:
    """What the runs of one row have in common."""
    flags = dict.fromkeys(USUAL) if results["trained"] == runs.NOT_RECORDED else results["trained"]
    kept = {flag: value for flag, value in flags.items() if flag not in OWN}
    group = runs.group_of(results["name"])
    return {"group": group, **kept, "iterations": results["iterations"]}


def _published(kind: dict) -> dict[str, tuple[float, float | None]]:
    """The published results of such runs; none unless they were trained like those."""
    usual = {"iterations": ITERATIONS.get(kind["group"]), **USUAL}
    if any(kind.get(key) not in (value, None) for key, value in usual.items()):
        return {}
    return PUBLISHED.get(kind["group"], {})


def markdown(table: list[dict]) -> str:
    """The table to read."""
    shown = _fields_that_tell_apart(table)
    heads = ["model", *shown, "figure", "mean ± sd", "standard error", "N", "published"]
    lines = [f"| {' | '.join([*heads, 'difference / sd'])} |", "|" + "---|" * (len(heads) + 1)]
    for row in table:
        digits = 4 if row["figure"] == "accuracy" else 2

        def number(key, form="", digits=digits, row=row):
            return "" if row[key] is None else format(row[key], f"{form}.{digits}f")

        mean = number("mean") + (" ± " + number("sd") if row["sd"] is not None else "")
        published = number("published")
        if row["published sd"] is not None:
            published += " ± " + number("published sd")
        cells = (
            row["group"].removeprefix("model="),
            *("" if row.get(key) is None else str(row[key]) for key in shown),
            row["figure"],
            mean,
            number("se", digits=digits + 1),
            str(row["n"]),
            published,
            number("difference", "+", digits=1),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _fields_that_tell_apart(table: list[dict]) -> list[str]:
    """Find the fields in which rows of one name differ."""
    values = {}
    for row in table:
        for key in ("iterations", "batch_size", "lr"):
            values.setdefault((row["group"], key), set()).add(row.get(key))
    apart = {key for (_, key), found in values.items() if len(found) > 1}
    return [key for key in ("iterations", "batch_size", "lr") if key in apart]


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
    lock = path.parent / ".locks" / path.name
    lock.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(lock):  # so no file that another process is writing is removed
        for suffix, content in ((".csv", buffer.getvalue()), (".md", text)):
            file = path.with_name(path.name + suffix)
            remove_leftovers(file.parent, file.name)
            write_atomically(file, content.encode())
            print(f"Table: {file}", file=sys.stderr)


def collect(everything: bool = False) -> list[dict]:
    """The results in logs/: of runs like the published ones, or of all runs.

    Raises:
        UserError: there are none
    """
    found = []
    for folder in sorted(runs.LOGS.glob("model=*")):
        results = runs.read_results(folder.name)
        if results is not None and (everything or _published(_kind(results))):
            found.append(results)
    if not found:
        which = "" if everything else " with the published flags (pass --all to include every run)"
        raise UserError(f"no finished runs{which} in {runs.LOGS}: train some first")
    return found
