"""Short gaps of tracks, filled while a clip is processed: frames wait until a person who is missing is found again."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from posecli.tracking.smoothing import SHORTEST, SmoothOptions, sizes
from posecli.types import FloatArray, Frame, Poses

# Factor on the interpolated scores of filled rows, for which there is no detection.
_FILLED_SHARE = 0.5


@dataclass(eq=False)
class _Held:
    """A waiting frame at a time in seconds, its poses, and the rows that were filled in."""

    frame: Frame
    time: float
    poses: Poses
    filled: list[Poses] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Seen:
    """The last row of a track: number and time (seconds) of its frame, and that frame's poses."""

    number: int
    time: float
    poses: Poses
    row: int


class GapFiller:
    """Fills gaps of tracks of at most max_gap seconds, for the frames of one clip in the order of time.

    A frame waits only while a person who was there less than max_gap seconds ago is missing, and while the pixels of
    all waiting frames have at most most_bytes: longer gaps than fit are not filled. Filled rows follow the others:
    filled=True, see `interpolated`. Poses are in pixels that are the same for all frames. Frames without a time do not
    wait.
    """

    def __init__(self, max_gap: float, most_bytes: int) -> None:
        self._max_gap, self._most_bytes = max_gap, most_bytes
        self._held: deque[_Held] = deque()
        self._bytes = 0
        # Number of the next frame, from 0; track id → its last row.
        self._next = 0
        self._seen: dict[int, _Seen] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes of the pixels of the frames that wait."""
        return self._bytes

    def add(self, frame: Frame, poses: Poses) -> Iterator[tuple[Frame, Poses]]:
        """Take the next frame, whose poses have track ids; the frames that need not wait any longer, with filled rows.

        The result must be used up before the next frame is added.
        """
        if frame.time is None or poses.track_ids is None:
            yield from self.end()
            yield frame, poses
            return
        number, now = self._next, float(frame.time)
        for row, track in enumerate(poses.track_ids.tolist()):
            seen = _Seen(number, now, poses, row)
            before = self._seen.get(track)
            if before is not None and before.number < number - 1 and now - before.time <= self._max_gap:
                self._fill(before, seen)
            self._seen[track] = seen
        self._held.append(_Held(frame, now, poses))
        self._bytes += frame.pixels.nbytes
        self._next += 1
        self._seen = {track: seen for track, seen in self._seen.items() if now - seen.time < self._max_gap}
        missing = [seen.number + 1 for seen in self._seen.values() if seen.number < number]
        first_needed = min(missing, default=self._next)
        while self._held and (self._next - len(self._held) < first_needed or self._bytes > self._most_bytes):
            yield self._release()

    def end(self) -> Iterator[tuple[Frame, Poses]]:
        """The frames that still wait, at the end of the clip."""
        self._seen = {}
        while self._held:
            yield self._release()

    def forget(self) -> None:
        """Drop the frames that wait."""
        self._seen = {}
        self._held.clear()
        self._bytes = 0

    def _fill(self, before: _Seen, after: _Seen) -> None:
        """Rows for the frames of a gap, if all of them still wait."""
        place = before.number + 1 - (self._next - len(self._held))
        if place < 0:
            return
        gap = list(self._held)[place:]
        rows = interpolated(
            _row(before), _row(after), before.time, after.time, np.array([held.time for held in gap], np.float64)
        )
        for number, held in enumerate(gap):
            held.filled.append(rows.rows(np.array([number])))

    def _release(self) -> tuple[Frame, Poses]:
        held = self._held.popleft()
        self._bytes -= held.frame.pixels.nbytes
        return held.frame, joined(held.poses, held.filled)


def interpolated(a: Poses, b: Poses, start: float, end: float, times: np.ndarray) -> Poses:
    """Rows (F,) of one track at times (F,) in seconds between a (one row, at start) and b (one row, at end).

    Keypoints and boxes are interpolated linearly, scores too and then halved, filled=True. The variance is that of the
    two ends with these weights and of a white-noise acceleration of spectral density q between them whose speed is not
    known: q (end - start)³ u² (1 - u)² / 3 at the share u of the gap, the posterior of a cubic spline (Rasmussen and
    Williams, "Gaussian Processes for Machine Learning", 2006, section 6.3.1).
    """
    gap = max(end - start, SHORTEST)
    u = np.clip((times - start) / gap, 0.0, 1.0)

    def mixed(first: FloatArray, second: FloatArray, factor: float = 1.0) -> FloatArray:
        share = u.reshape(-1, *[1] * (first.ndim - 1))
        return np.asarray(factor * ((1 - share) * first + share * second), np.float32)

    share = u[:, None, None]
    size = (1 - u) * sizes(a) + u * sizes(b)
    density = (SmoothOptions.acceleration_noise * size[:, None, None]) ** 2
    ends = ((1 - share) * a.std.astype(np.float64)) ** 2 + (share * b.std.astype(np.float64)) ** 2
    keypoints = mixed(a.keypoints, b.keypoints)
    return Poses(
        keypoints=keypoints,
        std=np.sqrt(ends + density * gap**3 * (share * (1 - share)) ** 2 / 3).astype(np.float32),
        scores=mixed(a.scores, b.scores, _FILLED_SHARE),
        boxes=mixed(a.boxes, b.boxes),
        box_scores=mixed(a.box_scores, b.box_scores, _FILLED_SHARE),
        person_scores=mixed(a.person_scores, b.person_scores, _FILLED_SHARE),
        track_ids=None if a.track_ids is None else np.repeat(a.track_ids, len(u)),
        raw_keypoints=None if a.raw_keypoints is None else keypoints,
        filled=np.ones(len(u), bool),
    )


def joined(poses: Poses, filled: Sequence[Poses]) -> Poses:
    """The poses of a frame and then its filled rows."""
    if not filled:
        return poses
    parts = [poses if poses.filled is not None else replace(poses, filled=np.zeros(len(poses), bool)), *filled]
    columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Poses)}
    # Where a part has no raw keypoints, the frame has none.
    whole: dict[str, Any] = {
        n: None if any(c is None for c in column) else np.concatenate(column) for n, column in columns.items()
    }
    return replace(poses, **whole)


def _row(seen: _Seen) -> Poses:
    return seen.poses.rows(np.array([seen.row]))
