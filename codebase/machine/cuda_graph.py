"""A training step as a CUDA graph, launched in one call: small kernels cost more to launch than to
run."""

import collections
from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 11  # steps before recording, as torch.cuda.graph requires for lazy set-up


class GraphedStep:
    """A function of a minibatch that is recorded once for each shape, and then replayed.

    step: trains on a minibatch of CUDA tensors and returns (loss, summaries); it must not wait for
        the device. The first steps of each shape run as they are. What a replay returns is
        overwritten by the next.
    """

    def __init__(self, step: Callable[..., tuple[Tensor, dict[str, Tensor]]]):
        self._step = step
        self._seen = collections.Counter()
        self._recorded = {}

    def __call__(self, *batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        shapes = tuple(tensor.shape for tensor in batch)
        if shapes not in self._recorded:
            self._seen[shapes] += 1
            if self._seen[shapes] <= WARM_UP:
                return self._warm_up(batch)
            self._recorded[shapes] = self._record(batch)
        recorded, replay, outputs = self._recorded[shapes]
        for mine, new in zip(recorded, batch, strict=True):
            mine.copy_(new)
        replay()
        return outputs

    def _warm_up(self, batch: tuple[Tensor, ...]):
        """Run the step on a stream beside the usual one, as recording does."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self._step(*batch)
        torch.cuda.current_stream().wait_stream(stream)
        return outputs

    def _record(self, batch: tuple[Tensor, ...]):
        """The graph's own minibatch, what replays it, and the tensors that it writes."""
        recorded = tuple(tensor.clone() for tensor in batch)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._step(*recorded)
        return recorded, graph.replay, outputs
