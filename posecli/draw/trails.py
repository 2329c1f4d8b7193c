"""Trails: the path of each track in the last second."""

import math
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from posecli.draw.palette import Colour, id_colour
from posecli.keypoints import KeypointSet
from posecli.types import FloatArray, PixelArray, Poses

# Length of a trail in seconds.
TRAIL_SECONDS = 1.0
# A trail follows the centre of these keypoints.
_HIPS = ("left_hip", "right_hip")
# A track without a detection for longer than this, in seconds, has a gap in its trail.
_GAP = 0.5


@dataclass(frozen=True)
class _Point:
    """A position in pixels at a time in seconds."""

    time: float
    x: float
    y: float


class Trails:
    """The paths of the tracks of one input over the last `seconds`; older points are dropped.

    A path follows the centre of the hips, or of the box where the keypoint set has no hips.
    """

    def __init__(self, keypoint_set: KeypointSet, keypoint_threshold: float, seconds: float = TRAIL_SECONDS) -> None:
        self._seconds, self._threshold = seconds, keypoint_threshold
        names = keypoint_set.names
        self._hips = [names.index(name) for name in _HIPS] if all(name in names for name in _HIPS) else []
        self._points: dict[int, deque[_Point]] = {}

    def update(self, poses: Poses, time: float) -> None:
        """Add a frame's people at a time in seconds, which does not decrease. People without track ids are ignored."""
        for person, track_id in enumerate([] if poses.track_ids is None else poses.track_ids.tolist()):
            place = self._place(poses, person)
            if place is not None and np.isfinite(place).all():
                self._points.setdefault(track_id, deque()).append(_Point(time, float(place[0]), float(place[1])))
        for track_id, points in list(self._points.items()):
            while points and points[0].time < time - self._seconds:
                points.popleft()
            if not points:
                del self._points[track_id]

    def _place(self, poses: Poses, person: int) -> FloatArray | None:
        if not self._hips:
            box = poses.boxes[person]
            return np.asarray((box[:2] + box[2:]) / 2)
        visible = poses.scores[person][self._hips] >= self._threshold
        return np.asarray(poses.keypoints[person][self._hips].mean(axis=0)) if visible.all() else None

    def draw(self, canvas: PixelArray, time: float) -> None:
        """Draw the trails on an image (height, width, 3) uint8 RGB at a time in seconds; older parts are fainter."""
        thickness = max(2, round(0.004 * min(canvas.shape[:2])))
        for track_id, points in self._points.items():
            self._draw_one(canvas, points, time, id_colour(track_id), thickness)

    def _draw_one(
        self, canvas: PixelArray, points: "deque[_Point]", time: float, colour: Colour, thickness: int
    ) -> None:
        height, width = canvas.shape[:2]
        xs, ys = [s.x for s in points], [s.y for s in points]
        left, top = (max(0, math.floor(min(v)) - 2 * thickness) for v in (xs, ys))
        right, bottom = min(width, math.ceil(max(xs)) + 2 * thickness), min(height, math.ceil(max(ys)) + 2 * thickness)
        if left >= right or top >= bottom:
            return
        # Opacity of each pixel; later pieces of the trail cover earlier ones.
        alpha = np.zeros((bottom - top, right - left), np.uint8)
        previous: _Point | None = None
        for point in points:
            if previous is not None and point.time - previous.time <= _GAP:
                strength = 230 * max(0.0, 1 - (time - point.time) / self._seconds)
                ends = [(round((s.x - left) * 16), round((s.y - top) * 16)) for s in (previous, point)]
                if max(abs(v) for end in ends for v in end) < 2**24:
                    cv2.line(alpha, ends[0], ends[1], strength, thickness, cv2.LINE_AA, 4)
            previous = point
        rows, columns = np.nonzero(alpha)
        share = alpha[rows, columns, None].astype(np.float32) / 255
        part = canvas[top:bottom, left:right]
        below = part[rows, columns]
        part[rows, columns] = np.rint(below + (np.array(colour, np.float32) - below) * share).astype(np.uint8)
