"""Appending of pages to an annotated TIFF."""

import struct
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from posecli.errors import MediaError
from posecli.types import PixelArray

_STRIPS = 273
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 12: 8}
# A TIFF's offsets have 32 bits.
_LARGEST = (1 << 32) - 1


def append_page(path: Path, pixels: PixelArray) -> None:
    """Add (height, width, 3) uint8 RGB as the last page of a TIFF that write_image wrote.

    The page's data are written first and the link to it last, so that the file is a valid TIFF at any time.

    Raises MediaError where the file would exceed the size limit of a TIFF, OSError where it cannot be written.
    """
    ok, encoded = cv2.imencode(".tif", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    if not ok:
        raise MediaError(f"{path}: a page cannot be encoded")
    page = bytearray(encoded.data)
    with path.open("r+b") as file:
        link = _last_link(file)
        base = file.seek(0, 2)
        base += file.write(bytes(base % 2))
        if base + len(page) > _LARGEST:
            raise MediaError(f"{path}: its pages are more than the 4 GB of a TIFF")
        place = _move(page, base)
        file.write(page)
        file.flush()
        file.seek(link)
        file.write(struct.pack("<I", place))


def _last_link(file: BinaryIO) -> int:
    """The position of the offset of the next page, after the last page's directory."""
    file.seek(4)
    place = int.from_bytes(file.read(4), "little")
    while True:
        file.seek(place)
        link = place + 2 + 12 * int.from_bytes(file.read(2), "little")
        file.seek(link)
        place = int.from_bytes(file.read(4), "little")
        if not place:
            return link


def _move(page: bytearray, base: int) -> int:
    """Add base to the offsets in a TIFF of one page; returns the new offset of its directory."""
    (place,) = struct.unpack_from("<I", page, 4)
    (count,) = struct.unpack_from("<H", page, place)
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind, number, value = struct.unpack_from("<HHII", page, entry)
        inside = _SIZES[kind] * number <= 4
        if tag == _STRIPS:
            start = entry + 8 if inside else value
            strips = np.frombuffer(page, "<u4" if kind == 4 else "<u2", number, start).astype(np.int64) + base
            if kind != 4:
                raise ValueError("strips of a TIFF with short places")
            page[start : start + 4 * number] = strips.astype("<u4").tobytes()
        if not inside:
            struct.pack_into("<I", page, entry + 8, value + base)
    return int(place) + base
