"""Detection and repair of damaged photos."""

import re
import struct
import zlib

import av
from av.error import FFmpegError, InvalidDataError

# Markers that may end the compressed data of a JPEG's scan: tables, the next scan, the end, application data.
_AFTER_SCAN = frozenset([0xC4, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE])
# A lone FF is followed by 0, restarts may have more of them before. Beginning with one literal it is 15 times as fast.
_MARKER = re.compile(rb"\xff(?:\xff*[^\x00\xff\xd0-\xd7]|\xff+\x00)", re.DOTALL)
# Baseline, extended and progressive: what FFmpeg decodes.
_CHECKED = frozenset([0xC0, 0xC1, 0xC2])
# Flat areas of an image do not give this many zero bytes, except with Huffman tables that code them so.
_ZEROS = bytes(48)
_BROKEN = "damaged: part of its compressed data is missing or wrong"
CUT_OFF = "damaged, cut off: its compressed data end early"
_EOI = b"\xff\xd9"
# Chunks of a PNG with its colours and orientation.
_KEPT = frozenset([b"PLTE", b"tRNS", b"iCCP", b"gAMA", b"sRGB", b"cHRM", b"eXIf"])
# Samples per pixel of a PNG by its colour type.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def examine_jpeg(content: bytes) -> tuple[bytes, str | None]:
    """A JPEG that OpenCV can decode, and its damage, None where it has none.

    OpenCV decodes a damaged file without an error, and does not decode a file that only lacks its end marker. Damage is
    found by FFmpeg, which decodes the data again at an eighth of the size.
    """
    frame, scans, end, odd = _segments(content)
    if frame is None or not scans:
        return content, None
    whole = content if end is not None else content + _EOI
    if odd:
        return whole, "damaged: there is foreign data within its compressed data, or they are cut off"
    if frame in _CHECKED:
        data = whole[:end] if end is not None else whole
        if _is_broken(data):
            return whole, CUT_OFF if end is None else _BROKEN
        first, last = scans[0]
        zeros = content.find(_ZEROS, first, last)
        if frame != 0xC2 and zeros >= 0 and not _zeros_are_flat(content[:first]):
            return whole, "damaged: part of its compressed data is zeros"
    return whole, None


def cut_jpeg(content: bytes) -> bytes | None:
    """A JPEG cut at the first foreign data, for decoders that fail there; None where no image data are left."""
    _, scans, _, _ = _segments(content)
    return content[: scans[-1][1]] + _EOI if scans else None


def _segments(content: bytes) -> tuple[int | None, list[tuple[int, int]], int | None, bool]:
    """Frame type, offsets of the scans' data, end of the image, and whether there is foreign data in it."""
    place, frame, scans = 2, None, list[tuple[int, int]]()
    while place + 4 <= len(content):
        if content[place] != 0xFF:
            return frame, scans, None, bool(scans)
        marker = content[place + 1]
        if marker == 0xFF:
            place += 1
        elif marker == 0xD9:
            return frame, scans, place + 2, False
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            place += 2
        else:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                frame = marker
            place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
            if marker == 0xDA:
                match = _MARKER.search(content, place)
                scans.append((place, match.start() if match else len(content)))
                if match is None:
                    return frame, scans, None, False
                if match[0][-1] not in _AFTER_SCAN:
                    # An end marker may still follow.
                    behind = content.rfind(_EOI, match.end())
                    return frame, scans, behind + 2 if behind >= 0 else None, True
                place = match.end() - 2
    ended = content[place : place + 2] == _EOI
    # A segment beyond the end of the file: it is cut off between two scans, or not at all.
    return frame, scans, place + 2 if ended else None, bool(scans) and place > len(content)


def _is_broken(content: bytes) -> bool:
    for reduced in ("3", "0"):  # full size only where decoding at 1/8 fails
        context = av.CodecContext.create("mjpeg", "r")
        context.options = {"err_detect": "explode", "lowres": reduced}
        context.thread_count = 1
        try:
            context.decode(av.Packet(content))
            return False
        except InvalidDataError:
            continue
        except (FFmpegError, ValueError):
            return False
    return True


def _zeros_are_flat(tables: bytes) -> bool:
    """Whether zero bits code flat blocks in all Huffman tables of a JPEG."""
    place, flat = 2, True
    while place + 4 <= len(tables) and tables[place] == 0xFF:
        length = int.from_bytes(tables[place + 2 : place + 4], "big")
        if tables[place + 1] == 0xC4:
            inner, end = place + 4, place + 2 + length
            while inner + 17 < end:
                # The code of zeros is that of the table's first symbol: no change, or end of block.
                flat = flat and tables[inner + 17] == 0
                inner += 17 + sum(tables[inner + 1 : inner + 17])
        place += 2 + length
    return flat


def repair_png(content: bytes, most_bytes: int) -> tuple[bytes, str | None] | None:
    """A repaired PNG that OpenCV can decode, and its damage; None where it cannot be repaired.

    Where all compressed data are valid (only the end marker is missing or a checksum is wrong), the image is complete.
    Else rows up to the damage are kept and the rest is black, unless the file is cut off. most_bytes: limit of the
    pixels' size.
    """
    header, others, data = b"", b"", b""
    ended = False
    sure: int | None = None  # length of the data before a wrong checksum
    place = 8
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        body, check = content[place + 8 : place + 8 + length], content[place + 8 + length : place + 12 + length]
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            if sure is None and len(check) == 4 and zlib.crc32(kind + body) != int.from_bytes(check, "big"):
                sure = len(data)
            data += body
        elif kind in _KEPT and not data:
            others += _chunk(kind, body)
        elif kind == b"IEND" or not kind.isalpha():
            ended = kind == b"IEND"
            break
        place += 12 + length
    if len(header) != 13 or not data:
        return None
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if colour not in _SAMPLES:
        return None
    row = 1 + -(-width * depth * _SAMPLES[colour] // 8)
    if row * height > most_bytes:
        return None
    pixels, whole = _inflated(data, row * height)
    problem = None
    if not whole and ended and not interlaced:
        if sure is not None:
            pixels, _ = _inflated(data[:sure], row * height)
        # Damaged data decode to garbage, up to a row with an invalid filter type.
        kept = next((i for i in range(len(pixels) // row) if pixels[i * row] > 4), len(pixels) // row)
        if not kept:
            return None
        pixels = pixels[: kept * row] + bytes(row) * (height - kept)
        problem = f"damaged: {kept} of its {height} rows are there"
    elif not whole:
        return None
    start = content[:8] + _chunk(b"IHDR", header) + others
    return start + _chunk(b"IDAT", zlib.compress(pixels, 1)) + _chunk(b"IEND", b""), problem


def _inflated(data: bytes, expected: int) -> tuple[bytes, bool]:
    """At most `expected` decompressed bytes, and whether they are complete and valid."""
    decompressor = zlib.decompressobj()
    parts: list[bytes] = []
    length = 0
    for place in range(0, len(data), 4096):
        try:
            part = decompressor.decompress(data[place : place + 4096], 1 << 20)
        except zlib.error:
            return b"".join(parts)[:expected], False
        parts.append(part)
        length += len(part)
        if decompressor.unconsumed_tail or length > expected + (1 << 20):
            break
    return b"".join(parts)[:expected], length >= expected


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
