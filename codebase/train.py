"""The training loop, the same for all models: it calls model.loss(*batch) for each minibatch."""

import inspect
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from codebase.checkpoints import ANY, check_form, check_weights
from codebase.machine import generators
from codebase.machine.signals import Interrupted, Signals

LOG_EVERY = 50  # iterations between two looks at the scalars
MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's, by torch's names


class NotFinite(Exception):
    """The loss or a weight is infinite or not a number. The saved state is the last finite one."""


class Trainer:
    """Minimise model.loss with Adam.

    Args:
        model: `loss(*batch)` returns (loss, summaries): a scalar, and tensors by their tags
        batches: minibatches, tuples of tensors; each pass over the iterable is an epoch
        learning_rate: float: Adam's; its other settings are torch's default ones

    Attributes:
        step: int: iterations so far
        seconds: float: time they took, without saving and logging
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
        self.take_step: Callable = self._take_step
        if on_cuda:
            from codebase.machine.cuda_graph import GraphedStep

            self.take_step = GraphedStep(self._take_step)
        self.step, self.seconds = 0, 0.0
        self._compiled_loss: Callable | None = None

    @property
    def compiled(self) -> bool:
        """Whether `compile` has succeeded."""
        return self._compiled_loss is not None

    def _take_step(self, *batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.optimiser.zero_grad()
        loss, summaries = (self._compiled_loss or self.model.loss)(*batch)
        loss.backward()
        self.optimiser.step()
        return loss, summaries

    def train(
        self,
        iter_max: int,
        iter_save: int | None = None,
        save: Callable[[int], None] = lambda step: None,
        log: Callable[[int, dict[str, float]], None] = lambda step, scalars: None,
        bar=None,
    ) -> None:
        """Minimise the loss up to iteration iter_max.

        Args:
            iter_max: int: the last iteration
            iter_save: int: iterations between two calls of save, which is called at the last too;
                None: only at the last
            save: takes the iteration; `state_dict` gives what a resumed training needs
            log: takes the iteration and its scalars by their tags, every 50 iterations
            bar: a progress bar: `update()` and `set_postfix` as tqdm has them

        Raises:
            Interrupted: SIGINT or SIGTERM; save was called
            NotFinite: within 50 iterations of a loss that is not finite
            ValueError: a pass over the minibatches yields none, or they are not what the loss takes
        """
        if self.step >= iter_max:
            return
        started, losses = time.perf_counter(), []
        rate_from = self.step, self.seconds
        with Signals() as signals:
            for batch in self._minibatches():
                loss, summaries = self.take_step(*batch)
                self.step += 1
                if bar is not None:
                    bar.update()
                # A CUDA graph overwrites the loss, and to look at it now would make the host wait.
                losses.append(loss.detach().clone())
                last = self.step == iter_max or signals.number is not None
                due = last or self.step % (iter_save or iter_max) == 0
                if not due and self.step % LOG_EVERY:
                    continue
                self._check_finite(losses)
                losses.clear()
                self.seconds += time.perf_counter() - started
                scalars = _numbers(summaries)
                if bar is not None:
                    bar.set_postfix(_headline(scalars), refresh=False)
                if self.step % LOG_EVERY == 0:
                    step, seconds = rate_from
                    rate = (self.step - step) / max(self.seconds - seconds, 1e-9)
                    rate_from = self.step, self.seconds
                    log(self.step, scalars | {"train/iterations_per_second": rate})
                if due:
                    self._check_state_finite()
                    save(self.step)
                if last:
                    break
                started = time.perf_counter()
            if signals.number is not None:
                raise Interrupted(signals.number, f"at iteration {self.step}, which is saved")

    def _minibatches(self) -> Iterator[tuple[Tensor, ...]]:
        takes: inspect.Signature | None = inspect.signature(self.model.loss)
        while True:
            batch = None
            for batch in self.batches:
                if takes is not None:
                    if not isinstance(batch, tuple | list):
                        what = type(batch).__name__
                        raise ValueError(f"a minibatch is a {what}, expected a tuple of tensors")
                    try:
                        takes.bind(*batch)
                    except TypeError:
                        raise ValueError(
                            f"got minibatches of length {len(batch)}, expected what "
                            f"{type(self.model).__name__}.loss takes: {', '.join(takes.parameters)}"
                        ) from None
                    takes = None  # one look is enough
                yield batch
            if batch is None:
                raise ValueError(
                    "a pass over the minibatches yields none: expected an iterable that can be "
                    "iterated many times, such as Minibatches or a DataLoader"
                )

    def compile(self) -> None:
        """Let torch compile model.loss and its gradient, for minibatches as large as the first.

        Raises:
            Exception: of any kind: this machine cannot; the loss is computed as before
        """
        from codebase.machine.compiled import CompiledLoss

        compiled = CompiledLoss(self.model.loss)
        with generators.isolated(self.device):
            first = getattr(self.batches, "first", lambda: next(iter(self.batches)))
            compiled(*first())[0].backward()
        self.optimiser.zero_grad()
        self._compiled_loss = compiled

    def _check_finite(self, losses: list[Tensor]) -> None:
        finite = torch.isfinite(torch.stack(losses)).tolist()
        if not all(finite):
            first = self.step - len(losses) + 1 + finite.index(False)
            raise NotFinite(
                f"the loss of iteration {first} is not finite; saved weights are kept: pass a "
                "smaller --lr"
            )

    def _check_state_finite(self) -> None:
        moments = (m for pair in self._moments() if pair is not None for m in pair.values())
        if not all(tensor.isfinite().all() for tensor in (*self.model.parameters(), *moments)):
            raise NotFinite(
                f"the weights of iteration {self.step}, or Adam's moments, are not finite; "
                "saved weights are kept: pass a smaller --lr"
            )

    # What a resumed training needs

    def state_dict(self) -> dict:
        """Everything that the rest of the training depends on, except the learning rate."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "moments": self._moments(),
            # A DataLoader instead of Minibatches has no position to keep.
            "batches": self.batches.state_dict() if hasattr(self.batches, "state_dict") else None,
            "generators": generators.states(self.device),
        }

    def _moments(self) -> list[dict[str, Tensor] | None]:
        """Adam's running means for each parameter; None for one that has had no gradient."""
        states = [self.optimiser.state.get(parameter) for parameter in self.model.parameters()]
        return [state and {key: state[key] for key in MOMENTS} for state in states]

    def load_state_dict(self, state: dict) -> None:
        """Restore another trainer's `state_dict`.

        Its form is checked first: fused Adam writes past the end of moments that are too small.

        Raises:
            CheckpointError: the state is damaged, or from another run
        """
        own = self.state_dict()
        moments = state.get("moments")
        own["moments"] = [dict.fromkeys(MOMENTS, p) for p in self.model.parameters()]
        if isinstance(moments, list) and len(moments) == len(own["moments"]):
            # SSVAE's decoder has no gradient if gen_weight is 0, and so no moments.
            pairs = zip(moments, own["moments"], strict=True)
            own["moments"] = [None if pair is None else expected for pair, expected in pairs]
        found = state.get("generators")
        if self.device.type != "cpu" and isinstance(found, dict) and self.device.type not in found:
            del own["generators"][self.device.type]  # trained on another kind of device so far
        check_form(state, own | {"batches": ANY})
        weights = check_weights(state["model"], self.model, "its model")
        if hasattr(self.batches, "load_state_dict"):
            self.batches.load_state_dict(state.get("batches"))
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(weights)
        moments = {
            i: {"step": torch.tensor(float(self.step)), **pair}
            for i, pair in enumerate(moments)
            if pair is not None
        }
        groups = self.optimiser.state_dict()["param_groups"]  # settings come from the code
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        generators.restore(found, self.device)


def _numbers(summaries: dict[str, Tensor]) -> dict[str, float]:
    """Each scalar as a number, all in one copy from the device."""
    values = torch.stack([scalar.detach() for scalar in summaries.values()]).tolist()
    return dict(zip(summaries, values, strict=True))


def _headline(scalars: dict[str, float]) -> dict[str, str]:
    """What the progress bar shows."""
    shown = (("train/loss", "loss", 1), ("class/acc", "acc", 2))
    return {name: f"{scalars[tag]:.{n}f}" for tag, name, n in shown if tag in scalars}
