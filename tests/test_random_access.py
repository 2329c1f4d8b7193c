"""Frames in any order are those of reading in sequence: numbers, times and pixels."""

import gc
import logging
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.errors import MediaError
from posecli.media import random_access
from posecli.media.packet_index import packet_index
from posecli.media.random_access import RandomAccess
from posecli.media.video import VideoReader
from posecli.types import Frame
from tests.media_factory import picture, turn, write_photo, write_video
from tests.test_video_damage import damaged
from tests.test_video_index import EDITS, edited, fragmented

FRAMES = 60
VARIABLE = np.cumsum(np.random.default_rng(0).choice([17, 33, 50], FRAMES)).tolist()
PLAIN = Fraction(1, 25)
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=10:open-gop=1:pools=1:frame-threads=1"}
# Name and suffix → how it is written, and whether frames are found by its index.
CLIPS: dict[str, tuple[dict[str, Any], bool]] = {
    "b.mp4": ({"options": {"g": "12", "bf": "3"}}, True),
    "b.mkv": ({"options": {"g": "12", "bf": "3"}}, True),
    "b.ts": ({"options": {"g": "12", "bf": "3"}}, True),
    "b.avi": ({"options": {"g": "12", "bf": "3"}}, False),
    "long.mp4": ({"options": {"g": "250", "bf": "2"}}, True),
    "open.mkv": ({"options": {"g": "10", "bf": "3", "x264-params": "open-gop=1"}}, True),
    "refresh.mkv": ({"options": {"g": "10", "bf": "0", "x264-params": "intra-refresh=1"}}, True),
    "variable.mp4": ({"options": {"g": "7", "bf": "2"}, "times": VARIABLE}, True),
    "hevc.mp4": ({"codec": "libx265", "options": X265}, True),
    "vp9.webm": ({"codec": "libvpx-vp9", "options": {"g": "10", "deadline": "realtime", "cpu-used": "8"}}, True),
    "vp8.webm": ({"codec": "libvpx", "options": {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "8"}}, True),
    "av1.mkv": ({"codec": "libsvtav1", "options": {"preset": "12", "g": "10"}}, True),
    "mpeg2.ts": ({"codec": "mpeg2video", "options": {"g": "10", "bf": "2"}, "time_base": PLAIN}, True),
    "mpeg4.mp4": ({"codec": "mpeg4", "options": {"g": "10", "bf": "2"}, "time_base": PLAIN}, True),
    "mjpeg.mkv": ({"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {}}, True),
    "wmv2.wmv": ({"codec": "wmv2", "options": {"g": "10"}, "time_base": PLAIN}, False),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, dict[int, Frame]]]:
    """A clip by its name, and its frames as read in sequence."""
    folder = tmp_path_factory.mktemp("clips")

    @cache
    def clip(name: str) -> tuple[Path, dict[int, Frame]]:
        path = write_video(folder / name, FRAMES, **CLIPS[name][0])
        return path, in_sequence(path)

    return clip


def in_sequence(source: Path | str) -> dict[int, Frame]:
    with VideoReader(source) as reader:
        return {frame.index: frame for frame in reader}


def assert_same(access: RandomAccess, frames: dict[int, Frame], number: int) -> None:
    if number not in frames:
        with pytest.raises(MediaError, match=rf"\b{number}\b"):
            access.frame(number)
        return
    found, wanted = access.frame(number), frames[number]
    assert (found.index, found.time) == (wanted.index, wanted.time)
    assert np.array_equal(found.pixels, wanted.pixels)


@pytest.mark.parametrize("name", CLIPS)
def test_any_order_gives_the_frames_of_reading_in_sequence(
    clips: Callable[[str], tuple[Path, dict[int, Frame]]], name: str
) -> None:
    path, frames = clips(name)
    assert len(frames) == FRAMES

    @settings(max_examples=4, deadline=None)
    @given(st.lists(st.integers(0, FRAMES - 1), min_size=1, max_size=12), st.sampled_from([1, 30_000, 1 << 30]))
    def check(numbers: list[int], cache_bytes: int) -> None:
        with RandomAccess(path, cache_bytes=cache_bytes) as access:
            for number in numbers:
                assert_same(access, frames, number)
                if number:
                    assert_same(access, frames, number - 1)

    check()
    with RandomAccess(path, cache_bytes=1 << 16) as access:
        for number in (*range(FRAMES), *reversed(range(FRAMES))):
            assert_same(access, frames, number)
        assert access.sequential == (not CLIPS[name][1])
        for number in (-1, FRAMES, FRAMES + 1000):
            with pytest.raises(MediaError, match="no frame"):
                access.frame(number)
        assert_same(access, frames, 3)


@pytest.mark.parametrize("bf", [0, 2])
@pytest.mark.parametrize("edits", [edits for edits, _ in EDITS], ids=str)
def test_edit_lists(tmp_path: Path, edits: list[tuple[int, int]], bf: int) -> None:
    path = edited(tmp_path / "a.mp4", edits, bf)
    frames = in_sequence(path)
    chance = np.random.default_rng(0)
    with RandomAccess(path, cache_bytes=20_000) as access:
        for number in chance.integers(0, 25, 30).tolist():
            assert_same(access, frames, number)


def test_turned_frames_and_pixels_that_are_not_square(tmp_path: Path) -> None:
    plain = write_video(tmp_path / "a.mp4", 30, options={"g": "10", "bf": "2"})
    path = turn(plain, tmp_path / "b.mp4", (0, 1, -1, 0))
    frames = in_sequence(path)
    assert frames[0].pixels.shape == (64, 48, 3)
    with RandomAccess(path) as access:
        for number in (29, 3, 17):
            assert_same(access, frames, number)


def test_fragments_that_were_cut_off(tmp_path: Path) -> None:
    path = fragmented(tmp_path / "a.mp4", "dash+frag_keyframe", 2)
    content = path.read_bytes()
    for size in (len(content), len(content) * 2 // 3, len(content) // 2):
        path.write_bytes(content[:size])
        frames = in_sequence(path)
        with RandomAccess(path, cache_bytes=20_000) as access:
            for number in (25, 3, 39, 12, 4):
                assert_same(access, frames, number)


def test_numbered_images_with_gaps_and_damage(tmp_path: Path) -> None:
    for number in range(3, 23):
        if number not in (7, 8):
            write_photo(tmp_path / f"p{number:03d}.png", picture(seed=number))
    (tmp_path / "p012.png").write_bytes(b"no picture")
    source = str(tmp_path / "p%03d.png")
    frames = in_sequence(source)
    assert {*range(20)} - {*frames} == {4, 5, 9}
    with RandomAccess(source) as access:
        for number in (19, 0, 9, 5, 3, 18, 4, 10, 2, 30):
            assert_same(access, frames, number)


def test_a_lost_frame_keeps_its_number(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", FRAMES, options={"g": "10", "bf": "0"})
    path = damaged(whole, tmp_path / "b.mp4", [23, 24])
    frames = in_sequence(path)
    assert len(frames) < FRAMES
    for known in (True, False):
        with RandomAccess(path, damaged=known) as access:
            for number in (55, 23, 22, 40, *({*range(FRAMES)} - {*frames})):
                if number in frames:
                    assert access.frame(number).time == frames[number].time
                else:
                    assert_same(access, frames, number)
            assert access.sequential


def test_a_wrong_index_is_noticed_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By the decoded frames, and by the times of an earlier reading."""
    path = write_video(tmp_path / "a.mp4", FRAMES, options={"g": "10", "bf": "2"})
    frames = in_sequence(path)

    def one_frame_less(*arguments: Any) -> Any:
        index = packet_index(*arguments)
        object.__setattr__(index, "shown", np.delete(index.shown, 5))
        return index

    monkeypatch.setattr(random_access, "packet_index", one_frame_less)
    with RandomAccess(path) as access, caplog.at_level(logging.WARNING):
        time = frames[45].time
        assert time is not None
        found = access.frame(45, float(time))
        assert np.array_equal(found.pixels, frames[45].pixels) and access.sequential
        assert "from the start" in caplog.text
        with pytest.raises(MediaError, match="was changed"):
            access.frame(12, 100.0)


def test_a_file_that_changes_meanwhile_gives_frames_of_either_or_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", FRAMES, options={"g": "10", "bf": "2"})
    before = in_sequence(path)
    with RandomAccess(path, cache_bytes=1) as access:
        access.frame(50)
        write_video(path, 40, times=VARIABLE[:40])  # written over: the open file changes
        after = in_sequence(path)
        for number in (12, 39):
            try:
                found = access.frame(number)
            except MediaError:
                continue
            assert any(
                found.time == frames[number].time and np.array_equal(found.pixels, frames[number].pixels)
                for frames in (before, after)
            )


def test_memory_is_bounded_and_steps_back_decode_a_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", FRAMES, options={"g": "30", "bf": "2"})
    starts: list[int] = []
    start = RandomAccess._start
    monkeypatch.setattr(RandomAccess, "_start", lambda self, number: (starts.append(number), start(self, number))[1])
    with RandomAccess(path) as access:
        limit = access._limit = 35 * access._bytes  # of the first frame
        for number in reversed(range(FRAMES)):
            access.frame(number)
            assert access._bytes <= limit
            assert access._bytes == sum(random_access._bytes_of(item.frame) for item in access._kept.values())
    assert starts == [59, 29]


def test_frames_that_were_shown_are_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the collector of Python running by itself, which counts objects."""
    path = write_video(tmp_path / "a.mp4", FRAMES, options={"g": "30", "bf": "2"})

    def alive() -> int:
        return sum(type(item) is VideoFrame for item in gc.get_objects())

    with RandomAccess(path) as access:
        size = access._bytes
        monkeypatch.setattr(random_access, "_LEAST_GARBAGE", 8 * size)
        access._limit = 16 * size
        before = alive()
        gc.disable()
        try:
            for number in (*range(FRAMES), *reversed(range(FRAMES)), *range(0, FRAMES, 7)):
                access.frame(number)
                if number % 10 == 0:
                    assert alive() - before < 16 + 8 + 2 * random_access._DECODER_FRAMES
        finally:
            gc.enable()


def test_live_sources_are_refused() -> None:
    with pytest.raises(MediaError, match="read only once"):
        RandomAccess("-")
