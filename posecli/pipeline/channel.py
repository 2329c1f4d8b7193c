"""A bounded queue between two threads that ends when either of them fails."""

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

# Bytes of decoded pixels in the pipeline at once: two photos of 48 megapixels.
PIPELINE_BYTES = 300_000_000


class Stopped(Exception):
    """Another thread failed or the user interrupted: this thread ends without an error of its own."""


class Channel(Generic[T]):
    """Items in order. Once stop is set, both its ends raise Stopped."""

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
    """The bytes of frames between their decoding and their encoding. What is larger than all of it goes alone.

    used: bytes counted in and not out. Once stop is set, take raises Stopped.
    """

    def __init__(self, limit: int, stop: threading.Event) -> None:
        self.limit, self._stop = limit, stop
        self.used = 0
        self._changed = threading.Condition()

    def fits(self, size: int) -> bool:
        """Whether take would not wait."""
        return self.used == 0 or self.used + size <= self.limit

    def take(self, size: int) -> None:
        """Count bytes in, waiting until they fit."""
        with self._changed:
            while not self.fits(size):
                if self._stop.is_set():
                    raise Stopped
                self._changed.wait(0.1)
            self._count(size)

    def give(self, size: int) -> None:
        """Count bytes out."""
        with self._changed:
            self._count(-size)

    def correct(self, taken: int, size: int) -> None:
        """What was taken turned out to be of another size."""
        with self._changed:
            self._count(size - taken)

    def _count(self, size: int) -> None:
        self.used += size
        self._changed.notify_all()


class GivenUp:
    """Inputs that have failed, by their numbers, known to all threads: none of them works on their frames any more."""

    def __init__(self) -> None:
        self._reasons: dict[int, str] = {}
        self._lock = threading.Lock()

    def add(self, number: int, reason: str) -> None:
        """An input failed; the first reason stays."""
        with self._lock:
            self._reasons.setdefault(number, reason)

    def reason(self, number: int) -> str | None:
        """Why an input failed; None where it did not."""
        return self._reasons.get(number)

    def __contains__(self, number: int) -> bool:
        return number in self._reasons
