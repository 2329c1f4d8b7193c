"""Pages of a TIFF file, as opposed to thumbnails, masks and reduced copies."""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Data = bytes | bytearray

_MOST_DIRECTORIES = 100_000
# Tags.
_NEW_TYPE, _OLD_TYPE, _WIDTH, _HEIGHT, _COMPRESSION, _MEANING, _SUB = 254, 255, 256, 257, 259, 262, 330
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _JPEG_THUMBNAIL, _DNG = 273, 279, 324, 325, 513, 50706
# Photometric interpretations of a sensor's raw values: colour filter array, linear raw.
_RAW = frozenset([32803, 34892])
_OLD_JPEG = 6
_DEFLATE = frozenset([8, 32946])
# Bytes of a value by its type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True)
class Directory:
    """One directory of a TIFF. place: its offset in the file. strips: offsets and lengths of its pixel data."""

    place: int
    width: int
    height: int
    reduced: bool
    mask: bool
    raw: bool
    compression: int
    strips: tuple[tuple[int, int], ...]
    inner: tuple[int, ...]

    @property
    def area(self) -> int:
        """Pixels."""
        return self.width * self.height

    @property
    def end(self) -> int:
        """End of its pixel data in the file."""
        return max((start + length for start, length in self.strips), default=0)


@dataclass(frozen=True)
class Layout:
    """Byte order (as struct's code) and variant of a TIFF. big: BigTIFF, with offsets of 64 bits."""

    order: str
    big: bool

    @property
    def place(self) -> str:
        """struct's code for an offset, with the byte order."""
        return self.order + ("Q" if self.big else "I")


def is_raw(content: Data) -> bool:
    """Whether a TIFF has raw sensor values of a camera, as DNG, NEF and ARW."""
    return any(directory.raw for directory in _all(content))


def pages(content: Data) -> list[Directory]:
    """The pages of a TIFF in order, without thumbnails, masks and reduced copies. Empty where they are unknown.

    A thumbnail whose directory contains the full image (SubIFDs) is replaced by that.
    """
    found: list[Directory] = []
    everything = list(_chain(content))
    for directory in everything:
        inside = [p for place in directory.inner if (p := _directory(content, place)) is not None]
        full = [p for p in inside if not p.reduced and not p.mask]
        larger = max(full, key=lambda p: p.area, default=None)
        if larger is not None and (directory.reduced or larger.area > directory.area):
            found.append(larger)
        elif not directory.reduced and not directory.mask:
            found.append(directory)
    return found or everything[:1]


def starting_with(content: Data, directory: Directory) -> Data:
    """The file with this image as its first one; a bytearray is modified in place."""
    layout = _layout(content)
    if layout is None:
        return content
    place = 8 if layout.big else 4
    packed = struct.pack(layout.place, directory.place)
    if content[place : place + len(packed)] == packed:
        return content
    changed = content if isinstance(content, bytearray) else bytearray(content)
    changed[place : place + len(packed)] = packed
    return changed


def broken_strips(content: Data, directory: Directory) -> int:
    """Number of an image's strips or tiles that cannot be decompressed; libtiff leaves them empty without an error.

    Only for deflate, 0 for other compressions.
    """
    if directory.compression not in _DEFLATE:
        return 0
    broken = 0
    for start, length in directory.strips:
        unpacker = zlib.decompressobj()
        try:
            data = bytes(memoryview(content)[start : start + length])
            while data and not unpacker.eof:
                unpacker.decompress(data, 1 << 20)
                data = unpacker.unconsumed_tail
        except zlib.error:
            broken += 1
            continue
        broken += not unpacker.eof
    return broken


def _all(content: Data) -> Iterator[Directory]:
    for directory in _chain(content):
        yield directory
        for place in directory.inner:
            inside = _directory(content, place)
            if inside is not None:
                yield inside


def _layout(content: Data) -> Layout | None:
    order = {b"II": "<", b"MM": ">"}.get(bytes(content[:2]))
    if order is None or len(content) < 16:
        return None
    (version,) = struct.unpack(order + "H", content[2:4])
    return Layout(order, version == 43) if version in (42, 43) else None


def _chain(content: Data) -> Iterator[Directory]:
    """The file's directories without repetition, up to the first damaged one."""
    layout = _layout(content)
    if layout is None:
        return
    at = layout.place
    size = struct.calcsize(at)
    (place,) = struct.unpack(at, content[8:16] if layout.big else content[4:8])
    seen: set[int] = set()
    while place and place not in seen and len(seen) < _MOST_DIRECTORIES:
        seen.add(place)
        directory = _directory(content, place)
        if directory is None:
            return
        yield directory
        _, end = _entries(content, place, layout)
        following = content[end : end + size]
        if len(following) < size:
            return
        (place,) = struct.unpack(at, following)


def _directory(content: Data, place: int) -> Directory | None:
    layout = _layout(content)
    if layout is None:
        return None
    try:
        entries, _ = _entries(content, place, layout)
    except struct.error:
        return None
    one = {tag: values[0] for tag, values in entries.items() if values}
    if _WIDTH not in one or _HEIGHT not in one:
        return None
    kind, old = one.get(_NEW_TYPE, 0), one.get(_OLD_TYPE, 0)
    # Exif stores a photo's thumbnail in a second directory, as a JPEG.
    thumbnail = _JPEG_THUMBNAIL in one and one.get(_COMPRESSION) == _OLD_JPEG and _STRIPS not in one
    strips = [
        (start, length)
        for starts, lengths in ((_STRIPS, _STRIP_BYTES), (_TILES, _TILE_BYTES))
        for start, length in zip(entries.get(starts, ()), entries.get(lengths, ()), strict=False)
    ]
    return Directory(
        place,
        one[_WIDTH],
        one[_HEIGHT],
        reduced=bool(kind & 1) or old == 2 or thumbnail,
        mask=bool(kind & 4),
        raw=one.get(_MEANING) in _RAW or _DNG in one,
        compression=one.get(_COMPRESSION, 1),
        strips=tuple(strips),
        inner=tuple(entries.get(_SUB, ())),
    )


def _entries(content: Data, place: int, layout: Layout) -> tuple[Mapping[int, tuple[int, ...]], int]:
    """Integer values of a directory by tag, and the position of the offset of the next directory.

    Raises struct.error where the file is truncated.
    """
    at = layout.place
    inline = struct.calcsize(at)
    head = layout.order + ("Q" if layout.big else "H")
    size = struct.calcsize(head)
    (count,) = struct.unpack(head, content[place : place + size])
    step = 20 if layout.big else 12
    found: dict[int, tuple[int, ...]] = {}
    start = place + size
    if start + step * count > len(content):
        raise struct.error("the directory is cut off")
    for i in range(count):
        entry = start + step * i
        tag, kind = struct.unpack(layout.order + "HH", content[entry : entry + 4])
        (number,) = struct.unpack(at, content[entry + 4 : entry + 4 + inline])
        if kind not in _WHOLE or number > 1 << 24:
            if tag == _DNG:
                found[tag] = (1,)
            continue
        length = number * _SIZES[kind]
        value = entry + 4 + inline
        if length > inline:
            (value,) = struct.unpack(at, content[value : value + inline])
        if value + length <= len(content):
            found[tag] = struct.unpack(f"{layout.order}{number}{_WHOLE[kind]}", content[value : value + length])
    return found, start + step * count
