"""How a stored picture is turned and mirrored to stand upright."""

from dataclasses import dataclass

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from posecli.types import PixelArray


@dataclass(frozen=True)
class Orientation:
    """First rows and columns change places (transposed), then the picture is mirrored."""

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, pixels: PixelArray) -> PixelArray:
        """The upright picture (height, width, 3), contiguous."""
        if self == Orientation():
            return pixels
        if self.transposed:
            pixels = pixels.transpose(1, 0, 2)
        return np.ascontiguousarray(pixels[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1])


def orientation_of(frame: VideoFrame) -> Orientation:
    """From the display matrix that the container or the codec gave; upright where there is none.

    Turns that are no quarter turns are taken to the nearest one.
    """
    side_data = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    if side_data is None:
        return Orientation()
    # Where a stored pixel goes: x' = a x + c y, y' = b x + d y.
    (a, b, _), (c, d, _), _ = np.frombuffer(bytes(side_data), np.int32).reshape(3, 3).tolist()
    if abs(b) > abs(a):
        return Orientation(True, flip_x=c < 0, flip_y=b < 0)
    return Orientation(False, flip_x=a < 0, flip_y=d < 0)
