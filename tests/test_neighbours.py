"""Threads stop spinning while others want the processors, and spin again: no figure changes."""

import os
import sys
import threading

import pytest
import torch
from conftest import run_python

from codebase import ROOT
from codebase.machine import neighbours


class Waited:
    """Seconds that the process waited, as a test says."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def waited():
    return Waited()


@pytest.fixture
def watch(waited):
    before = threading.active_count()
    watch = neighbours.Watch(waited, count=2)
    yield watch
    watch.let_go()
    for thread in threading.enumerate():
        if "_hold_a_team" in thread.name:
            thread.join(10)
    assert threading.active_count() == before


def look(watch, waited, share):
    waited.seconds += share * neighbours.EVERY
    watch.look(neighbours.EVERY)


def test_spins_while_nobody_else_wants_the_processors(watch, waited):
    for share in (0, 0.05, 0.2, 0.24):
        look(watch, waited, share)
        assert watch.spins


def test_stops_at_once_beside_a_busy_process_and_spins_again_when_it_is_gone(watch, waited):
    before = threading.active_count()
    look(watch, waited, 0.5)
    assert not watch.spins and threading.active_count() == before + 2
    for _ in range(10):  # it still waits: the neighbour is there
        look(watch, waited, 0.2)
        assert not watch.spins and threading.active_count() == before + 2
    for _ in range(neighbours.PATIENCE - 1):
        look(watch, waited, 0.02)
        assert not watch.spins
    look(watch, waited, 0.02)
    assert watch.spins


def test_one_quiet_look_is_not_enough(watch, waited):
    look(watch, waited, 1)
    for share in (0, 0, 0.2, 0, 0):
        look(watch, waited, share)
    assert not watch.spins


@pytest.mark.parametrize(
    ("threads", "processors", "count"), [(2, 2, 1), (4, 8, 2), (8, 16, 2), (16, 16, 1), (2, 64, 63)]
)
def test_idle_teams_make_more_threads_than_processors(monkeypatch, threads, processors, count):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)), raising=False)
    assert neighbours.holders_needed() == count
    assert threads + count * (threads - 1) > processors


def test_the_system_tells_how_long_a_process_waited():
    if not neighbours.TASKS.is_dir():
        pytest.skip("this system has no /proc")
    before = neighbours.seconds_waited()
    assert 0 <= before <= neighbours.seconds_waited()


IN_FORKS = """
import os, sys, threading
import torch
from codebase.machine import neighbours
for name in neighbours.ITS_OWN:
    os.environ.pop(name, None)
from codebase.machine.tuning import tune_process
from codebase.models import GMVAE
from codebase.train import Trainer
for case in eval(sys.argv[2]):
    if os.fork() == 0:
        exec(sys.argv[1])
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""


def in_forks(code: str, cases: list) -> list[str]:
    """What a piece of code prints for each case, in processes that have not computed before."""
    done = run_python(ROOT, "-c", IN_FORKS, code, repr(cases))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_watches_where_gnus_openmp_spins():
    if not sys.platform.startswith("linux") or "libgomp" not in open("/proc/self/maps").read():
        pytest.skip("torch does not use GNU's OpenMP here")
    code = """
threads, environment = case
torch.set_num_threads(threads)
os.environ |= environment
tune_process()  # as each command does at first
begun = [thread.name for thread in threading.enumerate()].count("neighbours")
print(begun, neighbours.watch() is neighbours.watch())
"""
    users = [{"GOMP_SPINCOUNT": "1000"}, {"OMP_WAIT_POLICY": "PASSIVE"}]
    found = in_forks(code, [(2, {}), (1, {}), *((2, settings) for settings in users)])
    assert found == ["1 True", *["0 True"] * 3]  # the user's own settings win


def test_not_spinning_changes_no_bit():
    code = """
torch.set_num_threads(2)
if case == "held":
    neighbours.Watch(lambda: 0.0, 1)._hold()
torch.manual_seed(0)
model, x = GMVAE(z_dim=2), torch.rand(100, 784).bernoulli()
Trainer(model, [(x,)]).train(5, 5, lambda step: None)
print(sum(p.double().abs().sum().item() for p in model.parameters()).hex())
"""
    spinning, held = in_forks(code, ["spinning", "held"])
    assert spinning == held != ""
