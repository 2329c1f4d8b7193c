"""EXIF orientations: how a stored image is rotated and mirrored for display."""

from dataclasses import dataclass

import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from posecli.types import PixelArray


def _unknown(cls: type[Type], value: int) -> Type:
    """A type of side data that PyAV does not know. Without this, PyAV fails for all side data of such a frame."""
    member = object.__new__(cls)
    member._name_ = f"UNKNOWN_{value}"
    member._value_ = value  # type: ignore[assignment]
    return member


Type._missing_ = classmethod(_unknown)  # type: ignore[method-assign, assignment]


@dataclass(frozen=True)
class Orientation:
    """Orientation of a stored image: transposed first, then mirrored (flip_x, flip_y)."""

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, pixels: PixelArray) -> PixelArray:
        """The upright image (height, width, 3), contiguous."""
        if self == Orientation():
            return pixels
        if self.transposed:
            pixels = pixels.transpose(1, 0, 2)
        return np.ascontiguousarray(pixels[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1])


def orientation_of(frame: VideoFrame) -> Orientation:
    """The orientation from the display matrix of container, codec or EXIF; upright without one.

    Rotations are rounded to quarter turns. Invalid matrices are ignored.
    """
    side_data = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    if side_data is None or len(content := bytes(side_data)) < 36:
        return Orientation()
    # Position of a stored pixel: x' = a x + c y, y' = b x + d y.
    (a, b, _), (c, d, _), _ = np.frombuffer(content[:36], np.int32).reshape(3, 3).tolist()
    if a * d == b * c:  # singular: not set
        return Orientation()
    if abs(b) > abs(a):
        return Orientation(True, flip_x=c < 0, flip_y=b < 0)
    return Orientation(False, flip_x=a < 0, flip_y=d < 0)
