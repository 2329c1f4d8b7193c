"""Copying or encoding of the source's audio into an annotated video."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any, TypeAlias

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from posecli.errors import is_full
from posecli.media.video import VideoReader

AnyPacket: TypeAlias = "Packet[Any]"


# Codecs that players support in MP4. FFmpeg writes more, such as PCM, which few players read.
_COPIED = frozenset(["aac", "mp3", "mp3float", "ac3", "eac3", "alac", "opus", "libopus", "flac"])
_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


class AudioTrack:
    """One of the source's audio streams, written into the output up to a given time.

    It is copied where players support its codec in MP4, else encoded as AAC, which is reported in warnings. With an
    origin set by begin (seconds on the source's timeline), earlier packets are left out, and the origin is time zero of
    the output. track: its number among the audio streams; live sources have only the first.

    Raises FFmpegError, ValueError or AttributeError for audio that cannot be read.
    """

    def __init__(self, output: OutputContainer, source: VideoReader, warnings: list[str], track: int = 0) -> None:
        self._output, self._reader, self._warnings = output, source, warnings
        self._live = source.source.live
        self._input = None if self._live else source.open_again()
        found = source.decoder.audio_stream if self._input is None else self._input.streams.audio[track]
        assert found is not None
        self._source = found
        self._resampler: AudioResampler | None = None
        try:
            self._stream: Any = self._add_stream(track)
        except BaseException:
            self.close()
            raise
        if language := found.metadata.get("language"):
            self._stream.metadata["language"] = language
        self._origin: Fraction | None = None
        self._flushed = False
        self._packets = self._encoded() if self._resampler else self._copied()
        self._pending: deque[AnyPacket] = deque()

    def _add_stream(self, track: int) -> Any:
        """Add the output's stream, for copied packets or for AAC."""
        codec = self._source.codec_context.name
        if codec in _COPIED:
            with suppress(ValueError, FFmpegError):  # it cannot be copied into MP4
                return self._output.add_stream_from_template(self._source)
        wanted = self._source.rate or 48000
        rate = next((rate for rate in _AAC_RATES if rate <= wanted), _AAC_RATES[-1])
        stream = self._output.add_stream("aac", rate=rate, layout="mono" if self._source.channels == 1 else "stereo")
        self._resampler = AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
        which = f" of track {track + 1}" if track else ""
        self._warnings.append(f"sound{which} encoded as AAC: few players find {codec} in MP4")
        return stream

    def begin(self, origin: Fraction) -> None:
        """Set, before the first write, the time of the source that is the output's zero. By default nothing is cut."""
        self._origin = origin
        if self._input is not None and origin > 1:
            # A second early: packets before the origin are dropped one by one.
            self._input.seek(int((origin - 1) * av.time_base))

    def write_until(self, time: Fraction | None, *, last: bool = False) -> None:
        """Write the packets that start before time, in seconds of the source; None: all. last: the last call."""
        self._flushed = last
        try:
            while True:
                if not self._pending:
                    packet = next(self._packets, None)
                    if packet is None:
                        if self._live and not last:
                            self._packets = self._encoded() if self._resampler else self._copied()
                        return
                    self._pending.append(packet)
                packet = self._pending[0]
                if time is not None and packet.pts is not None and packet.pts * packet.time_base > time:
                    return
                self._pending.popleft()
                shift = round((self._origin or 0) / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts - shift
                packet.dts = None if packet.dts is None else packet.dts - shift
                packet.stream = self._stream
                self._output.mux(packet)
        except (FFmpegError, ValueError) as error:
            if is_full(error):
                raise
            self._warnings.append(f"sound ends early: {error}")
            self._packets = iter(())
            self._pending.clear()

    def _copied(self) -> Iterator[AnyPacket]:
        for packet in self._read():
            time = None if packet.pts is None else packet.pts * packet.time_base
            if packet.dts is not None and not self._is_early(time):
                yield packet

    def _is_early(self, time: "Fraction | float | None") -> bool:
        return self._origin is not None and time is not None and time < self._origin

    def _encoded(self) -> Iterator[AnyPacket]:
        assert self._resampler is not None
        for packet in self._read():
            try:
                frames = packet.decode()
            except FFmpegError:
                continue
            for frame in frames:
                if isinstance(frame, AudioFrame) and not self._is_early(frame.time):
                    for part in self._resampler.resample(frame):
                        yield from self._stream.encode(part)
        if self._flushed or not self._live:
            yield from self._stream.encode(None)

    def _read(self) -> Iterator[AnyPacket]:
        if self._input is None:
            waiting = self._reader.decoder.audio_packets
            while waiting:
                yield waiting.popleft()
            return
        try:
            yield from self._input.demux(self._source)
        except (FFmpegError, EOFError):
            self._warnings.append("sound is damaged from some point on and ends there")

    def close(self) -> None:
        """Close the second container of the source."""
        if self._input is not None:
            self._input.close()
