"""The table of runs beside the published figures."""

import csv
import importlib
import math

from codebase.runs import run as runs
from codebase.runs import table


def results_of(*values, kind="vae", iterations=20_000, figure="NELBO", data="mnist", **given):
    """Results as runs leave them, one for each value."""
    results = []
    for number, value in enumerate(values, start=given.pop("first", 0)):
        experiment = importlib.import_module(f"run_{kind}").experiment
        flags = experiment.identity(given | {"run": number}, data)
        results.append(
            {
                "name": experiment.name_of(flags),
                "data": data,
                "iterations": iterations,
                "trained": flags,
                "figures": {figure: value},
            }
        )
    return results


def test_rows():
    [row] = table.rows(results_of(101.0, 102.0, 103.0))
    assert (row["figure"], row["n"], row["mean"], row["sd"]) == ("NELBO", 3, 102.0, 1.0)
    assert math.isclose(row["se"], 1 / math.sqrt(3))
    assert (row["published"], row["published sd"]) == (101.5, 0.55)
    assert math.isclose(row["difference"], 0.5 / 0.55)
    assert (row["run"], row["seed"]) == ("0 1 2", "0 1 2")


def test_what_is_not_comparable_is_not_compared():
    for other in ({"data": "synthetic"}, {"iterations": 19_999}, {"lr": 0.01}, {"beta": 2.0}):
        [row] = table.rows(results_of(101.0, **other))
        assert row["published"] is None and row["difference"] is None and row["sd"] is None


def test_runs_of_another_kind_have_a_row_of_their_own():
    """Runs that differ in flags outside their names have rows of their own, with these flags."""
    rows = table.rows(results_of(101.0, 102.0) + results_of(90.0, batch_size=10, first=2))
    assert [(row["n"], row["batch_size"]) for row in rows] == [(1, 10), (2, 97)]
    text = table.markdown(rows)
    assert "| model | batch_size | figure |" in text
    assert "| vae_z=10 | 10 | NELBO | 90.00 |" in text


def test_a_single_run_has_no_deviation():
    run = results_of(0.7442, kind="ssvae", iterations=30_000, figure="accuracy", gw=0)
    text = table.markdown(table.rows(run))
    assert "| ssvae_gw=000_cw=100 | accuracy | 0.7442 |  | 1 | 0.7350 |  |" in text


def test_the_whole_table(folders, capsys):
    for results in (
        *results_of(101.0, 102.0),
        *results_of(99.0, kind="gmvae"),
        *results_of(99.0, iterations=5, first=7),
        *results_of(88.0, beta=4.0),
    ):
        runs.write_json(runs.LOGS / results["name"] / "results.json", results)
    theirs = {"name": "model=vae_z=10_run=0009", "trained": "not recorded", "data": "mnist"}
    theirs |= {"iterations": 20_000, "figures": {"NELBO": 101.2}}
    runs.write_json(runs.LOGS / theirs["name"] / "results.json", theirs)
    table.write(table.rows(table.collect()), runs.LOGS / "table")
    text = capsys.readouterr().out
    usual = "97 | 0.001 | NELBO"
    assert f"| vae_z=10 | {usual} | 101.50 ± 0.71 | 0.500 | 2 | 101.50 ± 0.55 | +0.0 |" in text
    assert f"| gmvae_z=10_k=500 | {usual} | 99.00 |  | 1 | 97.22 ± 0.54 | +3.3 |" in text
    assert "| vae_z=10 |  |  | NELBO | 101.20 |  | 1 | 101.50 ± 0.55 | -0.5 |" in text
    assert "--test_set 1" in text and "88.00" not in text
    assert (runs.LOGS / "table.md").read_text(encoding="utf-8") == text

    table.write(table.rows(table.collect(everything=True)), runs.LOGS / "table")
    text = capsys.readouterr().out
    assert (
        "| vae_z=10_beta=4 | 97 | 0.001 | 20000 | NELBO | 88.00 |" in text and "| 5 | NELBO" in text
    )
    rows = list(csv.DictReader((runs.LOGS / "table.csv").read_text(encoding="utf-8").splitlines()))
    assert results["trained"].keys() < rows[0].keys()
    assert {row["beta"] for row in rows if "=vae" in row["group"]} == {"", "1.0", "4.0"}
    assert [row["seed"] for row in rows if row["beta"] == "4.0"] == ["0"]
