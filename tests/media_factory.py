"""Tiny media made on the spot."""

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from posecli.media.scheduling import scheduling_kept

os.environ.setdefault("SVT_LOG", "1")
QUIET = {
    "libx265": {"preset": "ultrafast", "crf": "10", "x265-params": "log-level=none:pools=1:frame-threads=1"},
    "libsvtav1": {"preset": "12", "crf": "10"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "0"},
}


def picture(width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    """A smooth RGB picture with structure in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    phase = seed * 0.7
    red = 127 + 100 * np.sin(x / width * 5 + phase)
    green = 127 + 100 * np.sin(y / height * 4 + phase)
    blue = 255 * x / max(1, width - 1)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def write_photo(path: Path, pixels: np.ndarray | None = None, **options: int) -> Path:
    pixels = picture() if pixels is None else pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, encoded = cv2.imencode(path.suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    assert ok
    path.write_bytes(encoded.tobytes())
    return path


def exif_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF orientation tag."""
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + b"\0\0\0\0"
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


def write_video(
    path: Path,
    frames: int = 20,
    width: int = 64,
    height: int = 48,
    *,
    codec: str = "libx264",
    times: list[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    rate: int = 25,
    sound: str | None = None,
    picture_stream: bool = True,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    colour: tuple[int, int, int] | None = None,
    pictures: Sequence[np.ndarray] | None = None,
) -> Path:
    """A clip. times: pts in time_base, else a constant rate. sound: an audio codec.

    options: the encoder's. colour: code points of matrix, primaries and transfer. pictures: RGB, or in pix_fmt where
    they have another shape, instead of picture(seed=0, 1, ...).
    """
    import av  # here, since the tests for GPUs do without it

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = None
        if picture_stream:
            if options is None:
                options = {"g": "5", "bf": "0"} if codec == "libx264" else QUIET.get(codec, {})
            stream = container.add_stream(codec, rate=rate, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.time_base = stream.codec_context.time_base = time_base
            if colour is not None:
                context = stream.codec_context
                context.colorspace, context.color_primaries, context.color_trc = colour
                context.color_range = 1
        audio = container.add_stream(sound, rate=16000, layout="mono") if sound else None
        if stream is not None:
            with scheduling_kept():
                container.start_encoding()
            for i in range(frames):
                pixels = pictures[i] if pictures is not None else picture(width, height, i)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24" if pixels.ndim == 3 else pix_fmt)
                pts = times[i] if times else round(Fraction(i, rate) / time_base)
                frame.pts, frame.time_base = pts, time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if audio is not None:
            size = audio.codec_context.frame_size or 1024
            for i in range(max(1, frames * 16000 // rate // size)):
                wave = (8000 * np.sin(np.arange(size) * 0.05)).astype(np.int16)[None]
                sample = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                sample.rate, sample.pts, sample.time_base = 16000, i * size, Fraction(1, 16000)
                container.mux(audio.encode(sample))
            container.mux(audio.encode(None))
    return path


def turn(path: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
    """The MP4 with another display matrix a b c d: a stored pixel goes to (a x + c y, b x + d y)."""

    def packed(a: int, b: int, c: int, d: int) -> bytes:
        values = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
        return b"".join(value.to_bytes(4, "big", signed=True) for value in values)

    content = bytearray(path.read_bytes())
    place = content.rindex(packed(1, 0, 0, 1))  # the track's matrix follows the movie's
    content[place : place + 36] = packed(*matrix)
    target.write_bytes(content)
    return target
