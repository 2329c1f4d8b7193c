"""What travels between the threads of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from posecli.media.inputs import Input
from posecli.media.video import VideoReader
from posecli.results.manifest import Finished
from posecli.results.records import Summary
from posecli.types import Frame, Poses


@dataclass(frozen=True)
class Job:
    """One input with its places in the output. place: what its tables are named by, "" for the input's name."""

    number: int
    input: Input
    output: str
    record: Path
    place: str = ""

    @property
    def journal(self) -> Path:
        """Where the networks' answers for a video are kept until it is finished."""
        return self.record.parent.with_name("journals") / self.record.name


@dataclass(frozen=True, eq=False)
class Opened:
    """An input begins. content: its fingerprint, "" for a live source. source is None for a photo."""

    job: Job
    content: str
    source: VideoReader | None


@dataclass(frozen=True)
class Flush:
    """No frame comes before those that are under way are done: the next one is too large to join them."""


@dataclass(frozen=True, eq=False)
class Read:
    """A frame of it."""

    job: Job
    frame: Frame


@dataclass(frozen=True, eq=False)
class Estimated:
    """A frame with its people."""

    job: Job
    frame: Frame
    poses: Poses


@dataclass(frozen=True, eq=False)
class Closed:
    """An input has no more frames. error is None unless it failed; ended is set for one finished before.

    damage: what is wrong with a photo that is kept all the same.
    """

    job: Job
    content: str = ""
    error: str | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    damage: str | None = None
    ended: Summary | None = None


class Progress(Protocol):
    """Who wants to know how far a run is."""

    def begin(self, name: str, frames: int) -> None:
        """An input begins, with about so many frames; 0 where nobody knows."""

    def advance(self, name: str, frames: int) -> None:
        """Frames of an input were done."""

    def finish(self, item: Finished) -> None:
        """An input ended."""
