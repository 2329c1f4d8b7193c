"""Which of several streams is the video, and what becomes of several sound tracks."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from posecli.media.video import VideoReader
from posecli.media.write_video import VideoWriter
from tests.media_factory import picture, write_video

MAIN, SMALL, LARGE = (64, 48), (32, 24), (128, 96)
DEFAULT, NONE, COVER = Disposition.default, Disposition(0), Disposition.attached_pic
# Name → streams (codec, size, frames, disposition) in their order; the one of size MAIN is the video.
CONTAINERS = {
    "cover first.mkv": [("mjpeg", SMALL, 1, NONE), ("libx264", MAIN, 12, DEFAULT)],
    "large cover first.mkv": [("mjpeg", LARGE, 1, NONE), ("libx264", MAIN, 12, DEFAULT)],
    "large default cover first.mkv": [("mjpeg", LARGE, 1, DEFAULT), ("libx264", MAIN, 12, DEFAULT)],
    "cover last.mp4": [("libx264", MAIN, 12, DEFAULT), ("png", LARGE, 1, COVER)],
    "attached first.mp4": [("mjpeg", LARGE, 1, COVER), ("libx264", MAIN, 12, DEFAULT)],
    "preview first.mkv": [("libx264", SMALL, 12, NONE), ("libx264", MAIN, 12, DEFAULT)],
    "large preview first.mkv": [("libx264", LARGE, 12, NONE), ("libx264", MAIN, 12, DEFAULT)],
    "preview first.mp4": [("libx264", SMALL, 12, DEFAULT), ("libx264", MAIN, 12, DEFAULT)],
    "preview first.ts": [("mpeg2video", SMALL, 12, NONE), ("mpeg2video", MAIN, 12, NONE)],
    "still first.mp4": [("libx264", LARGE, 1, NONE), ("libx264", MAIN, 12, DEFAULT)],
}


def contain(path: Path, streams: list[tuple[str, tuple[int, int], int, Disposition]]) -> Path:
    with av.open(str(path), "w") as container:
        found = []
        for codec, size, _, disposition in streams:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = size
            stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(codec, "yuv420p")
            stream.disposition = disposition
            found.append(stream)
        for stream, (_, size, frames, _) in zip(found, streams, strict=True):
            for i in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(*size, i), format="rgb24")))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_main_video_is_read(tmp_path: Path, name: str) -> None:
    with VideoReader(contain(tmp_path / name, CONTAINERS[name])) as reader:
        assert (reader.width, reader.height) == MAIN
        assert (len(list(reader)), reader.lost_frames) == (12, 0)


def test_pictures_beside_sound_are_no_video(tmp_path: Path) -> None:
    path = contain(tmp_path / "a.mp4", [("mjpeg", SMALL, 1, COVER)])
    with pytest.raises(Exception, match="no video stream"):
        VideoReader(path)


def with_sound(path: Path, tracks: list[tuple[str, int, str, str]]) -> Path:
    """A second of video with sound tracks (codec, rate, layout, language)."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"g": "5"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sounds = []
        for codec, rate, layout, language in tracks:
            stream = container.add_stream(codec, rate=rate, layout=layout)
            stream.metadata["language"] = language
            sounds.append(stream)
        for i in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(seed=i), format="rgb24")))
        container.mux(video.encode(None))
        for number, stream in enumerate(sounds):
            rate, channels = stream.rate, stream.channels
            wave = 0.3 * np.sin(2 * np.pi * 220 * (number + 1) * np.arange(rate) / rate)
            resampler = av.AudioResampler(
                format=stream.format, layout=stream.layout, rate=rate, frame_size=stream.frame_size or 1024
            )
            frame = av.AudioFrame.from_ndarray(
                np.repeat(wave[None].astype(np.float32), channels, 0), format="fltp", layout=stream.layout
            )
            frame.rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
    return path


def copy(source: Path, target: Path) -> list[str]:
    with VideoReader(source) as reader, VideoWriter(target, reader) as writer:
        for frame in reader:
            assert frame.time is not None
            writer.write(frame.pixels, frame.time)
    return writer.warnings


def heard(path: Path) -> list[tuple[str, str | None, int]]:
    """Of each sound track its codec, its language and its pitch in Hz."""
    found = []
    with av.open(str(path)) as container:
        count = len(container.streams.audio)
    for number in range(count):
        with av.open(str(path)) as container:
            stream = container.streams.audio[number]
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=16000)
            parts = [p.to_ndarray() for f in container.decode(stream) for p in resampler.resample(f)]
            wave = np.concatenate(parts, axis=1)[0]
            pitch = np.abs(np.fft.rfft(wave)).argmax() * 16000 / len(wave)
            found.append((stream.codec_context.name, stream.metadata.get("language"), round(pitch / 110)))
    return found


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mov", "pcm_s24le"),
        ("a.mov", "pcm_s24be"),
        ("a.mov", "pcm_s16le"),
        ("a.mov", "pcm_f32le"),
        ("a.mkv", "pcm_s24le"),
        ("a.avi", "pcm_s16le"),
        ("a.mkv", "mp2"),
    ],
)
@pytest.mark.parametrize(("rate", "layout"), [(48000, "stereo"), (44100, "mono")])
def test_sound_that_players_cannot_read_in_mp4_becomes_aac(
    tmp_path: Path, name: str, codec: str, rate: int, layout: str
) -> None:
    warnings = copy(with_sound(tmp_path / name, [(codec, rate, layout, "eng")]), tmp_path / "out.mp4")
    assert [(c, pitch) for c, _, pitch in heard(tmp_path / "out.mp4")] == [("aac", 2)]
    assert len(warnings) == 1 and codec in warnings[0] and "AAC" in warnings[0]


@pytest.mark.parametrize("rate", [192000, 176400, 37800])
def test_rates_that_aac_does_not_have(tmp_path: Path, rate: int) -> None:
    copy(with_sound(tmp_path / "a.mov", [("pcm_s24le", rate, "stereo", "eng")]), tmp_path / "out.mp4")
    assert heard(tmp_path / "out.mp4")[0][::2] == ("aac", 2)


def test_all_sound_tracks_are_kept(tmp_path: Path) -> None:
    tracks = [("ac3", 48000, "stereo", "ger"), ("libopus", 48000, "stereo", "eng"), ("pcm_s24le", 48000, "mono", "fre")]
    warnings = copy(with_sound(tmp_path / "a.mkv", tracks), tmp_path / "out.mp4")
    assert warnings == ["sound of track 3 encoded as AAC: few players find pcm_s24le in MP4"]
    assert heard(tmp_path / "out.mp4") == [("ac3", "ger", 2), ("opus", "eng", 4), ("aac", "fre", 6)]


def test_a_live_source_keeps_its_first_sound_track_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracks = [("aac", 48000, "stereo", "ger"), ("aac", 48000, "stereo", "eng")]
    with with_sound(tmp_path / "a.mkv", tracks).open("rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with VideoReader("-") as reader, VideoWriter(tmp_path / "out.mp4", reader) as writer:
            for frame in reader:
                assert frame.time is not None
                writer.write(frame.pixels, frame.time)
    assert writer.warnings == ["the first of 2 sound tracks is kept: a live source is read only once"]
    assert heard(tmp_path / "out.mp4") == [("aac", "ger", 2)]


def test_a_clip_without_sound_has_none(tmp_path: Path) -> None:
    assert copy(write_video(tmp_path / "a.mp4", 5), tmp_path / "out.mp4") == []
    assert heard(tmp_path / "out.mp4") == []
