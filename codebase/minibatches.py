"""Minibatches of images that are in memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

from codebase import utils as ut


class Minibatches:
    """Minibatches of images, reshuffled every epoch: an iterable of tuples of tensors.

    All draws come from torch's global generators. `state_dict` and `load_state_dict` keep the
    position in the epoch, so a resumed run sees the images that an uninterrupted one would.

    Args:
        images: tensor: (n, x_dim): grey levels or colours, uint8 from 0 to 255 or floats in
            [0, 1]; a minibatch has floats in [0, 1]
        targets: tensors: (n, ...): other data per image, such as labels
        batch_size: int: images in a minibatch; the last one of an epoch may be smaller
        binarised: bool: whether to draw each pixel from a Bernoulli at every use
        labelled: (xl, yl): a labelled subset to add, whole, to every minibatch

    Raises:
        ValueError: the images have the wrong shape, dtype or range, or a target the wrong length
    """

    def __init__(
        self,
        images: Tensor,
        *targets: Tensor,
        batch_size: int = 97,
        binarised: bool = True,
        labelled: tuple[Tensor, Tensor] | None = None,
    ):
        if not isinstance(images, Tensor):
            what = type(images).__name__
            raise ValueError(
                f"expected a tensor of images, got {what}: pass torch.as_tensor or torch.stack"
            )
        if images.dim() != 2 or not images.numel():
            rows = "images.flatten(1)"
            if images.dim() == 4 and images.shape[-1] == 3:
                rows = "images.permute(0, 3, 1, 2).flatten(1)"
            raise ValueError(
                f"expected images of shape (n, x_dim), got {tuple(images.shape)}: pass {rows}"
            )
        if images.dtype not in (torch.uint8, torch.float32, torch.float64):
            raise ValueError(
                f"images has {images.dtype}, expected uint8, float32 or float64: pass "
                "images.float() if its values are 0 and 1"
            )
        low, high = images.min().item(), images.max().item()
        if images.dtype == torch.uint8 and high <= 1:
            raise ValueError(f"images are bytes up to {high}, expected 255: pass images.float()")
        if images.dtype != torch.uint8 and not (low >= 0 and high <= 1):
            hint = ": pass images / 255" if low >= 0 and high <= 255 else ""
            hint = ": pass (images + 1) / 2" if -1 <= low < 0 and high <= 1 else hint
            raise ValueError(f"images go from {low:g} to {high:g}, expected [0, 1]{hint}")
        for target in targets:
            if target.shape[:1] != images.shape[:1]:
                shape = tuple(target.shape)
                raise ValueError(f"a target has shape {shape}, expected {len(images)} rows")
        self.images, self.targets = images, targets
        self.batch_size, self.binarised, self.labelled = batch_size, binarised, labelled
        self._left = torch.empty(0, dtype=torch.int64)  # positions not yet used in this epoch
        self._resumed = False

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        left = self._left if self._resumed else torch.randperm(len(self.images))
        self._resumed = False
        order = left.to(self.images.device)  # once an epoch: a copy makes the host wait
        for start in range(0, len(order), self.batch_size):
            stop = start + self.batch_size
            self._left = left[stop:]
            yield self.minibatch(order[start:stop])

    def minibatch(self, index: Tensor) -> tuple[Tensor, ...]:
        """Return the minibatch of the images at the positions in index (batch,)."""
        # index_select copies whole rows, in 9 μs; images[index] copies byte by byte, in 56 μs.
        x = self.images.index_select(0, index)
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        x = ut.sample_bernoulli(x) if self.binarised else x
        targets = (target[index] for target in self.targets)
        if self.labelled is None:
            return x, *targets
        xl, yl = self.labelled
        return x, *targets, ut.sample_bernoulli(xl) if self.binarised else xl, yl

    # What a resumed run needs

    def state_dict(self) -> dict[str, Tensor]:
        """Return the remaining positions of the current epoch: (left,)."""
        return {"left": self._left}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the positions that another object's `state_dict` returned."""
        self._left, self._resumed = state["left"], len(state["left"]) > 0
