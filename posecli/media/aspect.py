"""Sample aspect ratio of a video's pixels."""

from fractions import Fraction

from av.error import FFmpegError
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

SQUARE = Fraction(1)
# Anamorphic video reaches 2:1, one half of a 3-D pair 4:1. Larger values are damaged or unset fields.
MAX_ASPECT = 8
# Tolerance for rounding in muxers: less than 2 columns of 400.
_ROUNDING = Fraction(1, 200)
# Formats whose container's value overrides the codec's for all frames, as in players.
_DECLARING = frozenset(["mov", "matroska", "asf", "mxf", "nut", "yuv4mpegpipe", "wtv"])
# Resolution of the measurement of a frame's aspect ratio.
_PARTS = 4096


class PixelAspect:
    """The sample aspect ratio of each frame of a stream, called in their order.

    As in FFmpeg the container's value, if it has one, takes precedence over the codec's. Broadcasts change between 4:3
    and 16:9 in the codec, at the right frame only in the frames themselves.
    """

    def __init__(self, stream: VideoStream, form: str) -> None:
        ratio = stream.sample_aspect_ratio
        self._stream = Fraction(ratio) if ratio and ratio > 0 else SQUARE
        self._follows = not _DECLARING & {*form.split(",")}
        self._first = True
        self._graphs: dict[tuple[str, int, int], Graph] = {}

    def __call__(self, frame: VideoFrame) -> Fraction:
        """Width by height of the frame's pixels; 1 where unknown. Absurd values are returned unchanged."""
        if not self._follows:
            return self._stream
        own = self._measured(frame)
        if own is None or abs(own - self._stream) < Fraction(2, _PARTS):
            own = self._stream
        elif self._first:
            self._follows = False  # the container has another value
            own = self._stream
        self._first = False
        return own

    def _measured(self, frame: VideoFrame) -> Fraction | None:
        """The frame's own aspect ratio. PyAV does not expose it: it is measured as the width of a scaled frame."""
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
    """Whether an aspect ratio is outside of what videos have."""
    return not Fraction(1, MAX_ASPECT) <= aspect <= MAX_ASPECT


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Width and height of the frame in square pixels; one side is enlarged, none is reduced."""
    if is_absurd(aspect) or abs(aspect - 1) <= _ROUNDING:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
