"""Annotated videos in MP4 with the source's timestamps, colours and sound."""

import contextlib
import errno
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.stream import VideoStream

from posecli.atomic import new_temporary
from posecli.errors import MediaError, UsageError, is_full
from posecli.media.colour import ToYuv
from posecli.media.encoders import ENCODERS, PRESETS
from posecli.media.sound import Sound
from posecli.media.video import VideoReader
from posecli.types import PixelArray


class VideoWriter:
    """Writes upright RGB frames; a context manager that leaves a whole file or none.

    codec: a name of ENCODERS. crf: quality on x264's scale (0 to 51, less is better), whatever the codec. preset:
    one of PRESETS. size: (width, height) of the frames written, where it is not the source's.

    Timestamps are the source's, to the tick; a part of a source and a live one begin at zero. Frames of odd
    size are padded by a row or column of their own edge, since 4:2:0 needs even sides; coordinates do not
    move. A frame of another size than the video's stands in its middle, unstretched, with black beside it. The
    colour's description (matrix, primaries, transfer) is the source's and is written into the stream; the range is
    limited. Sound is copied, cut to the source's span; where MP4 does not take its codec it is encoded as AAC, and
    where that fails too it is left out, with a line in warnings. The same frames give the same bytes.

    Raises UsageError for a codec, quality or preset that does not exist, OSError where nothing can be written.
    """

    def __init__(
        self,
        path: Path,
        source: VideoReader,
        *,
        codec: str = "h264",
        crf: int = 20,
        preset: str = "veryfast",
        audio: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        if codec not in ENCODERS:
            raise UsageError(f"codec {codec}: must be one of {', '.join(ENCODERS)}")
        if preset not in PRESETS or not 0 <= crf <= 51:
            raise UsageError(f"crf {crf}, preset {preset}: must be 0 to 51 and one of {', '.join(PRESETS)}")
        self.path = path
        self.warnings: list[str] = []
        self._source = source
        self._origin: Fraction | None = None
        self._last = Fraction(0)
        self._frames = 0
        self._sounds: list[Sound] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._part = new_temporary(path)
        self._container = av.open(f"file:{self._part}", "w", format="mp4", options={"movflags": "+faststart"})
        try:
            self._size = size or (source.width, source.height)
            self._add_video(codec, crf, preset, self._size)
            if audio:
                self._open_sounds()
        except BaseException:
            self.abort()
            raise

    def _add_video(self, codec: str, crf: int, preset: str, size: tuple[int, int]) -> None:
        source, colour, chosen = self._source, self._source.colour.written, ENCODERS[codec]
        if chosen.encoder == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # errors; else it fills the terminal with its settings
        rate = (source.frame_rate or Fraction(30)) / source.span.stride
        settings = {**chosen.settings(crf, preset), "chroma_sample_location": chosen.chroma}
        stream = self._container.add_stream(chosen.encoder, rate=rate, options=settings)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = (side + side % 2 for side in size)
        stream.pix_fmt = "yuv420p"
        stream.time_base = source.time_base
        context = stream.codec_context
        context.time_base = source.time_base
        context.colorspace, context.color_range = colour.matrix_code, int(colour.range)
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        context.flags |= av.codec.context.Flags.bitexact
        if chosen.tag is not None:
            context.codec_tag = chosen.tag
        self._stream = stream
        self._to_yuv = ToYuv(colour, stream.width, stream.height, chosen.chroma)

    def _open_sounds(self) -> None:
        tracks = self._source.audio_tracks
        if self._source.source.live and tracks > 1:
            self.warnings.append(f"the first of {tracks} sound tracks is kept: a live source is read only once")
            tracks = 1
        for track in range(tracks):
            try:
                self._sounds.append(Sound(self._container, self._source, self.warnings, track))
            except (FFmpegError, ValueError, AttributeError) as error:  # no decoder: PyAV has no codec to ask
                which = f" of track {track + 1}" if tracks > 1 else ""
                self.warnings.append(f"sound{which} left out: its codec can be neither copied nor decoded ({error})")

    def write(self, pixels: PixelArray, time: Fraction) -> None:
        """Append a frame (height, width, 3) uint8 RGB shown at time, in seconds on the source's timeline."""
        if self._origin is None:
            moved = self._source.span.start or self._source.source.live
            self._origin = time if moved else Fraction(0)
            for sound in self._sounds if moved else []:
                sound.begin(self._origin)
        frame = self._to_yuv(_fitted(pixels, *self._size))
        frame.pts = round((time - self._origin) / self._source.time_base)
        frame.time_base = self._source.time_base
        self._container.mux(self._stream.encode(frame))
        self._last = time
        self._frames += 1
        for sound in self._sounds:
            sound.write_until(time)

    def close(self) -> None:
        """Finish the file and give it its name. Raises MediaError or OSError where that fails."""
        if self._origin is None:
            self.abort()
            raise MediaError(f"{self.path}: not written, for want of frames")
        try:
            packets = self._stream.encode(None)
            if self._frames <= 2:
                # Too few to be reordered; x265 leaves their decoding times to chance.
                for packet in packets:
                    packet.dts = packet.pts
            self._container.mux(packets)
            step = self._source.span.stride / (self._source.frame_rate or Fraction(30))
            for sound in self._sounds:
                sound.write_until(self._last + step if self._source.span.ends else None, last=True)
                sound.close()
            self._container.close()
        except FFmpegError as error:
            self.abort()
            if is_full(error):
                raise OSError(errno.ENOSPC, "disk full", str(self.path)) from error
            raise MediaError(f"{self.path}: cannot be written ({error.strerror})") from error
        self._part.replace(self.path)

    def abort(self) -> None:
        """Drop what was written."""
        for sound in self._sounds:
            sound.close()
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
    """A picture of another size in the middle of one of this size, in its own shape, with black beside it."""
    if pixels.shape[:2] == (height, width):
        return pixels
    rows, columns = pixels.shape[:2]
    scale = min(width / columns, height / rows)
    wide, high = max(1, min(width, round(columns * scale))), max(1, min(height, round(rows * scale)))
    left, top = (width - wide) // 2, (height - high) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[top : top + high, left : left + wide] = cv2.resize(pixels, (wide, high), interpolation=interpolation)
    return canvas


def video_name(name: str) -> str:
    """The annotated video's name for an input's: MP4 whatever the source was; clip.avi → clip.avi.mp4."""
    return name if name.lower().endswith(".mp4") else f"{name}.mp4"
