"""Many runs of one model, on one machine or several, and the table of their figures.

Under torchrun the processes take runs from one counter in the store that torch.distributed
provides: whoever is done takes the next, so that no slow worker holds up the rest. A run that has
its results is never done again, and one that was interrupted goes on where it stopped: whatever
dies, the same command completes the table.
"""

import argparse
import contextlib
import copy
import datetime
import io
import json
import os

import torch
from tqdm import tqdm

from codebase import checkpoints, records, table
from codebase import data as datasets
from codebase.ensemble import Ensemble
from codebase.experiment import Experiment, model_name, seed_of
from codebase.run import lock, pick_device, run
from codebase.train import train, tune_process


def replicate(args: argparse.Namespace, experiment: Experiment) -> None:
    """Train the runs args.run, args.run + 1, …, args.replicates of them; print their table."""
    source = datasets.find(experiment.dataset, args.data, args.data_dir)
    jobs = [_with_run(args, source, run) for run in range(args.run, args.run + args.replicates)]
    groups = [jobs[i : i + args.ensemble] for i in range(0, len(jobs), args.ensemble)]
    workers = Workers()
    workers.share_cores()
    with tqdm(
        total=len(jobs), desc="replicates", unit="run", disable=workers.rank > 0, smoothing=0
    ) as bar:
        for index in workers.claims(len(groups)):
            _complete(groups[index], experiment, workers)
            for job in groups[index]:
                workers.publish(job.run, _finished(job, experiment))
            bar.update(workers.num_published() - bar.n)
        if workers.rank > 0:
            return
        results = []
        for job in jobs:
            results.append(workers.result(job.run))
            bar.update(workers.num_published() - bar.n)
    group = model_name(jobs[0], experiment, source).replace(f"_run={jobs[0].run:04d}", "")
    table.report({group: results}, records.LOGS / group)


def _with_run(args: argparse.Namespace, source: str, number: int) -> argparse.Namespace:
    """The flags of one replicate: its own number and seed."""
    own = copy.copy(args)
    own.run, own.data = number, source
    own.seed = None if args.seed is None else args.seed + number - args.run
    return own


def _complete(group: list[argparse.Namespace], experiment: Experiment, workers) -> None:
    """Train those of the runs that have no results yet."""
    pending = [job for job in group if _finished(job, experiment) is None]
    # What runs say of themselves is for somebody who starts one; here the table is the report.
    with contextlib.redirect_stdout(io.StringIO()):
        if len(pending) > 1:
            _train_together(pending, experiment, workers)
        for job in pending:
            _run_or_resume(job, experiment, workers)


def _finished(job: argparse.Namespace, experiment: Experiment) -> dict | None:
    """The results of a run that is complete as its flags have it, else None."""
    results = records.read_results(model_name(job, experiment, job.data))
    if results is None or results.get("iterations") != job.iter_max:
        return None
    same = ("batch_size",)
    if any(results["flags"].get(flag) != getattr(job, flag) for flag in same):
        return None
    return results if results.get("seed") == seed_of(job) else None


def _run_or_resume(job: argparse.Namespace, experiment: Experiment, workers) -> None:
    """Train a run from wherever it is: not begun, interrupted, or trained but not evaluated."""
    name = model_name(job, experiment, job.data)
    job = copy.copy(job)
    if job.iter_max in checkpoints.saved_steps(name):
        job.train = 0
    else:
        job.resume = 1
    bar_options = {"position": 1, "leave": False, "desc": f"run {job.run}"}
    run(job, experiment, bar_options | {"disable": workers.size > 1})


def _train_together(jobs: list[argparse.Namespace], experiment: Experiment, workers) -> None:
    """Train runs as one ensemble, to weights like those of single runs."""
    args = jobs[0]
    tune_process()
    device = pick_device(args.device)
    models = []
    for job in jobs:
        torch.manual_seed(seed_of(job))  # the weights that the run alone would start from
        name = model_name(job, experiment, job.data)
        models.append(experiment.build(job, name).to(device))
    ensemble = Ensemble(models)
    batches, _, _ = experiment.load(args, device, args.data)
    # The state of all lies with the first of them.
    state = checkpoints.load_training_state(models[0].name)

    def save(step: int, state: dict) -> None:
        ensemble.write_back()
        if step % args.iter_save == 0 or step == args.iter_max:
            for model in models:
                checkpoints.save_model_by_name(model, step)
        checkpoints.save_training_state(models[0].name, state)

    torch.manual_seed(seed_of(args))
    with contextlib.ExitStack() as locks:
        for model in models:
            locks.enter_context(lock(model.name))
        train(
            ensemble,
            batches.replicated(len(models)),
            args.iter_max,
            args.iter_save,
            save=save,
            state=state,
            bar_options={
                "position": 1,
                "leave": False,
                "desc": f"runs {jobs[0].run} to {jobs[-1].run}",
                "disable": workers.size > 1,
            },
        )
        checkpoints.remove_training_state(models[0].name)


class Workers:
    """The processes that share the runs: torchrun's, or this one alone."""

    def __init__(self):
        self.rank, self.size, self._store = 0, 1, torch.distributed.HashStore()
        if torch.distributed.is_torchelastic_launched():
            store, self.rank, self.size = next(torch.distributed.rendezvous("env://"))
            # The store outlives workers that died, and with it the claims on what they left undone.
            attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
            self._store = torch.distributed.PrefixStore(f"attempt {attempt}", store)
        self._store.set_timeout(datetime.timedelta(days=365))  # a run may take days

    def share_cores(self) -> None:
        """Give this process its share of the machine's cores."""
        if self.size > 1:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
            here = int(os.environ["LOCAL_WORLD_SIZE"])
            torch.set_num_threads(max((cores or os.cpu_count()) // here, 1))

    def claims(self, total: int):
        """Indices below total that no other worker has, one whenever this one is free."""
        while (index := self._store.add("claimed", 1) - 1) < total:
            yield index

    def publish(self, run: int, result: dict) -> None:
        self._store.set(f"run {run}", json.dumps(result, default=str))
        self._store.add("published", 1)

    def num_published(self) -> int:
        return self._store.add("published", 0)

    def result(self, run: int) -> dict:
        """The results of a run; waits for the worker that has it."""
        return json.loads(self._store.get(f"run {run}"))
