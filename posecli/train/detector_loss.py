"""Label assignment and losses of the person detector, as in RTMDet (arXiv 2212.07784).

Locations are assigned to people by how well they predict them (dynamic soft label assignment); the target score of a
location is the IoU of its predicted box (quality focal loss).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou, generalized_box_iou_loss

from posecli.train.detector_data import Labels

BACKGROUND, IGNORED = -1, -2
# Most locations assigned to one person.
_MOST = 13
_OVERLAP_COST, _BOX_WEIGHT = 3.0, 2.0
_FAR = 1e8


def detector_losses(
    outputs: dict[str, Tensor], labels: Sequence[Labels], centres: Tensor, strides: Tensor
) -> dict[str, Tensor]:
    """Quality focal loss and weighted GIoU loss over a batch, divided by the sum of the target scores.

    outputs: the head's, over A locations. centres (A, 2), strides (A,) in pixels: see `person.locations`.
    """
    logits = outputs["cls_logits"][..., 0].float()
    distances = outputs["bbox_regression"].float() * strides[:, None]
    boxes = torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)
    quality, giou, total = logits.new_zeros(()), logits.sum() * 0, 0.0
    for logit, box, label in zip(logits, boxes, labels, strict=True):
        index, overlap = assign(logit.detach(), box.detach(), label, centres, strides)
        positive = index >= 0
        weights = (index != IGNORED).float()
        rows = index[positive]
        weights[positive] = torch.from_numpy(label.weights).to(weights)[rows]
        error = functional.binary_cross_entropy_with_logits(logit, overlap, reduction="none")
        quality = quality + (error * (overlap - logit.sigmoid()).abs() ** 2 * weights).sum()
        share = overlap[positive] * weights[positive]
        truth = torch.from_numpy(label.boxes).to(box)[rows]
        giou = giou + (generalized_box_iou_loss(box[positive], truth, eps=1e-7) * share).sum()
        total += float(share.sum())
    total = max(total, 1.0)
    return {"quality": quality / total, "giou": _BOX_WEIGHT * giou / total}


def assign(logits: Tensor, boxes: Tensor, labels: Labels, centres: Tensor, strides: Tensor) -> tuple[Tensor, Tensor]:
    """Assign a person to each location; returns the assignment and the IoU of the location's box with the person's.

    logits (A,), boxes (A, 4): predictions. The assignment (A,) is the person's index, BACKGROUND, or IGNORED, which has
    no loss; the IoU (A,) is 0 without a person. The number of locations for a person is the sum of its best IoUs, at
    least one; they are inside of its box.
    """
    index, overlap = torch.full_like(centres[:, 0], BACKGROUND, dtype=torch.long), torch.zeros_like(logits)
    if len(labels.ignored):
        index[_inside(centres, torch.from_numpy(labels.ignored).to(boxes)).any(1)] = IGNORED
    people = torch.from_numpy(labels.boxes).to(boxes)
    inside = _inside(centres, people, strictly=True)
    candidates = inside.any(1).nonzero()[:, 0]
    if not len(candidates):
        return index, overlap
    inside = inside[candidates]
    overlaps = box_iou(boxes[candidates], people)
    cost = _cost(logits[candidates], overlaps, people, centres[candidates], strides[candidates])
    cost = cost.masked_fill(~inside, _FAR)
    counts = overlaps.topk(min(_MOST, len(candidates)), dim=0).values.sum(0).int().clamp_min(1)
    rank = cost.argsort(stable=True, dim=0).argsort(dim=0)
    cost = cost.masked_fill((rank >= counts) | ~inside, _FAR)
    best, which = cost.min(1)
    chosen = best < _FAR
    index[candidates[chosen]] = which[chosen]
    overlap[candidates[chosen]] = overlaps[chosen, which[chosen]]
    return index, overlap


def _inside(centres: Tensor, boxes: Tensor, strictly: bool = False) -> Tensor:
    """(A, N): which centres lie in which boxes."""
    low, high = centres[:, None] - boxes[None, :, :2], boxes[None, :, 2:] - centres[:, None]
    nearest = torch.minimum(low, high).amin(-1)
    return nearest > 0 if strictly else nearest >= 0


def _cost(logits: Tensor, overlaps: Tensor, people: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Assignment cost (A, N): for the score, the box and the distance from the person's centre."""
    logits = logits[:, None].expand_as(overlaps)
    score = functional.binary_cross_entropy_with_logits(logits, overlaps, reduction="none")
    score = score * (overlaps - logits.sigmoid()).abs() ** 2
    middles = (people[:, :2] + people[:, 2:]) / 2
    distance = ((centres[:, None] - middles[None]) ** 2).sum(-1).sqrt() / strides[:, None]
    return score - _OVERLAP_COST * torch.log(overlaps + 1e-7) + 10 ** (distance - 3)
