"""Crops of people as network input, by one affine warp each."""

from collections.abc import Sequence

import cv2
import numpy as np

from posecli import geometry
from posecli.geometry import Float64Array
from posecli.types import FloatArray, PixelArray

# Larger images are downsampled strip by strip, which bounds memory.
_HALVED_AT_ONCE = 16_000_000


def cut_crops(
    pixels: Sequence[PixelArray], boxes: Sequence[FloatArray], size: tuple[int, int], padding: float
) -> tuple[PixelArray, Float64Array]:
    """Crops (N, H, W, 3) of the people of several images, and the matrices (N, 3, 3) from source to crop pixels.

    pixels: images (h, w, 3) uint8; boxes: (n, 4) xyxy of each. size: (H, W). Outside of an image crops are black.
    """
    height, width = size
    matrices = [geometry.crop_matrices(found, size, padding) for found in boxes]
    crops = np.empty((sum(map(len, matrices)), height, width, 3), np.uint8)
    row = 0
    for image, of_image in zip(pixels, matrices, strict=True):
        for matrix in of_image:
            warp(image, matrix, crops[row])
            row += 1
    return crops, np.concatenate(matrices) if matrices else np.zeros((0, 3, 3))


def warp(image: PixelArray, matrix: Float64Array, crop: PixelArray) -> None:
    """Fill crop (H, W, 3) from an image (h, w, 3) by the matrix (3, 3), source to crop pixels; black outside the image.

    Interpolation is bilinear. An image that is reduced to half or less is first halved by averaging, repeatedly if
    needed, against aliasing.
    """
    height, width = crop.shape[:2]
    halvings = geometry.halvings(matrix)
    shrink = 2**halvings
    # Only the part inside the crop, which is small enough for OpenCV.
    low, high = geometry.seen_window(matrix, (height, width), image.shape[:2], shrink)
    part = image[low[1] : high[1], low[0] : high[0]]
    if not part.size:
        crop[:] = 0
        return
    if halvings:
        part = _halve(part, halvings)
    middle = low + (shrink - 1) / 2  # of the first square
    matrix = matrix @ np.array([[shrink, 0, middle[0]], [0, shrink, middle[1]], [0, 0, 1.0]])
    # OpenCV's warp of four channels takes a third of the time of one of three.
    warped = cv2.warpAffine(cv2.cvtColor(part, cv2.COLOR_RGB2RGBA), matrix[:2], (width, height), flags=cv2.INTER_LINEAR)
    cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=crop)


def _halve(image: PixelArray, times: int) -> PixelArray:
    """Means of squares of 2**times pixels; incomplete ones at the border are padded with black."""
    rows = max(1, _HALVED_AT_ONCE // max(1, image.shape[1] << times)) << times
    if len(image) <= rows:
        return _halved(image, times)
    return np.concatenate([_halved(image[first : first + rows], times) for first in range(0, len(image), rows)])


def _halved(image: PixelArray, times: int) -> PixelArray:
    height, width = image.shape[:2]
    below, right = -height % 2**times, -width % 2**times
    if below or right:
        image = np.asarray(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT), np.uint8)
    for _ in range(times):
        # Halving twice is four times as fast in OpenCV as a factor of 4 at once.
        size = (image.shape[1] // 2, image.shape[0] // 2)
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(image)
