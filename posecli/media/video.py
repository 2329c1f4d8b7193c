"""Reading of videos: the frames of a span, upright, in RGB, with exact times, and the lost frames."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.container import InputContainer
from av.error import FFmpegError

from posecli.errors import MediaError
from posecli.media.aspect import PixelAspect
from posecli.media.colour import colour_of
from posecli.media.decoding import DecodedFrame, Decoder, reason
from posecli.media.hdr import TRANSFERS
from posecli.media.lost_frames import Steps
from posecli.media.sources import IMAGES_RATE, VideoSource, open_source, source_of
from posecli.media.span import Span
from posecli.media.upright import FrameConverter
from posecli.types import Frame


class VideoReader:
    """A video open for reading; iterate it once for its frames, and close it (it is a context manager).

    source: a file's Path, or a string, see source_of: "-", a URL, "webcam:0", "frame_%05d.png".
    span: what is read. image_rate: frames per second of numbered images. part: of the span's frames only those from
    this number on and before the second one are converted and given; lost frames are not counted then.

    width, height: of the first upright frame, in square pixels; later ones may have another size.
    time_base: the unit of the source's timestamps. frame_rate and frame_count (of the span): declared by the container,
    not reliable; None or 0 where unknown. frame_limits: estimated numbers of the span's first frame and of that after
    its last one, None where unknown.
    first_time: the timestamp of the source's first frame in seconds, from which the span counts.
    hidden: number of the source's frames that its edit list does not show; they are neither read nor lost.
    lost: reason → number of lost frames of the span; complete after all frames were read.

    Raises MediaError for a source that is not a video or has no video stream.
    """

    def __init__(
        self,
        source: Path | str,
        span: Span | None = None,
        *,
        image_rate: Fraction = IMAGES_RATE,
        part: tuple[int, int | None] | None = None,
    ) -> None:
        self.source: VideoSource = source_of(source)
        self.span, self._part = span or Span(), part
        self.lost: Counter[str] = Counter()
        self._warnings: list[str] = []
        self.decoder = Decoder(self.source, image_rate)
        self._image_rate = image_rate
        try:
            self._start()
        except BaseException:
            self.decoder.close()
            raise

    def _start(self) -> None:
        decoder = self.decoder
        self.time_base, self.frame_rate = decoder.time_base, decoder.frame_rate
        self.audio_tracks = len(decoder.container.streams.audio)
        self.has_audio = self.audio_tracks > 0
        first = self._first = next(iter(decoder), None)
        if first is None:
            raise MediaError(f"{self.source.shown}: no frame of it can be decoded")
        self._first_pts = first.pts
        self.first_time = first.pts * self.time_base
        photos = self.source.kind == "images"  # their aspect field is for printing
        self._upright = FrameConverter(None if photos else PixelAspect(decoder.stream, decoder.container.format.name))
        geometry = self._upright.geometry(first.frame)
        self.orientation, (self.width, self.height) = geometry.orientation, geometry.size
        self.colour = colour_of(first.frame)
        if self.colour.hdr:
            self._warnings.append(f"HDR ({TRANSFERS[self.colour.transfer]}): tone mapped to BT.709")
        if self.source.sparse:
            self._warnings.append("the pictures' numbers are far apart: taken in their order, none counted as missing")
        self.hidden = decoder.hidden()
        if self.hidden:
            frames = "1 frame" if self.hidden == 1 else f"{self.hidden} frames"
            self._warnings.append(f"{frames} hidden by its edit list: left out, as players do")
        if first.frame.interlaced_frame:
            self._warnings.append("interlaced: both fields are shown in one picture, as stored")
        self.frame_limits = self.span.limits(self._declared(), self.frame_rate)
        self.frame_count = self.span.count(self._declared(), self.frame_rate)

    def _declared(self) -> int:
        """Estimated number of frames of the whole source."""
        known = self.decoder.indexed() or int(self.decoder.stream.frames or 0)
        duration = self.decoder.container.duration
        if known or not duration or not self.frame_rate:
            return known
        return round(Fraction(duration, av.time_base) * self.frame_rate)

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the source and the decoder's threads."""
        self._first = None
        self.decoder.close()

    @property
    def warnings(self) -> list[str]:
        """Warnings about differences from the source, one line each; complete after all frames were read."""
        return [*self._warnings, *self._upright.warnings()]

    @property
    def lost_frames(self) -> int:
        """Frames lost so far."""
        return sum(self.lost.values())

    def open_again(self) -> InputContainer:
        """Open the source's container a second time, for its audio. Not for a live source."""
        return open_source(self.source, self._image_rate)

    def __iter__(self) -> Iterator[Frame]:
        """Frames of the span in presentation order.

        index: the frame's number in the source, counting those that cannot be decoded. time: the source's timestamp in
        seconds; one that is missing or does not increase becomes the previous one plus a step.

        Raises MediaError at the end if the span has no frame.
        """
        steps, kept = Steps(lambda pts: self.decoder.is_near_damage(pts)), 0
        first: DecodedFrame | None = None
        last: DecodedFrame | None = None
        for item in self._from_start():
            seconds = self._seconds(item)
            if not self.span.starts_by(item.index, seconds):
                continue
            first = first or item
            if self.span.ended_by(item.index, seconds, first.index, self._seconds(first)):
                break
            steps.add(item.pts, item.index)
            kept, last = kept + 1, item
            if self._part is not None and self._part[1] is not None and item.index >= self._part[1]:
                return
            before = self._part is not None and item.index < self._part[0]
            if (item.index - first.index) % self.span.stride == 0 and not before:
                yield from self._converted(item)
        else:
            if first is None:
                raise MediaError(f"{self.source.shown}: ends before the start asked for, nothing is read")
            steps.close()
            # Read to the end of the source: frames that its container declares count, too.
            begin = self._begin(first)
            held = max(self.decoder.frame_numbers.sent, begin + kept)
            absent = max(0, self.decoder.expected_frames(self._first_pts, steps.usual()) - held) or self._cut_off(
                last, steps
            )
            self._count(begin, held, kept, absent, steps)
            return
        steps.close()
        if first is not None and last is not None:
            begin = self._begin(first)
            self._count(begin, max(begin + kept, last.index + 1), kept, 0, steps)

    def _seconds(self, item: DecodedFrame) -> Fraction:
        return item.pts * self.time_base - self.first_time

    def _from_start(self) -> Iterator[DecodedFrame]:
        """Frames from the span's start, or from a position before it."""
        first, self._first = self._first, None
        start = self.span.start
        if isinstance(start, Fraction):
            start = self._first_pts + start / self.time_base
        if first is not None and not (start and self.decoder.seek(start)):
            yield first
        first = None  # release the frame's memory
        yield from self.decoder

    def _converted(self, item: DecodedFrame) -> Iterator[Frame]:
        try:
            pixels = self._upright(item.frame)
        except (FFmpegError, ValueError, MemoryError) as error:
            self.lost[f"cannot be converted ({reason(error)})"] += 1
            return
        yield Frame(pixels, item.index, item.pts * self.time_base)

    def _begin(self, first: DecodedFrame) -> int:
        """The number of the span's first frame."""
        if self.span.start is None:
            return 0
        if isinstance(self.span.start, int):
            return self.span.start
        return first.index

    def _count(self, begin: int, stop: int, kept: int, absent: int, steps: Steps) -> None:
        """Count lost frames. kept: number of frames read of those from begin to stop. absent: declared, but missing."""
        holes = sum(begin <= place < stop for place in self.decoder.holes)
        undecoded = stop - begin - kept - holes
        damage = self.decoder.damage
        # A variable frame rate has gaps, too: they are counted only in damaged files without an index.
        between = 0
        if (damage or undecoded or absent) and not self.decoder.indexed():
            slots = self.decoder.slots.missing() if self.span.start is None and not self.span.ends else None
            between = (steps.missing() or 0) if slots is None else slots
            # A damaged timestamp makes a gap, too: the number is limited to the frames that fit into the stream.
            usual, end = steps.usual(), self._end()
            if usual and end is not None:
                most = round(float(end - self._first_pts) / usual)
                between = min(between, max(0, most - steps.frames - undecoded - absent))
        why = f" ({damage})" if damage else ""
        losses: dict[str, int] = {"cannot be decoded": undecoded, "missing from the numbered pictures": holes}
        losses |= {f"missing from the file{why}": absent}
        for words, frames in (losses | {f"missing between timestamps{why}": between}).items():
            if frames:
                self.lost[words] += frames

    def _end(self) -> Fraction | None:
        """End of the stream in ticks by the duration that Matroska declares."""
        hours, minutes, seconds = (self.decoder.stream.metadata.get("DURATION", "").split(":") + ["", "", ""])[:3]
        with contextlib.suppress(ValueError):
            return (int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)) / self.time_base
        return None

    def _cut_off(self, last: DecodedFrame | None, steps: Steps) -> int:
        """Number of frames missing after the last one."""
        usual, end = steps.usual(), self._end()
        return max(0, round(float(end - last.pts) / usual) - 1) if last and usual and end is not None else 0
