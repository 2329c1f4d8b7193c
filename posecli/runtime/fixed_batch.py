"""Functions of tensors in batches of one size: on a GPU as CUDA graphs, with smaller batches where memory is short."""

import logging
import threading
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posecli.runtime.lanes import Lane

LOG = logging.getLogger(__name__)

Function = Callable[..., Tensor]
# From one row to another (exclusive): the function's inputs, each (rows, ...).
Inputs = Callable[[int, int], tuple[Tensor, ...]]
# Captures are exclusive.
_CAPTURING = threading.Lock()
_WARM_UP_CALLS = 3


class CapturedFunction:
    """A function of tensors of fixed shapes: a CUDA graph on a GPU, a plain call on a CPU.

    The result on a GPU is overwritten by the next call. To be used with one lane.
    """

    def __init__(self, function: Function, inputs: tuple[Tensor, ...]) -> None:
        self._function = function
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        self._graph: torch.cuda.CUDAGraph | None = None
        if inputs[0].is_cuda:
            with _CAPTURING:
                self._graph, self._output = self._capture()

    def __call__(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """The function of inputs of the shapes that it was made for."""
        if self._graph is None:
            return self._function(*inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._output

    def _capture(self) -> "tuple[torch.cuda.CUDAGraph, Tensor]":
        for _ in range(_WARM_UP_CALLS):  # cuDNN and cuFFT make their plans
            self._function(*self._inputs)
        torch.cuda.current_stream().synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile.
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            output = self._function(*self._inputs)
        return graph, output


class FixedBatch:
    """A function of tensors (rows, ...) to a tensor (rows, values) float32, called with batches of one size.

    The last batch is padded with zeros: other sizes may select other kernels, with other rounding errors, and results
    would depend on the batch. Where memory does not suffice, the size is halved, for all later calls too.
    """

    def __init__(self, function: Function, size: int) -> None:
        self.size = size
        self._function = function
        self._captured: dict[tuple[object, ...], CapturedFunction] = {}

    def __call__(self, inputs: Inputs, rows: int, lane: Lane) -> NDArray[np.float32]:
        """The function's values (rows, values), copied back at once. rows ≥ 1.

        inputs: makes the inputs of a part. To be called on a lane (runtime.lanes.working). Raises
        torch.OutOfMemoryError where not even one row fits.
        """
        found: Tensor | None = None
        first = 0
        while first < rows:
            size = self.size
            last = min(first + size, rows)
            try:
                values = self._computed(inputs(first, last), size, lane)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                self._halve(size)
                continue
            if found is None:
                on_gpu = values.is_cuda
                found = torch.empty((rows, values.shape[1]), dtype=torch.float32, pin_memory=on_gpu)
            found[first:last].copy_(values[: last - first], non_blocking=True)
            first = last
        assert found is not None
        lane.synchronise()
        # A copy: page-locked memory is scarce.
        return found.numpy().copy() if found.is_pinned() else found.numpy()

    def _computed(self, inputs: tuple[Tensor, ...], size: int, lane: Lane) -> Tensor:
        padded = tuple(_padded(tensor, size) for tensor in inputs)
        key = (lane.number, size, *(tensor.shape[1:] for tensor in padded))
        captured = self._captured.get(key)
        if captured is None:
            captured = self._captured[key] = CapturedFunction(self._function, padded)
        return captured(padded)

    def _halve(self, failed: int) -> None:
        """Go on with half of the size that failed, unless another thread has done so already."""
        if self.size == failed:
            self.size = failed // 2
            LOG.warning("out of memory on the device: batches of %d instead of %d from here on", self.size, failed)
        for key in [key for key in self._captured if key[1] == failed]:
            self._captured.pop(key, None)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _padded(tensor: Tensor, size: int) -> Tensor:
    if len(tensor) == size:
        return tensor
    result = tensor.new_zeros((size, *tensor.shape[1:]))
    result[: len(tensor)] = tensor
    return result
