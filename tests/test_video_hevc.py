"""HEVC whose frames are stored in another order than shown (B-frames): read and written frame by frame."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from posecli.media.encoders import EncodeOptions
from posecli.media.span import Span
from posecli.media.video import VideoReader
from posecli.media.write_video import VideoWriter
from tests.media_factory import write_video

B = 3
X265 = {
    "preset": "ultrafast",
    "crf": "8",
    "x265-params": "log-level=none:pools=1:frame-threads=1:bframes=4:b-adapt=0:b-pyramid=1:keyint=12:scenecut=0",
}
# Milliseconds between frames that do not repeat.
TIMES = [0, 40, 70, 120, 160, 210, 230, 280, 320, 350, 400, 440, 490, 530, 560, 600, 650, 700, 730, 780, 800, 850, 900]


def pictures(count: int) -> list[np.ndarray]:
    """Each tells its number by its brightness, and has something to code in it."""
    pattern = np.random.default_rng(4).integers(0, 12, (48, 64, 3))
    return [np.asarray(20 + 9 * number + pattern, np.uint8) for number in range(count)]


def numbers(path: Path, span: Span | None = None) -> list[int]:
    with VideoReader(path, span) as reader:
        found = [round((float(frame.pixels.mean()) - 25.5) / 9) for frame in reader]
        assert not reader.lost, reader.lost
    return found


def stored(path: Path) -> tuple[list[int], set[int]]:
    """Times of the packets as they are stored, and the kinds of frames (1: I, 2: P, 3: B)."""
    with av.open(str(path)) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    with av.open(str(path)) as container:
        return times, {int(frame.pict_type) for frame in container.decode(video=0)}


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_frames_in_another_order_are_read_in_theirs(tmp_path: Path, suffix: str, pix_fmt: str) -> None:
    count = len(TIMES)
    source = write_video(
        tmp_path / f"a{suffix}",
        count,
        codec="libx265",
        options=X265,
        times=TIMES,
        pix_fmt=pix_fmt,
        pictures=[
            av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pix_fmt).to_ndarray()
            if pix_fmt != "yuv420p"
            else picture
            for picture in pictures(count)
        ],
    )
    times, kinds = stored(source)
    assert times != sorted(times) and B in kinds
    assert numbers(source) == list(range(count))
    with VideoReader(source) as reader:
        frames = list(reader)
    assert [frame.index for frame in frames] == list(range(count))
    first = frames[0].time
    assert first is not None
    assert [round(1000 * ((frame.time or 0) - first)) for frame in frames] == TIMES
    assert numbers(source, Span(start=14, end=18)) == [14, 15, 16, 17]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 23])
def test_frames_are_written_in_another_order_and_shown_in_theirs(tmp_path: Path, count: int) -> None:
    source = write_video(
        tmp_path / "a.mkv", count, codec="ffv1", times=TIMES[:count], pictures=pictures(count), options={}
    )
    for name in ("one.mp4", "two.mp4"):
        with (
            VideoReader(source) as reader,
            VideoWriter(tmp_path / name, reader, EncodeOptions("hevc", crf=8, preset="medium")) as writer,
        ):
            for frame in reader:
                assert frame.time is not None
                writer.write(frame.pixels, frame.time)
    times, kinds = stored(tmp_path / "one.mp4")
    assert len(times) == count
    assert B in kinds or count < 4
    assert times != sorted(times) or count < 4
    assert numbers(tmp_path / "one.mp4") == list(range(count))
    with VideoReader(tmp_path / "one.mp4") as reader:
        assert [frame.time for frame in reader] == [Fraction(time, 1000) for time in TIMES[:count]]
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
