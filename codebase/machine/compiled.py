"""A loss that torch.compile turns into C++ in half a minute, with fewer passes over memory."""

import logging
import os
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from codebase.machine.files import one_line


class CompiledLoss:
    """A function of a minibatch, compiled for minibatches of one size.

    The draws are the same as without compiling. The first minibatch determines the size. The
    smaller one at the end of an epoch, for which torch would compile anew, is passed to the
    uncompiled function.

    Args:
        loss: function of the tensors of a minibatch
    """

    def __init__(self, loss: Callable):
        from torch._inductor import config  # imported here: only compiling needs it

        config.fallback_random = True  # torch's own generator, not the compiler's
        if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
            # torch caches compiled code by its settings, which do not include this variable.
            # Without this line, cached AVX-512 loops would run with vectors of half their length.
            config.cpp.simdlen = 256
        # It would say that a machine without a GPU has CUDA's compiler but no GPU.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        self._loss, self._compiled = loss, torch.compile(loss, dynamic=False)
        self._shapes: list[torch.Size] | None = None

    def __call__(self, *batch: Tensor):
        shapes = [tensor.shape for tensor in batch]
        if self._shapes is None:
            self._shapes = shapes
        return (self._compiled if shapes == self._shapes else self._loss)(*batch)


def compile_or_warn(trainer) -> None:
    """Compile a trainer's loss; if this machine cannot, say why, and leave it as it is."""
    print("compiling the loss, which takes up to half a minute", file=sys.stderr)
    started = time.perf_counter()
    try:
        trainer.compile()
    except Exception as error:
        print(
            f"warning: not compiled: {_why(error)}; the run continues uncompiled", file=sys.stderr
        )
    else:
        print(f"compiled in {time.perf_counter() - started:.0f} s", file=sys.stderr)


def _why(error: Exception) -> str:
    """What an error of torch.compile means, in a line."""
    if "C++ compiler" in str(error) or "CxxCompiler" in str(error):
        return "no C++ compiler works here (g++, clang++ or MSVC)"
    errors = [line for line in str(error).splitlines() if " error: " in line]  # the compiler's own
    return f"{errors[0].partition(' error: ')[2] if errors else one_line(error):.100}"
