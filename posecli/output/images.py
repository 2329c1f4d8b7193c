"""Annotated photos, in the format of their source."""

from pathlib import Path

import cv2
import numpy as np

from posecli.errors import MediaError
from posecli.output.whole import Whole
from posecli.types import PixelArray

# A picture that is changed in place is changed by so many rows at once.
_ROWS = 64
# What OpenCV writes without loss of size or colour; other formats become PNG.
_WRITABLE = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff"})


def photo_name(name: str) -> str:
    """The annotated photo's name for an input's: the same, or with .png where that format is not written."""
    return name if Path(name).suffix.lower() in _WRITABLE else f"{name}.png"


def write_image(path: Path, pixels: PixelArray, *, quality: int = 95, scratch: bool = False) -> None:
    """Write (height, width, 3) uint8 RGB, whole or not at all. The suffix decides the format.

    scratch: the pixels are not needed afterwards, and may be changed instead of copied.

    Raises MediaError where the format cannot hold the picture, OSError where the disk refuses.
    """
    suffix = path.suffix.lower()
    options = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
    }.get({".jpeg": ".jpg", ".jpe": ".jpg"}.get(suffix, suffix), [])
    try:
        ok, encoded = cv2.imencode(suffix, _bgr(pixels, scratch), options)
    except cv2.error as error:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise MediaError(f"{path}: {size} does not fit the format ({error.err})") from error
    if not ok:
        raise MediaError(f"{path}: cannot be encoded as {suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with Whole(path) as file:
        file.write(encoded.data)


def _bgr(pixels: PixelArray, scratch: bool) -> PixelArray:
    if not (scratch and pixels.flags.writeable):
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)
    for first in range(0, len(pixels), _ROWS):
        rows = pixels[first : first + _ROWS]
        rows[:] = cv2.cvtColor(rows, cv2.COLOR_RGB2BGR)
    return pixels
