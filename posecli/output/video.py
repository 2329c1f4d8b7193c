"""Annotated videos: H.264 in MP4 with the source's timestamps, colours and sound."""

import contextlib
import errno
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from posecli.errors import MediaError
from posecli.media.video import VideoReader
from posecli.types import PixelArray

AnyPacket: TypeAlias = "Packet[Any]"


class VideoWriter:
    """Writes upright RGB frames; a context manager that leaves a whole file or none.

    Timestamps are the source's, to the tick. Frames of odd size are padded by a row or column of their own
    edge, since H.264's usual 4:2:0 needs even sides; coordinates do not move. The matrix (BT.601 or BT.709)
    and range are the source's and are written into the stream. Sound is copied; where MP4 does not take its
    codec it is encoded as AAC, and where that fails too it is left out, with a line in warnings.
    The same frames give the same bytes.
    """

    def __init__(
        self, path: Path, source: VideoReader, *, crf: int = 20, preset: str = "veryfast", audio: bool = True
    ) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._part = path.with_name(path.name + ".part")
        self._source = source
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "+faststart"})
        try:
            self._add_video(crf, preset)
            self._sound = self._open_sound() if audio and source.has_audio else None
        except BaseException:
            self.abort()
            raise

    def _add_video(self, crf: int, preset: str) -> None:
        source = self._source
        # The same frames must give the same bytes: x264's output depends on the number of threads, and with
        # real timestamps its macroblock tree races the lookahead thread for the durations of frames.
        options = {"crf": str(crf), "preset": preset, "threads": "2", "x264-params": "threads=2:mbtree=0"}
        stream = self._container.add_stream("libx264", rate=source.frame_rate or 30, options=options)
        stream.width, stream.height = source.width + source.width % 2, source.height + source.height % 2
        stream.pix_fmt = "yuv420p"
        stream.time_base = source.time_base
        context = stream.codec_context
        context.time_base = source.time_base
        context.colorspace = int(source.colorspace)
        context.color_range = int(ColorRange.JPEG if source.full_range else ColorRange.MPEG)
        primaries = 1 if source.colorspace == Colorspace.ITU709 else 6
        context.color_primaries = primaries
        context.color_trc = primaries
        context.flags |= av.codec.context.Flags.bitexact
        self._stream = stream

    def _open_sound(self) -> "_Sound | None":
        try:
            return _Sound(self._container, self._source.path, self.warnings)
        except (FFmpegError, ValueError, AttributeError) as error:  # no decoder: PyAV has no codec to ask
            self.warnings.append(f"sound left out: its codec can be neither copied nor decoded ({error})")
            return None

    def write(self, pixels: PixelArray, time: Fraction) -> None:
        """Append a frame (height, width, 3) uint8 RGB shown at time, in seconds on the source's timeline."""
        frame = VideoFrame.from_ndarray(_even(pixels), format="rgb24")
        frame = frame.reformat(
            format="yuv420p",
            src_colorspace=Colorspace.DEFAULT,
            dst_colorspace=self._source.colorspace,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.JPEG if self._source.full_range else ColorRange.MPEG,
            interpolation="BILINEAR",
        )
        frame.pts = round(time / self._source.time_base)
        frame.time_base = self._source.time_base
        frame.colorspace = self._source.colorspace
        frame.color_range = ColorRange.JPEG if self._source.full_range else ColorRange.MPEG
        for packet in self._stream.encode(frame):
            self._mux(packet)
        if self._sound is not None:
            self._sound.write_until(time)

    def _mux(self, packet: AnyPacket) -> None:
        self._container.mux(packet)

    def close(self) -> None:
        """Finish the file and give it its name. Raises MediaError or OSError where that fails."""
        try:
            for packet in self._stream.encode(None):
                self._mux(packet)
            if self._sound is not None:
                self._sound.write_until(None)
                self._sound.close()
            self._container.close()
        except FFmpegError as error:
            self.abort()
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise OSError(errno.ENOSPC, "disk full", str(self.path)) from error
            raise MediaError(f"{self.path}: cannot be written ({error.strerror})") from error
        self._part.replace(self.path)

    def abort(self) -> None:
        """Drop what was written."""
        if getattr(self, "_sound", None) is not None and self._sound is not None:
            self._sound.close()
        # An unfinished file has no valid trailer, and is deleted anyway.
        with contextlib.suppress(FFmpegError, ValueError):
            self._container.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class _Sound:
    """The source's first audio stream, fed into the output up to a given time."""

    def __init__(self, output: av.container.OutputContainer, path: Path, warnings: list[str]) -> None:
        self._output, self._warnings = output, warnings
        self._input = av.open(str(path), metadata_errors="ignore")
        self._source = self._input.streams.audio[0]
        self._resampler: AudioResampler | None = None
        try:
            self._stream = output.add_stream_from_template(self._source)
            self._packets = self._copied()
        except (ValueError, FFmpegError):
            # MP4 does not take this codec as it is.
            self._stream = output.add_stream("aac", rate=self._source.rate or 48000)
            self._resampler = AudioResampler(format="fltp", layout=self._stream.layout, rate=self._stream.rate)
            self._packets = self._encoded()
            self._warnings.append(f"sound encoded as AAC: MP4 does not take {self._source.codec_context.name}")
        self._pending: deque[AnyPacket] = deque()

    def write_until(self, time: Fraction | None) -> None:
        """Write the packets that start before time (all where None)."""
        try:
            while True:
                if not self._pending:
                    packet = next(self._packets, None)
                    if packet is None:
                        return
                    self._pending.append(packet)
                packet = self._pending[0]
                if time is not None and packet.pts is not None and packet.pts * packet.time_base > time:
                    return
                self._output.mux(self._pending.popleft())
        except (FFmpegError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise
            self._warnings.append(f"sound ends early: {error}")
            self._packets = iter(())
            self._pending.clear()

    def _copied(self) -> Iterator[AnyPacket]:
        for packet in self._read():
            if packet.dts is None:
                continue
            packet.stream = self._stream
            yield packet

    def _encoded(self) -> Iterator[AnyPacket]:
        assert self._resampler is not None
        for packet in self._read():
            try:
                frames = packet.decode()
            except FFmpegError:
                continue
            for frame in frames:
                if isinstance(frame, AudioFrame):
                    for part in self._resampler.resample(frame):
                        yield from self._stream.encode(part)
        yield from self._stream.encode(None)

    def _read(self) -> Iterator[AnyPacket]:
        try:
            yield from self._input.demux(self._source)
        except (FFmpegError, EOFError):
            self._warnings.append("sound is damaged from some point on and ends there")

    def close(self) -> None:
        self._input.close()


def _even(pixels: PixelArray) -> PixelArray:
    height, width = pixels.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return np.ascontiguousarray(pixels)
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def video_name(name: str) -> str:
    """The annotated video's name for an input's: MP4 whatever the source was; clip.avi → clip.avi.mp4."""
    return name if name.lower().endswith(".mp4") else f"{name}.mp4"
