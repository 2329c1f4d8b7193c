"""What the embedded detector searches: frames and windows of them, and their place in its input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from posecli.detect.windows import Window
from posecli.types import Detections, Frame

# Level of the canvas around an image.
GREY = 114
# Best boxes of a view, before NMS.
CANDIDATES = 400


@dataclass(frozen=True, eq=False)
class View:
    """A frame, or a window of it."""

    frame: Frame
    window: Window

    @property
    def rectangle(self) -> tuple[int, int, int, int]:
        """Left, top, and right and bottom (exclusive), in pixels of the frame."""
        window = self.window
        if window.across:
            return window.begin, 0, window.end, self.frame.height
        return 0, window.begin, self.frame.width, window.end

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        left, top, right, bottom = self.rectangle
        return bottom - top, right - left


# Views of one canvas (height, width), and the lowest score → people of each view, in its pixels.
Locate = Callable[[Sequence[View], tuple[int, int], float], list[Detections]]


def fitted(image: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) that an image of (height, width) has in a canvas."""
    scale = min(whole / side for side, whole in zip(image, canvas, strict=True))
    height, width = (min(whole, max(1, round(side * scale))) for side, whole in zip(image, canvas, strict=True))
    return height, width
