"""The training loop, the same for all models: it takes minibatches and calls model.loss(*batch)."""

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from tqdm import tqdm

from codebase import UserError
from codebase.cuda_graph import GraphedStep

LOG_EVERY = 50  # iterations between two looks at the scalars


class Interrupted(Exception):
    """A signal ended training after `step` iterations; the state of then was saved."""

    def __init__(self, step: int, number: int):
        super().__init__(f"interrupted at iteration {step}")
        self.step, self.number = step, number


class NotFinite(Exception):
    """The loss is infinite or not a number; nothing has been saved since it was finite."""


def train(
    model: torch.nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    iter_max: int,
    iter_save: int = 10_000,
    *,
    save: Callable[[int, dict], None],
    log: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
    state: dict | None = None,
    bar_options: dict | None = None,
) -> dict:
    """Minimise model.loss with Adam, learning rate 1e-3, up to iteration iter_max.

    model: `loss(*batch)` returns (loss, summaries), scalars
    batches: minibatches, of which each pass over the iterable is an epoch
    iter_save: iterations between two calls of save, which is called after the last one too
    save: takes the iteration and the training state, from which `state` resumes
    log: takes the iteration and its scalars, every 50 iterations
    state: a training state to go on from
    bar_options: tqdm's, for another bar than the usual

    Returns the last training state. Raises Interrupted, with the state saved, on SIGINT and
    SIGTERM, and NotFinite within 50 iterations of a loss that is not finite.
    """
    on_cuda = next(model.parameters()).device.type == "cuda"
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True, capturable=on_cuda)

    def take_step(*batch):
        optimiser.zero_grad()
        loss, summaries = model.loss(*batch)
        loss.backward()
        optimiser.step()
        return loss, summaries

    if on_cuda:
        take_step = GraphedStep(take_step)
    step, seconds = 0, 0.0
    if state is not None:
        step, seconds = _restore(state, model, batches, optimiser)
    logged = time.perf_counter()
    started = logged - seconds
    losses = []
    bar_options = {"total": iter_max, "initial": step, "smoothing": 0.05} | (bar_options or {})
    with tqdm(**bar_options) as bar, Signals() as signals:
        while step < iter_max:
            for batch in batches:
                loss, summaries = take_step(*batch)
                step += 1
                bar.update()
                losses.append(loss.detach().clone())  # looked at later: that makes the host wait
                last = step == iter_max or signals.number is not None
                due = last or step % iter_save == 0
                if due or step % LOG_EVERY == 0:
                    _check_finite(losses, step)
                    losses.clear()
                    scalars = dict(zip(summaries, _floats(summaries.values()), strict=True))
                    bar.set_postfix(_headline(scalars), refresh=False)
                    if step % LOG_EVERY == 0:
                        now = time.perf_counter()
                        rate = LOG_EVERY / (now - logged)
                        logged = now
                        log(step, scalars | {"train/iterations_per_second": rate})
                if due:
                    if not all(weight.isfinite().all() for weight in model.parameters()):
                        raise NotFinite(f"the weights of iteration {step} are not finite")
                    seconds = time.perf_counter() - started
                    state = _state(step, seconds, model, batches, optimiser)
                    save(step, state)
                if last:
                    break
            if last and signals.number is not None:
                raise Interrupted(step, signals.number)
    return state


def tune_process() -> None:
    """Two settings of the whole process that training on a CPU needs; call it before all else.

    Numbers below 1e-38 become 0. The labels that SSVAE has excluded weigh its gradients with such
    numbers, and a product that is one takes forty times as long: after 10,000 iterations a second
    has 7 steps with them and 47 without (two cores), at the same losses.

    The C library keeps what a step frees for the next step. glibc gives large blocks back to the
    system as they are freed, and every step pays page faults for its gradients and activations
    anew: a step of FSVAE takes 39 ms in place of 14, of SSVAE 27 in place of 21. VAE's and GMVAE's
    blocks are too small for it to matter; other C libraries are left alone.
    """
    torch.set_flush_denormal(True)  # threads inherit it from the one that starts them
    m_trim_threshold, m_mmap_threshold = -1, -3  # of malloc.h
    with contextlib.suppress(OSError, TypeError):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):  # only glibc numbers its settings so
            libc.mallopt(m_mmap_threshold, 32 << 20)  # the most that it accepts
            libc.mallopt(m_trim_threshold, 1 << 30)


def _floats(scalars: Iterable[Tensor]) -> list[float]:
    return torch.stack([scalar.detach() for scalar in scalars]).tolist()


def _headline(scalars: dict[str, float]) -> dict[str, str]:
    """What the progress bar shows."""
    shown = {"loss": f"{scalars['train/loss']:.1f}"}
    if "class/acc" in scalars:
        shown["acc"] = f"{scalars['class/acc']:.2f}"
    return shown


def _check_finite(losses: list[Tensor], step: int) -> None:
    finite = torch.isfinite(torch.stack(losses)).tolist()
    if not all(finite):
        first = step - len(losses) + 1 + finite.index(False)
        raise NotFinite(f"the loss of iteration {first} is not finite; what was saved is kept")


# The training state: all that the rest of a run depends on


def _state(step, seconds, model, batches, optimiser) -> dict:
    device = next(model.parameters()).device
    return {
        "step": step,
        "seconds": seconds,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        # A DataLoader in the place of Minibatches has no position to keep.
        "batches": batches.state_dict() if hasattr(batches, "state_dict") else None,
        "generators": _generators(device),
    }


def _restore(state, model, batches, optimiser) -> tuple[int, float]:
    """Raises UserError where the state is of another run."""
    kind = next(model.parameters()).device.type
    try:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        if state["batches"] is not None:
            batches.load_state_dict(state["batches"])
        torch.set_rng_state(state["generators"]["cpu"])
        if kind in state["generators"] and kind != "cpu":
            getattr(torch, kind).set_rng_state(state["generators"][kind])
        return state["step"], state["seconds"]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the training state is damaged or of another run ({reason}): train anew, with "
            "--overwrite 1"
        ) from None


def _generators(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = getattr(torch, device.type).get_rng_state()
    return states


class Signals:
    """Notes the first SIGINT or SIGTERM in `number`; a second one acts as ever."""

    def __enter__(self):
        self.number = None
        self._before = {}
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may set handlers
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, frame):
        self.number = number
        self._restore()

    def _restore(self):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(self, *exception):
        self._restore()
