"""Conversion of decoded frames to images for display: upright, with square pixels, in RGB."""

from dataclasses import dataclass, field
from fractions import Fraction

from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from posecli.media.aspect import SQUARE, PixelAspect, is_absurd, square_size
from posecli.media.colour import colour_of, rgb
from posecli.media.orientation import Orientation, orientation_of
from posecli.types import PixelArray

# Most sizes that a warning about changes of the size names.
_NAMED = 4


@dataclass(frozen=True)
class Geometry:
    """Storage of a frame. width, height: in pixels of the aspect ratio `aspect` (width by height)."""

    width: int
    height: int
    aspect: Fraction = SQUARE
    orientation: Orientation = field(default_factory=Orientation)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright image in square pixels."""
        width, height = square_size(self.width, self.height, self.aspect)
        return (height, width) if self.orientation.transposed else (width, height)

    @property
    def squeezed(self) -> bool:
        """Whether the pixels are not square."""
        return square_size(self.width, self.height, self.aspect) != (self.width, self.height)


class FrameConverter:
    """Converts the frames of one stream, each by its own geometry, to RGB images.

    aspect: aspect ratio of pixels; None to ignore it, as in photos.
    """

    def __init__(self, aspect: PixelAspect | None) -> None:
        self._aspect = aspect
        self._reformatter = VideoReformatter()
        self._sizes: dict[tuple[int, int], None] = {}
        self._squeezed: Geometry | None = None
        self._absurd: Fraction | None = None

    def geometry(self, frame: VideoFrame) -> Geometry:
        """The geometry of a frame."""
        aspect = SQUARE if self._aspect is None else self._aspect(frame)
        return Geometry(frame.width, frame.height, aspect, orientation_of(frame))

    def __call__(self, frame: VideoFrame) -> PixelArray:
        """The image (height, width, 3) uint8 RGB. Raises FFmpegError, ValueError or MemoryError."""
        geometry = self.geometry(frame)
        self._note(geometry)
        size = square_size(geometry.width, geometry.height, geometry.aspect)
        pixels = rgb(frame, colour_of(frame), self._reformatter, size)
        return geometry.orientation.apply(pixels)

    def _note(self, geometry: Geometry) -> None:
        if len(self._sizes) <= _NAMED:
            self._sizes[geometry.size] = None
        if geometry.squeezed:
            self._squeezed = self._squeezed or geometry
        elif is_absurd(geometry.aspect):
            self._absurd = geometry.aspect

    def warnings(self) -> list[str]:
        """Warnings about changes to the images so far, one line each."""
        lines = []
        if (first := self._squeezed) is not None:
            shape = f"{first.aspect.numerator}:{first.aspect.denominator}"
            stored = f"{first.width}x{first.height}"
            wide, high = first.size
            lines.append(f"pixels are not square ({shape}): {stored} stored, {wide}x{high} shown and in the results")
        if self._absurd is not None:
            shape = f"{self._absurd.numerator}:{self._absurd.denominator}"
            lines.append(f"pixels of {shape} are taken as square: no video has such")
        if len(self._sizes) > 1:
            sizes = ", ".join(f"{width}x{height}" for width, height in [*self._sizes][:_NAMED])
            more = ", ..." if len(self._sizes) > _NAMED else ""
            lines.append(f"the picture's size changes ({sizes}{more}): results are in each frame's own pixels")
        return lines
