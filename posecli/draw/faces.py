"""Face blur: heads are covered by a mosaic. Where a head's position is uncertain, a larger area is covered."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from posecli.geometry import Float64Array
from posecli.keypoints import KeypointSet
from posecli.types import PixelArray, Poses

# Radius of a head with hair relative to distances between keypoints: a head is about 24 cm high, ears are 15 cm apart,
# eyes 6, nose and ear 12, shoulders 35, shoulders and hips 50, a standing person is 170. Perspective only shortens
# distances, so the largest estimate is used.
_EARS, _EYES, _NOSE_EAR, _SHOULDERS, _TORSO, _HEIGHT = 0.95, 2.2, 1.15, 0.4, 0.28, 0.08

_HEAD_WORDS = frozenset({"nose", "eye", "ear", "head", "face", "mouth", "chin", "jaw", "forehead", "lip", "eyebrow"})

# Cells of the mosaic along the longer side, few enough that features are lost, and their smallest size in pixels.
_CELLS, _SMALLEST_CELL = 6, 6

# Rows that are covered at once, which bounds memory for large images.
_ROWS = 256

# Seconds that a face stays covered at its last position when its person is not detected.
_HOLD = 0.5


@dataclass(frozen=True)
class Area:
    """A part of the image to cover: an ellipse, or a rectangle, by its centre and half sides in pixels."""

    x: float
    y: float
    half_width: float
    half_height: float
    ellipse: bool = True

    def grown(self, factor: float) -> "Area":
        """The area with its sides multiplied by a factor."""
        return replace(self, half_width=factor * self.half_width, half_height=factor * self.half_height)


@dataclass(frozen=True)
class _Head:
    """One person's areas at the last detection, and its time in seconds."""

    time: float
    areas: list[Area]
    track_id: int | None

    def distance(self, other: "_Head") -> float:
        """Distance of another head, relative to the size of the larger one."""
        one, two = self.areas[0], other.areas[0]
        size = max(one.half_width, one.half_height, two.half_width, two.half_height)
        return float(np.hypot(one.x - two.x, one.y - two.y) / size)


class FaceBlur:
    """Finds the areas of faces in one input's frames, in order.

    A face whose person is not detected for a moment stays covered at its last position, a little larger. Only people
    above the detector's threshold are covered.
    """

    def __init__(self, keypoint_set: KeypointSet, keypoint_threshold: float) -> None:
        self._set, self._threshold = keypoint_set, keypoint_threshold
        self._held: list[_Head] = []

    def update(self, poses: Poses, time: float) -> list[Area]:
        """The areas to cover in a frame at a time in seconds."""
        ids = [None] * len(poses) if poses.track_ids is None else poses.track_ids.tolist()
        heads = [_Head(time, self._of_person(poses, i), track_id) for i, track_id in enumerate(ids)]
        missed = [head for head in self._held if time - head.time <= _HOLD]
        for head in heads:
            # Each detection of a head replaces one earlier detection: that of its id, else the nearest.
            same = [h for h in missed if h.track_id is not None and h.track_id == head.track_id]
            same = same or [h for h in missed if h.distance(head) < 1]
            if same:
                missed.remove(min(same, key=head.distance))
        self._held = heads + missed
        return [area for head in heads for area in head.areas] + [a.grown(1.3) for h in missed for a in h.areas]

    def _of_person(self, poses: Poses, person: int) -> list[Area]:
        # The network's keypoints in this frame: smoothed ones lag behind a fast head.
        points = poses.keypoints[person].astype(np.float64)
        if poses.raw_keypoints is not None and np.isfinite(poses.raw_keypoints[person]).all():
            points = poses.raw_keypoints[person].astype(np.float64)
        sure = poses.scores[person] >= self._threshold
        return head_areas(points, sure, poses.boxes[person].astype(np.float64), self._set, poses.std[person])


def head_areas(
    points: Float64Array,
    sure: Sequence[bool] | np.ndarray,
    box: Float64Array,
    keypoint_set: KeypointSet,
    std: np.ndarray | None = None,
) -> list[Area]:
    """Areas that together contain a person's whole head.

    points: (K, 2) in pixels; sure: (K,) whether each keypoint is above the threshold; box: x1 y1 x2 y2. Two sure
    keypoints of the head give an ellipse around them. Else several estimates are covered together: around the
    uncertain keypoints, on the line from hips to shoulders, and the top of the box.
    """
    body = _Body(np.nan_to_num(points), np.asarray(sure, bool), np.nan_to_num(box), keypoint_set)
    radius = body.head_radius()
    head = body.head
    seen = head[body.sure[head]]
    if len(seen) >= 2:
        doubt = float(np.nan_to_num(std[seen]).mean()) if std is not None else 0.0
        # With fewer sure keypoints their centre is less likely that of the face.
        margin = 1.25 if len(seen) == len(head) else 1.6
        return [_around(body.points[seen], margin * radius + min(2 * doubt, 0.5 * radius))]
    areas = [body.top()]
    if len(head):
        areas.append(_around(body.points[seen if len(seen) else head], 1.5 * radius))
    beyond = body.beyond_shoulders()
    if beyond is not None:
        areas.append(_around(beyond[None], 1.6 * radius))
    return areas


class _Body:
    """Estimates of the head's position and size from a person's keypoints and box."""

    def __init__(self, points: Float64Array, sure: np.ndarray, box: Float64Array, keypoint_set: KeypointSet) -> None:
        self.points, self.sure, self.box = points, sure, box
        names = [name.lower() for name in keypoint_set.names]
        self._index = {name: i for i, name in enumerate(names)}
        self.head = np.array([i for i, name in enumerate(names) if _HEAD_WORDS & set(re.split("[_-]", name))], np.int64)

    def head_radius(self) -> float:
        """Half of the head's height in pixels, an upper estimate, at most that of the box."""
        width, height = np.maximum(self.box[2:] - self.box[:2], 1)
        shoulders, hips = self._middle("shoulder"), self._middle("hip")
        torso = 0.0 if shoulders is None or hips is None else float(np.hypot(*(shoulders - hips)))
        of_face = max(
            _EARS * self._distance("left_ear", "right_ear"),
            _EYES * self._distance("left_eye", "right_eye"),
            _NOSE_EAR * self._distance("nose", "left_ear"),
            _NOSE_EAR * self._distance("nose", "right_ear"),
        )
        of_body = max(
            _SHOULDERS * self._distance("left_shoulder", "right_shoulder"),
            _TORSO * torso,
            _HEIGHT * float(max(width, height)),
        )
        # A wrong keypoint of the face must not make the head too large for the body.
        largest = min(0.5 * float(max(width, height)), 1.5 * of_body if torso else np.inf)
        return max(min(max(of_face, of_body), largest), 3.0)

    def top(self) -> Area:
        """The top of the box down to the shoulders, or to the hips where only these are sure, else the whole box."""
        x1, y1, x2, y2 = self.box
        least = max(0.25 * (y2 - y1), min(0.7 * (x2 - x1), y2 - y1))
        end = y2
        for part in ("shoulder", "hip"):
            sides = [i for i in self._sides(part) if self.sure[i]]
            if sides:
                end = max(y1 + least, min(y2, float(self.points[sides, 1].max())))
                break
        margin = 0.04 * (y2 - y1)
        half_height = (end - y1 + 2 * margin) / 2
        return Area((x1 + x2) / 2, y1 - margin + half_height, (x2 - x1) / 2 + margin, half_height, ellipse=False)

    def beyond_shoulders(self) -> Float64Array | None:
        """The head's position extrapolated from hips and shoulders, for any orientation of the person."""
        shoulders, hips = self._middle("shoulder"), self._middle("hip")
        return None if shoulders is None or hips is None else shoulders + 0.45 * (shoulders - hips)

    def _sides(self, part: str) -> list[int]:
        return [self._index[name] for name in (f"left_{part}", f"right_{part}") if name in self._index]

    def _middle(self, part: str) -> Float64Array | None:
        sides = self._sides(part)
        return self.points[sides].mean(axis=0) if sides and self.sure[sides].all() else None

    def _distance(self, one: str, other: str) -> float:
        ends = [self._index[name] for name in (one, other) if name in self._index]
        if len(ends) < 2 or not self.sure[ends].all():
            return 0.0
        return float(np.hypot(*(self.points[ends[0]] - self.points[ends[1]])))


def _around(points: Float64Array, radius: float) -> Area:
    """An ellipse around points: a radius around their centre, more where they are far apart."""
    low, high = points.min(axis=0), points.max(axis=0)
    x, y = ((low + high) / 2).tolist()
    half_width, half_height = np.hypot(radius, (high - low) / 2).tolist()
    return Area(x, y, half_width, half_height)


def pixelate(canvas: PixelArray, areas: Sequence[Area]) -> None:
    """Replace the areas of an image (height, width, 3) uint8 by a coarse mosaic, in place."""
    height, width = canvas.shape[:2]
    for area in areas:
        left, right = (int(np.clip(v, 0, width)) for v in (area.x - area.half_width, area.x + area.half_width + 1))
        top, bottom = (int(np.clip(v, 0, height)) for v in (area.y - area.half_height, area.y + area.half_height + 1))
        if left >= right or top >= bottom:
            continue
        part = canvas[top:bottom, left:right]
        cell = max(_SMALLEST_CELL, 2 * min(area.half_width, area.half_height) / _CELLS)
        cells = max(1, round((right - left) / cell)), max(1, round((bottom - top) / cell))
        small = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
        mosaic = cv2.resize(small, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)
        if not area.ellipse:
            part[:] = mosaic
            continue
        columns = (np.arange(left, right) - area.x) / area.half_width
        rows = (np.arange(top, bottom) - area.y) / area.half_height
        for first in range(0, len(rows), _ROWS):
            strip = slice(first, first + _ROWS)
            inside = columns[None] ** 2 + rows[strip, None] ** 2 <= 1
            part[strip][inside] = mosaic[strip][inside]
