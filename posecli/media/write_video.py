"""Writing of annotated videos in MP4 with the source's timestamps, colours and audio."""

import contextlib
import errno
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.error import FFmpegError
from av.video.stream import VideoStream

from posecli.atomic import new_temporary
from posecli.errors import MediaError, is_full
from posecli.media.audio import AudioTrack
from posecli.media.colour import ToYuv
from posecli.media.encoders import ENCODERS, EncodeOptions
from posecli.media.scaling import scaled
from posecli.media.scheduling import scheduling_kept
from posecli.media.video import VideoReader
from posecli.types import PixelArray


class VideoWriter:
    """Writes upright RGB frames into an MP4 file; a context manager that leaves a complete file or none.

    size: (width, height) of the frames, None for the source's.

    Timestamps are exactly the source's; a span of a source and a live source begin at zero. Frames of odd
    size are padded by repeating the last row or column, since 4:2:0 needs even sides; coordinates stay the same.
    A frame of another size than the video's is centred in it with its aspect ratio kept, on black. The
    colour description (matrix, primaries, transfer) of the source is written into the stream; the range is
    limited. Audio is copied, cut to the source's span; where MP4 does not support its codec it is encoded as AAC,
    and where that fails too it is left out, with a line in `warnings`. The same frames give the same bytes.

    Raises OSError where nothing can be written.
    """

    def __init__(
        self,
        path: Path,
        source: VideoReader,
        options: EncodeOptions | None = None,
        *,
        size: tuple[int, int] | None = None,
    ) -> None:
        options = options or EncodeOptions()
        self.path = path
        self.warnings: list[str] = []
        self._source = source
        self._origin: Fraction | None = None
        self._last = Fraction(0)
        self._frames = 0
        self._audio: list[AudioTrack] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._part = new_temporary(path)
        self._container = av.open(f"file:{self._part}", "w", format="mp4", options={"movflags": "+faststart"})
        try:
            self._size = size or (source.width, source.height)
            self._add_video(options)
            if options.audio:
                self._open_audio()
        except BaseException:
            self.abort()
            raise

    def _add_video(self, options: EncodeOptions) -> None:
        source, colour, encoder = self._source, self._source.colour.written, ENCODERS[options.encoder]
        if encoder.name == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # errors only
        rate = (source.frame_rate or Fraction(30)) / source.span.stride
        settings = {**encoder.settings(options.crf, options.preset), "chroma_sample_location": encoder.chroma}
        stream = self._container.add_stream(encoder.name, rate=rate, options=settings)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = (side + side % 2 for side in self._size)
        stream.pix_fmt = "yuv420p"
        stream.time_base = source.time_base
        context = stream.codec_context
        context.time_base = source.time_base
        context.colorspace, context.color_range = colour.matrix_code, int(colour.range)
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        context.flags |= av.codec.context.Flags.bitexact
        if encoder.tag is not None:
            context.codec_tag = encoder.tag
        self._stream = stream
        self._to_yuv = ToYuv(colour, stream.width, stream.height, encoder.chroma)

    def _open_audio(self) -> None:
        tracks = self._source.audio_tracks
        if self._source.source.live and tracks > 1:
            self.warnings.append(f"the first of {tracks} sound tracks is kept: a live source is read only once")
            tracks = 1
        for track in range(tracks):
            try:
                self._audio.append(AudioTrack(self._container, self._source, self.warnings, track))
            except (FFmpegError, ValueError, AttributeError) as error:  # AttributeError: PyAV has no decoder for it
                which = f" of track {track + 1}" if tracks > 1 else ""
                self.warnings.append(f"sound{which} left out: its codec can be neither copied nor decoded ({error})")

    def write(self, pixels: PixelArray, time: Fraction) -> None:
        """Append a frame (height, width, 3) uint8 RGB shown at time, in seconds on the source's timeline."""
        if self._origin is None:
            from_zero = self._source.span.start or self._source.source.live
            self._origin = time if from_zero else Fraction(0)
            for track in self._audio if from_zero else []:
                track.begin(self._origin)
            with scheduling_kept():
                self._container.start_encoding()
        frame = self._to_yuv(_fitted(pixels, *self._size))
        frame.pts = round((time - self._origin) / self._source.time_base)
        frame.time_base = self._source.time_base
        self._container.mux(self._stream.encode(frame))
        self._last = time
        self._frames += 1
        for track in self._audio:
            track.write_until(time)

    def close(self) -> None:
        """Finish the file and rename it. Raises MediaError or OSError where that fails."""
        if self._origin is None:
            self.abort()
            raise MediaError(f"{self.path}: not written, because it has no frames")
        try:
            packets = self._stream.encode(None)
            if self._frames <= 2:
                # Too few frames for reordering; x265 does not set their decoding times reliably.
                for packet in packets:
                    packet.dts = packet.pts
            self._container.mux(packets)
            step = self._source.span.stride / (self._source.frame_rate or Fraction(30))
            for track in self._audio:
                track.write_until(self._last + step if self._source.span.ends else None, last=True)
                track.close()
            self._container.close()
        except FFmpegError as error:
            self.abort()
            if is_full(error):
                raise OSError(errno.ENOSPC, "disk full", str(self.path)) from error
            raise MediaError(f"{self.path}: cannot be written ({error.strerror})") from error
        self._part.replace(self.path)

    def abort(self) -> None:
        """Delete the incomplete file."""
        for track in self._audio:
            track.close()
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


def _fitted(pixels: PixelArray, width: int, height: int) -> PixelArray:
    """An image scaled into (height, width) with its aspect ratio kept, centred on black; unchanged if it fits."""
    if pixels.shape[:2] == (height, width):
        return pixels
    rows, columns = pixels.shape[:2]
    scale = min(width / columns, height / rows)
    wide, high = max(1, min(width, round(columns * scale))), max(1, min(height, round(rows * scale)))
    left, top = (width - wide) // 2, (height - high) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[top : top + high, left : left + wide] = scaled(pixels, wide, high)
    return canvas


def video_name(name: str) -> str:
    """The annotated video's file name for that of the input: clip.mp4 → clip.mp4, clip.avi → clip.avi.mp4."""
    return name if name.lower().endswith(".mp4") else f"{name}.mp4"
