"""Drawing a frame's poses: skeletons, trails and blurred faces."""

import numpy as np

from posecli.draw.faces import Area, FaceBlur, pixelate
from posecli.draw.skeleton import draw_on
from posecli.draw.style import DrawStyle
from posecli.draw.trails import Trails
from posecli.keypoints import KeypointSet
from posecli.types import Frame, PixelArray, Poses


class Annotator:
    """Draws the frames of one input: call `update` for each frame in order, then `draw` where an image is wanted."""

    def __init__(self, style: DrawStyle, keypoint_set: KeypointSet) -> None:
        self._style, self._keypoint_set = style, keypoint_set
        self._size: tuple[int, int] | None = None
        self._reset()

    def _reset(self) -> None:
        style, keypoint_set = self._style, self._keypoint_set
        self._faces = FaceBlur(keypoint_set, style.kpt_thr) if style.blur_faces else None
        self._trails = Trails(keypoint_set, style.kpt_thr) if style.trails else None
        self._covered: list[Area] = []

    def update(self, frame: Frame, poses: Poses) -> None:
        """Update trails and faces with a frame. Where the image size changes, both are reset."""
        time = float(frame.time or 0)
        if self._size != (frame.width, frame.height):
            self._reset()
            self._size = frame.width, frame.height
        if self._faces is not None:
            self._covered = self._faces.update(poses, time)
        if self._trails is not None:
            self._trails.update(poses, time)

    def draw(self, frame: Frame, poses: Poses, *, last: bool = False) -> PixelArray:
        """The annotated image, (height, width, 3) uint8 RGB, of the frame last given to `update`.

        last: the frame is not used afterwards; where possible its own pixels are drawn on, which saves a copy.
        """
        style = self._style
        width, height = style.size(frame.width, frame.height)
        # OpenCV draws on rows with gaps between them, but not on mirrored or turned ones.
        in_rows = frame.pixels.strides[1:] == (3, 1) and frame.pixels.strides[0] >= 3 * frame.width
        reuse = last and width == frame.width and frame.pixels.flags.writeable and in_rows
        canvas = frame.pixels if reuse else np.zeros((height, width, 3), np.uint8)
        if reuse and style.black:
            canvas[:] = 0
        source, drawing = canvas[:, : frame.width], canvas[:, width - frame.width :]
        if style.side_by_side or not style.black:
            if not reuse:
                source[:] = frame.pixels
            pixelate(source, self._covered)
        if style.side_by_side and not style.black:
            drawing[:] = source
        if self._trails is not None:
            self._trails.draw(drawing, float(frame.time or 0))
        draw_on(
            drawing,
            poses,
            self._keypoint_set,
            keypoint_threshold=style.kpt_thr,
            show_boxes=style.show_boxes,
            show_ids=style.show_ids,
        )
        return canvas
