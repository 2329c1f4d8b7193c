"""Drawing of skeletons, boxes and ids."""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from posecli.draw.palette import COLOURS, Colour, drawn_side, id_colour, limb_side, side_colours
from posecli.keypoints import KeypointSet
from posecli.types import FloatArray, IntArray, PixelArray, Poses

__all__ = ["COLOURS", "draw_on", "draw_person", "draw_poses", "limb_side", "line_thickness"]

OUTLINE: Colour = (16, 16, 16)
BOX: Colour = (255, 255, 255)

# OpenCV draws at 1/16 pixel with 32-bit integers.
_SHIFT = 4
_ONE = 1 << _SHIFT
_FAR = 1e6
# Names of keypoints of face and hands in sets of whole bodies.
_DETAILS = re.compile(r"face\W?\d|hand|thumb|finger")


def draw_poses(
    pixels: PixelArray,
    poses: Poses,
    keypoint_set: KeypointSet,
    *,
    keypoint_threshold: float = 0.3,
    show_boxes: bool = False,
    show_ids: bool = False,
) -> PixelArray:
    """A copy of the image (height, width, 3) uint8 RGB with the people's skeletons drawn on it.

    A limb is drawn where both of its keypoints reach the threshold. The line thickness follows the sizes of person and
    image; lines of filled people are thin and dashed. Without people the copy equals the image. show_ids: a label for
    each id, and the id's colour instead of those of left and right.
    """
    canvas = np.array(pixels, np.uint8, order="C")
    draw_on(
        canvas,
        poses,
        keypoint_set,
        keypoint_threshold=keypoint_threshold,
        show_boxes=show_boxes,
        show_ids=show_ids,
    )
    return canvas


def draw_person(
    pixels: PixelArray, points: ArrayLike, scores: ArrayLike, keypoint_set: KeypointSet, keypoint_threshold: float = 0.3
) -> PixelArray:
    """A copy of one person's crop (height, width, 3) uint8 RGB with the skeleton drawn on it.

    points: (K, 2) in its pixels, predicted or labelled. scores: (K,); keypoints below the threshold are left out.
    """
    keypoints = np.asarray(points, np.float32)[None]
    box, one = np.array([[0, 0, pixels.shape[1], pixels.shape[0]]], np.float32), np.ones(1, np.float32)
    poses = Poses(keypoints, np.zeros_like(keypoints), np.asarray(scores, np.float32)[None], box, one, one)
    return draw_poses(pixels, poses, keypoint_set, keypoint_threshold=keypoint_threshold)


def draw_on(
    canvas: PixelArray,
    poses: Poses,
    keypoint_set: KeypointSet,
    *,
    keypoint_threshold: float = 0.3,
    show_boxes: bool = False,
    show_ids: bool = False,
) -> None:
    """The same as draw_poses, in place on the image, which may be a view of a larger one."""
    # Finite, within OpenCV's 32-bit integers, and far enough out to keep a limb's direction.
    fixed = np.rint(np.clip(np.nan_to_num(poses.keypoints), -_FAR, _FAR) * _ONE).astype(np.int32)
    # The largest people are drawn last, on top: they are usually nearest.
    heights = np.nan_to_num(poses.boxes[:, 3] - poses.boxes[:, 1], nan=0, posinf=0, neginf=0)
    order = np.argsort(heights, kind="stable").tolist()
    ids = [int(i) for i in poses.track_ids] if show_ids and poses.track_ids is not None else None
    for person in order:
        thickness = line_thickness(float(heights[person]), canvas.shape[0], canvas.shape[1])
        filled = poses.filled is not None and bool(poses.filled[person])
        colours = side_colours(ids[person] if ids else None)
        if show_boxes:
            _draw_box(canvas, poses, person, max(1, thickness // 2), id_colour(ids[person]) if ids else BOX)
        stroke = _Stroke(canvas, max(1, thickness // 2) if filled else thickness, dashed=filled)
        _draw_person(stroke, fixed[person], poses.scores[person] >= keypoint_threshold, keypoint_set, colours)
    if ids:
        # After all skeletons, so that no limb crosses a label.
        for person in order:
            shown = poses.scores[person] >= keypoint_threshold
            _draw_label(canvas, poses.boxes[person], poses.keypoints[person][shown], ids[person])


def line_thickness(person_height: float, height: int, width: int) -> int:
    """Thickness of limbs in pixels for a person's height and an image's size, all in pixels."""
    largest = max(2.0, 0.008 * min(height, width) + 1)
    return round(min(max(0.014 * person_height, 1.0), largest))


@dataclass(frozen=True)
class _Stroke:
    """Lines and dots of one thickness, with a dark rim so that they are visible on any background."""

    canvas: PixelArray
    thickness: int
    dashed: bool = False

    @property
    def rim(self) -> int:
        return 1 if self.thickness < 4 else 2

    def lines(self, ends: IntArray, colour: Colour, outline: bool) -> None:
        """Lines (N, 2, 2) from their first to their second ends."""
        width = self.thickness + 2 * self.rim if outline else self.thickness
        pieces = [dash for line in ends for dash in self._dashes(line)] if self.dashed else list(ends)
        cv2.polylines(self.canvas, pieces, False, OUTLINE if outline else colour, width, cv2.LINE_AA, _SHIFT)

    def radius(self, outline: bool) -> int:
        """Radius of dots in 1/16 pixels."""
        return round((0.9 * self.thickness + 0.6 + (self.rim if outline else 0)) * _ONE)

    def _dashes(self, line: IntArray) -> list[IntArray]:
        """Pieces of a line; at most a few of a very long one."""
        a, b = line.astype(np.float64)
        count = int(np.clip(np.hypot(*(b - a)) / _ONE / (8 * self.thickness + 12), 1, 60))
        places = a + (b - a) * (np.arange(2 * count) / max(1, 2 * count - 1))[:, None]
        return list(np.rint(places).astype(np.int32).reshape(count, 2, 2))


@dataclass(frozen=True, eq=False)
class _Limbs:
    """Limbs (N, 2) that are drawn alike, as indices of their keypoints. fine: of face or hands."""

    side: str
    fine: bool
    ends: IntArray


@lru_cache(maxsize=64)
def _limbs(keypoint_set: KeypointSet) -> tuple[_Limbs, ...]:
    details = detailed(keypoint_set.names)
    alike: dict[tuple[str, bool], list[tuple[int, int]]] = {}
    for limb in keypoint_set.skeleton:
        alike.setdefault((limb_side(keypoint_set, limb), details.issuperset(limb)), []).append(limb)
    return tuple(_Limbs(side, fine, np.array(limbs)) for (side, fine), limbs in alike.items())


@lru_cache(maxsize=64)
def _sides(keypoint_set: KeypointSet) -> tuple[str, ...]:
    return tuple(drawn_side(keypoint_set, index) for index in range(len(keypoint_set)))


def _draw_person(
    stroke: _Stroke, points: IntArray, shown: NDArray[np.bool_], keypoint_set: KeypointSet, colours: dict[str, Colour]
) -> None:
    """points (K, 2) in 1/16 pixels; shown (K,)."""
    fine = replace(stroke, thickness=max(1, round(0.3 * stroke.thickness)))
    details, sides = detailed(keypoint_set.names), _sides(keypoint_set)
    limbs = [(limbs, points[limbs.ends[shown[limbs.ends].all(axis=1)]]) for limbs in _limbs(keypoint_set)]
    dots = [(points[index].tolist(), index in details, sides[index]) for index in np.flatnonzero(shown).tolist()]
    canvas, circle = stroke.canvas, cv2.circle
    for outline in (True, False):
        for alike, ends in limbs:
            if len(ends):
                (fine if alike.fine else stroke).lines(ends, colours[alike.side], outline)
        radius, small = stroke.radius(outline), fine.radius(outline)
        for centre, detail, side in dots:
            colour = OUTLINE if outline else colours[side]
            circle(canvas, centre, small if detail else radius, colour, -1, cv2.LINE_AA, _SHIFT)


@lru_cache(maxsize=64)
def detailed(names: tuple[str, ...]) -> frozenset[int]:
    """Keypoints of face and hands where there is a body too: they are too close to each other for lines of its size."""
    found = frozenset(i for i, name in enumerate(names) if _DETAILS.search(name))
    return found if len(names) - len(found) > 4 else frozenset()


def _draw_box(canvas: PixelArray, poses: Poses, person: int, thickness: int, colour: Colour) -> None:
    height, width = canvas.shape[:2]
    box = np.clip(np.nan_to_num(poses.boxes[person]), 0, [width, height, width, height])
    x1, y1, x2, y2 = np.rint(box * _ONE).astype(int).tolist()
    for shade, line in ((OUTLINE, thickness + 2), (colour, thickness)):
        cv2.rectangle(canvas, (x1, y1), (x2, y2), shade, line, cv2.LINE_AA, _SHIFT)


def _draw_label(canvas: PixelArray, box: FloatArray, shown: FloatArray, track_id: int) -> None:
    """The id on a filled rectangle of its colour above the highest keypoint, or above the box; inside the image."""
    height, width = canvas.shape[:2]
    x, y = shown[np.argmin(shown[:, 1])] if len(shown) else ((box[0] + box[2]) / 2, box[1])
    x, y = (float(v) for v in np.clip(np.nan_to_num([x, y]), 0, [width, height]))
    scale = float(np.clip(min(height, width) / 1080, 0.4, 2.0))
    weight = max(1, round(2 * scale))
    text = str(track_id)
    (text_width, text_height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, weight)
    pad = max(2, round(6 * scale))
    plate_width, plate_height = text_width + 2 * pad, text_height + 2 * pad
    # Above the head: the highest keypoint is an eye or an ear.
    above = 0.06 * float(np.nan_to_num(box[3] - box[1])) + pad
    left = int(np.clip(x - plate_width / 2, 0, max(0, width - plate_width)))
    top = int(np.clip(y - above - plate_height, 0, max(0, height - plate_height)))
    corners = (left, top), (left + plate_width - 1, top + plate_height - 1)
    cv2.rectangle(canvas, *corners, id_colour(track_id), -1)
    cv2.rectangle(canvas, *corners, OUTLINE, 1)
    place = (left + pad, top + pad + text_height)
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, OUTLINE, weight, cv2.LINE_AA)
