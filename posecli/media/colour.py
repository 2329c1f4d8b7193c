"""Conversion between a video's YUV and 8-bit RGB, without rounding bias."""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from posecli.media.hdr import TRANSFERS, tone_mapped
from posecli.types import PixelArray

# Without these flags swscale's fast paths round down: a round trip darkens images by 1.2 levels.
EXACT = (
    Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)

# ITU-T H.273 code points → swscale's matrices.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
# Matrix → code points of the matrix, of the primaries and of the transfer that go with it.
_CODE_POINTS = {
    Colorspace.ITU709: (1, 1, 1),
    Colorspace.FCC: (4, 4, 4),
    Colorspace.ITU601: (6, 6, 6),
    Colorspace.SMPTE240M: (7, 7, 7),
    Colorspace.BT2020: (9, 9, 14),
}
# Reserved and unspecified code points; encoders refuse the first two.
_NOTHING = (0, 3, 2)


@dataclass(frozen=True)
class Colour:
    """Colour description of a video, by the code points of ITU-T H.273."""

    matrix: Colorspace
    full_range: bool
    primaries: int
    transfer: int

    @property
    def range(self) -> ColorRange:
        """swscale's name of the range."""
        return ColorRange.JPEG if self.full_range else ColorRange.MPEG

    @property
    def matrix_code(self) -> int:
        """The matrix's code point."""
        return _CODE_POINTS[self.matrix][0]

    @property
    def hdr(self) -> bool:
        """Whether the transfer is PQ or HLG, which needs tone mapping for 8-bit images."""
        return self.transfer in TRANSFERS

    @property
    def written(self) -> "Colour":
        """The colour of an annotated video: the source's, or BT.709 where it was tone mapped.

        Always in limited range: every player supports it, and swscale writes full range with a bias.
        """
        return Colour(Colorspace.ITU709, False, 1, 1) if self.hdr else replace(self, full_range=False)


def colour_of(frame: VideoFrame) -> Colour:
    """The colour that the frame declares; missing values are BT.709 or BT.601 by height, as in players."""
    large = frame.height >= 720 or frame.width >= 1280
    matrix = _MATRICES.get(int(frame.colorspace), Colorspace.ITU709 if large else Colorspace.ITU601)
    _, primaries, transfer = _CODE_POINTS[matrix]
    if frame.color_primaries not in _NOTHING:
        primaries = int(frame.color_primaries)
    if frame.color_trc not in _NOTHING:
        transfer = int(frame.color_trc)
    return Colour(matrix, frame.color_range == ColorRange.JPEG, primaries, transfer)


def rgb(
    frame: VideoFrame, colour: Colour, reformatter: VideoReformatter, size: tuple[int, int] | None = None
) -> PixelArray:
    """A decoded frame as (height, width, 3) uint8 RGB, scaled to a size (width, height). PQ and HLG are tone mapped.

    The array is the caller's, who may write to it.

    reformatter: one for all frames of a video, so that its tables are made once.
    """
    size = size or (frame.width, frame.height)
    if colour.hdr:
        deep = _reformat(reformatter, frame, "rgb48le", colour, None, size)
        return tone_mapped(np.asarray(deep.to_ndarray(), np.uint16), colour.transfer)
    converted = _reformat(reformatter, frame, "rgb24", colour, None, size)
    pixels = np.asarray(converted.to_ndarray(), np.uint8)
    # Frames that are RGB already are the decoder's own, which may still need them.
    return pixels.copy() if converted is frame else pixels


class ToYuv:
    """Converts RGB images (height, width, 3) uint8 to yuv420p frames of a colour.

    width, height: of the frames, even. chroma: sample location, "left" or "unspecified" (centre). A smaller image is
    padded by repeating its edge, so that coordinates do not change.
    """

    def __init__(self, colour: Colour, width: int, height: int, chroma: str) -> None:
        self._colour, self._size = colour, (width, height)
        self._reformatter = VideoReformatter()
        # swscale uses the frame's chroma location, which only a filter can set.
        graph = Graph()
        source = graph.add_buffer(width=width, height=height, format=VideoFormat("rgb24"), time_base=Fraction(1))
        graph.link_nodes(
            source, graph.add("setparams", f"chroma_location={chroma}"), graph.add("buffersink")
        ).configure()
        graph.push(VideoFrame(width, height, "rgb24"))
        frame = graph.pull()
        assert isinstance(frame, VideoFrame)
        self._frame = frame
        rows = np.asarray(memoryview(frame.planes[0])).reshape(height, -1)
        self._canvas = rows[:, : 3 * width].reshape(height, width, 3)

    def __call__(self, pixels: PixelArray) -> VideoFrame:
        """A new frame. Raises ValueError for an image that is larger, or smaller by more than one pixel."""
        height, width = pixels.shape[:2]
        extra = self._canvas.shape[0] - height, self._canvas.shape[1] - width
        if not {*extra} <= {0, 1}:
            raise ValueError(f"a picture of {width} × {height} in a video of another size")
        self._canvas[:height, :width] = pixels
        self._canvas[height:, :width] = pixels[-1:]
        self._canvas[:, width:] = self._canvas[:, width - 1 : width]
        frame = _reformat(self._reformatter, self._frame, "yuv420p", None, self._colour, self._size)
        frame.colorspace, frame.color_range = self._colour.matrix_code, self._colour.range
        return frame


def _reformat(
    reformatter: VideoReformatter,
    frame: VideoFrame,
    pix_fmt: str,
    source: Colour | None,
    target: Colour | None,
    size: tuple[int, int],
) -> VideoFrame:
    """Convert between YUV of a colour and RGB (None), which has full range and no matrix."""
    return reformatter.reformat(
        frame,
        width=size[0],
        height=size[1],
        format=pix_fmt,
        src_colorspace=Colorspace.DEFAULT if source is None or frame.format.is_rgb else source.matrix,
        dst_colorspace=Colorspace.DEFAULT if target is None else target.matrix,
        src_color_range=ColorRange.JPEG if source is None or frame.format.is_rgb else source.range,
        dst_color_range=ColorRange.JPEG if target is None else target.range,
        interpolation=EXACT,
        threads=1,
    )
