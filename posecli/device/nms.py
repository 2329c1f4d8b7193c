"""Non-maximum suppression on a device, for many images at once and without waiting for it."""

import torch
from torch import Tensor

# Each turn settles one more box of the longest chain of boxes that overlap with the next; few images need ten.
_TURNS = 24


def suppress(boxes: Tensor, usable: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Which boxes (N, M, 4) xyxy, best first, are kept (N, M); and whether each image is settled (N,).

    usable: (N, M), False for rows that are no boxes. The result of a settled image is that of geometry.nms. Of the
    others, whose chains of overlapping boxes are longer than the number of turns, too many may be kept.
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    sides = (torch.minimum(high[:, :, None], high[:, None]) - torch.maximum(low[:, :, None], low[:, None])).clamp(min=0)
    overlap = sides[..., 0] * sides[..., 1]
    areas = (high[..., 0] - low[..., 0]) * (high[..., 1] - low[..., 1])
    # As in geometry.nms, the better box's area first.
    ratio = overlap / (areas[:, :, None] + areas[:, None] - overlap)
    better = ratio.double() > threshold  # the ratio is in float32, the threshold is not
    better = better & torch.ones_like(better).triu(1)
    kept, before = usable, usable
    for _ in range(_TURNS):
        before, kept = kept, usable & ~(kept[:, :, None] & better).any(dim=1)
    return kept, (kept == before).all(dim=1)
