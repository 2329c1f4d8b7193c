"""Videos that are no files: numbered pictures, standard input, addresses."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest

from posecli.errors import MediaError
from posecli.media.inputs import content_key, find_inputs
from posecli.media.sources import source_of
from posecli.media.span import Span
from posecli.media.video import VideoReader
from posecli.media.write_video import VideoWriter
from tests.media_factory import picture, write_photo, write_video

SOURCES = [
    ("-", "stdin", "stdin", True),
    ("webcam:0", "webcam", "webcam-0", True),
    ("/dev/video2", "webcam", "video2", True),
    ("rtsp://me:secret@cam.local:554/live/one", "url", "cam.local-one", True),
    ("https://example.org/clips/a%20b.mp4?token=1", "url", "example.org-a-20b.mp4", False),
    ("shots/frame_%05d.png", "images", "frame.png", False),
    ("shots/%d.jpg", "images", "shots.jpg", False),
    ("100%done.mp4", "file", "100%done.mp4", False),
    ("http.mp4", "file", "http.mp4", False),
]


@pytest.mark.parametrize(("address", "kind", "name", "live"), SOURCES)
def test_what_an_address_means(address: str, kind: str, name: str, live: bool) -> None:
    source = source_of(address)
    assert (source.kind, source.name, source.live) == (kind, name, live)
    assert "secret" not in source.shown and "token" not in source.shown


def test_inputs_that_are_no_files(tmp_path: Path) -> None:
    for i in range(3):
        write_photo(tmp_path / f"f{i:03}.png", picture(seed=i))
    pattern = str(tmp_path / "f%03d.png")
    arguments = ["-", "webcam:1", "rtsp://cam/live", "rtsp://cam/live", pattern, str(tmp_path / "none%03d.png")]
    found = find_inputs(arguments)
    assert [item.name for item in found] == ["stdin", "webcam-1", "cam-live", "f.png", "none.png"]
    assert [item.source for item in found] == ["-", "webcam:1", "rtsp://cam/live", pattern, arguments[-1]]
    assert {item.kind for item in found} == {"video"}
    assert [bool(item.error) for item in found] == [False] * 4 + [True]
    before = content_key(pattern)
    assert content_key(pattern) == before
    write_photo(tmp_path / "f001.png", picture(seed=9))
    assert content_key(pattern) != before
    assert content_key("-") != content_key("-")


def test_numbered_pictures(tmp_path: Path) -> None:
    for i in range(5, 12):
        write_photo(tmp_path / f"frame_{i:05}.png", picture(seed=i))
    with VideoReader(str(tmp_path / "frame_%05d.png")) as reader:
        frames = list(reader)
        assert (reader.frame_count, reader.frame_rate, reader.has_audio) == (7, 25, False)
    assert [frame.time for frame in frames] == [Fraction(i, 25) for i in range(7)]
    assert all((frame.pixels == picture(seed=i + 5)).all() for i, frame in enumerate(frames))
    with VideoReader(str(tmp_path / "frame_%05d.png"), image_rate=Fraction(10)) as reader:
        assert list(reader)[6].time == Fraction(6, 10)
    with pytest.raises(MediaError, match="no file matches"):
        VideoReader(str(tmp_path / "none_%05d.png"))


def read(path: Path) -> tuple[list[int], dict[str, int], list[Fraction | None]]:
    """Numbers, losses and times of what is read."""
    with VideoReader(str(path)) as reader:
        frames = list(reader)
        return [frame.index for frame in frames], dict(reader.lost), [frame.time for frame in frames]


def test_a_gap_in_numbered_pictures_costs_only_what_is_not_there(tmp_path: Path) -> None:
    for i in range(3, 15):
        write_photo(tmp_path / f"f_{i}.png", picture(seed=i))
    whole = content_key(str(tmp_path / "f_%d.png"))
    for i in (5, 9, 10):
        (tmp_path / f"f_{i}.png").unlink()
    numbers = [0, 1, 3, 4, 5, 8, 9, 10, 11]
    with VideoReader(str(tmp_path / "f_%d.png")) as reader:
        for frame, number in zip(reader, numbers, strict=True):
            assert (frame.index, frame.time) == (number, Fraction(number, 25))
            assert (frame.pixels == picture(seed=number + 3)).all()
        assert reader.lost == {"missing from the numbered pictures": 3}
    before = content_key(str(tmp_path / "f_%d.png"))
    (tmp_path / "f_8.png").rename(tmp_path / "f_9.png")
    assert len({whole, before, content_key(str(tmp_path / "f_%d.png"))}) == 3
    with VideoReader(str(tmp_path / "f_%d.png"), Span(start=4, end=9, stride=2)) as reader:
        assert [frame.index for frame in reader] == [4, 6, 8]
        assert reader.lost == {"missing from the numbered pictures": 2}


def test_numbers_may_be_far_apart_and_of_unlike_length(tmp_path: Path) -> None:
    for number in (8, 9, 10, 99, 100):
        write_photo(tmp_path / f"mixed_{number}.jpg", picture(seed=number % 7))
        write_photo(tmp_path / f"padded_{number:02}.jpg", picture(seed=number % 7))
    write_photo(tmp_path / "mixed_007.jpg", picture())  # another name than %d makes
    for number in range(0, 70, 10):
        write_photo(tmp_path / f"tens_{number:04}.jpg", picture())
    for number in (1700000000000, 1700000000041, 1700000000390):
        write_photo(tmp_path / f"clock_{number}.jpg", picture())
    assert read(tmp_path / "padded_%02d.jpg")[0] == [0, 1, 2, 3, 4]
    assert read(tmp_path / "mixed_%d.jpg")[:2] == ([0, 1, 2, 3, 4], {})
    assert read(tmp_path / "tens_%04d.jpg")[:2] == (list(range(7)), {})
    assert read(tmp_path / "clock_%d.jpg")[:2] == ([0, 1, 2], {})
    with VideoReader(str(tmp_path / "clock_%d.jpg")) as reader:
        assert "far apart" in reader.warnings[0]


def test_numbered_pictures_that_are_given_up_while_threads_decode_them(tmp_path: Path) -> None:
    """The decoder's threads once waited for the global interpreter lock, and its holder for them."""
    for i in range(12):
        write_photo(tmp_path / f"f_{i}.png", picture(640, 480, seed=i))
    code = (
        "import gc, sys\n"
        "from posecli.media.video import VideoReader\n"
        "for _ in range(30):\n"
        "    reader = VideoReader(sys.argv[1])\n"
        "    next(iter(reader))\n"
        "    reader.close()\n"
        "    del reader\n"
        "    gc.collect()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "f_%d.png")], check=True, timeout=60)


def test_a_picture_that_cannot_be_read_costs_itself(tmp_path: Path) -> None:
    for i in range(6):
        write_photo(tmp_path / f"f_{i}.jpg", picture(seed=i))
    (tmp_path / "f_1.jpg").write_bytes(b"")
    (tmp_path / "f_2.jpg").write_bytes(b"no picture")
    (tmp_path / "f_5.jpg").unlink()
    (tmp_path / "f_5.jpg").mkdir()
    assert content_key(str(tmp_path / "f_%d.jpg"))
    numbers, lost, times = read(tmp_path / "f_%d.jpg")
    assert numbers == [0, 3, 4] and sum(lost.values()) == 3
    assert times == [Fraction(i, 25) for i in (0, 3, 4)]


@contextlib.contextmanager
def standard_input(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard input as a pipe is: it cannot go back."""
    read, write = os.pipe()

    def fill() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(write, "wb") as file:
            file.write(content)

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    with os.fdopen(read, "rb") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield
    thread.join()


def test_standard_input_with_its_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_video(tmp_path / "a.mkv", 50, sound="aac", times=[200 + 40 * i for i in range(50)])
    with (
        standard_input(source.read_bytes(), monkeypatch),
        VideoReader("-", Span(duration=Fraction(1))) as reader,
        VideoWriter(tmp_path / "out.mp4", reader) as writer,
    ):
        for frame in reader:
            assert frame.time is not None
            writer.write(frame.pixels, frame.time)
    with VideoReader(tmp_path / "out.mp4") as reader:
        frames = list(reader)
        assert len(frames) == 25 and frames[0].time == 0 and reader.has_audio
    with av.open(str(source)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        assert before.streams.audio[0].frames == 0
        assert after.streams.audio[0].frames > 0


def test_what_cannot_be_reached_is_told_in_one_line() -> None:
    for address, words in (("rtsp://me:secret@127.0.0.1:9/x", "127.0.0.1"), ("webcam:87", "webcam:87")):
        with pytest.raises(MediaError, match=words) as caught:
            VideoReader(address)
        assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_files_whose_names_look_like_something_else(tmp_path: Path) -> None:
    for name in ("a:b.mp4", "rtsp:x.mp4", "100%d.mp4", "-.mp4"):
        path = write_video(tmp_path / "plain.mp4", 3).rename(tmp_path / name)
        with VideoReader(path) as reader:
            assert len(list(reader)) == 3
