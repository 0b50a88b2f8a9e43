"""Many runs of one model, on one machine or several, and the table of their metrics.

Under torchrun, rank r trains every WORLD_SIZE-th run. A run with results is not trained again, and
an interrupted run resumes. After any failure, repeat the command to complete the table.
"""

import contextlib
import datetime
import gc
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist

from codebase import UserError, checkpoints
from codebase.data import Source
from codebase.runs import run as runs
from codebase.runs import table
from codebase.runs.experiment import Experiment
from codebase.runs.training import Training, find, source_of

A_YEAR = datetime.timedelta(days=365)  # runs may take days, and ranks wait for one another


def replicate(experiment: Experiment, given: dict, args: Namespace, device: torch.device) -> None:
    """Train runs that differ in their numbers and seeds; print their table.

    Raises:
        UserError: the run.json of one contradicts the flags, or the other runs
    """
    with _ranks(args.threads) as (rank, size):
        replicates = _members(given, args.replicates)
        name = _first_decides(rank, size, lambda: _source(experiment, replicates, args, device))
        source = Source(name, args.data_dir, device)
        iter_max = given.get("iter_max", args.iter_max)
        _first_decides(rank, size, lambda: _check(experiment, replicates, name))
        found = []
        for own in replicates[rank::size]:
            results = find(experiment, own, name).finished(iter_max)
            if results is None:
                own = own | {"iter_max": iter_max}
                with (
                    contextlib.redirect_stdout(sys.stderr),  # standard output is for the table
                    Training(experiment, own, args, source) as training,
                ):
                    training.trainer.train(
                        iter_max, training.iter_save, training.save, training.log, training.bar
                    )
                    results = training.report()
                del training
                gc.collect()  # its model and data, before the next ones are loaded
            found.append(results)
        if size > 1:
            gathered = [None] * size if rank == 0 else None
            dist.gather_object(found, gathered)
            found = [one for own in gathered or () for one in own]
        if rank == 0:
            found.sort(key=lambda one: one["name"])
            table.write(table.rows(found), runs.LOGS / runs.group_of(found[0]["name"]))


def _members(given: Mapping, count: int) -> list[dict]:
    """The flags of each replicate: numbers, and seeds if one was given, count upwards."""
    found = []
    for i in range(count):
        own = {"run": given.get("run", 0) + i}
        if "seed" in given:
            own["seed"] = given["seed"] + i
        found.append({**given, **own})
    if own["run"] > 999_999 or own.get("seed", 0) >= 1 << 63:
        raise UserError(
            f"--replicates {count}: the last one would have --run {own['run']} and --seed "
            f"{own.get('seed', own['run'])}, expected at most 999999 and 2^63 - 1"
        )
    return found


def _source(experiment: Experiment, replicates: list[dict], args, device) -> str:
    """The data of the first replicate that has begun, else the usual ones."""
    for given in replicates:
        for source in (experiment.dataset, "synthetic"):
            name = experiment.name_of(experiment.identity(given, source))
            if runs.has_begun(checkpoints.run_folder(name)):
                return source_of(experiment, given, args, device).name
    return source_of(experiment, replicates[0], args, device).name


def _check(experiment: Experiment, replicates: list[dict], source: str) -> None:
    """Raise UserError unless the runs differ in nothing but their numbers and seeds."""
    found = [find(experiment, given, source) for given in replicates]
    seeds = {}
    for run in found:
        for flag, value in run.flags.items():
            if flag not in ("run", "seed") and value != found[0].flags[flag]:
                raise UserError(
                    f"--replicates: {run.name} has --{flag} {value}, but {found[0].name} has "
                    f"{found[0].flags[flag]}: pass another --run, so that all have the same"
                )
        seed = run.flags["seed"]
        if seed in seeds:
            raise UserError(
                f"--replicates: {run.name} and {seeds[seed]} have the same seed, {seed}: they "
                "would be one run counted twice; pass another --run"
            )
        seeds[seed] = run.name


# torchrun's processes


@contextlib.contextmanager
def _ranks(threads: int | None) -> Iterator[tuple[int, int]]:
    """Join the processes that torchrun started, if it did: rank, and how many there are."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield 0, 1
        return
    if threads is None:  # each has its share of the cores
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(max((cores or 1) // int(os.environ["LOCAL_WORLD_SIZE"]), 1))
    # The store outlives workers that died: each attempt has keys of its own.
    store, rank, size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=A_YEAR)
    try:
        yield rank, size
    finally:
        dist.destroy_process_group()


def _first_decides(rank: int, size: int, make):
    """What `make` returns in the first process, for all of them."""
    found = [make() if rank == 0 else None]
    if size > 1:
        dist.broadcast_object_list(found)
    return found[0]
