"""Torch's random generators, of the CPU and of one device: their states, saved and restored."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


def states(device: torch.device) -> dict[str, Tensor]:
    """The generators' states by the kinds of device: the CPU's, and the device's own."""
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        found["mps"] = torch.mps.get_rng_state()
    return found


def restore(found: dict[str, Tensor], device: torch.device) -> None:
    """Set the generators to what `states` returned."""
    torch.set_rng_state(found["cpu"])
    if device.type == "cuda" and "cuda" in found:
        torch.cuda.set_rng_state(found["cuda"], device)
    elif device.type == "mps" and "mps" in found:
        torch.mps.set_rng_state(found["mps"])


@contextlib.contextmanager
def isolated(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Leave the generators as they are found, whatever is drawn inside.

    Args:
        device: device whose generator is restored, besides the CPU's
        seed: seed of the draws inside; None: the generators continue
    """
    before = states(device)
    try:
        if seed is not None:
            torch.manual_seed(seed)
        yield
    finally:
        restore(before, device)
