"""Conversion of animated images that FFmpeg reads incompletely or not at all to streams that it can read."""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import cv2
import numpy as np
from numpy.typing import NDArray

# As in browsers, durations up to 10 ms become 100 ms.
_SHORTEST, _USUAL = 11, 100
_MILLISECOND = Fraction(1, 1000)
_DELAY = (_USUAL // 10).to_bytes(2, "little")
_PNG = b"\x89PNG\r\n\x1a\n"


def is_animation(file: BinaryIO) -> bool:
    """Whether an open file is a WebP or PNG of several frames, by its chunk headers."""
    start = file.read(30)
    if start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8X" and start[20] & 2:
        file.seek(12)
        frames = 0
        while len(head := file.read(8)) == 8 and frames < 2:
            kind, length = struct.unpack("<4sI", head)
            frames += kind == b"ANMF"
            file.seek(length + length % 2, 1)
        return frames > 1
    if start.startswith(_PNG):
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"acTL":
                return int.from_bytes(file.read(4), "big") > 1
            if kind in (b"IDAT", b"IEND"):
                return False
            file.seek(length + 4, 1)
    return False


def convert_animation(path: Path) -> tuple[io.BytesIO | io.RawIOBase, str] | None:
    """A stream for FFmpeg in place of a file, and the name of its format; None where FFmpeg can read the file itself.

    An animated WebP is decoded to raw frames; a damaged frame becomes a packet that cannot be decoded. A GIF without
    durations, which FFmpeg would read as one image, or with too short ones, gets the durations of browsers.

    Raises OSError where the file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(12)
        if start[:6] in (b"GIF87a", b"GIF89a"):
            file.seek(0)
            timed = _timed_gif(file.read())
            return None if timed is None else (io.BytesIO(timed), "gif")
        if start[:4] != b"RIFF" or start[8:] != b"WEBP":
            return None
        file.seek(0)
        if not is_animation(file):
            return None
        file.seek(0)
        return _Webp(file.read()), "nut"


def _timed_gif(content: bytes) -> bytes | None:
    """The GIF with a duration for each image that has none or too short a one; None where nothing is changed."""
    if len(content) < 13:
        return None

    def table(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    def blocks_end(place: int) -> int:
        while place < len(content) and content[place]:
            place += content[place] + 1
        return place + 1

    place = 13 + table(content[10])
    parts, copied = [b"GIF89a"], 6
    images, timed, changed = 0, False, False
    while place < len(content):
        if content[place] == 0x21 and place + 6 < len(content):
            if content[place + 1] == 0xF9:
                timed = True
                if int.from_bytes(content[place + 4 : place + 6], "little") < _SHORTEST / 10:
                    parts += [content[copied : place + 4], _DELAY]
                    copied, changed = place + 6, True
            place = blocks_end(place + 2)
        elif content[place] == 0x2C and place + 10 <= len(content):
            images += 1
            if not timed:
                parts += [content[copied:place], b"\x21\xf9\x04\0", _DELAY, b"\0\0"]
                copied, changed = place, True
            timed = False
            place = blocks_end(place + 11 + table(content[place + 9]))
        else:
            break
    return b"".join([*parts, content[copied:]]) if changed and images > 1 else None


@dataclass(frozen=True)
class _WebpFrame:
    """A frame of an animated WebP: its position, and the frame as a single WebP. image: None where it is cut off."""

    x: int
    y: int
    duration: int
    replaces: bool
    clears: bool
    image: bytes | None


class _Webp(io.RawIOBase):
    """An animated WebP, readable as NUT with raw frames, which are decoded on demand, one at a time."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._parts = self._encoded(content)
        self._buffer = bytearray()

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes."""
        while size < 0 or len(self._buffer) < size:
            part = next(self._parts, None)
            if part is None:
                break
            self._buffer += part
        count = len(self._buffer) if size < 0 else size
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _encoded(self, content: bytes) -> Iterator[bytes]:
        made = _Made()
        width, height = (1 + int.from_bytes(content[i : i + 3], "little") for i in (24, 27))
        with av.open(made, "w", format="nut") as container:
            stream = container.add_stream("rawvideo", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
            stream.time_base = stream.codec_context.time_base = _MILLISECOND
            canvas = np.zeros((height, width, 4), np.uint8)
            time = 0
            for item in _webp_frames(content):
                part = _drawn(canvas, item)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(canvas[..., :3]), format="rgb24")
                frame.pts, frame.time_base = time, _MILLISECOND
                for packet in stream.encode(frame):
                    if part is None:
                        broken = av.Packet(b"damaged")
                        broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                        broken.stream = stream
                        packet = broken
                    container.mux(packet)
                if part is not None and item.clears:
                    part[:] = 0
                yield made.taken()
                time += item.duration if item.duration >= _SHORTEST else _USUAL
        yield made.taken()


class _Made:
    """A buffer that a muxer writes to."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        """Append."""
        self._bytes += data
        return len(data)

    def taken(self) -> bytes:
        """The written bytes, which are removed from the buffer."""
        data = bytes(self._bytes)
        self._bytes.clear()
        return data


def _webp_frames(content: bytes) -> Iterator[_WebpFrame]:
    promised = min(8 + int.from_bytes(content[4:8], "little"), 1 << 32)
    place = 12
    while place + 8 <= min(len(content), promised):
        kind, length = struct.unpack("<4sI", content[place : place + 8])
        body = content[place + 8 : place + 8 + length]
        if kind == b"ANMF" and len(body) >= 16:
            x, y, width, height, duration = (int.from_bytes(body[i : i + 3], "little") for i in (0, 3, 6, 9, 12))
            whole = len(body) == length
            image = _still(body[16:], width + 1, height + 1) if whole else None
            yield _WebpFrame(2 * x, 2 * y, duration, bool(body[15] & 2), bool(body[15] & 1), image)
        place += 8 + length + length % 2
    if place < promised - 8 and place == len(content):
        # Cut off between two frames: at least one is missing.
        yield _WebpFrame(0, 0, 0, False, False, None)


def _still(chunks: bytes, width: int, height: int) -> bytes:
    """A frame's chunks as a WebP of one image."""
    alpha = 0x10 if chunks.startswith(b"ALPH") else 0
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    head = b"VP8X" + struct.pack("<II", 10, alpha) + size if alpha else b""
    body = b"WEBP" + head + chunks
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _drawn(canvas: NDArray[np.uint8], item: _WebpFrame) -> NDArray[np.uint8] | None:
    """The part of the RGBA canvas under a frame, with the frame drawn on it; None where it cannot be decoded."""
    if item.image is None:
        return None
    found = cv2.imdecode(np.frombuffer(item.image, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.ndim != 3:
        return None
    place = canvas[item.y : item.y + found.shape[0], item.x : item.x + found.shape[1]]
    if place.shape[:2] != found.shape[:2]:
        return None
    opaque = found.shape[2] == 3
    decoded = cv2.cvtColor(found, cv2.COLOR_BGR2RGBA if opaque else cv2.COLOR_BGRA2RGBA)
    if opaque or item.replaces:
        place[:] = decoded
    else:
        above = decoded[..., 3:].astype(np.float32) / 255
        below = place[..., 3:].astype(np.float32) / 255 * (1 - above)
        alpha = above + below
        colours = decoded[..., :3] * above + place[..., :3] * below
        place[..., :3] = np.rint(colours / np.maximum(alpha, 1e-6))
        place[..., 3:] = np.rint(255 * alpha)
    return place
