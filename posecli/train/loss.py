"""Losses of the keypoints (KL divergence on each axis), of distillation, of the person score and of the box."""

import math

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss


def gaussian_labels(means: Tensor, bins: int, sigma: float, label_smoothing: float = 0.0) -> Tensor:
    """Label distributions (..., bins) with means (...) in bins: Gaussians of σ, normalised over the existing bins.

    label_smoothing: weight of a uniform distribution.
    """
    grid = torch.arange(bins, device=means.device, dtype=torch.float32)
    labels = functional.softmax(-((grid - means[..., None]) ** 2) / (2 * sigma**2), dim=-1)
    return labels * (1 - label_smoothing) + label_smoothing / bins if label_smoothing else labels


def kl_sums(
    logits: tuple[Tensor, Tensor],
    points: Tensor,
    weights: Tensor,
    *,
    split_ratio: float,
    sigma: tuple[float, float],
    temperature: float = 1.0,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of KL(label ‖ prediction) in nats, mean of the two axes, and the sum of the weights.

    logits: x (N, K, W·k) and y (N, K, H·k). points (N, K, 2) in crop pixels. weights (N, K). The loss is the quotient
    of both sums: it depends neither on the number of bins nor on the batch size, and is 0 for a perfect prediction.
    Separate sums can be added over processes and accumulated batches.
    """
    total = weights.new_zeros(())
    for axis in range(2):
        log_p = functional.log_softmax(logits[axis].float() * temperature, dim=-1)
        q = gaussian_labels(points[..., axis] * split_ratio, log_p.shape[-1], sigma[axis], label_smoothing)
        divergence = torch.special.xlogy(q, q).sum(-1) - (q * log_p).sum(-1)
        total = total + (divergence * weights).sum()
    return total / 2, weights.sum()


def matching_bins(bins: int, ratio: float, other_ratio: float, enlarged: float) -> Tensor:
    """For each bin (bins,) of a model the fractional bin of the same point in another model.

    ratio, other_ratio: bins per pixel of both. enlarged: ratio of the other model's crop size to this one's; pixel
    centres are at integers in both.
    """
    pixels = torch.arange(bins, dtype=torch.float32) / ratio
    return other_ratio * ((pixels + 0.5) * enlarged - 0.5)


def resample_bins(p: Tensor, places: Tensor) -> Tensor:
    """Distributions (..., B) interpolated linearly at fractional bins (M,) and normalised: (..., M)."""
    inside = places.to(p.device).clamp(0, p.shape[-1] - 1)
    low = inside.floor().long()
    part = inside - low
    read = p[..., low] * (1 - part) + p[..., (low + 1).clamp_max(p.shape[-1] - 1)] * part
    return read / read.sum(dim=-1, keepdim=True).clamp_min(1e-12)


def distillation_sum(
    logits: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    temperatures: tuple[float, float],
    counted: Tensor,
    places: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Sum over crops and keypoints of KL(teacher ‖ prediction) in nats, mean of the two axes.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, at a temperature of 1. logits, teacher: x and
    y, (N, K, bins) each. temperatures: factors on the logits of both. counted: (N,), weights of the crops. places:
    fractional bins of the teacher for those of the model, x and y (matching_bins); None where they are equal.
    """
    total = counted.new_zeros(())
    for axis, (own, other) in enumerate(zip(logits, teacher, strict=True)):
        log_p = functional.log_softmax(own.float() * temperatures[0], dim=-1)
        q = functional.softmax(other.float() * temperatures[1], dim=-1)
        q = q if places is None else resample_bins(q, places[axis])
        divergence = (torch.special.xlogy(q, q) - q * log_p).sum(dim=(1, 2))
        total = total + (divergence * counted).sum()
    return total / 2


def person_score_sum(logits: Tensor, present: Tensor, negatives_share: float) -> Tensor:
    """Binary cross-entropy in nats of the person score, summed over N crops.

    logits (N,): log-likelihood ratio of a person. The log-odds of the prior, from the share of negatives, are added
    before the cross-entropy, so that the output is independent of that share and can be added to a detector's log-odds.
    present (N,): 1 for a person, 0 for a negative, -1 for crops that do not count.
    """
    counted = present >= 0
    posterior = logits.float()[counted] + math.log((1 - negatives_share) / negatives_share)
    return functional.binary_cross_entropy_with_logits(posterior, present[counted], reduction="sum")


def box_loss_sum(sides: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over crops of the GIoU loss and of the sides' smooth L1 loss relative to the person's size.

    sides, wanted: (N, 4), predicted and true, relative to the crop's size. weights: (N,). GIoU: Rezatofighi et al.,
    "Generalized Intersection over Union", CVPR 2019.
    """
    sides = sides.float()
    size = (wanted[:, 2:] - wanted[:, :2]).clamp_min(1e-3).repeat(1, 2)
    apart = functional.smooth_l1_loss(sides / size, wanted / size, beta=0.1, reduction="none").mean(dim=1)
    overlap: Tensor = generalized_box_iou_loss(sides, wanted)
    return ((overlap + apart) * weights).sum()
