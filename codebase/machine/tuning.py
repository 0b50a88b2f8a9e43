"""Settings of the whole process: threads, memory, vector instructions and device.

Importing this module imports neither torch nor NumPy, which take seconds.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.metadata
import os
from pathlib import Path
from typing import TYPE_CHECKING

from codebase.project import UserError

if TYPE_CHECKING:
    import torch

# How often a waiting GNU OpenMP thread looks before it sleeps. A thread that spins takes CPU time
# from the thread that it waits for. Beside two busy loops on two cores, 4 of 8 runs with 100,000
# spins fell to 2 to 13 % of their speed; with 2,000 spins all 8 kept 26 to 39 %. Without
# neighbours, 2,000 spins cost 6 %.
SPINS = "2000"
# PyTorch 2.14 has no vector code for expm1 and log1p with AVX-512. ELU and the cross-entropy need
# them: a step of a VAE takes 4.8 ms, and 3.4 with AVX2 (two cores). 2.13 and 2.15 have such code.
SLOW_WITH_AVX512 = "2.14."
CPU_INFO = Path("/proc/cpuinfo")  # of Linux


def load_torch() -> None:
    """Import torch with settings that it reads only during the import.

    The garbage collector is off during the import and never visits torch's modules. Visiting them
    during the import and at exit would take 0.8 s of 3 s.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    with contextlib.suppress(OSError, ImportError):  # another system; a torch without metadata
        slow = importlib.metadata.version("torch").startswith(SLOW_WITH_AVX512)
        if slow and b"avx512f" in CPU_INFO.read_bytes():
            os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
    gc.disable()
    try:
        importlib.import_module("torch")
    finally:
        gc.enable()
    gc.freeze()


def tune_process(threads: int | None = None) -> None:
    """Apply the settings that training on a CPU needs.

    Numbers below 1e-38 become 0, because multiplying by them takes forty times as long.
    The SSVAE's bound, as students write it, multiplies each label's gradients by q(y|x). After
    10,000 iterations, such an SSVAE trains at 7 steps per second with these numbers and at 47
    without them (two cores), with the same losses. This project's SSVAE leaves out labels with
    negligible q(y|x), and showed no difference.

    The memory that a step frees is kept for the next step. By default, glibc returns large freed
    blocks to the system, so every step has page faults for its gradients and activations: an FSVAE
    step takes 39 ms instead of 14, an SSVAE step 27 instead of 21. Settings of other C libraries
    are not changed.

    Args:
        threads: number of CPU threads; None: do not change it
    """
    import numpy as np
    import torch

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


def pick_device(name: str) -> "torch.device":
    """Return the device that --device names, and make it the current one.

    auto selects CUDA if available, else the CPU. It never selects MPS: these networks are small,
    runs on the CPU repeat bit for bit, and MPS has not been measured.

    Raises:
        UserError: this machine has no such device, or it does not work
    """
    import torch

    there = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if there else "cpu"
    if name == "cuda" and there:  # torchrun's processes share the machine's GPUs
        name = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        torch.ones(2, 2, device=device).mm(torch.ones(2, 2, device=device)).sum().item()
    except (RuntimeError, ValueError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["it fails"])[0]
        if name == "cuda":
            reason = "torch finds no GPU, or has no CUDA"
        raise UserError(
            f"--device {name} does not work here ({reason:.150}): pass --device cpu"
        ) from None
    return device
