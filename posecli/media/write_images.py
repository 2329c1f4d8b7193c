"""Writing of annotated photos in the format of their source."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from posecli.atomic import AtomicFile
from posecli.errors import MediaError
from posecli.media.exif import Metadata
from posecli.media.metadata import with_metadata
from posecli.types import PixelArray

# Bytes from which on an image is converted in place, and rows that are converted at once.
_LARGE, _ROWS = 48_000_000, 64
# Formats that OpenCV writes without loss of size or colour; others become PNG.
_WRITABLE = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff"})


def photo_name(name: str) -> str:
    """The annotated photo's name for that of the input: the same, or with .png added if the format is not written."""
    return name if Path(name).suffix.lower() in _WRITABLE else f"{name}.png"


def write_image(path: Path, pixels: PixelArray, *, quality: int = 95, metadata: Metadata | None = None) -> None:
    """Write (height, width, 3) uint8 RGB atomically. The suffix decides the format.

    metadata: written into JPEG, PNG and WebP; other formats have none.

    A large image is not copied: its channels are swapped in place and back afterwards.

    Raises MediaError where the format does not support the image's size, OSError where it cannot be written.
    """
    suffix = path.suffix.lower()
    options = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
    }.get({".jpeg": ".jpg", ".jpe": ".jpg"}.get(suffix, suffix), [])
    try:
        with _bgr(pixels) as stored:
            ok, encoded = cv2.imencode(suffix, stored, options)
    except cv2.error as error:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise MediaError(f"{path}: {size} does not fit the format ({error.err})") from error
    if not ok:
        raise MediaError(f"{path}: cannot be encoded as {suffix}")
    with AtomicFile(path) as file:
        file.write(encoded.data if metadata is None else with_metadata(encoded.tobytes(), suffix, metadata))


@contextmanager
def _bgr(pixels: PixelArray) -> Iterator[PixelArray]:
    if pixels.size < _LARGE or not pixels.flags.writeable:
        yield np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)
        return
    _swap_channels(pixels)
    try:
        yield pixels
    finally:
        _swap_channels(pixels)


def _swap_channels(pixels: PixelArray) -> None:
    for first in range(0, len(pixels), _ROWS):
        rows = pixels[first : first + _ROWS]
        rows[:] = cv2.cvtColor(rows, cv2.COLOR_RGB2BGR)
