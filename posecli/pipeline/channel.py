"""A bounded queue between two threads that ends when either of them fails."""

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """Another thread failed or the user interrupted; this one just leaves."""


class Channel(Generic[T]):
    """Items in order. Once stop is set, both its ends raise Stopped."""

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[T | None] = queue.Queue(size)
        self._stop = stop

    def put(self, item: T | None) -> None:
        """Add an item, waiting for room; None ends the channel."""
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
        raise Stopped
