"""Animated pictures: all of their frames, with their own times."""

import re
import struct
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.media.inputs import sniff
from posecli.media.video import VideoReader
from tests.entry_points import QUICK, posecli
from tests.media_factory import picture
from tests.picture_factory import encoded, riff, riff_chunk, write

FRAMES = [picture(64, 48, seed) for seed in range(4)]


def animation(suffix: str, durations: list[int], frames: list[np.ndarray] = FRAMES) -> bytes:
    made = cv2.Animation()
    made.frames = [np.dstack([frame[..., ::-1], np.full(frame.shape[:2], 255, np.uint8)]) for frame in frames]
    made.durations = np.array(durations, np.int32)
    ok, content = cv2.imencodeanimation(suffix, made)
    assert ok
    return bytes(content.data)


def anmf(pixels: np.ndarray, duration: int, x: int = 0, y: int = 0, flags: int = 0) -> bytes:
    still = encoded(".webp", pixels, cv2.IMWRITE_WEBP_QUALITY, 101)
    chunks = still[12:]
    if chunks.startswith(b"VP8X"):
        chunks = chunks[18:]
    height, width = pixels.shape[:2]
    numbers = (x // 2, y // 2, width - 1, height - 1, duration)
    head = b"".join(number.to_bytes(3, "little") for number in numbers)
    return riff_chunk(b"ANMF", head + bytes([flags]) + chunks)


def webp(*frames: bytes, width: int = 64, height: int = 48) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff(riff_chunk(b"VP8X", b"\x12\0\0\0" + size), riff_chunk(b"ANIM", bytes(6)), *frames)


def read(path: Path, content: bytes) -> tuple[list[tuple[float, np.ndarray]], VideoReader]:
    with VideoReader(write(path, content)) as reader:
        return [(float(frame.time or 0), frame.pixels) for frame in reader], reader


@pytest.mark.parametrize(("suffix", "close"), [(".webp", 4), (".png", 0), (".gif", 30)])
def test_all_frames_come_with_their_times(tmp_path: Path, suffix: str, close: int) -> None:
    path = tmp_path / f"a{suffix}"
    frames, reader = read(path, animation(suffix, [100, 50, 300, 100]))
    assert sniff(path) == "video" and not reader.lost
    assert [time for time, _ in frames] == pytest.approx([0, 0.1, 0.15, 0.45])
    for (_, pixels), wanted in zip(frames, FRAMES, strict=True):
        assert np.abs(pixels.astype(int) - wanted).mean() <= close


@pytest.mark.parametrize("duration", [0, 10])
@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_frames_without_a_time_have_a_tenth_of_a_second(tmp_path: Path, suffix: str, duration: int) -> None:
    content = webp(*(anmf(frame, duration) for frame in FRAMES)) if suffix == ".webp" else gif([duration // 10] * 4)
    frames, _ = read(tmp_path / f"a{suffix}", content)
    assert [time for time, _ in frames] == pytest.approx([0, 0.1, 0.2, 0.3])


def gif(delays: list[int | None]) -> bytes:
    """A GIF with these delays in hundredths of a second; None leaves the extension that holds it out."""
    content = animation(".gif", [200] * len(delays), FRAMES[: len(delays)])
    pieces = re.split(rb"(\x21\xf9\x04.{5})", content, flags=re.DOTALL)
    assert len(pieces) == 2 * len(delays) + 1
    for number, delay in enumerate(delays):
        control = pieces[2 * number + 1]
        control = b"" if delay is None else control[:4] + struct.pack("<H", delay) + control[6:]
        pieces[2 * number + 1] = control
    return b"".join(pieces)


@pytest.mark.parametrize(
    ("delays", "times"),
    [
        ([None] * 4, [0, 0.1, 0.2, 0.3]),
        ([None, 20, None, None], [0, 0.1, 0.3, 0.4]),
        ([5, None, 5, 5], [0, 0.05, 0.15, 0.2]),
        ([0, 1, 2, 5], [0, 0.1, 0.2, 0.22]),
    ],
)
def test_gifs_whose_pictures_have_no_control_block(
    tmp_path: Path, delays: list[int | None], times: list[float]
) -> None:
    frames, reader = read(tmp_path / "a.gif", gif(delays))
    assert [time for time, _ in frames] == pytest.approx(times) and not reader.lost
    for (_, pixels), wanted in zip(frames, FRAMES, strict=True):
        assert np.abs(pixels.astype(int) - wanted).mean() < 30


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_webp_frames_are_put_together_as_libwebp_does(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    parts = []
    for number in range(4):
        width, height = (64, 48) if not number else tuple(data.draw(st.tuples(st.integers(1, 40), st.integers(1, 30))))
        x, y = (0, 0) if not number else data.draw(st.tuples(st.integers(0, 12), st.integers(0, 9)))
        pixels = random.integers(0, 256, (height, width, 4), np.uint8)
        if not data.draw(st.booleans()):
            pixels = np.ascontiguousarray(pixels[..., :3])
        parts.append(anmf(pixels, 100, 2 * x, 2 * y, data.draw(st.integers(0, 3))))
    content = webp(*parts)
    frames, _ = read(tmp_path_factory.getbasetemp() / "put.webp", content)
    ok, wanted = cv2.imdecodeanimation(np.frombuffer(content, np.uint8))
    assert ok and len(wanted.frames) == len(frames) == 4
    for (_, pixels), other in zip(frames, wanted.frames, strict=True):
        shown = other[..., 3] > 32  # what is transparent has any colour
        assert np.abs(pixels.astype(int) - other[..., 2::-1])[shown].max(initial=0) <= 6


def test_a_damaged_frame_of_a_webp_is_counted(tmp_path: Path) -> None:
    frames = [anmf(frame, 100) for frame in FRAMES]
    frames[2] = frames[2][:40] + b"\xff" * 40 + frames[2][80:]
    found, reader = read(tmp_path / "a.webp", webp(*frames))
    assert [time for time, _ in found] == pytest.approx([0, 0.1, 0.3])
    assert dict(reader.lost) == {"cannot be decoded": 1}


def test_a_webp_that_is_cut_off_tells_it(tmp_path: Path) -> None:
    frames = [anmf(frame, 100) for frame in FRAMES]
    whole = webp(*frames)
    found, reader = read(tmp_path / "a.webp", whole[:-100])
    assert len(found) == 3 and reader.lost_frames == 1
    found, reader = read(tmp_path / "b.webp", whole[: -len(frames[3])])
    assert len(found) == 3 and reader.lost_frames == 1


def test_stills_stay_photos(tmp_path: Path) -> None:
    one = webp(anmf(FRAMES[0], 100))
    assert sniff(write(tmp_path / "one.webp", one)) == "photo"
    assert sniff(write(tmp_path / "still.webp", encoded(".webp", FRAMES[0]))) == "photo"
    assert sniff(write(tmp_path / "still.png", encoded(".png", FRAMES[0]))) == "photo"
    assert sniff(write(tmp_path / "cut.png", encoded(".png", FRAMES[0])[:20])) == "photo"


def test_a_run_makes_clips_of_them(tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    for suffix in (".webp", ".png"):
        write(root / f"a{suffix}", animation(suffix, [100] * 4))
    write(root / "a.gif", gif([None] * 4))
    result = posecli(capfd, "run", root, "-o", out, "--weights", tiny_weights, *QUICK, "--json", "--smooth", "offline")
    rows = orjson.loads(result.out)["inputs"]
    assert [(row["name"], row["status"], row["frames"]) for row in rows] == [
        ("a.gif", "done", 4), ("a.png", "done", 4), ("a.webp", "done", 4)
    ]  # fmt: skip
    for row in rows:
        with VideoReader(out / row["outputs"][0]) as reader:
            assert [frame.time for frame in reader] == [Fraction(number, 10) for number in range(4)]
