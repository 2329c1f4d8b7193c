"""Events passed between the threads of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from posecli.media.inputs import Input
from posecli.media.video import VideoReader
from posecli.results.journal import part_path
from posecli.results.manifest import Finished
from posecli.results.records import Summary, record_path
from posecli.types import Frame, Poses


@dataclass(frozen=True, slots=True)
class Job:
    """One input and its output files.

    output: path of its media relative to out, the output folder. place: base name of its tables, "" for the input's
    name. part: of a video, the first frame's number and that after the last one (None for all): only the networks run
    on these frames, and their outputs are written into a journal, which the job without part uses.

    The paths of other files are made when they are asked for: those of a million inputs need much memory.
    """

    number: int
    input: Input
    output: str
    out: Path
    place: str = ""
    part: tuple[int, int | None] | None = None

    @property
    def record(self) -> Path:
        """The file that marks the input as finished."""
        return record_path(self.out, self.input.name)

    @property
    def journal(self) -> Path:
        """The file of the networks' results for a video, or for its part, until the video is finished."""
        path = self.out / ".posecli" / "journals" / self.record.name
        return path if self.part is None else part_path(path, self.part[0])


@dataclass(frozen=True, eq=False)
class Opened:
    """Start of an input. content: its fingerprint, "" for a live source. source: None for a photo."""

    job: Job
    content: str
    source: VideoReader | None


@dataclass(frozen=True)
class Flush:
    """Request to process all waiting frames: the next one exceeds the memory budget together with them."""


@dataclass(frozen=True, eq=False)
class Read:
    """A decoded frame of an input."""

    job: Job
    frame: Frame


@dataclass(frozen=True, eq=False)
class Estimated:
    """A frame with its poses."""

    job: Job
    frame: Frame
    poses: Poses


@dataclass(frozen=True, eq=False)
class Closed:
    """End of an input. error: None unless it failed. ended: its summary if an earlier run finished it.

    damage: the damage of a photo that was decoded in part.
    """

    job: Job
    content: str = ""
    error: str | None = None
    lost: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    damage: str | None = None
    ended: Summary | None = None


class Progress(Protocol):
    """Receives the progress of a run."""

    def begin(self, name: str, frames: int) -> None:
        """Start of an input. frames: estimated number, 0 if unknown."""

    def advance(self, name: str, frames: int) -> None:
        """Frames of an input were written; frames: their number."""

    def finish(self, item: Finished) -> None:
        """End of an input."""
