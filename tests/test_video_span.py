"""Parts of a video: positions, spans, exact numbers of frames after seeking."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from posecli.errors import MediaError, UsageError
from posecli.media.span import Position, Span, parse_position
from posecli.media.video import VideoReader
from posecli.types import Frame
from tests.media_factory import picture, write_video

POSITIONS = [
    ("90", Fraction(90)),
    ("12.5", Fraction(25, 2)),
    ("0.1s", Fraction(1, 10)),
    ("1:02.5", Fraction(125, 2)),
    ("1:00:01", Fraction(3601)),
    ("f120", 120),
    ("120F", 120),
]


@pytest.mark.parametrize(("text", "position"), POSITIONS)
def test_positions(text: str, position: Position) -> None:
    found = parse_position(text)
    assert (found, type(found)) == (position, type(position))


@pytest.mark.parametrize("text", ["", "abc", "-3", "1:2:3:4", "f", "1e3", "f1.5", "."])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no position"):
        parse_position(text)


def test_spans_that_contradict_themselves_are_refused() -> None:
    for limits in (
        {"stride": 0},
        {"end": 5, "duration": 3},
        {"start": Fraction(5), "end": Fraction(5)},
        {"end": 0},
        {"start": -1},
        {"duration": Fraction(0)},
    ):
        with pytest.raises(UsageError):
            Span(**limits)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """150 frames at 25 a second, a key frame every 10, with B-frames and an open group of pictures."""
    folder = tmp_path_factory.mktemp("clips")
    options = {"g": "10", "bf": "2", "preset": "ultrafast", "x264-params": "open-gop=1:scenecut=0:b-adapt=0:bframes=2"}
    clips = {
        suffix: write_video(folder / f"a{suffix}", 150, options=options) for suffix in (".mp4", ".mkv", ".mov", ".ts")
    }
    clips[".avi"] = write_video(folder / "a.avi", 150, codec="mpeg4", time_base=Fraction(1, 25), options={"g": "10"})
    return clips


def frames_of(path: Path, span: Span | None = None) -> tuple[list[Frame], VideoReader]:
    with VideoReader(path, span) as reader:
        return list(reader), reader


SPANS = [
    (Span(start=Fraction(2)), range(50, 150)),
    (Span(start=Fraction(3), end=Fraction(4)), range(75, 100)),
    (Span(start=Fraction(3), duration=Fraction(1)), range(75, 100)),
    (Span(start=Fraction(4), duration=7), range(100, 107)),
    (Span(start=77, end=81), range(77, 81)),
    (Span(start=100, duration=Fraction(2, 5)), range(100, 110)),
    (Span(end=Fraction(1, 5)), range(5)),
    (Span(start=51, stride=7), range(51, 150, 7)),
    (Span(start=Fraction(5), end=140, stride=4), range(125, 140, 4)),
]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts", ".avi"])
def test_spans_hold_the_same_frames_as_the_whole(clips: dict[str, Path], suffix: str) -> None:
    whole, _ = frames_of(clips[suffix])
    assert [frame.index for frame in whole] == list(range(150))
    for span, numbers in SPANS:
        part, reader = frames_of(clips[suffix], span)
        assert [frame.index for frame in part] == list(numbers), span
        assert [frame.time for frame in part] == [whole[i].time for i in numbers]
        assert all(np.array_equal(frame.pixels, whole[frame.index].pixels) for frame in part)
        assert not reader.lost
        assert reader.frame_count in (len(numbers), 0)


def test_a_late_start_does_not_decode_what_is_before(clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from posecli.media.decoding import Decoder

    decoded = []
    original = Decoder._decode_packet
    monkeypatch.setattr(Decoder, "_decode_packet", lambda self, packet: decoded.append(1) or original(self, packet))
    frames, _ = frames_of(clips[".mp4"], Span(start=140))
    assert len(frames) == 10 and len(decoded) < 80


def test_the_span_counts_from_the_first_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "late.mkv", 50, times=[5000 + 40 * i for i in range(50)])
    frames, reader = frames_of(path, Span(start=Fraction(1), duration=Fraction(1, 2)))
    assert reader.first_time == 5
    assert [float(frame.time or 0) for frame in frames[:1]] == [6.0] and len(frames) == 13


def test_a_span_behind_the_end_is_told(tmp_path: Path) -> None:
    path = write_video(tmp_path / "short.mp4", 10)
    with pytest.raises(MediaError, match=r"short\.mp4: ends before the start"):
        frames_of(path, Span(start=Fraction(60)))


def test_losses_are_those_of_the_span(tmp_path: Path) -> None:
    import av

    pictures = [np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8) for i in range(100)]
    path = write_video(tmp_path / "a.mp4", 100, codec="mjpeg", pix_fmt="yuvj420p", pictures=pictures)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for number in (10, 52, 53):
        position, size = packets[number]
        content[position : position + size] = bytes(size)
    path.write_bytes(content)
    for span, lost in ((None, 3), (Span(start=20), 2), (Span(end=50), 1), (Span(start=53, end=60), 1), (Span(60), 0)):
        frames, reader = frames_of(path, span)
        assert reader.lost_frames == lost, span
        assert not {frame.index for frame in frames} & {10, 52, 53}


def test_pictures_differ() -> None:
    """What the tests above compare is not one picture."""
    assert np.abs(picture(seed=1).astype(int) - picture(seed=2)).mean() > 5
