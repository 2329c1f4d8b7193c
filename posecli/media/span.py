"""The part of a video that is read: start, end and stride."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from posecli.errors import UsageError

# Seconds as a Fraction, or a frame's number as an int.
Position: TypeAlias = Fraction | int

_FRAME = re.compile(r"f(\d+)|(\d+)f", re.IGNORECASE)
_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)s?", re.IGNORECASE)


@dataclass(frozen=True)
class Span:
    """A part of a video. Limits are seconds from its first frame (Fraction) or frame numbers from 0 (int).

    start: included. end: excluded. duration: length, instead of end; as an int the number of source frames. stride:
    step in frames, counted from the first one in the span.

    Raises UsageError where they contradict each other.
    """

    start: Position | None = None
    end: Position | None = None
    duration: Position | None = None
    stride: int = 1

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UsageError(f"stride {self.stride}: must be 1 or more")
        if self.end is not None and self.duration is not None:
            raise UsageError("end and duration: give one of them")
        if any(limit is not None and limit < 0 for limit in (self.start, self.end, self.duration)):
            raise UsageError("start, end and duration cannot be negative")
        if self.duration == 0:
            raise UsageError("duration 0: nothing would be read")
        start = self.start or (0 if isinstance(self.end, int) else Fraction(0))
        if self.end is not None and isinstance(start, int) == isinstance(self.end, int) and self.end <= start:
            raise UsageError(f"end {_shown(self.end)} is not after start {_shown(start)}: nothing would be read")

    @property
    def whole(self) -> bool:
        """Whether every frame is read."""
        return self == Span()

    @property
    def ends(self) -> bool:
        """Whether reading stops before the source does."""
        return self.end is not None or self.duration is not None

    def starts_by(self, index: int, seconds: Fraction) -> bool:
        """Whether a frame is at or after the start."""
        if self.start is None:
            return True
        return index >= self.start if isinstance(self.start, int) else seconds >= self.start

    def ended_by(self, index: int, seconds: Fraction, first_index: int, first_seconds: Fraction) -> bool:
        """Whether a frame is at or after the end. first_*: of the first frame in the span."""
        if isinstance(self.end, int):
            return index >= self.end
        if self.end is not None:
            return seconds >= self.end
        if isinstance(self.duration, int):
            return index >= first_index + self.duration
        if self.duration is not None:
            # The duration counts from the requested start, not from the first frame after it.
            asked = self.start if isinstance(self.start, Fraction) else first_seconds
            return seconds >= asked + self.duration
        return False

    def count(self, frames: int, rate: Fraction | None) -> int:
        """Estimated number of the span's frames; 0 where unknown. frames, rate: of the source."""
        limits = self.limits(frames, rate)
        return 0 if limits is None else -(-max(0, limits[1] - limits[0]) // self.stride)

    def limits(self, frames: int, rate: Fraction | None) -> tuple[int, int] | None:
        """Estimated numbers of the span's first frame and of that after its last one; None where unknown.

        frames, rate: of the source.
        """

        def number(limit: Position) -> int | None:
            if isinstance(limit, int):
                return limit
            return round(limit * rate) if rate else None

        start = number(self.start or 0)
        end = number(self.end) if self.end is not None else None
        if self.duration is not None and start is not None:
            length = number(self.duration)
            end = None if length is None else start + length
        if start is None or (self.ends and end is None) or (not frames and end is None):
            return None
        return start, min(frames, end) if frames and end is not None else (frames or end or 0)


def parse_position(text: str) -> Position:
    """Parse a position in a video: "90", "1:30", "1:02:03.5" are times, "f120" or "120f" a frame's number.

    Raises UsageError.
    """
    plain = text.strip()
    if match := _FRAME.fullmatch(plain):
        return int(match[1] or match[2])
    if match := _TIME.fullmatch(plain):
        hours, minutes, seconds = match.groups()
        return Fraction(int(hours or 0) * 3600 + int(minutes or 0) * 60) + Fraction(seconds.rstrip("."))
    raise UsageError(f"{text!r} is no position: write seconds (90, 12.5), a time (1:02.5, 1:00:00) or a frame (f120)")


def _shown(position: Position) -> str:
    return f"frame {position}" if isinstance(position, int) else f"{float(position):g} s"
