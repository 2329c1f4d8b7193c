"""Transformative properties of AVIF and HEIF files: crop, rotation, mirroring (ISO/IEC 23008-12, 6.5)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from posecli.types import PixelArray


@dataclass(frozen=True)
class Crop:
    """The visible part of an image: its size and the offset of its centre from the image's."""

    width: Fraction
    height: Fraction
    right: Fraction
    down: Fraction

    def apply(self, pixels: PixelArray) -> PixelArray:
        """The part of (height, width, 3) pixels, rounded inwards to pixels; unchanged where it does not fit."""
        height, width = pixels.shape[:2]
        left = Fraction(width - 1, 2) + self.right - (self.width - 1) / 2
        top = Fraction(height - 1, 2) + self.down - (self.height - 1) / 2
        x, y = round(left), round(top)
        w, h = int(self.width), int(self.height)
        if w < 1 or h < 1 or x < 0 or y < 0 or x + w > width or y + h > height:
            return pixels
        return pixels[y : y + h, x : x + w]


@dataclass(frozen=True)
class Turn:
    """Rotation by quarter turns, anticlockwise."""

    quarters: int

    def apply(self, pixels: PixelArray) -> PixelArray:
        """(height, width, 3) pixels, rotated."""
        return np.rot90(pixels, self.quarters)


@dataclass(frozen=True)
class Mirror:
    """Horizontal mirroring, or vertical."""

    vertical: bool

    def apply(self, pixels: PixelArray) -> PixelArray:
        """(height, width, 3) pixels, mirrored."""
        return pixels[::-1] if self.vertical else pixels[:, ::-1]


Transform = Crop | Turn | Mirror


def apply_transforms(pixels: PixelArray, content: bytes) -> PixelArray:
    """The image (height, width, 3) with the file's properties applied; these formats ignore EXIF's orientation."""
    for transform in transforms(content):
        pixels = transform.apply(pixels)
    return np.ascontiguousarray(pixels)


def transforms(content: bytes) -> list[Transform]:
    """The transforms of a file's primary image, in order; empty for damaged properties."""
    try:
        return _transforms(content)
    except (struct.error, IndexError, ValueError, ZeroDivisionError):
        return []


def _transforms(content: bytes) -> list[Transform]:
    meta = next((body for kind, body in _boxes(content) if kind == b"meta"), b"")[4:]
    primary: int | None = None
    properties: list[tuple[bytes, bytes]] = []
    associations: dict[int, list[int]] = {}
    for kind, body in _boxes(meta):
        if kind == b"pitm":
            (primary,) = struct.unpack(">I" if body[0] else ">H", body[4 : 8 if body[0] else 6])
        elif kind == b"iprp":
            for inner, inside in _boxes(body):
                if inner == b"ipco":
                    properties = list(_boxes(inside))
                elif inner == b"ipma":
                    associations |= _associations(inside)
    found: list[Transform] = []
    for number in associations.get(primary, []) if primary is not None else []:
        kind, body = properties[number - 1] if number else (b"", b"")
        if kind == b"irot":
            found.append(Turn(body[0] & 3))
        elif kind == b"imir":
            # Axis 0 mirrors vertically, as in the edition of 2022 and in browsers.
            found.append(Mirror(vertical=not body[0] & 1))
        elif kind == b"clap":
            numbers = struct.unpack(">IIIIiIiI", body[:32])
            found.append(Crop(*(Fraction(*numbers[i : i + 2]) for i in (0, 2, 4, 6))))
    return found


def _associations(body: bytes) -> dict[int, list[int]]:
    """Item → numbers of its properties, from 1."""
    version, wide = body[0], body[3] & 1
    (count,) = struct.unpack(">I", body[4:8])
    place, found = 8, {}
    for _ in range(count):
        size = 4 if version else 2
        item = int.from_bytes(body[place : place + size], "big")
        place += size
        many = body[place]
        place += 1
        step = 2 if wide else 1
        raw = [int.from_bytes(body[place + step * i : place + step * (i + 1)], "big") for i in range(many)]
        found[item] = [value & (0x7FFF if wide else 0x7F) for value in raw]
        place += step * many
    return found


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each box."""
    place = 0
    while place + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        head = 8
        if size == 1:
            (size,) = struct.unpack(">Q", content[place + 8 : place + 16])
            head = 16
        elif size == 0:
            size = len(content) - place
        if size < head:
            return
        yield kind, content[place + head : place + size]
        place += size
