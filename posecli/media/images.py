"""Photos: bytes to upright RGB."""

import os
import struct
from pathlib import Path

import cv2
import numpy as np

from posecli.errors import MediaError
from posecli.types import PixelArray

DEFAULT_MAX_PIXELS = 200_000_000
# Pixels from which on a photo is decoded without a second copy of it.
_LARGE = 16_000_000
_DESCRIPTORS = Path("/proc/self/fd")


def read_image(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> PixelArray:
    """A photo as (height, width, 3) uint8 RGB, turned upright as its EXIF orientation says.

    Grey, 16-bit, RGBA and CMYK files are converted; transparent pixels keep their colour.
    Raises MediaError for files that are unreadable, damaged, not a photo, or larger than max_pixels; the
    size is read before anything is decoded.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror}") from error
    return decode_image(content, str(path), max_pixels=max_pixels)


def decode_image(
    content: bytes, name: str, *, max_pixels: int = DEFAULT_MAX_PIXELS, ignore_orientation: bool = False
) -> PixelArray:
    """The same from an encoded photo's bytes; name stands in the errors.

    With ignore_orientation the pixels stay as stored, which is what COCO's annotations refer to.
    """
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


def _decoded(content: bytes, flags: int, *, large: bool) -> PixelArray | None:
    """What OpenCV makes of an encoded photo, None where it makes nothing of it.

    From bytes it decodes into memory of its own and returns a copy; from a file it decodes to where it is told. Large
    photos are therefore read as a file of memory. A JPEG that is cut off is not: only from bytes OpenCV says so.
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


def stored_size(content: bytes) -> tuple[int, int] | None:
    """(width, height) from the header of a PNG, JPEG, GIF, BMP, WebP or TIFF; None where it is not found."""
    if content.startswith(b"\x89PNG") and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        return int(width), int(height)
    if content.startswith(b"GIF8") and len(content) >= 10:
        width, height = struct.unpack("<HH", content[6:10])
        return int(width), int(height)
    if content.startswith(b"BM") and len(content) >= 26:
        width, height = struct.unpack("<ii", content[18:26])
        return abs(int(width)), abs(int(height))
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP" and len(content) >= 30:
        return _webp_size(content)
    if content.startswith(b"\xff\xd8"):
        return _jpeg_size(content)
    if content[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_size(content)
    return None


def _webp_size(content: bytes) -> tuple[int, int] | None:
    kind = content[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(content[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", content[26:30])
    return int(width) & 0x3FFF, int(height) & 0x3FFF


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 < len(content):
        if content[place] != 0xFF:
            return None
        marker = content[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker in (0x01, *range(0xD0, 0xD9)):
            place += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", content[place + 5 : place + 9])
            return int(width), int(height)
        else:
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None


def _tiff_size(content: bytes) -> tuple[int, int] | None:
    order = "<" if content[:2] == b"II" else ">"
    try:
        (place,) = struct.unpack(order + "I", content[4:8])
        (count,) = struct.unpack(order + "H", content[place : place + 2])
        sides = {}
        for i in range(count):
            entry = content[place + 2 + 12 * i : place + 14 + 12 * i]
            tag, kind = struct.unpack(order + "HH", entry[:4])
            if tag in (256, 257):
                sides[tag] = struct.unpack(order + ("H" if kind == 3 else "I"), entry[8 : 10 if kind == 3 else 12])[0]
        return int(sides[256]), int(sides[257])
    except (struct.error, KeyError):
        return None
