"""Connections between the threads of a run: a bounded queue, a memory budget, the inputs that failed."""

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

# Bytes of decoded pixels in the pipeline at once: two photos of 48 megapixels.
PIPELINE_BYTES = 300_000_000


class Stopped(Exception):
    """Ends a thread because another one failed or the user interrupted; it is not reported."""


class Channel(Generic[T]):
    """A bounded queue. Once stop is set, both producer and consumer raise Stopped."""

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[T | None] = queue.Queue(size)
        self._stop = stop

    def put(self, item: T | None) -> None:
        """Add an item, waiting while the queue is full; None ends the channel."""
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
        raise Stopped

    def __iter__(self) -> Iterator[T]:
        while not self._stop.is_set():
            try:
                item = self._queue.get(timeout=0.1)
            except queue.Empty:
                continue
            if item is None:
                return
            yield item
            item = None  # release the frame while waiting for the next one
        raise Stopped


class Budget:
    """A limit on the bytes of frames from decoding to encoding. A frame that is larger than the limit is alone in it.

    used: bytes acquired and not released. Once stop is set, acquire raises Stopped.
    """

    def __init__(self, limit: int, stop: threading.Event) -> None:
        self.limit, self._stop = limit, stop
        self.used = 0
        self._changed = threading.Condition()

    def fits(self, size: int) -> bool:
        """Whether acquire would return without waiting."""
        return self.used == 0 or self.used + size <= self.limit

    def acquire(self, size: int) -> None:
        """Add bytes, waiting until they fit."""
        with self._changed:
            while not self.fits(size):
                if self._stop.is_set():
                    raise Stopped
                self._changed.wait(0.1)
            self._count(size)

    def release(self, size: int) -> None:
        """Subtract bytes."""
        with self._changed:
            self._count(-size)

    def resize(self, taken: int, size: int) -> None:
        """Replace acquired bytes by the actual size."""
        with self._changed:
            self._count(size - taken)

    def _count(self, size: int) -> None:
        self.used += size
        self._changed.notify_all()


class FailedInputs:
    """Inputs that have failed, by their numbers, shared by all threads, which drop their frames."""

    def __init__(self) -> None:
        self._reasons: dict[int, str] = {}
        self._lock = threading.Lock()

    def add(self, number: int, reason: str) -> None:
        """Add an input that failed; the first reason is kept."""
        with self._lock:
            self._reasons.setdefault(number, reason)

    def reason(self, number: int) -> str | None:
        """The reason why an input failed; None where it did not."""
        return self._reasons.get(number)

    def __contains__(self, number: int) -> bool:
        return number in self._reasons
