"""How annotated media look."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DrawStyle:
    """What is drawn on annotated media. Field names are those of the command line's options.

    kpt_thr: lowest score of a drawn keypoint. show_boxes: draw boxes. show_ids: draw a label for each track id and
    people in their id's colour instead of the colours of left and right. trails: draw each track's last second.
    black: draw on black instead of the image. side_by_side: the source on the left, the drawing on the right, at twice
    the width. blur_faces: cover heads by a mosaic, also in the thumbnail and in the source beside the drawing.
    """

    kpt_thr: float = 0.3
    show_boxes: bool = False
    show_ids: bool = False
    trails: bool = False
    black: bool = False
    side_by_side: bool = False
    blur_faces: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the annotated image for those of the source."""
        return (2 * width if self.side_by_side else width), height
