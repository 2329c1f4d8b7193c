"""Photos that are damaged, or lack only their end: what is told, and what is kept."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.errors import MediaError
from posecli.media.damage import examine_jpeg
from posecli.media.photos import PhotoReader, decode_photo
from tests.media_factory import exif_orientation, picture

EOI = b"\xff\xd9"


def detailed(width: int = 320, height: int = 240, seed: int = 0) -> np.ndarray:
    """A picture with as much detail as a photo."""
    noise = np.random.default_rng(seed).normal(0, 25, (height, width, 3))
    return np.clip(picture(width, height, seed) + noise, 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray | None = None, *options: int) -> bytes:
    stored = (detailed() if pixels is None else pixels)[..., ::-1]
    return bytes(cv2.imencode(".jpg", stored, list(options))[1].data)


def png(pixels: np.ndarray, *options: int) -> bytes:
    return bytes(cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels, list(options))[1].data)


def scan(content: bytes) -> int:
    """A place well within the compressed data."""
    first = content.rfind(b"\xff\xda") + 14
    return first + (len(content) - first) // 3


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "hole": lambda c: c[: scan(c)] + c[scan(c) + 3000 :],
    "zeros": lambda c: c[: scan(c)] + bytes(500) + c[scan(c) + 500 :],
    "ones": lambda c: c[: scan(c)] + b"\xff" * 500 + c[scan(c) + 500 :],
    "foreign": lambda c: c[: scan(c)] + np.random.default_rng(1).bytes(4096) + c[scan(c) + 4096 :],
    "cut with its end written": lambda c: c[: scan(c)] + EOI,
}
KINDS = {
    "baseline": [],
    "optimised": [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_damaged_jpegs_are_kept_and_told(kind: str, damage: str) -> None:
    if kind == "progressive" and damage in ("zeros", "foreign"):
        pytest.skip("may mean something in a scan that refines another")
    whole = jpeg(None, *KINDS[kind])
    pixels, told = decode_photo(DAMAGES[damage](whole), "x.jpg")
    assert pixels.shape == (240, 320, 3)
    assert told is not None and told.startswith("damaged")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_jpeg_that_is_cut_off_fails(kind: str) -> None:
    whole = jpeg(None, *KINDS[kind])
    for part in (whole[: scan(whole)], whole[: len(whole) // 2], whole[:-400]):
        with pytest.raises(MediaError, match="damaged, cut off"):
            decode_photo(part, "x.jpg")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_jpeg_without_its_end_marker_is_whole(kind: str) -> None:
    whole = jpeg(None, *KINDS[kind])
    for lacking in (1, 2):
        pixels, told = decode_photo(whole[:-lacking], "x.jpg")
        assert told is None and np.array_equal(pixels, decode_photo(whole, "x.jpg")[0])


def test_what_follows_a_jpeg_is_no_damage() -> None:
    whole = jpeg()
    for more in (b"\0" * 5000, b"some text", jpeg(detailed(64, 64)), whole[:1000], b"\xff\xff\xff"):
        pixels, told = decode_photo(whole + more, "x.jpg")
        assert told is None and np.array_equal(pixels, decode_photo(whole, "x.jpg")[0])


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    flat=st.booleans(),
    quality=st.integers(5, 100),
    optimised=st.booleans(),
    progressive=st.booleans(),
    interval=st.sampled_from([0, 1, 5]),
    sampling=st.sampled_from([0x411111, 0x221111, 0x211111, 0x111111]),
    grey=st.booleans(),
)
def test_no_whole_jpeg_is_called_damaged(
    width: int,
    height: int,
    flat: bool,
    quality: int,
    optimised: bool,
    progressive: bool,
    interval: int,
    sampling: int,
    grey: bool,
) -> None:
    pixels = np.full((height, width, 3), 255, np.uint8) if flat else detailed(width, height)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, int(optimised)]
    options += [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive), cv2.IMWRITE_JPEG_RST_INTERVAL, interval]
    if not grey:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    content = bytes(cv2.imencode(".jpg", pixels[..., 0] if grey else pixels, options)[1].data)
    assert examine_jpeg(content) == (content, None)
    assert examine_jpeg(content[:-2])[1] is None


def test_large_flat_jpegs_are_whole() -> None:
    for level in (0, 128, 255):
        for options in KINDS.values():
            content = jpeg(np.full((1200, 1600, 3), level, np.uint8), *options)
            assert examine_jpeg(content) == (content, None)


def test_a_damaged_photo_is_turned_as_a_whole_one(tmp_path: Path) -> None:
    damaged = DAMAGES["hole"](exif_orientation(jpeg(), 6))
    path = tmp_path / "a.jpg"
    path.write_bytes(damaged)
    reader = PhotoReader(path)
    (frame,) = reader
    assert (frame.width, frame.height) == (240, 320) and reader.damage is not None


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    place, found = 8, []
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        found.append((content[place + 4 : place + 8], content[place : place + 12 + length]))
        place += 12 + length
    return found


@pytest.mark.parametrize("lacking", [1, 4, 12, 16])
def test_a_png_without_its_end_is_whole(lacking: int) -> None:
    pixels = detailed()
    content, told = decode_photo(png(pixels)[:-lacking], "x.png")
    assert told is None and np.array_equal(content, pixels)


def test_a_png_with_a_wrong_checksum_and_whole_data_is_whole() -> None:
    pixels = detailed()
    content = bytearray(png(pixels))
    content[-13] ^= 1  # of the last data
    read, told = decode_photo(bytes(content), "x.png")
    assert told is None and np.array_equal(read, pixels)


@pytest.mark.parametrize("grey", [False, True])
def test_a_damaged_png_keeps_its_rows(grey: bool) -> None:
    pixels = detailed()[..., :1].repeat(3, axis=2) if grey else detailed()
    whole = png(pixels[..., 0] if grey else pixels)
    with pytest.raises(MediaError, match="damaged, cut off"):
        decode_photo(whole[: len(whole) // 2], "x.png")
    for damage in (bytes(200), b"\xff" * 200, np.random.default_rng(2).bytes(200)):
        damaged = whole[: len(whole) // 2] + damage + whole[len(whole) // 2 + 200 :]
        read, told = decode_photo(damaged, "x.png")
        assert told is not None and "of its 240 rows are there" in told
        kept = int(told.split()[1])
        assert 60 < kept < 180
        assert np.array_equal(read[: kept - 1], pixels[: kept - 1]) and not read[kept:].any()


def test_a_png_with_a_damaged_text_is_whole() -> None:
    content = png(picture())
    text = struct.pack(">I", 3) + b"tEXta\0b" + bytes(4)
    content = content[:33] + text + content[33:]
    assert decode_photo(content, "x.png")[1] is None


def test_a_png_that_unpacks_for_ever_ends() -> None:
    header = struct.pack(">IIBBBBB", 10, 10, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    bomb = zlib.compress(bytes(50_000_000))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", bomb)
    assert decode_photo(content[:-500], "x.png")[0].shape == (10, 10, 3)


@pytest.mark.parametrize("suffix", [".webp", ".avif", ".jp2", ".tif", ".bmp", ".ppm", ".pgm"])
def test_others_that_are_cut_off_fail(suffix: str) -> None:
    pixels = detailed() if suffix != ".pgm" else detailed()[..., 0]
    whole = bytes(cv2.imencode(suffix, pixels)[1].data)
    assert decode_photo(whole, f"x{suffix}")[1] is None
    with pytest.raises(MediaError, match="damaged, cut off"):
        decode_photo(whole[: len(whole) // 2], f"x{suffix}")
