"""Settings of the whole process, and the device that it computes on."""

import contextlib
import ctypes
import os

import numpy as np
import torch

from codebase import UserError


def tune_process(threads: int | None = None) -> None:
    """Make the settings that training on a CPU needs.

    Numbers below 1e-38 become 0. The labels with negligible q(y|x) weigh SSVAE's gradients with
    such numbers, and a product with one takes forty times as long: after 10,000 iterations a second
    has 7 steps with them and 47 without (two cores), at the same losses.

    The C library keeps what a step frees for the next step. glibc gives large blocks back to the
    system as they are freed, and every step pays page faults for its gradients and activations
    anew: a step of FSVAE takes 39 ms instead of 14, of SSVAE 27 instead of 21. Other C libraries
    are left alone.

    Args:
        threads: number of CPU threads; None leaves them as they are
    """
    if threads is not None:
        torch.set_num_threads(threads)
    for dtype in (np.float32, np.float64):
        np.finfo(dtype)  # numpy up to 2.3 looks now, and would warn later
    torch.set_flush_denormal(True)  # threads inherit it from the one that starts them
    m_trim_threshold, m_mmap_threshold = -1, -3  # of malloc.h
    with contextlib.suppress(OSError, TypeError):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "gnu_get_libc_version"):  # only glibc numbers its settings so
            libc.mallopt(m_mmap_threshold, 32 << 20)  # the most that it accepts
            libc.mallopt(m_trim_threshold, 1 << 30)


def pick_device(name: str) -> torch.device:
    """Choose the device of a --device flag, and make it the current one.

    auto is cuda if there is one, else the CPU. It is never mps: these networks are small, runs on
    the CPU repeat bit for bit, and nobody has measured MPS.

    Raises:
        UserError: this machine has no such device
    """
    there = ["cpu"]
    if torch.cuda.is_available():
        there = ["cuda", *there]
    if torch.backends.mps.is_available():
        there.append("mps")
    try:
        device = torch.device(there[0] if name == "auto" else name)
    except RuntimeError:
        device = None
    if device is None or device.type not in there:
        raise UserError(f"--device {name}: not on this machine, which has {', '.join(there)}")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if device.index is None:  # torchrun's processes share the machine's GPUs out
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % count)
        if device.index >= count:
            raise UserError(f"--device {name}: this machine has {count} GPUs, from cuda:0 on")
        torch.cuda.set_device(device)  # kernels, graphs and streams without a device take this one
    return device
