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
    every = np.concatenate(boxes) if len(boxes) else np.zeros((0, 4), np.float32)
    matrices = geometry.crop_matrices(every, size, padding)
    crops = np.empty((len(matrices), *size, 3), np.uint8)
    warp_all([image for image, found in zip(pixels, boxes, strict=True) for _ in found], matrices, crops)
    return crops, matrices


def warp(image: PixelArray, matrix: Float64Array, crop: PixelArray) -> None:
    """As warp_all for one image, one matrix (3, 3) and one crop (H, W, 3)."""
    warp_all([image], matrix[None], crop[None])


def warp_all(images: Sequence[PixelArray], matrices: Float64Array, crops: PixelArray) -> None:
    """Fill crops (N, H, W, 3) from an image (h, w, 3) each; black outside the images.

    matrices: (N, 3, 3) from source to crop pixels. Interpolation is bilinear. An image that is reduced to half or less
    is first halved by averaging, repeatedly if needed, against aliasing.
    """
    if not len(images):
        return
    height, width = crops.shape[1:3]
    halvings = geometry.halvings(matrices)
    shrink = 2**halvings
    # Only the part inside the crop, which is small enough for OpenCV.
    low, high = geometry.seen_windows(matrices, (height, width), [image.shape[:2] for image in images], shrink)
    to_source = np.zeros_like(matrices)
    to_source[:, 0, 0] = to_source[:, 1, 1] = shrink
    to_source[:, :2, 2] = low + ((shrink - 1) / 2)[:, None]  # the middle of the first square
    to_source[:, 2, 2] = 1
    windows = np.concatenate([low, high], axis=1).tolist()
    warps = (matrices @ to_source)[:, :2]
    for image, (x1, y1, x2, y2), times, matrix, crop in zip(
        images, windows, halvings.tolist(), warps, crops, strict=True
    ):
        part = image[y1:y2, x1:x2]
        if x2 <= x1 or y2 <= y1:
            crop[:] = 0
            continue
        if times:
            part = _halve(part, times)
        # OpenCV's warp of four channels takes a third of the time of one of three.
        warped = cv2.warpAffine(cv2.cvtColor(part, cv2.COLOR_RGB2RGBA), matrix, (width, height), flags=cv2.INTER_LINEAR)
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
