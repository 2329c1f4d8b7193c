"""Videos: packets to upright RGB frames with exact times, damage counted."""

from collections import Counter
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from posecli.errors import MediaError
from posecli.types import Frame, PixelArray


class VideoReader:
    """A video file open for reading; iterate it once for its frames, and close it (it is a context manager).

    width, height: of the upright picture. rotation: how many quarter turns (counter-clockwise) make a
    stored picture upright. time_base: the unit of the source's timestamps. frame_rate and frame_count are
    what the container says, a hint; None or 0 where it says nothing. lost: why frames were lost → how many.

    Raises MediaError for a file that is no video, has no video stream or only sound.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost: Counter[str] = Counter()
        try:
            self._container = av.open(str(path), metadata_errors="ignore")
        except (FFmpegError, OSError, ValueError) as error:
            raise MediaError(f"{path}: cannot be opened as a video ({_reason(error)})") from error
        try:
            self._start(path)
        except MediaError:
            self._container.close()
            raise

    def _start(self, path: Path) -> None:
        streams = [s for s in self._container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not streams:
            kind = "only sound, no video stream" if self._container.streams.audio else "no video stream"
            raise MediaError(f"{path}: {kind}")
        stream = self._stream = streams[0]
        # Frame and slice threads; they end only when the container is closed.
        stream.thread_type = "AUTO"
        self.time_base = Fraction(stream.time_base or Fraction(1, 90000))
        self.frame_rate = Fraction(stream.average_rate) if stream.average_rate else None
        self.frame_count = int(stream.frames or 0) or self._count_from_duration()
        self.has_audio = bool(self._container.streams.audio)
        first = None
        self._first_frames: list[VideoFrame] = []
        self._frames = self._decode()
        for first in self._frames:
            self._first_frames.append(first)
            break
        if first is None:
            raise MediaError(f"{path}: no frame of it can be decoded")
        # PyAV gives -90, 180 or 90 for a display matrix; frames come as they are stored.
        self.rotation = (first.rotation // 90) % 4
        turned = self.rotation % 2 == 1
        self.width, self.height = (first.height, first.width) if turned else (first.width, first.height)
        self.colorspace = _matrix_of(first)
        self.full_range = first.color_range == ColorRange.JPEG
        self.start = first.pts if first.pts is not None else 0

    def _count_from_duration(self) -> int:
        duration = self._container.duration
        if not duration or not self._stream.average_rate:
            return 0
        return round(Fraction(duration, av.time_base) * Fraction(self._stream.average_rate))

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file and the decoder's threads."""
        self._frames.close()
        self._first_frames.clear()
        self._container.close()

    @property
    def lost_frames(self) -> int:
        """Frames lost so far."""
        return sum(self.lost.values())

    def __iter__(self) -> Iterator[Frame]:
        """Frames in the order they are shown. time is the source's own timestamp in seconds.

        A timestamp that is missing or does not grow becomes the one before plus the usual step.
        """
        step = max(1, round(1 / (self.frame_rate * self.time_base))) if self.frame_rate else 1
        previous: int | None = None
        index = 0
        while True:
            stored = self._first_frames.pop() if self._first_frames else next(self._frames, None)
            if stored is None:
                break
            pts = stored.pts
            if pts is None or (previous is not None and pts <= previous):
                pts = 0 if previous is None else previous + step
            previous = pts
            try:
                pixels = upright_rgb(stored, self.rotation)
            except (FFmpegError, ValueError, MemoryError) as error:
                self.lost[f"cannot be converted ({_reason(error)})"] += 1
                continue
            del stored  # PyAV keeps one colour converter a frame: let it go at once
            if pixels.shape[:2] != (self.height, self.width):
                pixels = _fit(pixels, self.width, self.height)
            yield Frame(pixels, index, pts * self.time_base)
            index += 1
        self._count_missing(index, previous, step)

    def _count_missing(self, frames: int, last: int | None, step: int) -> None:
        """A file cut short ends before its own duration. (Frames that an edit list hides are not lost.)"""
        missing = int(self._stream.frames or 0) - frames - self.lost_frames
        duration = self._stream.duration
        if missing <= 0 or duration is None or last is None:
            return
        if last + step + max(step, 1) < (self._stream.start_time or 0) + duration:
            self.lost["declared by the file but not in it"] += missing

    def _decode(self) -> Generator[VideoFrame, None, None]:
        """Packet by packet, so that a damaged packet costs only what it holds."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, EOFError):
                return
            except FFmpegError as error:
                # The container itself is damaged here; what comes after cannot be found.
                self.lost[f"file damaged ({_reason(error)})"] += 1
                return
            try:
                frames = packet.decode()
            except FFmpegError as error:
                self.lost[f"packet damaged ({_reason(error)})"] += 1
                continue
            for frame in frames:
                if isinstance(frame, VideoFrame):
                    yield frame


def upright_rgb(frame: VideoFrame, rotation: int = 0) -> PixelArray:
    """A decoded frame as (height, width, 3) uint8 RGB, by the matrix and range that its stream declares.

    rotation: quarter turns counter-clockwise.
    """
    matrix = _matrix_of(frame)
    source_range = ColorRange.JPEG if frame.color_range == ColorRange.JPEG else ColorRange.MPEG
    if frame.format.is_rgb:
        pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    else:
        converted = frame.reformat(
            format="rgb24",
            src_colorspace=matrix,
            dst_colorspace=Colorspace.DEFAULT,
            src_color_range=source_range,
            dst_color_range=ColorRange.JPEG,
            interpolation="BILINEAR",
        )
        pixels = np.asarray(converted.to_ndarray(), np.uint8)
    if rotation:
        pixels = np.ascontiguousarray(np.rot90(pixels, k=rotation))
    return pixels


def _matrix_of(frame: VideoFrame) -> Colorspace:
    """BT.709 or BT.601: declared, else by height as players do."""
    declared = int(frame.colorspace)
    if declared == 1:
        return Colorspace.ITU709
    if declared in (5, 6):
        return Colorspace.ITU601
    return Colorspace.ITU709 if frame.height >= 720 or frame.width >= 1280 else Colorspace.ITU601


def _fit(pixels: PixelArray, width: int, height: int) -> PixelArray:
    """A frame of another size, which some streams switch to: scaled to the first one's."""
    import cv2

    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _reason(error: BaseException) -> str:
    if isinstance(error, FFmpegError) and error.strerror:
        return str(error.strerror)
    return (str(error).splitlines() or [type(error).__name__])[0]
