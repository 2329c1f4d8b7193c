"""Very wide and very tall pictures are searched window by window, since people in the whole would be too small."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.ops import nms

from posecli.types import Detections, FloatArray, Frame

# Pictures up to this ratio of their sides are searched as a whole.
MOST = 3.0
# A window's length, and the step from one to the next, in short sides of the picture: whoever is no wider than the
# difference is whole in one of them.
_LENGTH, _STEP = 1.5, 0.9
_MOST_WINDOWS = 400
# Pixels: in a thinner picture there is nobody to be seen.
_SMALLEST = 48
# Pixels from a window's edge at which a person goes on beyond it, as a share of the window.
_EDGE = 0.01
# A part of somebody is known by how much of it lies in a whole person.
_INSIDE = 0.5


@dataclass(frozen=True)
class Window:
    """A part of a picture: its first pixel and the one after its last, along the longer side."""

    begin: int
    end: int
    across: bool

    def of(self, frame: Frame) -> Frame:
        """The part, not copied."""
        part = frame.pixels[:, self.begin : self.end] if self.across else frame.pixels[self.begin : self.end]
        return Frame(part, frame.index, frame.time)


def windows_of(width: int, height: int) -> list[Window]:
    """The windows that a picture is searched by; one for all of it where its sides are not too different."""
    long, short = max(width, height), max(min(width, height), _SMALLEST)
    across = width >= height
    if long <= MOST * short:
        return [Window(0, long, across)]
    length = min(long, max(round(_LENGTH * short), -(-long // _MOST_WINDOWS) * 2))
    count = 1 + -(-(long - length) // max(1, round(length * _STEP / _LENGTH)))
    # The same distance between all of them.
    begins = np.linspace(0, long - length, count).round().astype(int).tolist()
    return [Window(begin, begin + length, across) for begin in begins]


def joined(found: Sequence[Detections], windows: Sequence[Window], iou: float, limit: int) -> Detections:
    """The people of all windows, in pixels of the picture, each once.

    Who goes on beyond a window's edge is whole in its neighbour, and is kept only where nobody whole is there. iou:
    from which on two boxes are one person's. limit: of people, the surest ones.
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
        chosen = nms(torch.from_numpy(every[rows]), torch.from_numpy(score[rows]), iou).numpy()
        kept = np.concatenate([kept, rows[chosen]])
    kept = kept[np.argsort(-score[kept], kind="stable")][:limit]
    return Detections(every[kept], score[kept])


def _share_inside(boxes: FloatArray, others: FloatArray) -> FloatArray:
    """How much of each box's area lies in the other box that holds most of it: (N,) in [0, 1]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=-1), 1e-6)
    return np.asarray((common / area[:, None]).max(axis=1), np.float32)
