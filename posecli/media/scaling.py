"""Scaling of images."""

import cv2
import numpy as np

from posecli.types import PixelArray


def scaling_method(before: tuple[int, ...], after: tuple[int, int]) -> str:
    """The word area or linear, for sizes (height, width) before and after.

    Bilinear interpolation takes a sixth of the time, and skips no pixel of an image that keeps more than half its size.
    """
    return "area" if max(old / new for old, new in zip(before, after, strict=True)) >= 2 else "linear"


def scaled(pixels: PixelArray, width: int, height: int) -> PixelArray:
    """An image (h, w, 3) uint8 scaled to (height, width, 3)."""
    method = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR}[scaling_method(pixels.shape[:2], (height, width))]
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=method), np.uint8)
