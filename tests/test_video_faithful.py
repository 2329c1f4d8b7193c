"""What is written is what was read: colours, times, sound, orientation, whatever the codec."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from posecli.errors import MediaError, UsageError
from posecli.media.encoder_check import check_encoder
from posecli.media.encoders import ENCODERS, PRESETS, EncodeOptions, VideoEncoder
from posecli.media.orientation import Orientation
from posecli.media.span import Span
from posecli.media.video import VideoReader
from posecli.media.write_video import VideoWriter
from tests.entry_points import posecli
from tests.media_factory import picture, turn, write_video

SOFTWARE = [name for name, encoder in ENCODERS.items() if not encoder.hardware]
SOURCE_ENCODERS = [("libx264", ".mp4"), ("libx265", ".mkv"), ("libvpx-vp9", ".webm"), ("libsvtav1", ".mp4")]
BT601, BT709, BT2020 = (6, 6, 6), (1, 1, 1), (9, 9, 14)


def copy(source: Path, target: Path, span: Span | None = None, **options: object) -> list[str]:
    with VideoReader(source, span) as reader, VideoWriter(target, reader, EncodeOptions(**options)) as writer:  # type: ignore[arg-type]
        for frame in reader:
            assert frame.time is not None
            writer.write(frame.pixels, frame.time)
    return reader.warnings + writer.warnings


def muted(seed: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Colours that stay inside the gamut after coding, so that nothing is clipped."""
    return (picture(width, height, seed) // 2 + 60).astype(np.uint8)


def exact_rgb(frame: av.VideoFrame, kr: float, kb: float) -> np.ndarray:
    """Limited-range 8-bit yuv420p to RGB in floating point."""
    planes = []
    for plane, down in zip(frame.planes, (1, 2, 2), strict=True):
        pixels = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        planes.append(pixels[: frame.height // down, : frame.width // down].repeat(down, 0).repeat(down, 1))
    luma, blue, red = (planes[0] - 16.0) * 255 / 219, (planes[1] - 128.0) * 255 / 224, (planes[2] - 128.0) * 255 / 224
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    return np.stack([r, (luma - kr * r - kb * b) / (1 - kr - kb), b], axis=-1)


@pytest.mark.parametrize(("encoder", "suffix"), SOURCE_ENCODERS)
def test_colours_do_not_move(tmp_path: Path, encoder: str, suffix: str) -> None:
    pictures = [muted(i, 128, 96) for i in range(6)]
    for name, code, weights in (("601", BT601, (0.299, 0.114)), ("709", BT709, (0.2126, 0.0722))):
        source = write_video(tmp_path / f"{name}{suffix}", 6, 128, 96, codec=encoder, colour=code, pictures=pictures)
        target = tmp_path / f"{name}-out.mp4"
        assert copy(source, target, crf=12) == []
        with av.open(str(source)) as before, av.open(str(target)) as after, VideoReader(source) as reader:
            assert reader.colour.matrix_code == code[0]
            stream = after.streams.video[0].codec_context
            assert (stream.colorspace, stream.color_primaries, stream.color_trc, stream.color_range) == (*code, 1)
            for a, b, c in zip(before.decode(video=0), after.decode(video=0), reader, strict=True):
                exact = exact_rgb(a, *weights)
                # Chroma that sits left of the middle moves a ramp by half a level; then the whole way.
                assert np.abs((c.pixels - exact).mean((0, 1))).max() < 0.6
                assert np.abs((exact_rgb(b, *weights) - exact).mean((0, 1))).max() < 1


@pytest.mark.parametrize("codec", SOFTWARE)
def test_every_codec_keeps_times_sound_and_colour_and_gives_the_same_bytes(tmp_path: Path, codec: str) -> None:
    times = [7, 33, 70, 100, 160, 500, 520, 560, 600, 601, 702, 900]
    pictures = [muted(i) for i in range(12)]
    source = write_video(tmp_path / "a.mkv", 12, times=times, sound="aac", pictures=pictures)
    contents = set()
    for _ in range(3):
        assert copy(source, tmp_path / "out.mp4", encoder=codec, crf=10) == []
        contents.add((tmp_path / "out.mp4").read_bytes())
    assert len(contents) == 1
    with VideoReader(source) as before, VideoReader(tmp_path / "out.mp4") as after:
        assert after.has_audio and after.decoder.stream.codec_context.codec_tag == {
            "h264": "avc1", "hevc": "hvc1", "av1": "av01", "vp9": "vp09"
        }[codec]  # fmt: skip
        for a, b in zip(before, after, strict=True):
            assert a.time == b.time
            assert np.abs((b.pixels.astype(float) - a.pixels).mean((0, 1))).max() < 1


@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("codec", SOFTWARE)
def test_the_shortest_clips_can_be_written(tmp_path: Path, codec: str, frames: int) -> None:
    source = write_video(tmp_path / "a.mkv", frames, times=[0, 40, 90][:frames])
    assert copy(source, tmp_path / "out.mp4", encoder=codec) == []
    with VideoReader(source) as before, VideoReader(tmp_path / "out.mp4") as after:
        assert [frame.time for frame in before] == [frame.time for frame in after]


def test_every_preset_and_quality_is_one_of_the_encoders() -> None:
    for codec in ENCODERS.values():
        for preset in PRESETS:
            for crf in (0, 20, 51):
                assert all(isinstance(value, str) for value in codec.settings(crf, preset).values())
    speeds = [int(ENCODERS["av1"].settings(20, preset)["preset"]) for preset in PRESETS]
    assert speeds == sorted(speeds, reverse=True)


def test_codecs_and_qualities_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with VideoReader(write_video(tmp_path / "a.mp4", 3)) as reader:
        for options in ({"encoder": "theora"}, {"crf": 52}, {"preset": "quick"}):
            with pytest.raises(UsageError, match=r"must be|choose from"):
                EncodeOptions(**options)  # type: ignore[arg-type]
        with pytest.raises(MediaError, match="no frames"), VideoWriter(tmp_path / "out.mp4", reader):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4"]


def test_a_wider_picture_can_be_written(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", 3, 64, 48)
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader, size=(129, 48)) as writer:
        for frame in reader:
            assert frame.time is not None
            writer.write(np.pad(frame.pixels, ((0, 0), (0, 65), (0, 0))), frame.time)
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert (reader.width, reader.height, len(list(reader))) == (130, 48, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_sound_of_a_span_stays_in_step(tmp_path: Path, suffix: str) -> None:
    """A click in the sound where the picture flashes: both are at the same place of the part."""
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"g": "25"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=48000, layout="mono")
        for i in range(150):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 255 if i == 100 else 0, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        wave = np.zeros((1, 6 * 48000), np.float32)
        wave[:, 4 * 48000 : 4 * 48000 + 1920] = np.sin(np.arange(1920) * 0.2)
        for at in range(0, wave.shape[1], 1024):
            sample = av.AudioFrame.from_ndarray(wave[:, at : at + 1024], format="fltp", layout="mono")
            sample.rate, sample.pts, sample.time_base = 48000, at, Fraction(1, 48000)
            container.mux(audio.encode(sample))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    for span, at, length in (
        (Span(start=Fraction(12, 5), end=Fraction(5)), 1.6, 2.6),
        (Span(start=50, stride=5), 2.0, 4.0),
        (Span(end=Fraction(9, 2)), 4.0, 4.5),
    ):
        assert copy(path, tmp_path / "out.mp4", span) == []
        with VideoReader(tmp_path / "out.mp4") as reader:
            flashes = [float(frame.time or 0) for frame in reader if frame.pixels.mean() > 128]
        assert flashes == [pytest.approx(at, abs=1e-3)]
        with av.open(str(tmp_path / "out.mp4")) as container:
            samples = [(frame.time, frame.to_ndarray()[0]) for frame in container.decode(audio=0)]
        loud = [time + int(np.argmax(np.abs(wave) > 0.3)) / 48000 for time, wave in samples if np.abs(wave).max() > 0.3]
        assert min(loud) == pytest.approx(at, abs=0.012)
        assert samples[-1][0] == pytest.approx(length, abs=0.1)


MATRICES = {
    (1, 0, 0, 1): lambda p: p,
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),
    (-1, 0, 0, -1): lambda p: np.rot90(p, 2),
    (0, -1, 1, 0): lambda p: np.rot90(p, 1),
    (-1, 0, 0, 1): lambda p: p[:, ::-1],
    (1, 0, 0, -1): lambda p: p[::-1],
    (0, 1, 1, 0): lambda p: p.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda p: np.rot90(p, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_all_turns_and_mirrors_are_applied(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    plain = write_video(tmp_path / "a.mp4", 2)
    with VideoReader(plain) as before, VideoReader(turn(plain, tmp_path / "b.mp4", matrix)) as after:
        for a, b in zip(before, after, strict=True):
            assert np.array_equal(MATRICES[matrix](a.pixels), b.pixels)
            assert (after.height, after.width) == b.pixels.shape[:2]
    copy(tmp_path / "b.mp4", tmp_path / "c.mp4")
    with VideoReader(tmp_path / "c.mp4") as reader:
        assert reader.orientation == Orientation()


def deep(levels: np.ndarray) -> np.ndarray:
    """Grey bars as 10-bit yuv420p of limited range. levels: signals from 0 to 1."""
    luma = np.round(np.repeat(levels, 16) * 876 + 64).astype(np.uint16)
    return np.concatenate([np.tile(luma, (48, 1)), np.full((24, luma.size), 512, np.uint16)])


def bars(path: Path, count: int) -> tuple[np.ndarray, list[str]]:
    with VideoReader(path) as reader:
        pixels = next(iter(reader)).pixels
    return pixels[24, 8 : 16 * count : 16].astype(int), reader.warnings


# Two pictures without reordering: with it, x265 now and then gives the second one no later time of decoding.
PLAIN_X265 = {"x265-params": "log-level=none:bframes=0:frame-threads=1"}


def test_ten_bits_become_eight(tmp_path: Path) -> None:
    levels = np.linspace(0.05, 0.95, 10)
    options = {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": PLAIN_X265, "pictures": [deep(levels)] * 2}
    path = write_video(tmp_path / "a.mkv", 2, 160, 48, colour=BT2020, **options)
    values, warnings = bars(path, 10)
    assert warnings == []
    assert np.abs(values - 255 * levels[:, None]).max() < 1.5
    assert copy(path, tmp_path / "b.mp4", crf=8) == []
    with VideoReader(tmp_path / "b.mp4") as reader:
        assert reader.colour.matrix_code == 9
    assert np.abs(bars(tmp_path / "b.mp4", 10)[0] - values).max() <= 3


def test_hdr_is_tone_mapped_and_said(tmp_path: Path) -> None:
    signals = {
        "PQ": (16, [0, 0.2, 0.4, 0.508, 0.581, 0.7, 0.75, 0.9]),
        "HLG": (18, [0, 0.2, 0.4, 0.5, 0.6, 0.75, 0.9, 1]),
    }
    for name, (code, levels) in signals.items():
        options = {
            "codec": "libx265",
            "pix_fmt": "yuv420p10le",
            "options": PLAIN_X265,
            "pictures": [deep(np.array(levels))] * 2,
        }
        path = write_video(tmp_path / f"{name}.mkv", 2, 128, 48, colour=(9, 9, code), **options)
        values, warnings = bars(path, 8)
        assert len(warnings) == 1 and name in warnings[0]
        assert (values.max(1) - values.min(1)).max() <= 2  # grey stays grey
        assert values[0].max() == 0 and (np.diff(values[:, 0]) > 0).all()  # no two lights look the same
        if name == "PQ":  # 100 cd/m² under the knee: (100 / 203) ** (1 / 2.4); white at 203 is below the highlights
            assert values[3, 0] == pytest.approx(255 * (100 / 203) ** (1 / 2.4), abs=4)
            assert 230 <= values[4, 0] <= 245
        copy(path, tmp_path / "out.mp4")
        with VideoReader(tmp_path / "out.mp4") as reader:
            assert reader.colour.matrix_code == 1 and not reader.colour.hdr


def test_interlaced_is_said(tmp_path: Path) -> None:
    options = {"flags": "+ildct+ilme", "field_order": "tt"}
    path = write_video(tmp_path / "a.mpg", 10, codec="mpeg2video", time_base=Fraction(1, 25), options=options)
    with VideoReader(path) as reader:
        assert len(list(reader)) == 10
        assert len(reader.warnings) == 1 and "interlaced" in reader.warnings[0]


def test_an_encoder_without_its_device_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before any input is read. An encoder that works passes the same check."""
    source = write_video(tmp_path / "a.mp4", 2)
    broken = VideoEncoder("h264_nvenc_of_another_ffmpeg", lambda crf, preset: {}, hardware=True)
    monkeypatch.setitem(ENCODERS, "h264_nvenc", broken)
    result = posecli(capfd, "video", source, "-o", tmp_path / "out", "--encoder", "h264_nvenc")
    assert result.code == 4 and "choose h264" in result.err and len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "a.mp4").exists()
    monkeypatch.setitem(ENCODERS, "h264", replace(ENCODERS["h264"], hardware=True))
    check_encoder("h264")
