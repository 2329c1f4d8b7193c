"""Times of a run's stages, recorded for `posecli bench` only."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal[
    "decode", "letterbox", "detector", "crops", "network", "decoding", "selection", "tracking", "drawing", "encoding",
    "JSON", "other",
]  # fmt: skip
# Of other: what the pipeline's threads do outside of all other stages.


@dataclass
class StageTime:
    """Sums of one stage. calls; items: images, crops or frames; wall: seconds; core: CPU seconds of the calling thread.

    Work that libraries do in threads of their own (FFmpeg, OpenVINO) is in wall only.
    """

    calls: int = 0
    items: int = 0
    wall: float = 0.0
    core: float = 0.0


@dataclass
class Recording:
    """Stage times of all threads while it is active, see recorded. A stage inside of another one is counted once."""

    stages: dict[str, StageTime] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _local: threading.local = field(default_factory=threading.local)

    @contextmanager
    def measure(self, name: str, items: int) -> Iterator[None]:
        """Add the time of a with statement to a stage, without that of stages inside it."""
        inside = getattr(self._local, "inside", None)
        self._local.inside = own = [0.0, 0.0]
        wall, core = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            wall, core = time.perf_counter() - wall, time.thread_time() - core
            self._local.inside = inside
            if inside is not None:
                inside[0] += wall
                inside[1] += core
            with self._lock:
                found = self.stages.setdefault(name, StageTime())
                found.calls += 1
                found.items += items
                found.wall += wall - own[0]
                found.core += core - own[1]


_active: Recording | None = None


@contextmanager
def stage(name: Stage, items: int = 1) -> Iterator[None]:
    """Mark the work of one stage on a number of items. Without a recording it costs a microsecond."""
    recording = _active
    if recording is None:
        yield
        return
    with recording.measure(name, items):
        yield


@contextmanager
def recorded() -> Iterator[Recording]:
    """Record the stages of all threads until the end of the with statement."""
    global _active
    before, recording = _active, Recording()
    _active = recording
    try:
        yield recording
    finally:
        _active = before
