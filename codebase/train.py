"""The training loop, the same for all models: it takes minibatches and calls model.loss(*batch)."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from codebase.checkpoints import CheckpointError, check_tensor, check_weights
from codebase.machine.compiled import CompiledLoss
from codebase.machine.cuda_graph import GraphedStep
from codebase.machine.signals import Signals

LOG_EVERY = 50  # iterations between two looks at the scalars
MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's, by torch's names


class Interrupted(Exception):
    """A signal ended training after `step` iterations; the state at that point was saved."""

    def __init__(self, step: int, number: int):
        super().__init__(f"interrupted at iteration {step}")
        self.step, self.number = step, number


class NotFinite(Exception):
    """The loss is infinite or not a number; nothing has been saved since it was finite."""


class Trainer:
    """Adam on model.loss, and all that the rest of a training depends on.

    Args:
        model: `loss(*batch)` returns (loss, summaries): a scalar, and tensors by their tags
        batches: minibatches, tuples of tensors; each pass over the iterable is an epoch
        learning_rate: float: Adam's; its other settings are torch's default ones

    Attributes:
        compiled: whether `compile` has succeeded
    """

    def __init__(
        self,
        model: torch.nn.Module,
        batches: Iterable[tuple[Tensor, ...]],
        learning_rate: float = 1e-3,
    ):
        self.model, self.batches = model, batches
        self.device = next(model.parameters()).device
        on_cuda = self.device.type == "cuda"
        self.optimiser = torch.optim.Adam(
            model.parameters(), lr=learning_rate, fused=True, capturable=on_cuda
        )
        self.take_step = GraphedStep(self._take_step) if on_cuda else self._take_step
        self.step, self.seconds = 0, 0.0  # so far
        self._compiled: CompiledLoss | None = None

    def _take_step(self, *batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.optimiser.zero_grad()
        loss, summaries = (self._compiled or self.model.loss)(*batch)
        loss.backward()
        self.optimiser.step()
        return loss, summaries

    @property
    def compiled(self) -> bool:
        return self._compiled is not None

    def compile(self) -> None:
        """Let torch compile model.loss and its gradient, for minibatches as large as the first.

        Raises:
            Exception: of any kind: this machine cannot; the loss is computed as before
        """
        compiled = CompiledLoss(self.model.loss)
        self._rehearse(compiled)
        self._compiled = compiled

    def train(
        self,
        iter_max: int,
        iter_save: int,
        save: Callable[[int], None],
        log: Callable[[int, dict], None] = lambda step, scalars: None,
        bar=None,
    ) -> None:
        """Minimise the loss up to iteration iter_max.

        Args:
            iter_max: int: the last iteration
            iter_save: int: iterations between two calls of save, which is called at the last too
            save: takes the iteration; `state_dict` gives what a resumed training needs
            log: takes the iteration and its scalars by their tags, every 50 iterations
            bar: a progress bar: `update()` and `set_postfix` as tqdm has them

        Raises:
            Interrupted: SIGINT or SIGTERM; save was called
            NotFinite: within 50 iterations of a loss that is not finite
        """
        if self.step >= iter_max:
            return
        logged = time.perf_counter()
        started = logged - self.seconds
        losses = []
        with Signals() as signals:
            for batch in self._minibatches():
                loss, summaries = self.take_step(*batch)
                self.step += 1
                if bar is not None:
                    bar.update()
                losses.append(loss.detach().clone())  # to look at it now would make the host wait
                last = self.step == iter_max or signals.number is not None
                due = last or self.step % iter_save == 0
                if due or self.step % LOG_EVERY == 0:
                    self._check_finite(losses)
                    losses.clear()
                    scalars = _numbers(summaries)
                    if bar is not None:
                        bar.set_postfix(_headline(scalars), refresh=False)
                    if self.step % LOG_EVERY == 0:
                        now = time.perf_counter()
                        rate = LOG_EVERY / (now - logged)
                        logged = now
                        log(self.step, scalars | {"train/iterations_per_second": rate})
                if due:
                    self._check_weights_finite()
                    self.seconds = time.perf_counter() - started
                    save(self.step)
                if last:
                    break
            if signals.number is not None:
                raise Interrupted(self.step, signals.number)

    def _minibatches(self) -> Iterator[tuple[Tensor, ...]]:
        while True:
            yield from self.batches

    def rehearse(self) -> list[bool]:
        """Compute a minibatch's gradients and forget them: short memory shows here.

        Returns:
            for each parameter, whether the loss depends on it

        Raises:
            RuntimeError, MemoryError: there is not the memory for it
        """
        return self._rehearse(self.model.loss)

    def _rehearse(self, loss: Callable) -> list[bool]:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            batches = self.batches
            batch = batches.first() if hasattr(batches, "first") else next(iter(batches))
            loss(*batch)[0].backward()
        trained = [parameter.grad is not None for parameter in self.model.parameters()]
        self.optimiser.zero_grad()
        return trained

    def _check_finite(self, losses: list[Tensor]) -> None:
        finite = torch.isfinite(torch.stack(losses)).tolist()
        if not all(finite):
            first = self.step - len(losses) + 1 + finite.index(False)
            raise NotFinite(f"the loss of iteration {first} is not finite; what was saved is kept")

    def _check_weights_finite(self) -> None:
        if not all(weight.isfinite().all() for weight in self.model.parameters()):
            raise NotFinite(f"the weights of iteration {self.step} are not finite")

    # What a resumed training needs

    def state_dict(self) -> dict:
        """All that the rest of the training depends on, but for the learning rate."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "moments": [self._moments(parameter) for parameter in self.model.parameters()],
            # A DataLoader instead of Minibatches has no position to keep.
            "batches": self.batches.state_dict() if hasattr(self.batches, "state_dict") else None,
            "generators": self._generators(),
        }

    def _moments(self, parameter: Tensor) -> dict[str, Tensor] | None:
        """Adam's running means of a parameter's gradient and its square; None where it has none."""
        if parameter not in self.optimiser.state:
            return None
        return {key: self.optimiser.state[parameter][key] for key in MOMENTS}

    def load_state_dict(self, state: dict) -> None:
        """Go on where another trainer's `state_dict` was taken.

        Everything is checked before anything is changed: fused Adam writes through the moments as
        if they had the parameters' sizes, whatever sizes they have.

        Raises:
            CheckpointError: the state is damaged, or of another training
        """
        step, seconds = self._check_progress(state)
        weights = check_weights(state.get("model"), self.model, "its model")
        moments = self._check_moments(state.get("moments"), step)
        generators = self._check_generators(state.get("generators"))
        if hasattr(self.batches, "state_dict"):
            try:
                self.batches.check_state_dict(state.get("batches"))
            except ValueError as error:
                raise CheckpointError(str(error)) from None
            self.batches.load_state_dict(state["batches"])
        self.step, self.seconds = step, seconds
        self.model.load_state_dict(weights)
        groups = self.optimiser.state_dict()["param_groups"]  # settings come from the code
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        for kind, generator_state in generators.items():
            _rng(kind).set_rng_state(generator_state)

    def _check_progress(self, state: dict) -> tuple[int, float]:
        step, seconds = state.get("step"), state.get("seconds")
        if type(step) is not int or not 0 <= step < 1 << 40:
            raise CheckpointError(f"its step is {step!r:.40}")
        if type(seconds) is not float or not 0 <= seconds < 1e12:
            raise CheckpointError(f"its seconds are {seconds!r:.40}")
        return step, seconds

    def _check_moments(self, moments, step: int) -> dict[int, dict[str, Tensor]]:
        """Adam's state for its load_state_dict, by the parameters' numbers."""
        trained = [on and step > 0 for on in self.rehearse()]
        if not isinstance(moments, list) or len(moments) != len(trained):
            raise CheckpointError("its moments are not those of the model's parameters")
        checked = {}
        for i, (pair, own) in enumerate(zip(moments, self.model.parameters(), strict=True)):
            if pair is None and not trained[i]:
                continue
            if not trained[i] or not isinstance(pair, dict) or pair.keys() != set(MOMENTS):
                raise CheckpointError(f"its moments[{i}] are not those of such a parameter")
            checked[i] = {"step": torch.tensor(float(step))}
            for key, moment in pair.items():
                where = f"its moments[{i}].{key}"
                if isinstance(moment, Tensor) and moment.dtype != own.dtype:
                    raise CheckpointError(f"{where} has dtype {moment.dtype}, not {own.dtype}")
                checked[i][key] = check_tensor(moment, own, where)
            if (checked[i]["exp_avg_sq"] < 0).any():
                raise CheckpointError(f"its moments[{i}].exp_avg_sq is negative")
        return checked

    def _generators(self) -> dict[str, Tensor]:
        kinds = {"cpu", self.device.type}
        return {kind: _rng(kind).get_rng_state() for kind in sorted(kinds)}

    def _check_generators(self, states) -> dict[str, Tensor]:
        """The states of the generators that this training uses and the state has."""
        if not isinstance(states, dict) or "cpu" not in states:
            raise CheckpointError("it has no state of the random generator")
        used = {kind: states[kind] for kind in self._generators() if kind in states}
        for kind, state in used.items():
            try:
                torch.Generator(kind).set_state(state)
            except (RuntimeError, TypeError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise CheckpointError(f"its {kind} generator: {reason}") from None
        return used


def _rng(kind: str):
    """The module whose get_rng_state and set_rng_state are those of a kind of device."""
    return torch if kind == "cpu" else getattr(torch, kind)


def _numbers(summaries: dict[str, Tensor]) -> dict[str, float | list[float]]:
    """Each scalar as a number; an ensemble's, which are vectors, as a number for each model."""
    values = torch.stack([scalar.detach() for scalar in summaries.values()]).tolist()
    return dict(zip(summaries, values, strict=True))


def _headline(scalars: dict[str, float | list[float]]) -> dict[str, str]:
    """What the progress bar shows: of an ensemble, means."""
    shown = {}
    for tag, name, digits in (("train/loss", "loss", 1), ("class/acc", "acc", 2)):
        if tag in scalars:
            value = scalars[tag]
            mean = statistics.fmean(value) if isinstance(value, list) else value
            shown[name] = f"{mean:.{digits}f}"
    return shown
