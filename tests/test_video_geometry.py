"""Frames reach the pipeline upright, with square pixels and each in its own size."""

import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import orjson
import pytest

from posecli.keypoints import COCO17
from posecli.media.aspect import square_size
from posecli.media.encoders import EncodeOptions
from posecli.media.video import VideoReader
from posecli.media.write_video import VideoWriter
from posecli.tracking.clip import ClipTracker
from posecli.tracking.propagate import BoxPropagator
from posecli.tracking.tracker import Tracker
from tests.entry_points import QUICK, posecli
from tests.media_factory import exif_orientation, picture, turn
from tests.painted import RED, Scene, Walker, line

# Orientation → what makes the upright picture of the stored one.
UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: np.rot90(p),
}


def jpeg(pixels: np.ndarray, orientation: int = 1) -> bytes:
    encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    return exif_orientation(encoded, orientation)


def near(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 6


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_of_numbered_pictures_is_applied(tmp_path: Path, orientation: int) -> None:
    for i in range(3):
        (tmp_path / f"f_{i:03}.jpg").write_bytes(jpeg(picture(seed=i), orientation))
    with VideoReader(str(tmp_path / "f_%03d.jpg")) as reader:
        frames = list(reader)
        assert reader.lost_frames == 0
        assert (reader.width, reader.height) == (frames[0].width, frames[0].height)
    assert all(near(frame.pixels, UPRIGHT[orientation](picture(seed=i))) for i, frame in enumerate(frames))


def test_each_picture_has_its_own_orientation_and_size(tmp_path: Path) -> None:
    for i in range(1, 9):
        (tmp_path / f"f_{i}.jpg").write_bytes(jpeg(picture(64, 48 if i < 8 else 40, i), i))
    with VideoReader(str(tmp_path / "f_%d.jpg")) as reader:
        frames = list(reader)
        assert any("size changes" in line for line in reader.warnings)
    assert [frame.index for frame in frames] == list(range(8))
    for i, frame in enumerate(frames, 1):
        assert near(frame.pixels, UPRIGHT[i](picture(64, 48 if i < 8 else 40, i)))


@pytest.mark.parametrize("suffix", [".avi", ".mov", ".mkv"])
def test_exif_inside_motion_jpeg_stops_nothing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for i in range(4):
            packet = av.Packet(jpeg(picture(seed=i), 6))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, Fraction(1, 25)
            packet.is_keyframe = True
            container.mux(packet)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert reader.lost_frames == 0
    assert all(near(frame.pixels, np.rot90(picture(seed=i), -1)) for i, frame in enumerate(frames))
    assert len(frames) == 4


def test_a_picture_with_exif_on_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(picture(), 6))
    with (tmp_path / "a.jpg").open("rb") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with VideoReader("-") as reader:
            assert [near(frame.pixels, np.rot90(picture(), -1)) for frame in reader] == [True]


def clip(
    path: Path, aspect: Fraction, size: tuple[int, int] = (64, 48), *, codec: str = "libx264", bf: int = 2
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"bf": str(bf)})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for i in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(*size, i), format="rgb24")))
        container.mux(stream.encode(None))
    return path


SHAPES = [
    (Fraction(2), (128, 48)),
    (Fraction(1, 2), (64, 96)),
    (Fraction(64, 45), (91, 48)),
    (Fraction(12, 11), (70, 48)),
    (Fraction(8, 9), (64, 54)),
    (Fraction(1), (64, 48)),
    (Fraction(0), (64, 48)),
    (Fraction(1, 1000), (64, 48)),
    (Fraction(200, 1), (64, 48)),
]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize(("aspect", "size"), SHAPES)
def test_frames_have_square_pixels(tmp_path: Path, suffix: str, aspect: Fraction, size: tuple[int, int]) -> None:
    with VideoReader(clip(tmp_path / f"a{suffix}", aspect)) as reader:
        frames = list(reader)
        said = reader.warnings
    assert (reader.width, reader.height) == size and len(frames) == 8
    assert {(frame.width, frame.height) for frame in frames} == {size}
    assert len(said) == (size != (64, 48))  # FFmpeg does not write absurd values
    for i, frame in enumerate(frames):
        assert near(frame.pixels, cv2.resize(picture(seed=i), size))


@pytest.mark.parametrize(
    "pixels", [(1, 1000), (1000, 1), (0, 1), (1, 0), (0, 0), (2**31 - 1, 1), (2**32 - 1, 2**32 - 1)]
)
def test_absurd_pixels_are_square(tmp_path: Path, pixels: tuple[int, int]) -> None:
    content = bytearray(clip(tmp_path / "a.mp4", Fraction(12, 11)).read_bytes())
    place = content.index(b"pasp") + 4
    content[place : place + 8] = pixels[0].to_bytes(4, "big") + pixels[1].to_bytes(4, "big")
    (tmp_path / "b.mp4").write_bytes(content)
    with VideoReader(tmp_path / "b.mp4") as reader:
        assert {(frame.width, frame.height) for frame in reader} <= {(64, 48), (70, 48)}  # the codec says the latter
        if 1000 in pixels:
            assert reader.width == 64 and "taken as square" in reader.warnings[0]


def test_the_container_is_right_where_it_differs_from_the_codec(tmp_path: Path) -> None:
    content = bytearray(clip(tmp_path / "a.mp4", Fraction(2)).read_bytes())
    place = content.index(b"pasp") + 4
    content[place : place + 8] = (4).to_bytes(4, "big") + (3).to_bytes(4, "big")
    (tmp_path / "b.mp4").write_bytes(content)
    with VideoReader(tmp_path / "b.mp4") as reader:
        assert (reader.width, reader.height) == (85, 48)
        assert {frame.width for frame in reader} == {85}


def test_a_turned_clip_of_wide_pixels(tmp_path: Path) -> None:
    path = turn(clip(tmp_path / "a.mp4", Fraction(2)), tmp_path / "b.mp4", (0, 1, -1, 0))
    with VideoReader(path) as reader, VideoWriter(tmp_path / "out.mp4", reader) as writer:
        assert (reader.width, reader.height) == (48, 128)
        for i, frame in enumerate(reader):
            assert near(frame.pixels, np.rot90(cv2.resize(picture(seed=i), (128, 48)), -1))
            assert frame.time is not None
            writer.write(frame.pixels, frame.time)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.sample_aspect_ratio or 1) == (48, 128, 1)


def joined(path: Path, *parts: bytes) -> Path:
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_the_shape_of_pixels_may_change_in_mid_stream(tmp_path: Path, codec: str) -> None:
    wide = clip(tmp_path / "wide.ts", Fraction(16, 9), codec=codec).read_bytes()
    plain = clip(tmp_path / "plain.ts", Fraction(1), codec=codec).read_bytes()
    with VideoReader(joined(tmp_path / "a.ts", plain, wide, plain)) as reader:
        widths = [frame.width for frame in reader]
        assert any("size changes" in line for line in reader.warnings)
    first, second = (64, widths[8])
    assert widths == [first] * 8 + [second] * 8 + [first] * 8 and second > 64


def test_the_size_may_change_in_mid_stream(tmp_path: Path) -> None:
    parts = [clip(tmp_path / f"{w}.ts", Fraction(1), (w, 48)).read_bytes() for w in (64, 32, 96)]
    with (
        VideoReader(joined(tmp_path / "a.ts", *parts)) as reader,
        VideoWriter(tmp_path / "out.mp4", reader, EncodeOptions(crf=5)) as writer,
    ):
        frames = list(reader)
        for i, frame in enumerate(frames):
            assert near(frame.pixels, picture(*frame.pixels.shape[1::-1], i % 8))
            assert frame.time is not None
            writer.write(frame.pixels, frame.time)
        assert reader.lost_frames == 0
        assert len(reader.warnings) == 1 and "64x48, 32x48, 96x48" in reader.warnings[0]
    assert [frame.width for frame in frames] == [64] * 8 + [32] * 8 + [96] * 8
    with VideoReader(tmp_path / "out.mp4") as reader:
        written = [frame.pixels for frame in reader]
    assert {pixels.shape for pixels in written} == {(48, 64, 3)}
    # Beside a narrow one and above a wide one is black, and what stands between is not stretched.
    assert written[8][:, :14].max() < 40 and written[8][:, 50:].max() < 40
    assert near(written[8][:, 16:48], frames[8].pixels)
    assert written[16][:6].max() < 40 and written[16][43:].max() < 40
    assert near(written[16][8:40], cv2.resize(frames[16].pixels, (64, 32), interpolation=cv2.INTER_AREA))


def test_results_are_in_each_frame_s_own_pixels(
    tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = [clip(tmp_path / f"{w}.ts", Fraction(1), (w, 48)).read_bytes() for w in (64, 32)]
    joined(tmp_path / "a.ts", *parts)
    for smooth in ("kalman", "offline"):
        out = tmp_path / smooth
        options = (*QUICK, "--weights", tiny_weights, "--trails", "--blur-faces", "--show-ids", "--smooth", smooth)
        result = posecli(capfd, "run", tmp_path / "a.ts", "--out", out, *options)
        assert result.code == 0, result.err
        coco = orjson.loads((out / "coco.json").read_bytes())
        assert [image["width"] for image in coco["images"]] == [64] * 8 + [32] * 8
        assert coco["videos"][0]["width"] == 64
        widths = {image["id"]: image["width"] for image in coco["images"]}
        for person in coco["annotations"]:
            assert person["bbox"][2] == widths[person["image_id"]]
        run = orjson.loads((out / "run.json").read_bytes())
        assert any("size changes" in line for line in run["inputs"][0]["warnings"])


def test_ids_and_smoothing_go_on_where_the_size_changes() -> None:
    scene = Scene((Walker(200, RED, line(100, 300, 80, 4)),), 2)
    tracker, follow = Tracker(COCO17), ClipTracker(COCO17, "kalman")
    reference = ClipTracker(COCO17, "kalman")
    for i, (frame, poses, _) in enumerate(scene.frames(0.01)):
        expected = reference(frame, poses)
        if i >= 20:
            pixels = cv2.resize(frame.pixels, (320, 360))
            frame = type(frame)(pixels, frame.index, frame.time)
            poses = poses.scaled(0.5, 1)
        ids = tracker(frame, poses).track_ids
        smoothed = follow(frame, poses)
        assert ids is not None and ids.tolist() == [1]
        assert np.allclose(smoothed.scaled(2 if i >= 20 else 1, 1).keypoints, expected.keypoints, atol=0.01)


def test_the_detector_looks_again_where_the_size_changes() -> None:
    propagator = BoxPropagator(10, COCO17)
    for i, (frame, poses, _) in enumerate(Scene((Walker(200, RED, line(200, 210, 80, 4)),), 0.2).frames()):
        if i >= 3:
            frame = type(frame)(cv2.resize(frame.pixels, (320, 180)), frame.index, frame.time)
            poses = poses.scaled(0.5, 0.5)
        detected = propagator.needs_detection(frame)
        assert detected == (i in (0, 3))
        propagator.update(frame, poses, detected)


def test_square_sizes() -> None:
    assert square_size(720, 576, Fraction(64, 45)) == (1024, 576)
    assert square_size(1920, 1080, Fraction(4351, 4352)) == (1920, 1080)  # a muxer's rounding
