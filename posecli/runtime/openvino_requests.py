"""Requests to a network in OpenVINO: several at once, from any thread."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posecli.runtime.network import FloatArrays

LOG = logging.getLogger(__name__)
# Held by the first inference of the process, before which no other starts: OpenVINO's bindings initialise themselves in
# it without regard to Python's lock, and two threads at once would wait for each other for ever.
_FIRST = threading.Lock()
_begun = threading.Event()
# Requests of a call that wait or are computed, for each that OpenVINO computes in parallel; they bound memory.
_WAITING = 4
# Items in calls that are long enough for batches, from which on these are made: making them takes about as long as they
# save on twice as many.
BATCHES_AFTER = 400

# Pixels (N, H, W, 3) uint8, N ≥ 1 → the network's outputs (N, ...).
PixelFunction = Callable[[NDArray[np.uint8]], FloatArrays]


class Requests:
    """A compiled network of a fixed number of items, called with a multiple of it.

    Several requests are handed to OpenVINO at once, which so never waits for Python to start the next one. at_once:
    requests that it computes in parallel.
    """

    def __init__(self, compiled: Any, items: int = 1) -> None:
        self.items = items
        self._compiled = compiled
        self.at_once = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._idle: deque[Any] = deque()

    def __call__(self, pixels: NDArray[np.uint8]) -> FloatArrays:
        """Pixels (N, H, W, 3), N ≥ 1 → the network's outputs (N, ...). Raises OpenVINO's RuntimeError."""
        return joined(self.begin(pixels))

    def begin(self, pixels: NDArray[np.uint8]) -> "list[Part]":
        """The same, in parts of which the last ones are still computed."""
        begun: list[Part] = []
        most = _WAITING * self.at_once
        with nullcontext() if _begun.is_set() else _FIRST:
            try:
                for start in range(0, len(pixels), self.items):
                    if len(begun) >= most:
                        begun[-most].result()
                    part = np.ascontiguousarray(pixels[start : start + self.items])
                    begun.append(Part(self._started(part), part, self._idle))
                    if not _begun.is_set():
                        begun[0].result()
                        _begun.set()
            except RuntimeError:
                wait_for(begun)
                raise
        return begun

    def _started(self, part: NDArray[np.uint8]) -> Any:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.start_async({0: part}, share_inputs=True)
        return request


class Part:
    """Items that a request computes. pixels: they are read by OpenVINO. idle: receives the request at its end."""

    def __init__(self, request: Any, pixels: NDArray[np.uint8], idle: deque[Any]) -> None:
        self._request, self._pixels, self._idle = request, pixels, idle
        self._outputs: FloatArrays | None = None

    def result(self) -> FloatArrays:
        """Wait for the outputs. Raises OpenVINO's RuntimeError."""
        if self._outputs is None:
            self._request.wait()
            self._outputs = tuple(np.array(tensor.data, np.float32) for tensor in self._request.output_tensors)
            self._idle.append(self._request)
        return self._outputs


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
        except (RuntimeError, OSError, MemoryError) as error:  # the single ones do as well
            LOG.info("no batches: %s", " ".join(str(error).split())[:150])

    def _count(self, items: int) -> None:
        with self._lock:
            self._seen += items
            begin = self._seen >= BATCHES_AFTER and not self._begun
            self._begun |= begin
        if begin:
            threading.Thread(target=self.prepare).start()


def joined(parts: Sequence[Part]) -> FloatArrays:
    """The outputs of parts, one after the other. Raises OpenVINO's RuntimeError, when all parts have ended."""
    try:
        return tuple(np.concatenate(output) for output in zip(*(part.result() for part in parts), strict=True))
    except RuntimeError:
        wait_for(parts)
        raise


def wait_for(parts: Iterable[Part]) -> None:
    """Wait until OpenVINO no longer reads the parts' pixels. Errors are ignored."""
    for part in parts:
        with suppress(RuntimeError):
            part.result()


def numpy_function(requests_of: Callable[[int, int], PixelFunction]) -> PixelFunction:
    """A function of uint8 pixels (N, H, W, 3); requests_of gives the requests of (1, H, W, 3).

    Several threads may call it at once.
    """

    def run(pixels: NDArray[np.uint8]) -> FloatArrays:
        return requests_of(*pixels.shape[1:3])(pixels)

    return run
