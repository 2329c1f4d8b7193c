"""Metadata of a photo for its annotated copy: EXIF tags that remain valid, and the ICC profile."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

# Bytes of a value by its type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_ORIENTATION, _EXIF, _GPS = 274, 34665, 34853
# Tags that are invalid for a rotated and re-encoded image, or have offsets into the old file: the storage of pixels,
# sizes, maker note, interoperability directory, XMP, IPTC, Photoshop's data, profile.
_LEFT_OUT = frozenset(
    [254, 255, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 322, 323, 324, 325, 330, 513, 514, 529, 530, 532]
    + [700, 33723, 34377, 34675, 37500, 40962, 40963, 40965, 50341]
)
# Most bytes in one segment of a JPEG.
_LARGEST = 65_000

Value = tuple[int, int, bytes]  # type, count, bytes in the order of a little-endian file


@dataclass(frozen=True)
class Metadata:
    """Metadata copied from a photo to its annotated copy. exif: a TIFF. profile: an ICC profile of RGB colours."""

    exif: bytes | None = None
    profile: bytes | None = None


def metadata_of(path: Path, *, place: bool = True) -> Metadata:
    """The metadata of a JPEG, PNG or WebP for an upright copy of it, without a thumbnail.

    place: include the GPS position. Damaged parts are left out. Raises OSError where it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(12)
        file.seek(0)
        if start.startswith(b"\xff\xd8"):
            exif, profile = _of_jpeg(file)
        elif start.startswith(b"\x89PNG"):
            exif, profile = _of_png(file)
        elif start[:4] == b"RIFF" and start[8:] == b"WEBP":
            exif, profile = _of_webp(file)
        else:
            return Metadata()
    if profile is not None and profile[16:20] != b"RGB ":
        profile = None  # of CMYK or grey; the copy is RGB
    return Metadata(None if exif is None else upright_exif(exif, place=place), profile)


def upright_exif(tiff: bytes, *, place: bool = True) -> bytes | None:
    """EXIF with orientation 1 and no thumbnail, rewritten in little-endian order; None where it is unreadable."""
    tiff = tiff.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return None
    try:
        main = _directory(tiff, order, struct.unpack(order + "I", tiff[4:8])[0])
    except struct.error:
        return None
    inner: dict[int, dict[int, Value]] = {}
    for tag in (_EXIF, _GPS):
        pointer = main.pop(tag, None)
        if pointer is not None and pointer[1] == 1 and (tag != _GPS or place):
            try:
                inner[tag] = _directory(tiff, order, int.from_bytes(pointer[2][:4], "little"))
            except struct.error:
                continue
    main[_ORIENTATION] = (3, 1, b"\1\0")
    made = _written(main, inner)
    return made if len(made) <= _LARGEST else None


def _directory(tiff: bytes, order: str, place: int) -> dict[int, Value]:
    (count,) = struct.unpack_from(order + "H", tiff, place)
    found: dict[int, Value] = {}
    for entry in range(place + 2, min(place + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind, number = struct.unpack_from(order + "HHI", tiff, entry)
        if kind not in _SIZES or tag in _LEFT_OUT or number > _LARGEST:
            continue
        length = _SIZES[kind] * number
        where = entry + 8 if length <= 4 else struct.unpack_from(order + "I", tiff, entry + 8)[0]
        data = tiff[where : where + length]
        if len(data) < length:
            continue
        if order == ">" and kind not in (1, 2, 6, 7):
            width = {5: 4, 10: 4}.get(kind, _SIZES[kind])
            data = b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))
        found[tag] = kind, number, data
    return found


def _written(main: dict[int, Value], inner: dict[int, dict[int, Value]]) -> bytes:
    """A TIFF of a main directory and its subdirectories."""
    content = bytearray(b"II*\0\x08\0\0\0")
    # Space is reserved for the pointers, which are known once the subdirectories are written.
    tags = main | {tag: (4, 1, bytes(4)) for tag in inner}
    at = _append(content, tags)
    for tag, values in inner.items():
        struct.pack_into("<I", content, at[tag], len(content))
        _append(content, values)
    return bytes(content)


def _append(content: bytearray, tags: dict[int, Value]) -> dict[int, int]:
    """Append a directory and its data; returns the offset of each tag's value."""
    begin = len(content)
    content += struct.pack("<H", len(tags)) + bytes(12 * len(tags)) + bytes(4)
    places: dict[int, int] = {}
    for number, (tag, (kind, count, data)) in enumerate(sorted(tags.items())):
        entry = begin + 2 + 12 * number
        places[tag] = entry + 8
        if len(data) <= 4:
            struct.pack_into("<HHI4s", content, entry, tag, kind, count, data)
            continue
        struct.pack_into("<HHII", content, entry, tag, kind, count, len(content))
        content += data + b"\0" * (len(data) % 2)
    return places


def _of_jpeg(file: BinaryIO) -> tuple[bytes | None, bytes | None]:
    exif: bytes | None = None
    parts: dict[int, bytes] = {}
    file.seek(2)
    while len(head := file.read(4)) == 4 and head[0] == 0xFF and head[1] not in (0xDA, 0xD9):
        length = int.from_bytes(head[2:], "big") - 2
        if length < 0:
            break
        if head[1] not in (0xE1, 0xE2):
            file.seek(length, 1)
            continue
        body = file.read(length)
        if head[1] == 0xE1 and body.startswith(b"Exif\0\0") and exif is None:
            exif = body[6:]
        elif head[1] == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            parts[body[12]] = body[14:]
    return exif, b"".join(parts[number] for number in sorted(parts)) or None


def _of_png(file: BinaryIO) -> tuple[bytes | None, bytes | None]:
    exif = profile = None
    for kind, length in _chunks(file, 8, ">I4s", 4):
        if kind == b"eXIf":
            exif = file.read(length)
        elif kind == b"iCCP":
            packed = file.read(length).partition(b"\0")[2][1:]
            unpacker = zlib.decompressobj()
            try:
                profile = unpacker.decompress(packed, 1 << 24)
            except zlib.error:
                profile = None
    return exif, profile


def _of_webp(file: BinaryIO) -> tuple[bytes | None, bytes | None]:
    exif = profile = None
    for kind, length in _chunks(file, 12, "<4sI", 0):
        if kind == b"EXIF":
            exif = file.read(length)
        elif kind == b"ICCP":
            profile = file.read(length)
    return exif, profile


def _chunks(file: BinaryIO, first: int, head: Literal["<4sI", ">I4s"], tail: int) -> Iterator[tuple[bytes, int]]:
    """Kind and length of each chunk, with the file at its body. tail: bytes after a body; 0: padded to even length."""
    place = first
    while True:
        file.seek(place)
        found = file.read(8)
        if len(found) < 8:
            return
        one, other = struct.unpack(head, found)
        kind, length = (one, other) if head == "<4sI" else (other, one)
        yield kind, length
        place += 8 + length + (tail or length % 2)
