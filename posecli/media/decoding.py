"""Decoding of packets to frames with their number in the source and their time, robust to damaged packets."""

import contextlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

from av.audio.stream import AudioStream
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from posecli.errors import MediaError
from posecli.media.lost_frames import FrameNumbers, Slots
from posecli.media.sources import VideoSource, open_source
from posecli.media.streams import main_video_stream

AnyPacket: TypeAlias = "Packet[Any]"

# Limit of errors of a damaged container, which may fail at every packet.
_MOST_ERRORS = 1000
# Upper limit of the decoder's reordering delay in packets (H.264 and HEVC: 16).
_REORDER = 32
# Packets around a marked one that count as near damage: a transport stream marks a packet close to a lost one.
_NEAR = 4
# Audio packets of a live source that are kept for a writer: about a minute. Older ones are dropped.
_AUDIO_PACKETS = 4096


@dataclass(frozen=True, eq=False)
class DecodedFrame:
    """A frame as stored, its number in the source and its time in units of the stream's time base."""

    frame: VideoFrame
    index: int
    pts: int


class Decoder:
    """The main video stream of an open source. frames, seek and close are for one thread.

    time_base, frame_rate: the stream's; frame_rate is None where unknown. damage: the last error of reading, or "".
    audio_packets: packets of a live source's first audio stream, in order.

    Raises MediaError for a source that cannot be opened or has no video stream.
    """

    def __init__(self, source: VideoSource, image_rate: Fraction) -> None:
        self.source = source
        self.damage = ""
        self.frame_numbers = FrameNumbers()
        self.audio_packets: deque[AnyPacket] = deque(maxlen=_AUDIO_PACKETS)
        self._image_rate = image_rate
        self._images = source.numbered_images()
        places = [*self._images]
        # Numbers of missing numbered images, in order.
        self.holes = sorted({*range(places[-1] + 1)} - {*places}) if places else []
        # Frame threads are faster, but lose decodable frames after damage; a live source cannot be decoded again.
        self._open(threads="SLICE" if source.live else "AUTO")

    def _open(self, threads: Literal["SLICE", "AUTO"]) -> None:
        try:
            self.container = open_source(self.source, self._image_rate)
        except (FFmpegError, OSError, ValueError) as error:
            raise MediaError(f"{self.source.shown}: cannot be opened as a video ({reason(error)})") from error
        stream, sounds = main_video_stream(self.container), self.container.streams.audio
        if stream is None:
            unknown = any(s.codec_context is None for s in self.container.streams.video)
            self.container.close()
            if unknown:
                raise MediaError(f"{self.source.shown}: there is no decoder for its video codec")
            raise MediaError(f"{self.source.shown}: {'only sound, no' if sounds else 'no'} video stream")
        self.stream: VideoStream = stream
        self.audio_stream: AudioStream | None = sounds[0] if sounds else None
        # The decoder's threads end only when the container is closed.
        self.stream.thread_type = self._threads = threads
        self.time_base = Fraction(self.stream.time_base or Fraction(1, 90000))
        self.frame_rate = Fraction(self.stream.average_rate) if self.stream.average_rate else None
        self._usual_step = max(1, round(1 / (self.frame_rate * self.time_base))) if self.frame_rate else 1
        # AVI has no timestamps; those that FFmpeg derives from the order are wrong with packed B-frames.
        # So are those of an edit list that repeats or reorders frames: they decrease.
        self._by_order = self.container.format.name == "avi"
        self._goes_back = any(b.timestamp <= a.timestamp for a, b in pairwise(self.stream.index_entries))
        # None where it is unknown which packets are near damage.
        self._near: set[int] | None = set() if self.container.format.name == "mpegts" else None
        self._near_decoding: set[int] = set()
        self._recent: deque[tuple[int, int]] = deque(maxlen=_NEAR)
        self._still_near = 0
        self.slots = Slots(lambda dts: dts in self._near_decoding)
        packets = self._read_images() if self._images else self._packets()
        self._frames = self._decode(packets, FrameNumbers())
        self._last_pts: int | None = None

    def __iter__(self) -> Iterator[DecodedFrame]:
        """Frames in presentation order; a second loop continues where the first one stopped.

        A timestamp that is missing or does not increase becomes the previous one plus the usual step.
        """
        while True:
            try:
                frame = next(self._frames, None)
            except _FrameThreadsFailed:
                self._start_over()
                continue
            if frame is None:
                return
            self._last_pts = frame.pts
            yield frame

    def _start_over(self) -> None:
        """Decode again without frame threads, from a position before the last decoded frame."""
        last = self._last_pts
        self.container.close()
        self._open("SLICE")
        if last is not None:
            self.seek(Fraction(last))
            self._frames = _after(last, self._frames)

    def packets(self) -> Iterator[tuple[AnyPacket, bool]]:
        """The container's packets of the stream from the present position on, and whether each has a shown frame.

        Instead of iteration over frames, not beside it, and not for numbered images. Errors of the container are
        skipped where possible; they are in damage.
        """
        for packet in self._packets():
            yield packet, _is_shown(packet)

    def start_at_image(self, place: int) -> None:
        """Go on with the numbered image of this index, or with the next one that there is."""
        self._frames.close()
        self.stream.codec_context.flush_buffers()
        self._frames = self._decode(self._read_images(place), FrameNumbers(place))
        self._last_pts = place - 1

    def close(self) -> None:
        """Release the source and the decoder's threads."""
        self._frames.close()
        self.container.close()

    def indexed(self) -> int:
        """Number of shown frames in the container's index; 0 where it has no index of all frames."""
        if self._images:
            return len(self._images) + len(self.holes)
        if not self.stream.frames:
            return 0  # only an index of key frames
        held = sum(not entry.is_discard for entry in self.stream.index_entries)
        return max(held, self.stream.frames) if self._by_order and self._is_truncated() else held

    def hidden(self) -> int:
        """Number of the container's frames that its edit list does not show."""
        shown = [entry.pos for entry in self.stream.index_entries if not entry.is_discard]
        # FFmpeg's index lacks most frames before and after an edit.
        if not self.stream.frames or "mov" not in self.container.format.name.split(","):
            return 0
        return 0 if len(shown) == self.stream.frames and not self._goes_back else self.stream.frames - len({*shown})

    def expected_frames(self, first: int, step: float | None) -> int:
        """Number of frames that the container declares, after all were read; 0 where unknown.

        first: time of the first frame in ticks; step: the usual step, if there is one. In a fragmented MP4 the index of
        a truncated fragment is complete, and an index of fragments may give the duration of all of them.
        """
        if self.indexed() or "mov" not in self.container.format.name.split(","):
            return self.indexed()
        found = sum(not entry.is_discard for entry in self.stream.index_entries)
        whole = round((self.stream.duration - first) / step) if step and self.stream.duration else 0
        # Durations start at the first frame's time, or at zero, which is a few frames earlier.
        return whole if whole > found + 2 else found

    def _is_truncated(self) -> bool:
        """Whether an AVI is shorter than its header says; its index, at the end, is then missing."""
        path = Path(self.source.address)
        with path.open("rb") as file:
            promised = int.from_bytes(file.read(8)[4:], "little")
        return path.stat().st_size < promised

    def seek(self, start: Fraction | int) -> bool:
        """Seek to a key frame before start: a time in ticks as a Fraction, or a frame's number.

        Only where the index has the number of every frame and there are frames to skip; else returns False without
        seeking.
        """
        if self.source.live or not self.indexed() or self._goes_back:
            return False
        numbers: dict[int, int] = {}  # key frames' decoding times → numbers of frames before them
        number, target = 0, None
        for entry in self.stream.index_entries:
            if entry.is_keyframe:
                numbers[entry.timestamp] = number
                if isinstance(start, int):
                    skippable = number <= start - _REORDER
                else:
                    skippable = entry.timestamp <= start - _REORDER * self._usual_step
                target = entry.timestamp if skippable else target
            number += not entry.is_discard
        if target is None or not numbers[target]:
            return False
        self._frames.close()
        try:
            self.container.seek(target, stream=self.stream)
            packets = self._packets()
            first = next(packets)
            self._frames = self._decode(chain([first], packets), FrameNumbers(numbers[first.dts or 0]))
        except (FFmpegError, StopIteration, KeyError):
            # Not the frame of the index: start from the beginning, for exact numbers.
            self.container.close()
            self._open(self._threads)
        return True

    def _decode(self, packets: Iterable[AnyPacket], frame_numbers: FrameNumbers) -> Generator[DecodedFrame, None, None]:
        self.frame_numbers = frame_numbers
        previous: DecodedFrame | None = None
        number = frame_numbers.index - 1
        unmatched = self._by_order or self._goes_back
        for packet in chain(packets, [None]):
            shown = packet is not None and _is_shown(packet)
            if packet is not None:
                self._note(packet, shown)
            if packet is not None and self._images:
                while frame_numbers.sent < (packet.pts or 0):  # no image with this number
                    frame_numbers.send(frame_numbers.sent)
            if packet is not None and shown:
                frame_numbers.send(None if unmatched else packet.pts)
            for frame in self._decode_packet(packet):
                stamp = frame.dts if self._by_order else frame.pts
                index = frame_numbers.show(None if unmatched else stamp)
                self._check(index == number + 1 or bool(self._images))
                if stamp is None or (previous is not None and stamp <= previous.pts):
                    stamp = 0 if previous is None else previous.pts + self._usual_step
                previous, number = DecodedFrame(frame, index, stamp), index
                yield previous
        self._check(number + 1 >= frame_numbers.sent)

    def _decode_packet(self, packet: "AnyPacket | None") -> list[VideoFrame]:
        """Send a packet to the decoder (None at the end) and return the decoded frames."""
        try:
            return self.stream.codec_context.decode(packet)
        except FFmpegError as error:
            self.damage = reason(error)
            self._check(False)
            return []

    def is_near_damage(self, pts: int) -> bool:
        """Whether a neighbour of the frame of this time may be lost; True where the container does not mark damage."""
        return self._near is None or pts in self._near

    def _note(self, packet: AnyPacket, shown: bool) -> None:
        """Record a packet's position, and whether it is near damage."""
        if self._near is None or packet.pts is None or packet.dts is None:
            return
        if packet.is_corrupt:
            self._near.update(pts for pts, _ in self._recent)
            self._near_decoding.update(dts for _, dts in self._recent)
            self._still_near = _NEAR + 1
        if self._still_near:
            self._near.add(packet.pts)
            self._near_decoding.add(packet.dts)
            self._still_near -= 1
        self._recent.append((packet.pts, packet.dts))
        self.slots.add(packet.dts, shown)

    def _check(self, intact: bool) -> None:
        if not intact and self._threads == "AUTO":
            raise _FrameThreadsFailed

    def _packets(self) -> Generator[AnyPacket, None, None]:
        """The video stream's packets; errors of the container are skipped where possible."""
        wanted = [self.stream]
        keep_audio = self.source.live and self.audio_stream is not None
        errors = 0
        packets = self.container.demux(self.stream, self.audio_stream) if keep_audio else self.container.demux(wanted)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, IndexError):
                # PyAV raises at the end for spurious streams of a damaged transport stream.
                return
            except FFmpegError as error:
                self.damage = reason(error)
                errors += 1
                if errors == _MOST_ERRORS or self.source.live:
                    return
                packets = self.container.demux(wanted)
                continue
            errors = 0
            if packet.is_corrupt:
                self.damage = self.damage or "packets marked as corrupt"
            if packet.stream_index != self.stream.index:
                self.audio_packets.append(packet)
            elif packet.size:
                yield packet

    def _read_images(self, start: int = 0) -> Generator[AnyPacket, None, None]:
        """Packets of numbered images from this index on, whose time is their position; unreadable ones are skipped."""
        for place, path in self._images.items():
            if place < start:
                continue
            try:
                packet = _packet(path.read_bytes())
            except OSError as error:
                self.damage = f"{path.name}: {reason(error)}"
                continue
            if packet.size:
                packet.stream = self.stream
                packet.pts = packet.dts = place
                packet.time_base = self.time_base
                packet.is_keyframe = True
                yield packet


def _packet(content: bytes) -> AnyPacket:
    """A packet with a copy of the content in FFmpeg's memory.

    Packet(content) refers to Python's memory, which a frame thread of the decoder can free only with the global
    interpreter lock: PyAV holds that lock while it waits for these threads to end, so both would wait for ever.
    """
    packet = Packet(len(content))
    packet.update(content)
    return packet


class _FrameThreadsFailed(Exception):
    """Something could not be decoded by frame threads."""


def _after(pts: int, frames: Generator[DecodedFrame, None, None]) -> Generator[DecodedFrame, None, None]:
    with contextlib.closing(frames):
        for frame in frames:
            if frame.pts > pts:
                yield frame


def _is_shown(packet: AnyPacket) -> bool:
    """Whether a packet has a frame that is shown."""
    if packet.is_discard:  # not shown by an edit list
        return False
    codec = packet.stream.codec_context.name
    if codec == "vp8":  # has reference frames that are not shown
        return bool(memoryview(packet)[0] >> 4 & 1)
    # A transport stream made from an AVI with packed B-frames has the AVI's placeholder packets.
    return codec != "mpeg4" or packet.size > 8 or packet.stream.container.format.name != "mpegts"


def reason(error: BaseException) -> str:
    """An error's message in one line."""
    if isinstance(error, FFmpegError) and error.strerror:
        return str(error.strerror)
    return (str(error).splitlines() or [type(error).__name__])[0]
