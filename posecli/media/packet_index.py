"""Index of a video's packets: times, and the key frames from which decoding gives the same frames as from the start."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

# Codecs whose key frames need no earlier frame, and no frame shown after a key frame needs one from before it. H.264
# and HEVC mark other frames as key frames too: their packets are examined.
_PLAIN_NAMES = "mpeg1video mpeg2video mpeg4 vp8 vp9 av1 mjpeg prores dnxhd png jpeg2000 ffv1 ffvhuff huffyuv rawvideo"
_PLAIN = frozenset(_PLAIN_NAMES.split())
_SEI, _IDR = 6, 5
_RECOVERY_POINT = 6
# HEVC: pictures of random access (IDR, CRA, BLA).
_IRAP = range(16, 22)
# Upper limit of a packet's distance in decoding order from its place in order of presentation (H.264 and HEVC: 16).
_REORDER = 32
_UNKNOWN = -(1 << 62)


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """times (P,) int64: presentation times of the packets in decoding order, in ticks of the stream.

    shown (N,) int64: times of the packets that have a shown frame, sorted; a frame's number is its place there. entries
    (E,) int64: packets, by their place in decoding order, from which all frames are decoded that are shown after them.
    problem: why the index cannot be used, None where it can.
    """

    times: NDArray[np.int64]
    shown: NDArray[np.int64]
    entries: NDArray[np.int64]
    problem: str | None = None

    def entry(self, number: int) -> int | None:
        """The last entry from which the frame of this number is decoded; None without any."""
        starts = self.times[self.entries]
        place = int(np.searchsorted(starts, self.shown[number], side="right")) - 1
        return None if place < 0 else int(self.entries[place])

    def first(self, entry: int) -> int:
        """The number of the first frame that is decoded from this entry."""
        return int(np.searchsorted(self.shown, self.times[entry]))

    def place(self, time: int | None) -> int | None:
        """The place in decoding order of the packet of this time; None without any."""
        if time is None:
            return None
        found = int(np.searchsorted(self._sorted, time))
        same = found < len(self._sorted) and self._sorted[found] == time
        return int(self._order[found]) if same else None

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self.times)

    @cached_property
    def _sorted(self) -> NDArray[np.int64]:
        return self.times[self._order]

    @property
    def longest(self) -> int:
        """The largest number of packets from an entry to the next one."""
        return int(np.diff([*self.entries, len(self.times)]).max(initial=0))


def packet_index(stream: VideoStream, packets: Iterable[tuple["Packet[Any]", bool]], form: str) -> PacketIndex:
    """The index of all packets of a stream from its start, each with whether it has a shown frame.

    form: FFmpeg's name of the container's format.
    """
    name = stream.codec_context.codec.canonical_name
    length = _length_bytes(stream)
    times, shown, entries = list[int](), list[bool](), list[int]()
    corrupt = False
    for place, (packet, is_shown) in enumerate(packets):
        times.append(_UNKNOWN if packet.pts is None else packet.pts)
        shown.append(is_shown)
        corrupt = corrupt or packet.is_corrupt
        if packet.is_keyframe and _is_entry(name, packet, length):
            entries.append(place)
    all_times, is_shown_frame = np.array(times, np.int64), np.array(shown, bool)
    found = np.array(entries, np.int64)
    if len(found):
        # Frames before an entry in decoding order are shown before it, too.
        latest = np.concatenate([[_UNKNOWN - 1], np.maximum.accumulate(all_times)[:-1]])
        found = found[all_times[found] > latest[found]]
    problem = "packets are marked as corrupt" if corrupt else _problem(name, form, all_times, found)
    return PacketIndex(all_times, np.sort(all_times[is_shown_frame]), found, problem)


def _problem(codec: str, form: str, times: NDArray[np.int64], entries: NDArray[np.int64]) -> str | None:
    """Why frames cannot be found by the index."""
    if form == "avi":
        return "AVI files have no timestamps"
    if codec not in _PLAIN and codec not in ("h264", "hevc"):
        return f"key frames of {codec} are not known to be independent"
    if not len(times):
        return "it has no packets"
    if times.min() == _UNKNOWN:
        return "packets without timestamps"
    if len(np.unique(times)) < len(times):
        return "several packets have the same timestamp"
    if np.abs(np.argsort(np.argsort(times)) - np.arange(len(times))).max() > _REORDER:
        return "timestamps are not in the order of the frames"
    if not len(entries) or entries[0] != 0 or times[0] != times.min():
        return "it does not begin with a key frame"
    return None


def _is_entry(codec: str, packet: "Packet[Any]", length: int) -> bool:
    """Whether a key frame is one from which decoding is exact. length: bytes of NAL units' lengths, 0: start codes."""
    if codec in _PLAIN:
        return True
    data = memoryview(packet)
    if codec == "hevc":
        return any((unit[0] >> 1 & 63) in _IRAP for unit in _units(data, length))
    if codec != "h264":
        return False
    for unit in _units(data, length):
        kind = unit[0] & 31
        if kind == _IDR or (kind == _SEI and _recovers_at_once(bytes(unit[1:]))):
            return True
        if kind == 1:  # the picture
            return False
    return False


def _recovers_at_once(payload: bytes) -> bool:
    """Whether an SEI unit of H.264 says that all frames shown from here on are exact (recovery_frame_cnt 0)."""
    place = 0
    while place + 2 <= len(payload) and payload[place] != 0x80:
        kind = size = 0
        while place < len(payload) and payload[place] == 255:
            kind, place = kind + 255, place + 1
        kind, place = kind + (payload[place] if place < len(payload) else 0), place + 1
        while place < len(payload) and payload[place] == 255:
            size, place = size + 255, place + 1
        size, place = size + (payload[place] if place < len(payload) else 0), place + 1
        if kind == _RECOVERY_POINT:
            # A first bit 1 is the number 0. The next bit: exact_match_flag; without it frames are only similar.
            return place < len(payload) and payload[place] & 0xC0 == 0xC0
        place += size
    return False


def _length_bytes(stream: VideoStream) -> int:
    """Bytes of the lengths before NAL units, as in MP4 and Matroska; 0 where units have start codes."""
    extra = bytes(stream.codec_context.extradata or b"")
    if stream.codec_context.name == "h264" and len(extra) > 4 and extra[0] == 1:
        return (extra[4] & 3) + 1
    if stream.codec_context.name == "hevc" and len(extra) > 21 and extra[:3] not in (b"\0\0\0", b"\0\0\1"):
        return (extra[21] & 3) + 1
    return 0


def _units(data: memoryview, length: int) -> Iterable[memoryview]:
    """NAL units of a packet, not empty."""
    place = 0
    if length:
        while place + length < len(data):
            size = int.from_bytes(data[place : place + length], "big")
            place += length
            if size:
                yield data[place : place + size]
            place += size
        return
    content = bytes(data)
    place = content.find(b"\0\0\1")
    while place >= 0:
        end = content.find(b"\0\0\1", place + 3)
        unit = data[place + 3 : end if end >= 0 else len(data)]
        if len(unit):
            yield unit
        place = end
