"""--compile 1: the same draws and losses, one compilation, and what happens without a compiler."""

import json
import shutil

import pytest
import torch
from conftest import refused, results, run_script, same_weights, succeed, weights
from test_train import copied, setting, trained
from torch._dynamo.utils import counters

from codebase.machine.compiled import _why
from codebase.machine.tuning import CPU_INFO
from codebase.train import Trainer

pytestmark = pytest.mark.process
SSVAE_NAME = "model=ssvae_gw=001_cw=100_run=0000_data=synthetic"
NAME = "model=vae_z=10_run=0000_data=synthetic"


@pytest.fixture(autouse=True)
def compiler():
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("no C++ compiler is here")
    torch.compiler.reset()
    counters.clear()


def losses_of(trainer, iterations):
    """The loss of each iteration."""
    losses = []
    take_step = trainer.take_step

    def step(*batch):
        loss, summaries = take_step(*batch)
        losses.append(loss.detach().clone())
        return loss, summaries

    trainer.take_step = step
    torch.manual_seed(1)
    states = trained(trainer, iterations, 20)
    return torch.stack(losses), states


def compiled_trainer(name):
    trainer = Trainer(*setting(name))
    trainer.compile()
    assert trainer.compiled
    return trainer


MODELS = [
    "vae",
    *(
        pytest.param(name, marks=pytest.mark.attack)
        for name in ("gmvae", "ssvae", "ssvae gw 0", "fsvae")
    ),
]


@pytest.mark.parametrize("name", MODELS)
def test_compiled_losses_are_the_losses(name):
    """Compiled losses agree over 50 iterations: 17 epochs, each ending with a smaller minibatch."""
    plain, _ = losses_of(Trainer(*setting(name)), 50)
    trainer = compiled_trainer(name)
    graphs = counters["stats"]["unique_graphs"]
    compiled, states = losses_of(trainer, 50)
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == graphs == 1  # nothing compiled on the way
    assert not counters["graph_break"]

    resumed = Trainer(*setting(name))
    resumed.load_state_dict(copied(states[20]))
    resumed.compile()
    assert same_weights(trained(resumed, 50)[50]["model"], states[50]["model"])


def test_compiling_changes_neither_weights_nor_draws():
    plain, other = Trainer(*setting("vae")), Trainer(*setting("vae"))
    torch.manual_seed(1)
    before, weights_before = torch.get_rng_state(), copied(plain.model.state_dict())
    other.compile()
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(other.model.state_dict(), weights_before)
    assert all(parameter.grad is None for parameter in other.model.parameters())


def test_a_compiled_run(data_dir, tmp_path):
    """`--compile` is in run.json, in the output and in the run's identity."""
    flags = ("--data", "synthetic", "--data_dir", data_dir, "--iter_max", 3)
    _, stderr = succeed(tmp_path, "run_vae.py", *flags, "--compile", 1)
    assert "compiling the loss" in stderr and "\ncompiled in " in stderr
    record = json.loads((tmp_path / "checkpoints" / NAME / "run.json").read_text(encoding="utf-8"))
    found = results(tmp_path, NAME)
    assert record["flags"]["compile"] == 1 and found["compiled"] is True
    assert "--compile" in refused(tmp_path, "run_vae.py", *flags, "--train", 0, "--compile", 0)
    _, stderr = succeed(tmp_path, "run_vae.py", *flags, "--train", 0)
    assert "compiled in" not in stderr  # an evaluation needs none


def test_without_a_compiler_the_run_goes_on(whole_data, project):
    """A process of its own: importing torch reads which compiler there is. SSVAE is soon done."""
    flags = ("--data", "synthetic", "--iter_max", 3)
    env = {"CXX": "/no/g++", "TORCHINDUCTOR_CACHE_DIR": str(project / "cache")}
    env["OMP_NUM_THREADS"] = "1"  # and vectors as long as in the process that is compared
    env["ATEN_CPU_CAPABILITY"] = torch.backends.cpu.get_cpu_capability().lower()
    done = run_script(project, "run_ssvae.py", *flags, "--compile", 1, data_dir=whole_data, env=env)
    assert done.returncode == 0, done.stderr
    succeed(project.parent, "run_ssvae.py", *flags, "--data_dir", whole_data, whole=True)
    lines = [line for line in done.stderr.splitlines() if "compiled" in line]
    assert lines == [
        "warning: not compiled: no C++ compiler works here (g++, clang++ or MSVC); "
        "the run continues uncompiled"
    ]
    plain, without = (
        weights(folder / "checkpoints" / SSVAE_NAME / "model-00003.pt")
        for folder in (project.parent, project)
    )
    assert same_weights(plain, without)
    assert results(project, SSVAE_NAME)["compiled"] is False


def test_any_error_of_the_compiler_is_a_line():
    assert _why(RuntimeError("two\nlines of it")) == "two"
    told = "C++ compile error\n/tmp/a.cpp:1:10: fatal error: Python.h: No such file\n  1 | #include"
    assert _why(RuntimeError(told)) == "Python.h: No such file"


def test_code_that_was_compiled_for_longer_vectors_is_not_run(project, whole_data):
    """torch caches compiled code by its settings, not by the environment variable."""
    if not CPU_INFO.exists() or "avx512f" not in CPU_INFO.read_text(encoding="utf-8"):
        pytest.skip("this CPU has no AVX-512")
    flags = ("--compile", 1, "--iter_max", 3, "--threads", 1, "--overwrite", 1)
    for capability in ("avx512", "avx2"):
        env = {
            "ATEN_CPU_CAPABILITY": capability,
            "TORCHINDUCTOR_CACHE_DIR": str(project.parent / "cache"),
        }
        done = run_script(project, "run_vae.py", *flags, data_dir=whole_data, env=env)
        assert done.returncode == 0 and "compiled in" in done.stderr, done.stderr
