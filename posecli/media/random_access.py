"""Access to the frames of a video in any order: the same numbers, times and pixels as VideoReader gives in sequence."""

import gc
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame

from posecli.errors import MediaError
from posecli.media.aspect import PixelAspect
from posecli.media.decoding import AnyPacket, DecodedFrame, Decoder, reason
from posecli.media.packet_index import PacketIndex, packet_index
from posecli.media.sources import IMAGES_RATE, VideoSource, source_of
from posecli.media.upright import FrameConverter
from posecli.text import printed
from posecli.types import Frame

LOG = logging.getLogger(__name__)

# Bytes of decoded frames that are kept: 180 frames of 1280x720 pixels.
CACHE_BYTES = 256 << 20
# A video of more frames than this between two usable key frames is said to be slow.
_LONG = 1000
# Frames that a decoder holds, about.
_DECODER_FRAMES = 20
# Bytes of unused frames that are always allowed.
_LEAST_GARBAGE = 16 << 20
# Seconds; times in records are rounded to 1e-6.
_SAME_TIME = 2e-6


class RandomAccess:
    """The frames of a video in any order; a context manager. Its methods may be called from any thread.

    source: as of VideoReader, not a live one. cache_bytes: limit of the decoded frames that are kept. damaged:
    it is known to have lost frames, so that all is decoded from the start.

    Frames are decoded from the key frame before them, or where decoding stopped, if that is nearer; all frames on the
    way are kept within the limit, so that steps in either direction decode each group of pictures about once. Key
    frames are used only where decoding from them is exact. Where the packets' times do not tell the frames' numbers, or
    decoding from a key frame gives anything but the expected frames, all is decoded from the start instead, which is
    logged. In a damaged video numbers and times are those of VideoReader, too; the pixels of a picture whose data are
    damaged may differ, as they sometimes do between two readings in order.

    Raises MediaError for a source that cannot be opened, is live, or has no frame.
    """

    def __init__(
        self,
        source: Path | str,
        *,
        cache_bytes: int = CACHE_BYTES,
        image_rate: Fraction = IMAGES_RATE,
        damaged: bool = False,
    ) -> None:
        self.source: VideoSource = source_of(source)
        if self.source.live:
            raise MediaError(f"{self.source.shown}: a live source is read only once, its frames cannot be looked up")
        self._image_rate, self._limit = image_rate, cache_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, DecodedFrame] = OrderedDict()
        self._bytes = self._garbage = 0
        self._converted: set[int] = set()
        self.closed = False
        self._index: PacketIndex | None = None
        self._indexed = damaged
        self._decoder = Decoder(self.source, image_rate)
        try:
            self._prepare()
        except BaseException:
            self._decoder.close()
            raise

    def _prepare(self) -> None:
        """Decode the first frame, by which the converter knows whose aspect ratio of pixels holds."""
        decoder, images = self._decoder, self.source.kind == "images"
        self.time_base = decoder.time_base
        self._frames: Iterator[DecodedFrame] = iter(decoder)  # from the frame _next on, or from a later one
        first = next(self._frames, None)
        if first is None:
            raise MediaError(f"{self.source.shown}: no frame of it can be decoded")
        self._converter = FrameConverter(None if images else PixelAspect(decoder.stream, decoder.container.format.name))
        self._converter.geometry(first.frame)
        self._frame_bytes = _bytes_of(first.frame)
        self._next = first.index + 1
        self._keep(first)

    def __enter__(self) -> "RandomAccess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the source and the frames; frame raises MediaError from then on.

        closed is also true after the source could not be opened a second time.
        """
        with self._lock:
            self.closed = True
            self._kept.clear()
            self._bytes = 0
            self._decoder.close()

    @property
    def sequential(self) -> bool:
        """Whether frames are found by decoding from the start."""
        return self._indexed and self._index is None and self.source.kind != "images"

    def frame(self, number: int, time: float | None = None) -> Frame:
        """The frame of this number in the source, with its time in seconds.

        time: that of the frame when it was read in sequence, where it is known: where the index gives another one, it
        is no longer used.

        Raises MediaError where there is no such frame, where it cannot be decoded or converted, or has another time.
        """
        with self._lock:
            if self.closed:
                raise MediaError(f"{self.source.shown}: closed")
            item = self._get(number)
            if time is not None and not self._is_at(item, time) and self._index is not None:
                self._distrust(f"frame {number} is not at {time:.6f} s")
                item = self._get(number)
            if time is not None and not self._is_at(item, time):
                raise MediaError(f"{self.source.shown}: frame {number} is not at {time:.6f} s: the file was changed")
            self._converted.add(number)
            try:
                pixels = self._converter(item.frame)
            except (FFmpegError, ValueError, MemoryError) as error:
                raise MediaError(
                    f"{self.source.shown}: frame {number} cannot be converted ({reason(error)})"
                ) from error
            return Frame(pixels, item.index, item.pts * self.time_base)

    def _is_at(self, item: DecodedFrame, time: float) -> bool:
        return abs(float(item.pts * self.time_base) - time) < _SAME_TIME

    def _get(self, number: int) -> DecodedFrame:
        item = self._kept.get(number)
        if item is not None:
            self._kept.move_to_end(number)
            return item
        if number < 0:
            raise MediaError(f"{self.source.shown}: frames are numbered from 0, there is no frame {number}")
        try:
            return self._reach(number)
        except _NotAsIndexed as error:
            self._distrust(str(error))
        return self._reach(number)

    def _distrust(self, why: str) -> None:
        """Decode from the start from now on."""
        LOG.warning("%s: %s: frames are decoded from the start", printed(self.source.shown), why)
        self._index = None
        self._kept.clear()
        self._bytes = 0
        self._restart()

    def _reach(self, number: int) -> DecodedFrame:
        """Decode up to a frame. Raises _NotAsIndexed where the index is not right."""
        near = self._next <= number
        if not (near and number == self._next):
            start = self._start_of(number)
            if not near or start > self._next:
                self._start(number)
        for item in self._frames:
            self._next = item.index + 1
            self._keep(item)
            if item.index == number:
                return item
            if item.index > number:
                raise MediaError(f"{self.source.shown}: frame {number} is lost, it cannot be decoded")
        raise MediaError(f"{self.source.shown}: there is no frame {number}, or it cannot be decoded")

    def _start_of(self, number: int) -> int:
        """The first frame that would be decoded to reach this one from a key frame."""
        if self.source.kind == "images":
            return number
        index = self._packets()
        if index is None or number >= len(index.shown) or (entry := index.entry(number)) is None:
            return 0
        return index.first(entry)

    def _start(self, number: int) -> None:
        """Begin to decode at a key frame before this one."""
        if self.source.kind == "images":
            self._decoder.start_at_image(number)
            self._frames, self._next = iter(self._decoder), number
            return
        index = self._packets()
        if index is not None and number >= len(index.shown):
            raise MediaError(f"{self.source.shown}: there is no frame {number}, it has {len(index.shown)}")
        entry = None if index is None else index.entry(number)
        if index is None or not entry:  # the first packet needs no search
            self._restart()
            return
        self._frames, self._next = _decoded_from(self._decoder, index, entry), index.first(entry)

    def _restart(self) -> None:
        """Begin to decode at the start of the source."""
        self._decoder.close()
        try:
            self._decoder = Decoder(self.source, self._image_rate)
        except MediaError:
            self.closed = True
            raise
        self._frames, self._next = iter(self._decoder), 0
        self._collect(_DECODER_FRAMES * self._frame_bytes)

    def _packets(self) -> PacketIndex | None:
        """The index of packets, made at the first call; None where it cannot be used."""
        if self._indexed:
            return self._index
        self._indexed = True
        decoder = Decoder(self.source, self._image_rate)
        try:
            index = packet_index(decoder.stream, decoder.packets(), decoder.container.format.name)
            problem = decoder.damage or index.problem
        finally:
            decoder.close()
        if problem:
            LOG.warning("%s: %s: frames are decoded from the start", printed(self.source.shown), problem)
            return None
        if index.longest > _LONG:
            frames = f"{index.longest:,} frames between usable key frames"
            LOG.warning("%s: %s: to look one up takes long", printed(self.source.shown), frames)
        self._index = index
        return index

    def _keep(self, item: DecodedFrame) -> None:
        """Keep a decoded frame; the least recently used ones are dropped."""
        if item.index in self._kept:
            self._kept.move_to_end(item.index)
            return
        self._kept[item.index] = item
        self._bytes += _bytes_of(item.frame)
        while self._bytes > self._limit and len(self._kept) > 1:
            number, dropped = self._kept.popitem(last=False)
            size = _bytes_of(dropped.frame)
            del dropped
            self._bytes -= size
            self._free(number, size)

    def _free(self, number: int, size: int) -> None:
        """Note that a frame is no longer kept."""
        if number in self._converted:
            self._converted.discard(number)
            self._collect(size)

    def _collect(self, size: int) -> None:
        """Free memory of so many bytes, at the latest when there is much of it.

        A frame of PyAV and its side data, in which the converter looks for the orientation, refer to each other, as do
        a container and its streams. Python frees such objects by their number, not by their megabytes.
        """
        self._garbage += size
        if self._garbage > max(self._limit // 4, _LEAST_GARBAGE):
            self._garbage = 0
            gc.collect()


class _NotAsIndexed(Exception):
    """Decoding from a key frame did not give the frames that the index has."""


def _decoded_from(decoder: Decoder, index: PacketIndex, entry: int) -> Iterator[DecodedFrame]:
    """The frames from an entry of the index to the end. Raises _NotAsIndexed where they differ from the index."""
    start, number = index.times[entry], index.first(entry)
    for packet in chain(_packets_from(decoder, index, entry), [None]):
        try:
            frames = decoder.stream.codec_context.decode(packet)
        except FFmpegError as error:
            raise _NotAsIndexed(reason(error)) from error
        for frame in frames:
            if frame.pts is not None and frame.pts < start:  # needs frames before the entry
                continue
            if frame.is_corrupt or frame.pts is None or number >= len(index.shown) or index.shown[number] != frame.pts:
                raise _NotAsIndexed(f"frame {number} is not decoded as expected from the key frame before it")
            yield DecodedFrame(frame, number, frame.pts)
            number += 1
    if number < len(index.shown):
        raise _NotAsIndexed(f"frame {number} is not decoded")


def _packets_from(decoder: Decoder, index: PacketIndex, entry: int) -> Iterator[AnyPacket]:
    """Packets from an entry on, each as in the index."""
    packets, place = _sought(decoder, index, entry)
    for packet in packets:
        if decoder.damage or place >= len(index.times) or packet.pts != index.times[place]:
            raise _NotAsIndexed(decoder.damage or "its packets differ from those that were read at first")
        if place >= entry:
            yield packet
        place += 1
    if place < len(index.times):
        raise _NotAsIndexed(decoder.damage or "it ends earlier than when it was read at first")


def _sought(decoder: Decoder, index: PacketIndex, entry: int) -> tuple[Iterator[AnyPacket], int]:
    """Packets from an entry or from before it, and the place of the first one."""
    before = int(np.searchsorted(index.entries, entry))
    # Containers seek by different times, and some inexactly: where it ends behind the entry, begin further back.
    for back in (0, 1, 2, 8, before):
        target = int(index.times[index.entries[max(0, before - back)]])
        try:
            decoder.container.seek(target, stream=decoder.stream)
            packets = (packet for packet, _ in decoder.packets())
            first = next(packets)
        except (FFmpegError, StopIteration):
            continue
        place = index.place(first.pts)
        if place is not None and place <= entry:
            return chain([first], packets), place
    raise _NotAsIndexed("its container cannot seek to its key frames")


def _bytes_of(frame: VideoFrame) -> int:
    return frame.width * frame.height * frame.format.padded_bits_per_pixel // 8
