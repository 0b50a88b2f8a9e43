"""The reference table: means and deviations over runs, beside the published figures.

    python -m codebase.table

makes it of all results in logs/ that were trained on MNIST as the homework has it.
"""

import csv
import io
import math
import statistics
import sys
from pathlib import Path

from codebase import records
from codebase.checkpoints import write_atomically

# The figures published with the homework: mean and standard deviation of 100 runs in nats, and the
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
ITERATIONS = {"vae": 20_000, "gmvae": 20_000, "ssvae": 30_000}
NOTE = """\
The published rows do not share one binarisation of the test subset: a VAE's NELBO and IWAE-1
estimate the same number, yet the published ones are 1.7 nats apart. The VAE's NELBO, KL and Rec are
on the binarisation that this program uses. The IWAE rows and all of the GMVAE's were taken on
another and lie about 1.7 nats lower: there, a difference of that size is to be expected.
"""
COLUMNS = ("model", "figure", "mean", "sd", "se", "n", "published", "published sd", "difference")


def rows(results: dict[str, list[dict]]) -> list[dict]:
    """A row for each model and figure: {model: its runs' results} → rows of the table's columns.

    The difference is that of the means, in published standard deviations.
    """
    table = []
    for model, runs in results.items():
        comparable = model in PUBLISHED and all(_as_published(model, run) for run in runs)
        for figure in runs[0]["figures"]:
            values = [run["figures"][figure] for run in runs]
            mean = statistics.fmean(values)
            sd = statistics.stdev(values) if len(values) > 1 else None
            published, published_sd = PUBLISHED[model][figure] if comparable else (None, None)
            table.append(
                {
                    "model": model,
                    "figure": figure,
                    "mean": mean,
                    "sd": sd,
                    "se": sd and sd / math.sqrt(len(values)),
                    "n": len(values),
                    "published": published,
                    "published sd": published_sd,
                    "difference": published_sd and (mean - published) / published_sd,
                }
            )
    return table


def markdown(table: list[dict]) -> str:
    """The table to read."""
    lines = [
        "| model | figure | mean ± sd | standard error | N | published | difference / sd |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table:
        digits = 4 if row["figure"] == "accuracy" else 2

        def number(key, form="", digits=digits, row=row):
            return "" if row[key] is None else format(row[key], f"{form}.{digits}f")

        mean = number("mean") + (" ± " + number("sd") if row["sd"] is not None else "")
        published = number("published")
        if row["published sd"] is not None:
            published += " ± " + number("published sd")
        cells = (
            row["model"].removeprefix("model="),
            row["figure"],
            mean,
            number("se", digits=digits + 1),
            str(row["n"]),
            published,
            number("difference", "+", digits=1),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def report(results: dict[str, list[dict]], path: Path) -> None:
    """Print the table, and write it beside as path.csv and path.md."""
    table = rows(results)
    text = markdown(table)
    if any(row["published"] is not None and row["figure"] != "accuracy" for row in table):
        text += "\n" + NOTE
    print(text, end="")
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS)
    writer.writeheader()
    writer.writerows(table)
    for suffix, content in ((".csv", buffer.getvalue()), (".md", text)):
        file = path.with_name(path.name + suffix)
        write_atomically(file, content.encode())
        print(f"Table: {file}", file=sys.stderr)


def collect() -> dict[str, list[dict]]:
    """The results in logs/ of each published model: {model: results in the order of the runs}."""
    collected = {}
    for model in PUBLISHED:
        folders = sorted(records.LOGS.glob(f"{model}_run=[0-9][0-9][0-9][0-9]"))
        runs = [records.read_results(folder.name) for folder in folders]
        runs = [run for run in runs if run is not None and _as_published(model, run)]
        if runs:
            collected[model] = runs
    return collected


def _as_published(model: str, run: dict) -> bool:
    """Whether a run was trained like those whose figures were published."""
    kind = model.removeprefix("model=").split("_")[0]
    trained = run["data"], run["iterations"], run["flags"]["batch_size"]
    return trained == ("mnist", ITERATIONS[kind], 97)


def main() -> None:
    results = collect()
    if not results:
        sys.exit(f"error: no results of complete runs on MNIST in {records.LOGS}: train some first")
    report(results, records.LOGS / "table")


if __name__ == "__main__":
    main()
