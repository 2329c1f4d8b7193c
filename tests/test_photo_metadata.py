"""Annotated photos keep colours, date and place of their source."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posecli.media.exif import Metadata, metadata_of, upright_exif
from posecli.media.images import read_image
from posecli.media.write_images import write_image
from tests.entry_points import QUICK, posecli
from tests.media_factory import picture
from tests.picture_factory import encoded, riff, riff_chunk, write

PROFILE = bytes(16) + b"RGB XYZ " + bytes(range(256)) * 400
DATE = b"2021:05:06 07:08:09\0"


def exif(order: str = "<", *, orientation: int = 6, thumbnail: bool = True) -> bytes:
    """EXIF with a date, a place, a maker's note, the old size and a thumbnail."""

    def directory(at: int, entries: list[tuple[int, int, int, bytes]], following: int = 0) -> bytes:
        head = struct.pack(order + "H", len(entries))
        data = b""
        after = at + 2 + 12 * len(entries) + 4
        for tag, kind, count, value in entries:
            place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(order + "I", after + len(data))
            data += value if len(value) > 4 else b""
            head += struct.pack(order + "HHI", tag, kind, count) + place
        return head + struct.pack(order + "I", following) + data

    def number(code: str, *values: int) -> bytes:
        return struct.pack(order + code * len(values), *values)

    inner = [(36867, 2, 20, DATE), (37500, 7, 9, b"makernote"), (40962, 4, 1, number("I", 640))]
    place = [(1, 2, 2, b"N\0"), (2, 5, 3, number("I", 52, 1, 31, 1, 120, 10))]
    main_size = 2 + 12 * 4 + 4 + len(b"Camera\0\0")
    inner_at = 8 + main_size
    inner_made = directory(inner_at, inner)
    place_at = inner_at + len(inner_made)
    place_made = directory(place_at, place)
    small_at = place_at + len(place_made)
    main = [
        (271, 2, 7, b"Camera\0\0"),
        (274, 3, 1, number("H", orientation)),
        (34665, 4, 1, number("I", inner_at)),
        (34853, 4, 1, number("I", place_at)),
    ]
    small = directory(small_at, [(513, 4, 1, number("I", 400)), (514, 4, 1, number("I", 5))]) + b"THUMB"
    mark = b"II*\0" if order == "<" else b"MM\0*"
    made = directory(8, main, small_at if thumbnail else 0)
    assert len(made) == main_size
    return mark + number("I", 8) + made + inner_made + place_made + small


def jpeg(exif_bytes: bytes | None, profile: bytes | None, pixels: np.ndarray | None = None) -> bytes:
    plain = encoded(".jpg", picture() if pixels is None else pixels)
    segments = b""
    if exif_bytes is not None:
        body = b"Exif\0\0" + exif_bytes
        segments += b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    parts = [profile[i : i + 60000] for i in range(0, len(profile), 60000)] if profile else []
    for i, part in enumerate(parts):
        body = b"ICC_PROFILE\0" + bytes([i + 1, len(parts)]) + part
        segments += b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body
    return plain[:2] + segments + plain[2:]


def png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    plain = encoded(".png", picture())
    return plain[:33] + chunk(b"iCCP", b"name\0\0" + zlib.compress(PROFILE)) + chunk(b"eXIf", exif()) + plain[33:]


def webp() -> bytes:
    size = (63).to_bytes(3, "little") + (47).to_bytes(3, "little")
    still = encoded(".webp", picture())[12:]
    return riff(
        riff_chunk(b"VP8X", b"\x28\0\0\0" + size), riff_chunk(b"ICCP", PROFILE), still, riff_chunk(b"EXIF", exif())
    )


def check(metadata: Metadata, *, place: bool = True) -> None:
    assert metadata.profile == PROFILE and metadata.exif is not None
    assert DATE in metadata.exif and b"Camera" in metadata.exif
    assert b"THUMB" not in metadata.exif and b"makernote" not in metadata.exif
    assert (struct.pack("<IIIIII", 52, 1, 31, 1, 120, 10) in metadata.exif) is place
    assert struct.pack("<HHII", 274, 3, 1, 1) in metadata.exif  # upright
    assert struct.pack("<HHI", 40962, 4, 1) not in metadata.exif


SOURCES = {".jpg": jpeg(exif(), PROFILE), ".png": png(), ".webp": webp()}


@pytest.mark.parametrize("suffix", sorted(SOURCES))
def test_metadata_is_read_and_written_again(tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / f"a{suffix}", SOURCES[suffix])
    metadata = metadata_of(source)
    check(metadata)
    for other in sorted(SOURCES):
        target = tmp_path / f"b{other}"
        write_image(target, picture(64, 48), metadata=metadata)
        assert metadata_of(target) == metadata
        assert read_image(target).shape == (48, 64, 3)
        found = cv2.imdecodeWithMetadata(np.fromfile(target, np.uint8), cv2.IMREAD_COLOR)
        carried = dict(zip(np.ravel(found[1]).tolist(), (bytes(np.ravel(x)) for x in found[2]), strict=True))
        assert metadata.exif is not None and metadata.exif in carried[cv2.IMAGE_METADATA_EXIF]
        if other != ".png":  # libpng looks into the profile, which is none here
            assert carried[cv2.IMAGE_METADATA_ICCP] == PROFILE


def test_both_orders_of_bytes_say_the_same() -> None:
    assert upright_exif(exif("<")) == upright_exif(exif(">")) == upright_exif(b"Exif\0\0" + exif(">"))


def test_a_profile_of_other_colours_is_left_out(tmp_path: Path) -> None:
    grey = bytes(16) + b"GRAYXYZ " + bytes(200)
    assert metadata_of(write(tmp_path / "a.jpg", jpeg(None, grey))) == Metadata()
    assert metadata_of(write(tmp_path / "b.jpg", jpeg(b"nonsense", None))) == Metadata()


@given(data=st.data())
def test_damaged_exif_never_raises(data: st.DataObject) -> None:
    content = bytearray(exif(data.draw(st.sampled_from("<>"))))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    made = upright_exif(bytes(content[: data.draw(st.integers(0, len(content)))]))
    assert made is None or upright_exif(made) == made


@given(
    content=st.binary(max_size=200),
    start=st.sampled_from([b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"]),
)
def test_damaged_files_never_raise(tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes) -> None:
    metadata_of(write(tmp_path_factory.getbasetemp() / "bytes", start + content))


def test_a_run_keeps_metadata_and_hides_the_place_with_the_faces(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for suffix, content in SOURCES.items():
        write(tmp_path / "in" / f"a{suffix}", content)
    for more, place in (((), True), (("--blur-faces",), False)):
        out = tmp_path / f"out{place}"
        result = posecli(capfd, "run", tmp_path / "in", "-o", out, "--weights", tiny_weights, *QUICK, *more)
        assert result.code == 0
        for suffix in SOURCES:
            check(metadata_of(out / f"a{suffix}"), place=place)
        assert read_image(out / "a.jpg").shape == (64, 48, 3)  # was turned, and is not turned again
