"""Requests to a network in OpenVINO: several at once, from any thread."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posecli.runtime.network import FloatArrays

# Held by the first inference of the process, before which no other starts: OpenVINO's bindings initialise themselves in
# it without regard to Python's lock, and two threads at once would wait for each other for ever.
_FIRST = threading.Lock()
_begun = threading.Event()


class Requests:
    """A compiled network of one item, called with many.

    Each of some threads has a request of its own. They are twice as many as OpenVINO's, which then never wait for
    Python to start the next request.
    """

    def __init__(self, compiled: Any) -> None:
        self._compiled, self._own = compiled, threading.local()
        count = 2 * int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="openvino")

    def __call__(self, pixels: NDArray[np.uint8]) -> FloatArrays:
        """Pixels (N, H, W, 3), N ≥ 1 → the network's outputs (N, ...). Raises OpenVINO's RuntimeError."""
        rows = (np.ascontiguousarray(pixels[row : row + 1]) for row in range(len(pixels)))
        found = list(self._threads.map(self._infer, rows))
        return tuple(np.concatenate(output) for output in zip(*found, strict=True))

    def _infer(self, row: NDArray[np.uint8]) -> FloatArrays:
        if _begun.is_set():
            return self._inferred(row)
        with _FIRST:
            outputs = self._inferred(row)
            _begun.set()
        return outputs

    def _inferred(self, row: NDArray[np.uint8]) -> FloatArrays:
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        request.infer({0: row}, share_inputs=True)
        return tuple(np.array(tensor.data, np.float32) for tensor in request.output_tensors)


def numpy_function(requests_of: Callable[[int, int], Requests]) -> Callable[[NDArray[np.uint8]], FloatArrays]:
    """A function of uint8 pixels (N, H, W, 3); requests_of gives the requests of (1, H, W, 3).

    Several threads may call it at once.
    """

    def run(pixels: NDArray[np.uint8]) -> FloatArrays:
        return requests_of(*pixels.shape[1:3])(pixels)

    return run
