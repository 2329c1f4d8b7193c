"""From a frame and its people to the picture that is shown."""

from dataclasses import dataclass

import numpy as np

from posecli.draw.faces import Area, FaceCover, cover
from posecli.draw.skeleton import draw_on
from posecli.draw.trails import Trails
from posecli.keypoints import KeypointSet
from posecli.types import Frame, PixelArray, Poses


@dataclass(frozen=True)
class Look:
    """How annotated media look and are encoded. media: whether there are any.

    show_ids: a label per id, people in their id's colour instead of left and right in theirs.
    black: no picture under the drawing.
    trails: for how many seconds the trail of each id stays; 0 for none. trail_of: a name of trails.TRAIL_POINTS.
    blur_faces: heads are covered by a mosaic, in the thumbnail and in the source beside the drawing too.
    side_by_side: the source left and the drawing right, at twice the width.
    codec: of annotated videos, as VideoWriter knows it.
    """

    keypoint_set: KeypointSet
    keypoint_threshold: float = 0.3
    media: bool = True
    audio: bool = True
    show_boxes: bool = False
    crf: int = 20
    preset: str = "veryfast"
    codec: str = "h264"
    show_ids: bool = False
    black: bool = False
    trails: float = 0.0
    trail_of: str = "hips"
    blur_faces: bool = False
    side_by_side: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the annotated picture for those of the source."""
        return (2 * width if self.side_by_side else width), height


class Annotator:
    """Draws the frames of one input. Give it each frame, in order, by follow; then draw as many as are wanted."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._size: tuple[int, int] | None = None
        self._begin()

    def _begin(self) -> None:
        look = self._look
        self._faces = FaceCover(look.keypoint_set, look.keypoint_threshold) if look.blur_faces else None
        self._trails = (
            Trails(look.trails, look.keypoint_set, look.keypoint_threshold, look.trail_of) if look.trails > 0 else None
        )
        self._covered: list[Area] = []

    def follow(self, frame: Frame, poses: Poses) -> None:
        """Remember what later frames need. Places in a picture of another size mean nothing in this one."""
        time = float(frame.time or 0)
        if self._size != (frame.width, frame.height):
            self._begin()
            self._size = frame.width, frame.height
        if self._faces is not None:
            self._covered = self._faces.follow(poses, time)
        if self._trails is not None:
            self._trails.follow(poses, time)

    def draw(self, frame: Frame, poses: Poses, *, last: bool = False) -> PixelArray:
        """The annotated picture, (height, width, 3) uint8 RGB, of the frame given last to follow.

        last: nobody looks at the frame after this; where there is room for it, it is drawn on itself, since a photo
        may be larger than the memory for a second one.
        """
        look = self._look
        width, height = look.size(frame.width, frame.height)
        reuse = last and width == frame.width and frame.pixels.flags.writeable and frame.pixels.flags.c_contiguous
        canvas = frame.pixels if reuse else np.zeros((height, width, 3), np.uint8)
        if reuse and look.black:
            canvas[:] = 0
        source, drawing = canvas[:, : frame.width], canvas[:, width - frame.width :]
        if look.side_by_side or not look.black:
            if not reuse:
                source[:] = frame.pixels
            cover(source, self._covered)
        if look.side_by_side and not look.black:
            drawing[:] = source
        if self._trails is not None:
            self._trails.draw(drawing, float(frame.time or 0))
        draw_on(
            drawing,
            poses,
            look.keypoint_set,
            keypoint_threshold=look.keypoint_threshold,
            show_boxes=look.show_boxes,
            show_ids=look.show_ids,
        )
        return canvas
