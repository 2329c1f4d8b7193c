"""The loss: KL divergence between label and prediction on each axis."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def gaussian_labels(means: Tensor, bins: int, sigma: float, smoothing: float = 0.0) -> Tensor:
    """Label distributions (..., bins) with means (...) in bins; see pose/codec.py, encode.

    smoothing mixes a uniform distribution in.
    """
    grid = torch.arange(bins, device=means.device, dtype=torch.float32)
    labels = functional.softmax(-((grid - means[..., None]) ** 2) / (2 * sigma**2), dim=-1)
    return labels * (1 - smoothing) + smoothing / bins if smoothing else labels


def kl_sums(
    logits: tuple[Tensor, Tensor],
    points: Tensor,
    weights: Tensor,
    *,
    split_ratio: float,
    sigma: tuple[float, float],
    temperature: float = 1.0,
    smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of KL(label ‖ prediction) in nats, mean of the two axes, and the sum of the weights.

    logits: x (N, K, W·k) and y (N, K, H·k). points (N, K, 2) in crop pixels. weights (N, K). The loss is
    their quotient: it depends neither on the number of bins nor on the batch size, and is 0 for a perfect
    prediction. The two are returned apart so that processes and accumulated batches can be added.
    """
    total = weights.new_zeros(())
    for axis in range(2):
        log_p = functional.log_softmax(logits[axis].float() * temperature, dim=-1)
        q = gaussian_labels(points[..., axis] * split_ratio, log_p.shape[-1], sigma[axis], smoothing)
        divergence = torch.special.xlogy(q, q).sum(-1) - (q * log_p).sum(-1)
        total = total + (divergence * weights).sum()
    return total / 2, weights.sum()


def presence_sum(logits: Tensor, present: Tensor, nobody_share: float) -> Tensor:
    """Cross-entropy in nats of whether there is a person, summed over N crops.

    logits (N,): how much surer of a person the crop makes than was known before, as log-odds. Before, the share of
    crops without a person was known, so that the output does not depend on it and can be added to a detector's
    log-odds. present (N,): 1, 0, or -1 for what does not count.
    """
    counted = present >= 0
    posterior = logits.float()[counted] + math.log((1 - nobody_share) / nobody_share)
    return functional.binary_cross_entropy_with_logits(posterior, present[counted], reduction="sum")
