"""Photos of every kind, whole and broken."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posecli.errors import MediaError
from posecli.media.images import decode_image, read_image, stored_size
from posecli.media.scaling import scaled
from posecli.media.write_images import photo_name, write_image
from tests.media_factory import exif_orientation, picture, write_photo


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif", ".ppm", ".jp2"])
def test_formats_are_read_as_rgb(tmp_path: Path, suffix: str) -> None:
    pixels = picture(70, 50)
    path = write_photo(tmp_path / f"a b ü{suffix}", pixels)
    read = read_image(path)
    assert read.shape == pixels.shape and read.dtype == np.uint8
    assert np.abs(read.astype(int) - pixels).mean() < (8 if suffix in (".jpg", ".webp", ".jp2") else 0.01)


def test_grey_16_bit_and_transparent_pictures(tmp_path: Path) -> None:
    grey = write_photo(tmp_path / "grey.png", picture()[..., 0])
    assert np.ptp(read_image(grey).astype(int), axis=2).max() == 0
    deep = tmp_path / "deep.png"
    cv2.imwrite(str(deep), picture()[..., ::-1].astype(np.uint16) * 257)
    assert np.abs(read_image(deep).astype(int) - picture()).max() <= 1
    clear = tmp_path / "clear.png"
    cv2.imwrite(str(clear), np.dstack([picture()[..., ::-1], np.full((48, 64), 10, np.uint8)]))
    assert np.array_equal(read_image(clear), picture())


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation(tmp_path: Path, orientation: int, turns: int) -> None:
    plain = write_photo(tmp_path / "a.jpg").read_bytes()
    turned = decode_image(exif_orientation(plain, orientation), "turned")
    assert np.array_equal(turned, np.rot90(decode_image(plain, "plain"), turns))
    stored = decode_image(exif_orientation(plain, orientation), "stored", ignore_orientation=True)
    assert np.array_equal(stored, decode_image(plain, "plain"))


def test_broken_photos_name_file_and_cause(tmp_path: Path) -> None:
    whole = write_photo(tmp_path / "a.jpg", picture(200, 200)).read_bytes()
    for name, content, words in [
        ("empty.jpg", b"", "empty"),
        ("cut.jpg", whole[: len(whole) // 2], "damaged, cut off"),
        ("text.jpg", b"hello there, this is text", "damaged"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(MediaError, match=f"{name}.*{words}"):
            read_image(path)
    with pytest.raises(MediaError, match="No such file"):
        read_image(tmp_path / "gone.jpg")


def test_huge_photos_are_refused_by_their_header() -> None:
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(MediaError, match="20000x20000 pixels are over the limit"):
        decode_image(png, "huge.png")


def test_one_pixel_is_a_photo(tmp_path: Path) -> None:
    assert read_image(write_photo(tmp_path / "one.png", picture(1, 1))).shape == (1, 1, 3)


FORMATS = st.sampled_from([".png", ".jpg", ".webp", ".bmp", ".tif"])


@given(width=st.integers(1, 90), height=st.integers(1, 90), suffix=FORMATS)
def test_stored_size_is_the_decoded_size(width: int, height: int, suffix: str) -> None:
    _, encoded = cv2.imencode(suffix, picture(width, height))
    assert stored_size(encoded.tobytes()) == (width, height)


@given(content=st.binary(max_size=300))
def test_any_bytes_decode_or_raise(content: bytes) -> None:
    stored_size(content)
    with pytest.raises(MediaError):
        decode_image(content, "x")


def test_written_photos_keep_their_format(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.webp", "c.png"):
        write_image(tmp_path / "new" / name, picture())
        assert np.abs(read_image(tmp_path / "new" / name).astype(int) - picture()).mean() < 6
    assert [path.suffix for path in (tmp_path / "new").iterdir() if path.suffix == ".part"] == []
    assert (photo_name("a.JPG"), photo_name("x/y.avif"), photo_name("none")) == ("a.JPG", "x/y.avif.png", "none.png")


@pytest.mark.parametrize(("size", "to"), [((480, 640), (336, 448)), ((481, 643), (120, 160)), ((64, 48), (64, 48))])
def test_scaled_is_an_area_average(size: tuple[int, int], to: tuple[int, int]) -> None:
    """Of a smooth image, nearly OpenCV's own area interpolation; no pixel is skipped, so that no fine lines alias."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = 127 + 60 * np.sin(rows / 17) + 60 * np.cos(columns / 23)
    smooth = np.repeat(waves[..., None], 3, axis=2).astype(np.uint8)
    small = scaled(smooth, to[1], to[0])
    expected = cv2.resize(smooth, (to[1], to[0]), interpolation=cv2.INTER_AREA)
    assert small.shape == (*to, 3)
    assert np.abs(small.astype(int) - expected).max() <= 4
    if to != size:
        lines = np.zeros((*size, 3), np.uint8)
        lines[::2] = 255
        assert abs(float(scaled(lines, to[1], to[0]).mean()) - 127.5) < 2
