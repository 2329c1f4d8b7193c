"""The shape of a video's pixels: their width against their height."""

from fractions import Fraction

from av.error import FFmpegError
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

SQUARE = Fraction(1)
# Anamorphic pictures reach 2:1, half of a 3-D pair 4:1. What is beyond is a damaged or unset field.
MAX_ASPECT = 8
# What rounding in a muxer leaves: less than 2 columns of 400.
_ROUNDING = Fraction(1, 200)
# The container's field overrides the codec's, for all frames, as in players.
_DECLARING = frozenset(["mov", "matroska", "asf", "mxf", "nut", "yuv4mpegpipe", "wtv"])
# A frame's shape is measured in this many parts.
_PARTS = 4096


class PixelAspect:
    """Tells the aspect of each frame's pixels, as the frames of one stream come.

    Which of container and codec is right is FFmpeg's choice: the container where it says anything. Broadcasts change
    between 4:3 and 16:9 in the codec, which only the frames have at the right time.
    """

    def __init__(self, stream: VideoStream, form: str) -> None:
        ratio = stream.sample_aspect_ratio
        self._stream = Fraction(ratio) if ratio and ratio > 0 else SQUARE
        self._follows = not _DECLARING & {*form.split(",")}
        self._first = True
        self._graphs: dict[tuple[str, int, int], Graph] = {}

    def __call__(self, frame: VideoFrame) -> Fraction:
        """Width by height of the frame's pixels; 1 where it is unknown. Absurd values are returned as they are."""
        if not self._follows:
            return self._stream
        own = self._measured(frame)
        if own is None or abs(own - self._stream) < Fraction(2, _PARTS):
            own = self._stream
        elif self._first:
            self._follows = False  # the container says something else
            own = self._stream
        self._first = False
        return own

    def _measured(self, frame: VideoFrame) -> Fraction | None:
        """The frame's own aspect. PyAV does not show it; a picture scaled by it is as wide as it says."""
        key = frame.format.name, frame.width, frame.height
        try:
            graph = self._graphs.get(key)
            if graph is None:
                graph = self._graphs[key] = _measuring(frame)
            graph.push(frame)
            scaled = graph.pull()
        except (FFmpegError, ValueError):
            self._graphs.pop(key, None)
            return None
        assert isinstance(scaled, VideoFrame)
        return Fraction(scaled.width, _PARTS).limit_denominator(64)


def _measuring(frame: VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    side = min(16, frame.width, frame.height)
    shape = f"w=clip(round(sar*{_PARTS})\\,1\\,{2 * MAX_ASPECT * _PARTS}):h=1:eval=frame"
    nodes = source, graph.add("crop", f"{side}:{side}:0:0"), graph.add("scale", shape), graph.add("buffersink")
    graph.link_nodes(*nodes).configure()
    return graph


def is_absurd(aspect: Fraction) -> bool:
    """Whether no video has pixels like these."""
    return not Fraction(1, MAX_ASPECT) <= aspect <= MAX_ASPECT


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Width and height of the same picture in square pixels: the side that was squeezed grows, none shrinks."""
    if is_absurd(aspect) or abs(aspect - 1) <= _ROUNDING:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
