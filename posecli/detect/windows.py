"""Windows of very wide and very tall images: in the whole image people would be too small for the detector."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from posecli.geometry import nms
from posecli.types import Detections, FloatArray, Frame

# Images up to this ratio of their sides are searched as a whole.
MAX_RATIO = 3.0
# A window's length and the step to the next one, in short sides of the image: a person who is not wider than the
# difference is completely inside one of them.
_LENGTH, _STEP = 1.5, 0.9
_MOST_WINDOWS = 400
# Lower limit of the short side in pixels.
_SMALLEST = 48
# Distance from a window's edge, relative to its length, below which a box counts as cut by the edge.
_EDGE = 0.01
# A cut box is dropped where this share of its area is inside a complete one.
_INSIDE = 0.5


@dataclass(frozen=True)
class Window:
    """A part of an image: its first pixel and the one after its last, along the longer side. across: that is x."""

    begin: int
    end: int
    across: bool

    def of(self, frame: Frame) -> Frame:
        """The part of a frame, a view."""
        part = frame.pixels[:, self.begin : self.end] if self.across else frame.pixels[self.begin : self.end]
        return Frame(part, frame.index, frame.time)


def split_windows(width: int, height: int) -> list[Window]:
    """The windows of an image; a single one where its sides are not too different."""
    long, short = max(width, height), max(min(width, height), _SMALLEST)
    across = width >= height
    if long <= MAX_RATIO * short:
        return [Window(0, long, across)]
    length = min(long, max(round(_LENGTH * short), -(-long // _MOST_WINDOWS) * 2))
    count = 1 + -(-(long - length) // max(1, round(length * _STEP / _LENGTH)))
    # Equally spaced.
    begins = np.linspace(0, long - length, count).round().astype(int).tolist()
    return [Window(begin, begin + length, across) for begin in begins]


def merge_windows(found: Sequence[Detections], windows: Sequence[Window], iou: float, limit: int) -> Detections:
    """The people of all windows, in pixels of the image, without duplicates.

    A person who is cut by a window's edge is complete in the neighbouring window: a cut box is kept only where it is
    not inside a complete one. iou: threshold of NMS. limit: largest number of people, by score.
    """
    boxes, scores, parts = [], [], []
    for people, window in zip(found, windows, strict=True):
        axis = 0 if window.across else 1
        near = _EDGE * (window.end - window.begin)
        first, last = people.boxes[:, axis], people.boxes[:, axis + 2]
        cut_first = (first < near) & (window.begin > 0)
        cut_last = (last > window.end - window.begin - near) & (window.end < max(w.end for w in windows))
        moved = people.boxes.copy()
        moved[:, [axis, axis + 2]] += window.begin
        boxes.append(moved)
        scores.append(people.scores)
        parts.append(cut_first | cut_last)
    every, score, part = np.concatenate(boxes), np.concatenate(scores), np.concatenate(parts)
    kept = np.zeros(0, np.int64)
    for rows in (np.flatnonzero(~part), np.flatnonzero(part)):
        if len(kept):
            rows = rows[_share_inside(every[rows], every[kept]) < _INSIDE]
        chosen = nms(every[rows], score[rows], iou)
        kept = np.concatenate([kept, rows[chosen]])
    kept = kept[np.argsort(-score[kept], kind="stable")][:limit]
    return Detections(every[kept], score[kept])


def _share_inside(boxes: FloatArray, others: FloatArray) -> FloatArray:
    """Largest share of each box's area that is inside one of the other boxes: (N,) in [0, 1]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=-1), 1e-6)
    return np.asarray((common / area[:, None]).max(axis=1), np.float32)
