"""The training loop, the same for all models: it calls model.loss(*batch) for each minibatch."""

from __future__ import annotations

import copy
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from codebase.checkpoints import CheckpointError, check_weights
from codebase.machine.files import one_line

if TYPE_CHECKING:
    from codebase.models.base import LatentVariableModel

LOG_EVERY = 50  # iterations between two looks at the scalars
SHOWN = {"train/loss": "loss", "class/acc": "acc"}  # by the progress bar
MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's, by torch's names


class NotFinite(FloatingPointError):
    """The loss or a weight is infinite or not a number. The saved state is the last finite one."""


class Trainer:
    """Minimise model.loss with Adam.

    Args:
        model: model whose `loss(*batch)` returns (loss, summaries): a scalar, tensors keyed by tag
        batches: minibatches, tuples of tensors; each pass over the iterable is an epoch
        learning_rate: float: Adam's learning rate; its other settings are torch's defaults

    Raises:
        ValueError: no weight requires a gradient, as in a model from `load_run`

    Attributes:
        step: int: iterations so far
        seconds: float: time that the iterations took, without saving and logging
        loss: function of a minibatch: model.loss, or its compiled version
    """

    def __init__(
        self,
        model: LatentVariableModel,
        batches: Iterable[tuple[Tensor, ...]],
        learning_rate: float = 1e-3,
    ):
        self.model, self.batches = model, batches
        self.parameters = list(model.parameters())
        if not any(parameter.requires_grad for parameter in self.parameters):
            raise ValueError("no weight requires a gradient: call model.requires_grad_(True)")
        self.device = self.parameters[0].device
        self.optimiser = torch.optim.Adam(self.parameters, lr=learning_rate, fused=True)
        self.loss: Callable = model.loss
        self.step, self.seconds = 0, 0.0

    def train(
        self,
        iter_max: int,
        iter_save: int | None = None,
        save: Callable[[int], None] = lambda step: None,
        log: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
        bar=None,
    ) -> None:
        """Minimise the loss up to iteration iter_max.

        Ctrl-C may arrive in the middle of a step. The trainer then goes back to the last iteration
        that was logged or saved, calls save, and raises KeyboardInterrupt, naming that iteration.

        Args:
            iter_max: int: the last iteration
            iter_save: int: iterations between calls of save, which is also called at iter_max;
                None: only at iter_max
            save: function of the iteration; `state_dict` returns what a resumed run needs
            log: function of the iteration and its scalars, keyed by tag, called every 50 iterations
            bar: a progress bar with tqdm's methods `update` and `set_postfix`

        Raises:
            NotFinite: a loss or a weight is not finite; raised at most 50 iterations later
            ValueError: a pass over the minibatches yields no minibatch
        """
        self.model.train()
        batches, losses = self._minibatches(), []
        logged = copy.deepcopy(self.state_dict())
        try:
            started = time.perf_counter()
            while self.step < iter_max:
                batch = next(batches)
                self.optimiser.zero_grad()
                loss, summaries = self.loss(*batch)
                loss.backward()
                self.optimiser.step()
                self.step += 1
                losses.append(loss.detach())
                if bar is not None:
                    bar.update()
                due = self.step == iter_max or self.step % (iter_save or iter_max) == 0
                if not due and self.step % LOG_EVERY:
                    continue
                self._check_finite(losses)
                took = time.perf_counter() - started
                self.seconds += took
                logged = copy.deepcopy(self.state_dict())
                scalars = _numbers(summaries)
                if bar is not None:
                    shown = {SHOWN[tag]: f"{scalars[tag]:.4g}" for tag in SHOWN if tag in scalars}
                    bar.set_postfix(shown, refresh=False)
                if self.step % LOG_EVERY == 0:
                    log(self.step, scalars | {"train/iterations_per_second": len(losses) / took})
                if due:
                    save(self.step)
                losses, started = [], time.perf_counter()
        except KeyboardInterrupt:
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C loses nothing
            try:
                self.load_state_dict(logged)
                if self.step:
                    save(self.step)
            finally:
                signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt(f"stopped at iteration {self.step}") from None
        finally:
            self.model.eval()

    def compile(self) -> None:
        """Let torch.compile turn the loss and its gradient into one program, for one batch size.

        Draws still come from torch's generator. The smaller minibatch at the end of an epoch, for
        which torch would compile again, is passed to model.loss. If this machine cannot compile,
        the reason is printed and the loss is unchanged.
        """
        # Draws are of torch's generator, not of the compiler's.
        options: dict[str, Any] = {"fallback_random": True}
        if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
            # torch caches compiled code by its settings, which do not include this variable.
            # Without this line, cached AVX-512 loops would run with vectors of half their length.
            options["cpp.simdlen"] = 256
        if self.device.type == "cuda":
            options["triton.cudagraphs"] = True  # which is what mode="reduce-overhead" sets
        compiled = torch.compile(self.model.loss, dynamic=False, options=options)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            first = next(iter(self.batches))
            try:
                compiled(*first)[0].backward()
            except Exception as error:
                reason = f"{one_line(error):.150}"
                print(f"warning: not compiled, so training is slower: {reason}", file=sys.stderr)
                return
        self.optimiser.zero_grad()
        size = len(first[0])
        self.loss = lambda *batch: (compiled if len(batch[0]) == size else self.model.loss)(*batch)

    def _minibatches(self) -> Iterator[tuple[Tensor, ...]]:
        while True:
            batch = None
            for batch in self.batches:
                yield batch
            if batch is None:
                raise ValueError(
                    "a pass over the minibatches yields none: expected an iterable that can be "
                    "iterated many times, such as Minibatches or a DataLoader"
                )

    def _check_finite(self, losses: list[Tensor]) -> None:
        finite = torch.isfinite(torch.stack(losses)).tolist()
        if not all(finite):
            first = self.step - len(losses) + 1 + finite.index(False)
            raise NotFinite(f"the loss of iteration {first} is not finite: pass a smaller --lr")
        if not all(parameter.isfinite().all() for parameter in self.parameters):
            raise NotFinite(f"a weight of iteration {self.step} is not finite: pass a smaller --lr")

    # What a resumed training needs

    def state_dict(self) -> dict:
        """Return everything that further training depends on, except the learning rate."""
        states = [self.optimiser.state.get(parameter) for parameter in self.parameters]
        generators = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            # Of each parameter; None of one that has had no gradient.
            "moments": [state and {key: state[key] for key in MOMENTS} for state in states],
            # A DataLoader instead of Minibatches has no position to keep.
            "batches": self.batches.state_dict() if hasattr(self.batches, "state_dict") else None,
            "generators": generators,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore another trainer's `state_dict`.

        Raises:
            CheckpointError: the weights or the moments do not fit the model
        """
        check_weights(state["model"], self.model, "the training state")
        moments = {}
        for i, (parameter, pair) in enumerate(zip(self.parameters, state["moments"], strict=True)):
            if pair is not None:
                if any(pair[key].shape != parameter.shape for key in MOMENTS):
                    raise CheckpointError("the training state has Adam's moments of another model")
                # Contiguous: fused Adam writes as if they were.
                pair = {key: pair[key].contiguous() for key in MOMENTS}
                moments[i] = {"step": torch.tensor(float(state["step"])), **pair}
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        groups = self.optimiser.state_dict()["param_groups"]  # settings come from the code
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        if hasattr(self.batches, "load_state_dict"):
            self.batches.load_state_dict(state["batches"])
        torch.set_rng_state(state["generators"]["cpu"])
        if self.device.type == "cuda" and "cuda" in state["generators"]:
            torch.cuda.set_rng_state(state["generators"]["cuda"], self.device)


def _numbers(summaries: dict[str, Tensor]) -> dict[str, float]:
    """Return the scalars as numbers, with a single copy from the device."""
    values = torch.stack([scalar.detach() for scalar in summaries.values()]).tolist()
    return dict(zip(summaries, values, strict=True))
