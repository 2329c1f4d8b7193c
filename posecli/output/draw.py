"""Skeletons on pictures."""

import cv2
import numpy as np

from posecli.keypoints import KeypointSet
from posecli.types import PixelArray, Poses

Colour = tuple[int, int, int]

# RGB, after the Okabe-Ito palette, which colour-blind people tell apart: left blue, right orange.
COLOURS: dict[str, Colour] = {"left": (0, 158, 255), "right": (255, 140, 0), "middle": (64, 220, 120)}
OUTLINE: Colour = (16, 16, 16)
BOX: Colour = (255, 255, 255)

# OpenCV draws at 1/16 pixel with 32-bit integers.
_SHIFT = 4
_FAR = 1e6


def draw_poses(
    pixels: PixelArray,
    poses: Poses,
    keypoint_set: KeypointSet,
    *,
    keypoint_threshold: float = 0.3,
    show_boxes: bool = False,
) -> PixelArray:
    """A copy of the picture (height, width, 3) uint8 RGB with the people's skeletons drawn on it.

    A limb is drawn where both of its keypoints reach the threshold. Lines are as thick as suits the size of
    the person and of the picture. With nobody to draw, the copy equals the picture.
    """
    canvas = np.array(pixels, np.uint8, order="C")
    # The largest people last, on top: they are usually nearest.
    heights = np.nan_to_num(poses.boxes[:, 3] - poses.boxes[:, 1], nan=0, posinf=0, neginf=0)
    for person in np.argsort(heights, kind="stable"):
        thickness = line_thickness(float(heights[person]), canvas.shape[0], canvas.shape[1])
        if show_boxes:
            _draw_box(canvas, poses, int(person), max(1, thickness // 2))
        _draw_person(canvas, poses, int(person), keypoint_set, keypoint_threshold, thickness)
    return canvas


def line_thickness(person_height: float, height: int, width: int) -> int:
    """Thickness of limbs in pixels, for a person of this height in a picture of this size."""
    largest = max(2.0, 0.008 * min(height, width) + 1)
    return round(float(np.clip(0.014 * person_height, 1.0, largest)))


def limb_side(keypoint_set: KeypointSet, limb: tuple[int, int]) -> str:
    """The side that a limb belongs to: that of its ends where they agree, or of the one that has a side."""
    sides = {keypoint_set.side(i) for i in limb} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


def _draw_person(
    canvas: PixelArray, poses: Poses, person: int, keypoint_set: KeypointSet, threshold: float, thickness: int
) -> None:
    shown = poses.scores[person] >= threshold
    # Finite, and within OpenCV's 32-bit integers, so far out that a limb's direction stays what it is.
    points = np.clip(np.nan_to_num(poses.keypoints[person]), -_FAR, _FAR)
    fixed = np.rint(points * (1 << _SHIFT)).astype(int).tolist()
    limbs = [limb for limb in keypoint_set.skeleton if shown[limb[0]] and shown[limb[1]]]
    rim = 1 if thickness < 4 else 2
    for outline in (True, False):
        for limb in limbs:
            colour = OUTLINE if outline else COLOURS[limb_side(keypoint_set, limb)]
            width_now = thickness + 2 * rim if outline else thickness
            cv2.line(canvas, fixed[limb[0]], fixed[limb[1]], colour, width_now, cv2.LINE_AA, _SHIFT)
        for index in np.flatnonzero(shown).tolist():
            colour = OUTLINE if outline else COLOURS[keypoint_set.side(index)]
            radius = 0.9 * thickness + 0.6 + (rim if outline else 0)
            cv2.circle(canvas, fixed[index], round(radius * (1 << _SHIFT)), colour, -1, cv2.LINE_AA, _SHIFT)


def _draw_box(canvas: PixelArray, poses: Poses, person: int, thickness: int) -> None:
    height, width = canvas.shape[:2]
    box = np.clip(np.nan_to_num(poses.boxes[person]), 0, [width, height, width, height])
    x1, y1, x2, y2 = np.rint(box * (1 << _SHIFT)).astype(int).tolist()
    for colour, line in ((OUTLINE, thickness + 2), (BOX, thickness)):
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, line, cv2.LINE_AA, _SHIFT)
