"""Simulated proposals of a detector, and the target of the box head in their crops."""

import numpy as np
from numpy.typing import NDArray

from posecli import geometry

Float = NDArray[np.float64]
# Lowest IoU of a simulated proposal with its person.
_LEAST_OVERLAP = 0.25
# Above this rotation in degrees the person's axis-aligned box is too inaccurate as a target.
_LARGEST_ANGLE = 10.0


def disturbed_box(box: Float, random: np.random.Generator) -> Float:
    """A random box (4,) xyxy as a weak detector might propose it: with moved sides, a part cut off, or too large.

    Its IoU with the person's box is at least 0.25; after ten tries without such a box it is the person's box.
    """
    for _ in range(10):
        found, size = box.copy(), np.tile(box[2:] - box[:2], 2)
        kind = random.random()
        if kind < 0.35:  # 30 to 60 % of the person is cut off on one side
            side = int(random.integers(4))
            found[side] += (1 if side < 2 else -1) * size[side] * random.uniform(0.3, 0.6)
        spread = 0.13 if kind < 0.75 else 0.05
        found += random.normal(0, spread, 4) * size
        if kind > 0.9:
            centre = np.tile((found[:2] + found[2:]) / 2, 2)
            found = centre + (found - centre) * random.uniform(1, 1.4)
        if (found[2:] > found[:2]).all() and geometry.iou([found], [box])[0, 0] >= _LEAST_OVERLAP:
            return found
    return box


def sides_in_crop(box: Float, matrix: Float, size: tuple[int, int]) -> tuple[Float, float]:
    """The target of the box head for a box (4,) xyxy in source pixels, and its weight in the loss.

    matrix: (3, 3), source pixels to crop pixels. size: (height, width) of the crop. Returns left, top, right and bottom
    (4,) relative to the crop's size, and 1.0, or 0.0 where the crop is rotated by more than 10 degrees.
    """
    height, width = size
    corners = box.reshape(2, 2)
    around = np.array([[x, y] for x in corners[:, 0] for y in corners[:, 1]])
    points = geometry.transform(matrix, around) / [width, height]
    sides = np.concatenate([points.min(axis=0), points.max(axis=0)])
    angle = np.rad2deg(np.arctan2(matrix[1, 0], abs(matrix[0, 0])))
    return sides, float(abs(angle) <= _LARGEST_ANGLE)
