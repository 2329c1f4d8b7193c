"""Trails: where each track was in the last seconds."""

import math
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from posecli.draw.palette import Colour, id_colour
from posecli.keypoints import KeypointSet
from posecli.types import FloatArray, PixelArray, Poses

# What can leave a trail: for each line the keypoints whose middle it follows.
TRAIL_POINTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "hips": (("left_hip", "right_hip"),),
    "wrists": (("left_wrist",), ("right_wrist",)),
    "ankles": (("left_ankle",), ("right_ankle",)),
}

# Somebody out of sight for longer than this, in seconds, leaves a gap in the trail.
_GAP = 0.5


@dataclass(frozen=True)
class _Sight:
    time: float
    x: float
    y: float


class Trails:
    """Remembers for some seconds where tracks were; nothing is kept longer.

    points: a name of TRAIL_POINTS. A keypoint set without these keypoints is followed at the boxes' centres.
    """

    def __init__(self, seconds: float, keypoint_set: KeypointSet, keypoint_threshold: float, points: str) -> None:
        self._seconds, self._threshold = seconds, keypoint_threshold
        names = keypoint_set.names
        lines = [line for line in TRAIL_POINTS[points] if all(name in names for name in line)]
        self._lines = [[names.index(name) for name in line] for line in lines]
        self._sights: dict[tuple[int, int], deque[_Sight]] = {}

    def follow(self, poses: Poses, time: float) -> None:
        """Add a frame's people; time in seconds, not falling. People without ids leave no trail."""
        for person, track_id in enumerate([] if poses.track_ids is None else poses.track_ids.tolist()):
            for line, place in enumerate(self._places(poses, person)):
                if place is not None and np.isfinite(place).all():
                    sights = self._sights.setdefault((track_id, line), deque())
                    sights.append(_Sight(time, float(place[0]), float(place[1])))
        for key, sights in list(self._sights.items()):
            while sights and sights[0].time < time - self._seconds:
                sights.popleft()
            if not sights:
                del self._sights[key]

    def _places(self, poses: Poses, person: int) -> list[FloatArray | None]:
        if not self._lines:
            box = poses.boxes[person]
            return [(box[:2] + box[2:]) / 2]
        sure = poses.scores[person] >= self._threshold
        return [poses.keypoints[person][line].mean(axis=0) if sure[line].all() else None for line in self._lines]

    def draw(self, canvas: PixelArray, time: float) -> None:
        """Draw the trails as they are at a time, the older the fainter, on a picture (height, width, 3) RGB."""
        thickness = max(2, round(0.004 * min(canvas.shape[:2])))
        for (track_id, _), sights in self._sights.items():
            self._draw_one(canvas, sights, time, id_colour(track_id), thickness)

    def _draw_one(
        self, canvas: PixelArray, sights: "deque[_Sight]", time: float, colour: Colour, thickness: int
    ) -> None:
        height, width = canvas.shape[:2]
        xs, ys = [s.x for s in sights], [s.y for s in sights]
        left, top = (max(0, math.floor(min(v)) - 2 * thickness) for v in (xs, ys))
        right, bottom = min(width, math.ceil(max(xs)) + 2 * thickness), min(height, math.ceil(max(ys)) + 2 * thickness)
        if left >= right or top >= bottom:
            return
        # How opaque each pixel is; later pieces of the trail lie over earlier ones.
        alpha = np.zeros((bottom - top, right - left), np.uint8)
        previous: _Sight | None = None
        for sight in sights:
            if previous is not None and sight.time - previous.time <= _GAP:
                strength = 230 * max(0.0, 1 - (time - sight.time) / self._seconds)
                ends = [(round((s.x - left) * 16), round((s.y - top) * 16)) for s in (previous, sight)]
                if max(abs(v) for end in ends for v in end) < 2**24:
                    cv2.line(alpha, ends[0], ends[1], strength, thickness, cv2.LINE_AA, 4)
            previous = sight
        rows, columns = np.nonzero(alpha)
        share = alpha[rows, columns, None].astype(np.float32) / 255
        part = canvas[top:bottom, left:right]
        below = part[rows, columns]
        part[rows, columns] = np.rint(below + (np.array(colour, np.float32) - below) * share).astype(np.uint8)
