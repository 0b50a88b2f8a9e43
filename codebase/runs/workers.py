"""The processes that share replicates: torchrun's, or this one alone."""

import datetime
import json
import os
from collections.abc import Iterator

import torch

from codebase import UserError

TORCHRUNS = (  # variables that torchrun sets
    *("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"),
)


class Workers:
    """One of the processes, and the store that torchrun gives them to talk through."""

    def __init__(self):
        self.rank, self.size, self._store = 0, 1, torch.distributed.HashStore()
        if torch.distributed.is_torchelastic_launched():
            missing = [name for name in TORCHRUNS if name not in os.environ]
            if missing:
                raise UserError(
                    f"the environment has TORCHELASTIC_RUN_ID, but not {', '.join(missing)}: start "
                    "this with torchrun, or without that variable"
                )
            store, self.rank, self.size = next(torch.distributed.rendezvous("env://"))
            # The store outlives workers that died, and with it the claims on what they left undone.
            attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
            self._store = torch.distributed.PrefixStore(f"attempt {attempt}", store)
        self._store.set_timeout(datetime.timedelta(days=365))  # a run may take days
        self._agreed = 0  # questions so far

    def share_cores(self) -> None:
        """Give this process its share of the machine's cores."""
        if self.size > 1:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
            here = int(os.environ["LOCAL_WORLD_SIZE"])
            torch.set_num_threads(max((cores or os.cpu_count()) // here, 1))

    def agree_on(self, make):
        """What `make()` gives the first process, for all of them: something that JSON can hold."""
        self._agreed += 1
        key = f"agreed {self._agreed}"
        if self.rank == 0:
            self._store.set(key, json.dumps(make()))
        return json.loads(self._store.get(key))

    def claims(self, total: int) -> Iterator[int]:
        """Indices below total that no other process has, one whenever this one is free."""
        while (index := self._store.add("claimed", 1) - 1) < total:
            yield index

    def add_iterations(self, count: int) -> int:
        """Count iterations of this process; returns those of all."""
        return self._store.add("iterations", count)

    def publish(self, run: int, results: dict) -> None:
        """Tell the others the results of a run."""
        self._store.set(f"run {run}", json.dumps(results))
        self._store.add("published", 1)

    def num_published(self) -> int:
        """How many runs have results."""
        return self._store.add("published", 0)

    def results(self, run: int) -> dict:
        """The results of a run; waits for the process that has it."""
        return json.loads(self._store.get(f"run {run}"))
