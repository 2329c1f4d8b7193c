"""Requests to a network in OpenVINO: several at once, from any thread."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posecli.runtime.network import FloatArrays

LOG = logging.getLogger(__name__)
# Held by the first inference of the process, before which no other starts: OpenVINO's bindings initialise themselves in
# it without regard to Python's lock, and two threads at once would wait for each other for ever.
_FIRST = threading.Lock()
_begun = threading.Event()
# Items in calls that are long enough for batches, from which on these are made: making them takes about as long as they
# save on twice as many.
BATCHES_AFTER = 400

# Pixels (N, H, W, 3) uint8, N ≥ 1 → the network's outputs (N, ...).
PixelFunction = Callable[[NDArray[np.uint8]], FloatArrays]


class Requests:
    """A compiled network of a fixed number of items, called with a multiple of it.

    Each of some threads has a request of its own. They are twice as many as OpenVINO's, which then never wait for
    Python to start the next request. at_once: requests that OpenVINO computes in parallel.
    """

    def __init__(self, compiled: Any, items: int = 1) -> None:
        self.items = items
        self._compiled, self._own = compiled, threading.local()
        self.at_once = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._threads = ThreadPoolExecutor(2 * self.at_once, thread_name_prefix="openvino")

    def __call__(self, pixels: NDArray[np.uint8]) -> FloatArrays:
        """Pixels (N, H, W, 3), N ≥ 1 → the network's outputs (N, ...). Raises OpenVINO's RuntimeError."""
        return joined(self.begin(pixels))

    def begin(self, pixels: NDArray[np.uint8]) -> "list[Future[FloatArrays]]":
        """The same, in parts that are computed meanwhile."""
        rows = range(0, len(pixels), self.items)
        return [self._threads.submit(self._infer, np.ascontiguousarray(pixels[row : row + self.items])) for row in rows]

    def _infer(self, part: NDArray[np.uint8]) -> FloatArrays:
        if _begun.is_set():
            return self._inferred(part)
        with _FIRST:
            outputs = self._inferred(part)
            _begun.set()
        return outputs

    def _inferred(self, part: NDArray[np.uint8]) -> FloatArrays:
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        request.infer({0: part}, share_inputs=True)
        return tuple(np.array(tensor.data, np.float32) for tensor in request.output_tensors)


class BatchedRequests:
    """Requests of one item, and once many were computed, of several where a call has enough of them for all cores.

    single: requests of one item. make: makes requests of several items that give the same bits, None where there are
    none; called once, in a thread of its own.
    """

    def __init__(self, single: Requests, make: Callable[[], Requests | None], items: int) -> None:
        self._single, self._make, self._items = single, make, items
        self._batches: Requests | None = None
        self._lock, self._seen, self._begun = threading.Lock(), 0, False

    def __call__(self, pixels: NDArray[np.uint8]) -> FloatArrays:
        """As Requests; results do not depend on which requests compute them."""
        if len(pixels) < self._items * self._single.at_once:
            return self._single(pixels)
        if self._batches is None:
            self._count(len(pixels))
            return self._single(pixels)
        whole = len(pixels) - len(pixels) % self._items
        return joined([*self._batches.begin(pixels[:whole]), *self._single.begin(pixels[whole:])])

    def prepare(self) -> None:
        """Make the requests of several items now."""
        try:
            self._batches = self._make()
        except Exception as error:  # the single ones do as well
            LOG.info("no batches: %s", " ".join(str(error).split())[:150])

    def _count(self, items: int) -> None:
        with self._lock:
            self._seen += items
            begin = self._seen >= BATCHES_AFTER and not self._begun
            self._begun |= begin
        if begin:
            threading.Thread(target=self.prepare).start()


def joined(parts: "Sequence[Future[FloatArrays]]") -> FloatArrays:
    """The outputs of parts, one after the other. Raises OpenVINO's RuntimeError."""
    return tuple(np.concatenate(output) for output in zip(*(part.result() for part in parts), strict=True))


def numpy_function(requests_of: Callable[[int, int], PixelFunction]) -> PixelFunction:
    """A function of uint8 pixels (N, H, W, 3); requests_of gives the requests of (1, H, W, 3).

    Several threads may call it at once.
    """

    def run(pixels: NDArray[np.uint8]) -> FloatArrays:
        return requests_of(*pixels.shape[1:3])(pixels)

    return run
