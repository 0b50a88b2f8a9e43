"""Settings of the whole process, and the device that it computes on."""

import contextlib
import ctypes
import os

import torch

from codebase import UserError
from codebase.machine import neighbours


def tune_process(threads: int | None = None) -> None:
    """Settings that training on a CPU needs; call it before all else.

    Numbers below 1e-38 become 0. The labels that SSVAE has excluded weigh its gradients with such
    numbers, and a product that is one takes forty times as long: after 10,000 iterations a second
    has 7 steps with them and 47 without (two cores), at the same losses.

    The C library keeps what a step frees for the next step. glibc gives large blocks back to the
    system as they are freed, and every step pays page faults for its gradients and activations
    anew: a step of FSVAE takes 39 ms instead of 14, of SSVAE 27 instead of 21. VAE's and GMVAE's
    blocks are too small for it to matter; other C libraries are left alone.

    Beside a busy process, threads stop spinning: see `neighbours`.

    Args:
        threads: of the processor; None leaves them as they are
    """
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # threads inherit it from the one that starts them
    m_trim_threshold, m_mmap_threshold = -1, -3  # of malloc.h
    with contextlib.suppress(OSError, TypeError):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):  # only glibc numbers its settings so
            libc.mallopt(m_mmap_threshold, 32 << 20)  # the most that it accepts
            libc.mallopt(m_trim_threshold, 1 << 30)
    neighbours.watch()


def pick_device(name: str) -> torch.device:
    """The device of a --device flag.

    Raises:
        UserError: this machine has no such device
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, available in there.items() if available)
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not there.get(device.type, False):
        usable = ", ".join(kind for kind, available in there.items() if available)
        raise UserError(f"--device {name}: not on this machine, which has {usable}")
    if device.type == "cuda":
        if device.index is None:  # torchrun's processes share the machine's GPUs out
            local_rank = int(os.environ.get("LOCAL_RANK", 0))
            device = torch.device("cuda", local_rank % torch.cuda.device_count())
        if device.index >= torch.cuda.device_count():
            raise UserError(f"--device {name}: this machine has {torch.cuda.device_count()} such")
    return device
