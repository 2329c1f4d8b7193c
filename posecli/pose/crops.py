"""People as network input: one affine warp each."""

from collections.abc import Sequence

import cv2
import numpy as np

from posecli import geometry
from posecli.geometry import Float64Array
from posecli.types import FloatArray, PixelArray

# OpenCV addresses pixels of a source with 16-bit integers in its remapping.
_MAX_SIDE = 32767


def cut_crops(
    pixels: Sequence[PixelArray], boxes: Sequence[FloatArray], size: tuple[int, int], padding: float
) -> tuple[PixelArray, Float64Array]:
    """Crops (N, H, W, 3) of the people of several pictures, and the matrices (N, 3, 3) into them.

    pixels: pictures (h, w, 3) uint8; boxes: (n, 4) xyxy of each. size is (H, W). Outside a picture is black.
    """
    height, width = size
    matrices = [geometry.crop_matrices(found, size, padding) for found in boxes]
    crops = np.empty((sum(map(len, matrices)), height, width, 3), np.uint8)
    row = 0
    for picture, of_picture in zip(pixels, matrices, strict=True):
        for matrix in of_picture:
            _warp(picture, matrix, crops[row])
            row += 1
    return crops, np.concatenate(matrices) if matrices else np.zeros((0, 3, 3))


def _warp(picture: PixelArray, matrix: Float64Array, crop: PixelArray) -> None:
    height, width = crop.shape[:2]
    if max(picture.shape[:2]) > _MAX_SIDE:
        # Only what the crop can see, which is small enough for OpenCV.
        corners = geometry.transform(np.linalg.inv(matrix), np.array([[0, 0], [width, height]]))
        low = np.clip(np.floor(corners[0]).astype(int) - 2, 0, None)
        high = np.minimum(np.ceil(corners[1]).astype(int) + 3, [picture.shape[1], picture.shape[0]])
        step = max(1, -(-int((high - low).max()) // _MAX_SIDE))
        picture = np.ascontiguousarray(picture[low[1] : high[1] : step, low[0] : high[0] : step])
        to_source = np.array([[step, 0, low[0]], [0, step, low[1]], [0, 0, 1.0]])
        matrix = matrix @ to_source
        if not picture.size:
            crop[:] = 0
            return
    cv2.warpAffine(picture, matrix[:2], (width, height), dst=crop, flags=cv2.INTER_LINEAR)
