"""Decoding of photos to upright RGB."""

import os
from pathlib import Path

import cv2
import numpy as np

from posecli.errors import MediaError
from posecli.media.headers import stored_size
from posecli.types import PixelArray

DEFAULT_MAX_PIXELS = 200_000_000
# Photos with more pixels are decoded without a second copy.
_LARGE = 16_000_000
_DESCRIPTORS = Path("/proc/self/fd")


def read_image(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> PixelArray:
    """A photo as (height, width, 3) uint8 RGB, rotated upright by its EXIF orientation.

    Grey, 16-bit, RGBA and CMYK files are converted; transparent pixels keep their colour. Raises MediaError for files
    that are unreadable, damaged, not a photo, or larger than max_pixels; the size is checked before decoding.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror}") from error
    return decode_image(content, str(path), max_pixels=max_pixels)


def decode_image(
    content: bytes | bytearray, name: str, *, max_pixels: int = DEFAULT_MAX_PIXELS, ignore_orientation: bool = False
) -> PixelArray:
    """The same from the bytes of an encoded photo. name: for errors. ignore_orientation: pixels as stored."""
    if not content:
        raise MediaError(f"{name}: the file is empty")
    size = stored_size(content)
    if size is not None and size[0] * size[1] > max_pixels:
        raise MediaError(f"{name}: {size[0]}x{size[1]} pixels are over the limit of {max_pixels} (--max-pixels)")
    flags = cv2.IMREAD_COLOR_RGB | (cv2.IMREAD_IGNORE_ORIENTATION if ignore_orientation else 0)
    try:
        pixels = _decoded(content, flags, large=size is not None and size[0] * size[1] >= _LARGE)
    except cv2.error as error:
        raise MediaError(f"{name}: cannot be decoded ({error.err or 'damaged'})") from error
    if pixels is None:
        raise MediaError(f"{name}: damaged, cut off, or a format that OpenCV does not read")
    if pixels.shape[0] * pixels.shape[1] > max_pixels:
        raise MediaError(f"{name}: {pixels.shape[1]}x{pixels.shape[0]} pixels are over the limit (--max-pixels)")
    return np.ascontiguousarray(pixels)


def _decoded(content: bytes | bytearray, flags: int, *, large: bool) -> PixelArray | None:
    """An encoded photo decoded by OpenCV, None where it fails.

    From bytes OpenCV decodes into its own memory and returns a copy; from a file it decodes directly into the result.
    Large photos are therefore read from a memory file, but for truncated JPEGs, which OpenCV reports from bytes only.
    """
    whole = not content.startswith(b"\xff\xd8") or b"\xff\xd9" in content[-4096:]
    if large and whole and hasattr(os, "memfd_create") and _DESCRIPTORS.is_dir():
        with os.fdopen(os.memfd_create("photo"), "wb") as file:
            file.write(content)
            file.flush()
            pixels = cv2.imread(str(_DESCRIPTORS / str(file.fileno())), dst=None, flags=flags)
            return None if pixels is None or not pixels.size else np.asarray(pixels, np.uint8)
    found = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    return None if found is None else np.asarray(found, np.uint8)
