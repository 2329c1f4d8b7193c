"""Packets to decoded frames, each with its number in the source and its time; damage costs only what it hits."""

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
from posecli.media.streams import pictured

AnyPacket: TypeAlias = "Packet[Any]"

# A damaged container may fail at every packet for ever.
_MOST_ERRORS = 1000
# A frame waits for at most so many packets before it is shown (H.264 and HEVC: 16).
_REORDER = 32
# A transport stream marks the packet before a lost one in decoding order, or one close to it.
_NEAR = 4
# Audio of a live source that waits for a writer: about a minute. Older packets go where none comes.
_AUDIO_PACKETS = 4096


@dataclass(frozen=True, eq=False)
class DecodedFrame:
    """A frame as it is stored, its number in the source and its time in ticks of the stream."""

    frame: VideoFrame
    index: int
    pts: int


class Decoder:
    """The main video stream of an open source. frames, seek and close are for one thread.

    time_base, frame_rate: the stream's; frame_rate is None where it is unknown. damage: the last reason why
    something could not be read, or "". audio_packets: packets of a live source's first audio stream, in order.

    Raises MediaError for what cannot be opened, has no video stream or only sound.
    """

    def __init__(self, source: VideoSource, picture_rate: Fraction) -> None:
        self.source = source
        self.damage = ""
        self.frame_numbers = FrameNumbers()
        self.audio_packets: deque[AnyPacket] = deque(maxlen=_AUDIO_PACKETS)
        self._picture_rate = picture_rate
        self._pictures = source.pictures()
        places = [*self._pictures]
        # Places of numbered pictures without a file, in order.
        self.holes = sorted({*range(places[-1] + 1)} - {*places}) if places else []
        # Frame threads are quicker; after damage they lose frames that can be decoded. A live source has one chance.
        self._open(threads="SLICE" if source.live else "AUTO")

    def _open(self, threads: Literal["SLICE", "AUTO"]) -> None:
        try:
            self.container = open_source(self.source, self._picture_rate)
        except (FFmpegError, OSError, ValueError) as error:
            raise MediaError(f"{self.source.shown}: cannot be opened as a video ({reason(error)})") from error
        stream, sounds = pictured(self.container), self.container.streams.audio
        if stream is None:
            unknown = any(s.codec_context is None for s in self.container.streams.video)
            self.container.close()
            if unknown:
                raise MediaError(f"{self.source.shown}: there is no decoder for its video codec")
            raise MediaError(f"{self.source.shown}: {'only sound, no' if sounds else 'no'} video stream")
        self.stream: VideoStream = stream
        self.audio_stream: AudioStream | None = sounds[0] if sounds else None
        # Threads end only when the container is closed.
        self.stream.thread_type = self._threads = threads
        self.time_base = Fraction(self.stream.time_base or Fraction(1, 90000))
        self.frame_rate = Fraction(self.stream.average_rate) if self.stream.average_rate else None
        self._usual_step = max(1, round(1 / (self.frame_rate * self.time_base))) if self.frame_rate else 1
        # AVI holds no times; those that FFmpeg makes of its order are wrong where B-frames are packed.
        # So are those of an edit list that repeats or reorders: they go back.
        self._by_order = self.container.format.name == "avi"
        self._goes_back = any(b.timestamp <= a.timestamp for a, b in pairwise(self.stream.index_entries))
        # None where it is unknown which packets are next to damage.
        self._near: set[int] | None = set() if self.container.format.name == "mpegts" else None
        self._near_decoding: set[int] = set()
        self._recent: deque[tuple[int, int]] = deque(maxlen=_NEAR)
        self._still_near = 0
        self.slots = Slots(lambda dts: dts in self._near_decoding)
        packets = self._read_pictures() if self._pictures else self._packets()
        self._frames = self._decode(packets, FrameNumbers())
        self._last_pts: int | None = None

    def __iter__(self) -> Iterator[DecodedFrame]:
        """Frames in the order they are shown; a second loop continues where the first one stopped.

        A time that is missing or does not grow becomes the one before plus the usual step.
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
        """Decode again without frame threads, from a place before the last frame that came out."""
        last = self._last_pts
        self.container.close()
        self._open("SLICE")
        if last is not None:
            self.seek(Fraction(last))
            self._frames = _after(last, self._frames)

    def close(self) -> None:
        """Release the source and the decoder's threads."""
        self._frames.close()
        self.container.close()

    def indexed(self) -> int:
        """How many frames to be shown the container's index holds; 0 where it has none of all frames."""
        if self._pictures:
            return len(self._pictures) + len(self.holes)
        if not self.stream.frames:
            return 0  # only a list of places to seek to
        held = sum(not entry.is_discard for entry in self.stream.index_entries)
        return max(held, self.stream.frames) if self._by_order and self._is_cut() else held

    def hidden(self) -> int:
        """How many of the frames that the container holds its edit list never shows, however often it shows others."""
        shown = [entry.pos for entry in self.stream.index_entries if not entry.is_discard]
        # FFmpeg's index has little of what precedes and follows an edit.
        if not self.stream.frames or "mov" not in self.container.format.name.split(","):
            return 0
        return 0 if len(shown) == self.stream.frames and not self._goes_back else self.stream.frames - len({*shown})

    def promised(self, first: int, step: float | None) -> int:
        """How many frames to be shown there should have been, once all were read; 0 where it is unknown.

        first: the first one's time in ticks; step: the usual one, where there is one. A fragmented MP4 has its index
        in pieces: that of a piece that was cut off is there, and an index of pieces may tell how long all of them are.
        """
        if self.indexed() or "mov" not in self.container.format.name.split(","):
            return self.indexed()
        found = sum(not entry.is_discard for entry in self.stream.index_entries)
        whole = round((self.stream.duration - first) / step) if step and self.stream.duration else 0
        # Durations begin at the first frame's time or at zero, which is a few frames earlier.
        return whole if whole > found + 2 else found

    def _is_cut(self) -> bool:
        """Whether an AVI is shorter than its header says; its index went with its end then."""
        path = Path(self.source.address)
        with path.open("rb") as file:
            promised = int.from_bytes(file.read(8)[4:], "little")
        return path.stat().st_size < promised

    def seek(self, start: Fraction | int) -> bool:
        """Go to a key frame some frames before start: ticks of the stream as a Fraction, or a frame's number.

        Only where the index has the number of every frame and there is something to skip; else returns False
        and nothing changes.
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
            # Not where the index says: from the beginning then, for exact numbers.
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
            if packet is not None and self._pictures:
                while frame_numbers.sent < (packet.pts or 0):  # no picture of this number
                    frame_numbers.send(frame_numbers.sent)
            if packet is not None and shown:
                frame_numbers.send(None if unmatched else packet.pts)
            for frame in self._decode_packet(packet):
                stamp = frame.dts if self._by_order else frame.pts
                index = frame_numbers.show(None if unmatched else stamp)
                self._check(index == number + 1 or bool(self._pictures))
                if stamp is None or (previous is not None and stamp <= previous.pts):
                    stamp = 0 if previous is None else previous.pts + self._usual_step
                previous, number = DecodedFrame(frame, index, stamp), index
                yield previous
        self._check(number + 1 >= frame_numbers.sent)

    def _decode_packet(self, packet: "AnyPacket | None") -> list[VideoFrame]:
        """The frames that come out when a packet goes in; None ends the stream."""
        try:
            return self.stream.codec_context.decode(packet)
        except FFmpegError as error:
            self.damage = reason(error)
            self._check(False)
            return []

    def is_near_damage(self, pts: int) -> bool:
        """Whether a frame of this time may have lost a neighbour; True where the container cannot tell."""
        return self._near is None or pts in self._near

    def _note(self, packet: AnyPacket, shown: bool) -> None:
        """Remember what is near damage, and the packet's place among the others."""
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
        """The video stream's packets; an error of the container is passed over where that is possible."""
        wanted = [self.stream]
        keep_audio = self.source.live and self.audio_stream is not None
        errors = 0
        packets = self.container.demux(self.stream, self.audio_stream) if keep_audio else self.container.demux(wanted)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, IndexError):
                # PyAV trips at the end over streams that a damaged transport stream seemed to gain.
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

    def _read_pictures(self) -> Generator[AnyPacket, None, None]:
        """Numbered pictures, one a packet, whose time is its place; one that cannot be read is passed over."""
        for place, path in self._pictures.items():
            try:
                packet = Packet(path.read_bytes())
            except OSError as error:
                self.damage = f"{path.name}: {reason(error)}"
                continue
            if packet.size:
                packet.stream = self.stream
                packet.pts = packet.dts = place
                packet.time_base = self.time_base
                packet.is_keyframe = True
                yield packet


class _FrameThreadsFailed(Exception):
    """Something could not be decoded by frame threads."""


def _after(pts: int, frames: Generator[DecodedFrame, None, None]) -> Generator[DecodedFrame, None, None]:
    with contextlib.closing(frames):
        for frame in frames:
            if frame.pts > pts:
                yield frame


def _is_shown(packet: AnyPacket) -> bool:
    """Whether a frame to be shown is in it."""
    if packet.is_discard:  # hidden by an edit list
        return False
    codec = packet.stream.codec_context.name
    if codec == "vp8":  # has frames that others only refer to
        return bool(memoryview(packet)[0] >> 4 & 1)
    # A transport stream made from an AVI with packed B-frames keeps the AVI's placeholders.
    return codec != "mpeg4" or packet.size > 8 or packet.stream.container.format.name != "mpegts"


def reason(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, FFmpegError) and error.strerror:
        return str(error.strerror)
    return (str(error).splitlines() or [type(error).__name__])[0]
