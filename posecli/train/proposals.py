"""Boxes as a detector proposes them, and the person's box in the crop of one: what the box head learns from."""

import numpy as np
from numpy.typing import NDArray

from posecli import geometry

Float = NDArray[np.float64]
# Proposals overlap their person at least so far (IoU).
_LEAST_OVERLAP = 0.25
# Above this angle the box of a turned person is too large to be learned from.
_LARGEST_ANGLE = 10.0


def disturbed_box(box: Float, random: np.random.Generator) -> Float:
    """A box (4,) xyxy as a weak detector might propose it for a person's box: moved sides, a part cut off, too large.

    Its IoU with the person's box is at least 0.25; the person's own box where no such one is drawn in ten tries.
    """
    for _ in range(10):
        found, size = box.copy(), np.tile(box[2:] - box[:2], 2)
        kind = random.random()
        if kind < 0.35:  # 30 to 60 % of the person are cut off on one side
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
    """A box (4,) xyxy of the source as the box head gives it, and its weight in the loss.

    matrix: (3, 3), source pixels to crop pixels. size: (height, width) of the crop. Returns left, top, right and bottom
    (4,) in shares of the crop, and 1.0, or 0.0 where the crop is turned by more than 10 degrees.
    """
    height, width = size
    corners = box.reshape(2, 2)
    around = np.array([[x, y] for x in corners[:, 0] for y in corners[:, 1]])
    points = geometry.transform(matrix, around) / [width, height]
    sides = np.concatenate([points.min(axis=0), points.max(axis=0)])
    angle = np.rad2deg(np.arctan2(matrix[1, 0], abs(matrix[0, 0])))
    return sides, float(abs(angle) <= _LARGEST_ANGLE)
