"""Train many runs of one model, on one machine or several, and print a table of metrics.

Under torchrun, rank r trains every WORLD_SIZE-th run. A run with results is not trained again, and
an interrupted run resumes. After any failure, repeat the command to complete the table.
"""

import contextlib
import datetime
import gc
import os
import sys
from argparse import Namespace

import torch.distributed as dist

from codebase.project import group_of
from codebase.runs import run as runs
from codebase.runs import table
from codebase.runs.experiment import Experiment
from codebase.runs.training import train_run

A_YEAR = datetime.timedelta(days=365)  # runs may take days, and ranks wait for one another


def replicate(experiment: Experiment, args: Namespace) -> None:
    """Train runs that differ in their numbers and seeds; print their table.

    Raises:
        UserError: a run's run.json contradicts the flags
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    found = []
    for i in range(rank, args.replicates, size):
        given = args.given | {"run": args.run + i}
        if args.seed is not None:
            given["seed"] = args.seed + i
        own = Namespace(**vars(args) | given | {"given": given})
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for the table
            found.append(_results(experiment, own) or train_run(experiment, own))
        gc.collect()  # its model and data, before the next ones are loaded
    gathered = [found] * size
    if size > 1:
        # Only now: the store outlives workers that died, and with it their addresses.
        dist.init_process_group("gloo", timeout=A_YEAR)
        dist.gather_object(found, gathered if rank == 0 else None)
        dist.destroy_process_group()
    if rank == 0:
        everything = sorted((one for some in gathered for one in some), key=lambda one: one["name"])
        table.write(table.rows(everything), runs.LOGS / group_of(everything[0]["name"]))


def _results(experiment: Experiment, args: Namespace) -> dict | None:
    """Return the results of a run that was trained with these flags to the last iteration."""
    for data in (experiment.dataset, "synthetic") if args.data == "auto" else (args.data,):
        run = runs.find_run(experiment, args, data)
        results = runs.read_results(run.name)
        if results and (results["iterations"], results["trained"]) == (args.iter_max, run.flags):
            return results
    return None
