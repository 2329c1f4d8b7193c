"""Videos in and out: times, rotation, damage, sound, colour."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from posecli.errors import MediaError
from posecli.media.encoders import EncodeOptions
from posecli.media.orientation import Orientation
from posecli.media.video import VideoReader
from posecli.media.write_video import VideoWriter, video_name
from tests.media_factory import picture, write_video


def copy(source: Path, target: Path, **options: bool) -> list[str]:
    with VideoReader(source) as reader, VideoWriter(target, reader, EncodeOptions(crf=12, **options)) as writer:
        for frame in reader:
            assert frame.time is not None
            writer.write(frame.pixels, frame.time)
    return writer.warnings


def test_frames_times_and_size(tmp_path: Path) -> None:
    times = [7, 40, 81, 300, 301, 900]  # a variable rate that does not start at zero
    path = write_video(tmp_path / "a.mp4", 6, times=times)
    with VideoReader(path) as reader:
        assert (reader.width, reader.height, reader.orientation) == (64, 48, Orientation())
        frames = list(reader)
    assert [frame.index for frame in frames] == list(range(6))
    gaps = np.diff([frame.time for frame in frames])
    assert list(gaps) == [Fraction(b - a, 1000) for a, b in pairwise(times)]
    for i, frame in enumerate(frames):
        assert np.abs(frame.pixels.astype(int) - picture(seed=i)).mean() < 12


CODECS = [("libx264", ".mkv"), ("mpeg4", ".avi"), ("libvpx-vp9", ".webm"), ("gif", ".gif")]


@pytest.mark.parametrize(("codec", "suffix"), CODECS)
def test_codecs_are_read_whole(tmp_path: Path, codec: str, suffix: str) -> None:
    base = Fraction(1, 25) if suffix in (".avi", ".gif") else Fraction(1, 1000)
    pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
    path = write_video(tmp_path / f"a{suffix}", 12, codec=codec, time_base=base, pix_fmt=pix_fmt)
    with VideoReader(path) as reader:
        assert len(list(reader)) == 12
        assert reader.lost_frames == 0


def test_a_truncated_file_keeps_its_frames_and_says_what_is_missing(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    with av.open(str(whole), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(seed=i), format="rgb24")))
        container.mux(stream.encode(None))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    with VideoReader(cut) as reader:
        kept = len(list(reader))
        assert 5 <= kept < 60
        assert kept + reader.lost_frames == 60


def test_damaged_packets_cost_what_they_hold(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for position, size in packets[20:23]:
        content[position : position + size] = bytes(size)
    path.write_bytes(content)
    with VideoReader(path) as reader:
        kept = len(list(reader))
    assert 50 <= kept <= 60
    assert kept + reader.lost_frames >= 57


def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path) -> None:
    sound = write_video(tmp_path / "sound.mp4", sound="aac", picture_stream=False)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 20)
    none = write_video(tmp_path / "none.mkv", frames=0)
    for path, words in [(sound, "only sound"), (empty, "cannot be opened"), (garbage, "cannot be opened"), (none, "")]:
        with pytest.raises(MediaError, match=f"{path.name}.*{words}") as caught:
            VideoReader(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (63, 47), (96, 34)])
def test_written_videos_keep_times_sound_and_colour(tmp_path: Path, width: int, height: int) -> None:
    times = [0, 33, 70, 100, 160, 500, 520, 560]
    source = write_video(tmp_path / "a.mkv", 8, width + width % 2, height + height % 2, times=times, sound="aac")
    target = tmp_path / "out" / "a.mp4"
    assert copy(source, target) == []
    with VideoReader(source) as before, VideoReader(target) as after:
        pairs = list(zip(before, after, strict=True))
        assert after.has_audio
    start = pairs[0][0].time, pairs[0][1].time
    for a, b in pairs:
        assert a.time - start[0] == b.time - start[1]
        assert np.abs(a.pixels.astype(float).mean(axis=(0, 1)) - b.pixels.mean(axis=(0, 1))).max() < 2.5
    assert not list((tmp_path / "out").glob("*.part"))


def test_odd_sizes_are_padded(tmp_path: Path) -> None:
    source = write_video(tmp_path / "odd.mkv", 3, 63, 47, codec="libvpx-vp9")
    copy(source, tmp_path / "odd.mp4")
    with VideoReader(tmp_path / "odd.mp4") as reader:
        assert (reader.width, reader.height) == (64, 48)
        assert len(list(reader)) == 3


def test_rotation_is_applied_once(tmp_path: Path) -> None:
    plain, turned = write_video(tmp_path / "a.mp4", 4), tmp_path / "turned.mp4"
    content = bytearray(plain.read_bytes())
    unity = b"".join(v.to_bytes(4, "big") for v in (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000))
    quarter = b"".join(v.to_bytes(4, "big") for v in (0, 0x10000, 0, 0xFFFF0000, 0, 0, 48 << 16, 0, 0x40000000))
    place = content.rindex(unity)  # the track's matrix follows the movie's
    content[place : place + 36] = quarter
    turned.write_bytes(content)
    with VideoReader(plain) as before, VideoReader(turned) as after:
        assert (after.width, after.height) == (48, 64)
        for a, b in zip(before, after, strict=True):
            assert np.array_equal(np.rot90(a.pixels, -1), b.pixels)
    copy(turned, tmp_path / "out.mp4")
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert (reader.width, reader.height, reader.orientation) == (48, 64, Orientation())


def test_sound_that_mp4_does_not_take_is_encoded_and_said(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.avi", 25, codec="mpeg4", time_base=Fraction(1, 25), sound="pcm_mulaw")
    warnings = copy(source, tmp_path / "a.mp4")
    assert len(warnings) == 1 and "AAC" in warnings[0]
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    copy(source, tmp_path / "mute.mp4", audio=False)
    with av.open(str(tmp_path / "mute.mp4")) as container:
        assert not container.streams.audio


def test_sound_that_nothing_can_read_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import posecli.media.write_video as video

    def refuse(*_: object) -> None:
        raise ValueError("no such codec")

    monkeypatch.setattr(video, "AudioTrack", refuse)
    warnings = copy(write_video(tmp_path / "a.mkv", 5, sound="aac"), tmp_path / "a.mp4")
    assert len(warnings) == 1 and "left out" in warnings[0]
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert len(list(reader)) == 5 and not reader.has_audio


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 40, 160, 120)
    contents = set()
    for _ in range(20):  # x264 with its macroblock tree gave several versions
        copy(source, tmp_path / "copy.mp4")
        contents.add((tmp_path / "copy.mp4").read_bytes())
    assert len(contents) == 1


def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 3)
    with VideoReader(source) as reader, pytest.raises(RuntimeError), VideoWriter(tmp_path / "b.mp4", reader):
        raise RuntimeError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


def test_names_of_annotated_videos() -> None:
    assert [video_name(n) for n in ("a.mp4", "x/a.avi", "a.MP4")] == ["a.mp4", "x/a.avi.mp4", "a.MP4"]


def test_real_clips_are_read_to_the_last_frame(shared: Path) -> None:
    expected = {"upper_body.mkv": 89, "closeup_mpeg4_mp3.avi": 164, "squats_upright_av1.mp4": 65}
    expected["yoga_vfr_aac.mp4"] = 410  # an edit list hides the rest
    for name, frames in expected.items():
        with VideoReader(shared / "videos" / name) as reader:
            assert sum(1 for _ in reader) == frames
            assert reader.lost_frames == 0
