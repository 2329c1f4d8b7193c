"""Pictures of special kinds made on the spot: TIFF of several directories, AVIF with properties, animations."""

import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tests.media_factory import picture


def encoded(suffix: str, pixels: np.ndarray, *options: int) -> bytes:
    """RGB, RGBA or grey as a file of a format."""
    codes = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    stored = cv2.cvtColor(pixels, codes[pixels.shape[2]]) if pixels.ndim == 3 else pixels
    return bytes(cv2.imencode(suffix, stored, list(options))[1].data)


def tiff(
    pages: Sequence[np.ndarray],
    *,
    order: str = "<",
    big: bool = False,
    tags: Sequence[dict[int, int]] | None = None,
    inner: dict[int, Sequence[int]] | None = None,
    at: int | None = None,
) -> bytes:
    """An uncompressed TIFF. tags: further ones of each page. inner: pages that are SubIFDs of another, left out of the
    chain. at: where the pixels of the only page will be, which are left out then."""
    place_code, count_code, head = ("Q", "Q", 16) if big else ("I", "H", 8)
    size = struct.calcsize(place_code)
    content = bytearray(b"II" if order == "<" else b"MM")
    content += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0)))
    assert len(content) == head
    below = {number for numbers in (inner or {}).values() for number in numbers}
    places: dict[int, int] = {}
    nexts: dict[int, int] = {}
    for i in [*sorted(below), *(n for n in range(len(pages)) if n not in below)]:
        pixels = pages[i]
        data = len(content)
        if at is None:
            content += pixels.tobytes()
        else:
            data = at
        bits = len(content)
        content += struct.pack(order + "HHH", 8, 8, 8) + b"\0\0"
        entries = {256: pixels.shape[1], 257: pixels.shape[0], 259: 1, 262: 2, 273: data, 277: 3, 278: pixels.shape[0]}
        entries |= {279: pixels.nbytes, 284: 1, **((tags or [{}] * len(pages))[i])}
        lists = {258: (3, 3, bits)}
        if inner and i in inner:
            subs = [places[n] for n in inner[i]]
            where = len(content)
            content += struct.pack(f"{order}{len(subs)}{place_code}", *subs)
            lists[330] = (16 if big else 4, len(subs), where if len(subs) > 1 else subs[0])
        places[i] = len(content)
        every = {tag: (4, 1, value) for tag, value in entries.items()} | lists
        content += struct.pack(order + count_code, len(every))
        for tag, (kind, number, value) in sorted(every.items()):
            content += struct.pack(order + "HH" + place_code, tag, kind, number)
            if tag == 258 and big:  # fits into the entry
                content += struct.pack(order + "HHHH", 8, 8, 8, 0)
                continue
            fits = number * {3: 2, 4: 4, 16: 8}[kind] <= size
            code = {3: "H", 4: "I", 16: "Q"}[kind] if fits and number == 1 else place_code
            content += struct.pack(order + code, value).ljust(size, b"\0")
        nexts[i] = len(content)
        content += bytes(size)
    chain = [n for n in range(len(pages)) if n not in below]
    links = [head - size, *(nexts[n] for n in chain[:-1])]
    for link, n in zip(links, chain, strict=True):
        content[link : link + size] = struct.pack(order + place_code, places[n])
    return bytes(content)


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of an ISO base media file."""
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def with_properties(avif: bytes, properties: Sequence[bytes]) -> bytes:
    """An AVIF of one picture with further properties of it, in this order."""
    start = avif.index(b"meta") - 4
    (size,) = struct.unpack(">I", avif[start : start + 4])
    inner, rest = avif[start + 12 : start + size], avif[start + size :]
    added = sum(map(len, properties)) + len(properties)
    boxes = []
    place = 0
    while place < len(inner):
        length, kind = struct.unpack(">I4s", inner[place : place + 8])
        body = inner[place + 8 : place + length]
        if kind == b"iloc":
            # One item with one extent of 32-bit places, as OpenCV writes it; or its place from the file's start.
            assert body[4] == 0x44 and not body[5]
            at = len(body) - 8
            moved = struct.unpack(">I", body[at : at + 4])[0] + added
            body = body[:at] + struct.pack(">I", moved) + body[at + 4 :]
        elif kind == b"iprp":
            (ipco,) = struct.unpack(">I", body[:4])
            count = sum(1 for _ in _boxes(body[8:ipco]))
            ipma = bytearray(body[ipco + 8 :])
            ipma[10] += len(properties)
            ipma += bytes(0x80 | (count + 1 + i) for i in range(len(properties)))
            body = box(b"ipco", body[8:ipco], *properties) + box(b"ipma", bytes(ipma))
        boxes.append(box(kind, body))
        place += length
    return avif[:start] + box(b"meta", avif[start + 8 : start + 12], *boxes) + rest


def _boxes(content: bytes) -> list[bytes]:
    found, place = [], 0
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        found.append(content[place : place + length])
        place += length
    return found


def irot(quarters: int) -> bytes:
    return box(b"irot", bytes([quarters]))


def imir(axis: int) -> bytes:
    return box(b"imir", bytes([axis]))


def clap(width: int, height: int, right: tuple[int, int], down: tuple[int, int]) -> bytes:
    return box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, *right, *down))


def riff(*parts: bytes) -> bytes:
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def avif(pixels: np.ndarray | None = None) -> bytes:
    return encoded(".avif", picture() if pixels is None else pixels, cv2.IMWRITE_AVIF_QUALITY, 95)
