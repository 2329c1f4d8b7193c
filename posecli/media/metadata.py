"""Writing of metadata into encoded images."""

import struct
import zlib

from posecli.media.exif import Metadata
from posecli.media.headers import stored_size

# Bytes of an ICC profile in one segment of a JPEG.
_ICC_PART = 65_000


def with_metadata(encoded: bytes, suffix: str, metadata: Metadata) -> bytes:
    """An image encoded by OpenCV with EXIF and ICC profile added to JPEG, PNG and WebP; other suffixes: unchanged."""
    if metadata == Metadata():
        return encoded
    if suffix in (".jpg", ".jpeg", ".jpe"):
        return _jpeg(encoded, metadata)
    if suffix == ".png":
        return _png(encoded, metadata)
    return _webp(encoded, metadata) if suffix == ".webp" else encoded


def _jpeg(encoded: bytes, metadata: Metadata) -> bytes:
    place = 2
    if encoded[2:4] == b"\xff\xe0":  # JFIF comes first
        place = 4 + int.from_bytes(encoded[4:6], "big")
    segments = []
    if metadata.exif is not None:
        segments.append((0xE1, b"Exif\0\0" + metadata.exif))
    profile = metadata.profile or b""
    parts = [profile[i : i + _ICC_PART] for i in range(0, len(profile), _ICC_PART)]
    if len(parts) < 256:
        heads = [b"ICC_PROFILE\0" + bytes([number, len(parts)]) for number in range(1, len(parts) + 1)]
        segments += [(0xE2, head + part) for head, part in zip(heads, parts, strict=True)]
    packed = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return encoded[:place] + packed + encoded[place:]


def _png(encoded: bytes, metadata: Metadata) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    place = 8 + 25  # after IHDR
    more = b""
    if metadata.profile is not None:
        more += chunk(b"iCCP", b"ICC\0\0" + zlib.compress(metadata.profile))
    if metadata.exif is not None:
        more += chunk(b"eXIf", metadata.exif)
    return encoded[:place] + more + encoded[place:]


def _webp(encoded: bytes, metadata: Metadata) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

    if encoded[12:16] == b"VP8X":
        flags, size, image = encoded[20], encoded[24:30], encoded[30:]
    else:
        width, height = stored_size(encoded) or (1, 1)
        flags = 0x10 if encoded[12:16] == b"VP8L" and encoded[24] & 0x10 else 0
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        image = encoded[12:]
    flags |= (0x20 if metadata.profile is not None else 0) | (0x08 if metadata.exif is not None else 0)
    body = b"WEBP" + chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size)
    body += chunk(b"ICCP", metadata.profile) if metadata.profile is not None else b""
    body += image
    body += chunk(b"EXIF", metadata.exif) if metadata.exif is not None else b""
    return b"RIFF" + struct.pack("<I", len(body)) + body
