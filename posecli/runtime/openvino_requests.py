"""Requests to a network in OpenVINO: several in flight, from any thread."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posecli.runtime.network import FloatArrays
from posecli.runtime.signals import signal_stack_kept

# Seconds after which a thread that waits for a network looks whether it has failed.
_PATIENCE = 0.5


class _Call:
    """One call of a network: its outputs, filled row by row by OpenVINO's threads."""

    def __init__(self, outputs: FloatArrays) -> None:
        self.outputs = outputs
        self._missing = len(outputs[0])
        self._complete = threading.Event()

    def keep(self, request: Any, row: int) -> None:
        """Copy a request's outputs."""
        for number, output in enumerate(self.outputs):
            output[row] = request.get_output_tensor(number).data[0]
        self._missing -= 1  # callbacks hold the interpreter's lock
        if not self._missing:
            self._complete.set()

    def wait(self, queue: Any) -> None:
        """Wait for all rows. Raises OpenVINO's RuntimeError where one failed."""
        if self._complete.wait(_PATIENCE):
            return
        # It takes long, or it failed, which is not told by a callback.
        queue.wait_all()
        if not self._complete.is_set():
            raise RuntimeError("OpenVINO: a request failed")


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests to a network of one item. queue: an AsyncInferQueue. shapes: of an item's outputs."""

    queue: Any
    shapes: tuple[tuple[int, ...], ...]


def numpy_function(requests_of: Callable[[int, int], Requests]) -> Callable[[NDArray[np.uint8]], FloatArrays]:
    """A function of uint8 pixels (N, H, W, 3): requests_of gives the requests of (1, H, W, 3), a row each.

    Several threads may call it at once.
    """
    lock = threading.Lock()

    @signal_stack_kept()
    def run(pixels: NDArray[np.uint8]) -> FloatArrays:
        # OpenVINO could give the same idle request to two threads.
        with lock:
            requests = requests_of(*pixels.shape[1:3])
            call = _Call(tuple(np.empty((len(pixels), *shape), np.float32) for shape in requests.shapes))
            for row in range(len(pixels)):
                requests.queue.start_async({0: np.ascontiguousarray(pixels[row : row + 1])}, (call, row))
        call.wait(requests.queue)
        return call.outputs

    return run


def requests_to(compiled: Any) -> Requests:
    """More requests than OpenVINO's threads, none of which then waits for Python to start the next one."""
    import openvino

    queue = openvino.AsyncInferQueue(compiled, 2 * compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    queue.set_callback(lambda request, of_call: of_call[0].keep(request, of_call[1]))
    # Those of a busy request cannot be read.
    return Requests(queue, tuple(tuple(tensor.shape[1:]) for tensor in queue[0].output_tensors))
