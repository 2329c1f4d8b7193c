"""Decoding of SimCC's distributions in torch, for graphs: the same formulas as `pose/codec.py`'s parabola.

The windows of codec.py are masks over all bins here: a graph then needs no gather, which some runtimes lack.
"""

import math

import torch
from torch import Tensor, nn

from posecli.pose.config import PoseConfig


class AxisDecoder(nn.Module):
    """One axis: logits (N, K, B) → positions, standard deviations (both in bins) and scores, each (N, K)."""

    index: Tensor

    def __init__(self, bins: int, sigma: float, temperature: float) -> None:
        super().__init__()
        self.sigma, self.temperature = sigma, temperature
        self.radius = max(1, round(1.5 * sigma))
        self.register_buffer("index", torch.arange(bins, dtype=torch.float32), persistent=False)

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See codec.decode with the decoder "parabola"."""
        log_p = torch.log_softmax(logits * self.temperature, dim=-1)
        top = log_p.amax(dim=-1, keepdim=True)
        position = self._vertex(log_p - top, log_p.argmax(dim=-1, keepdim=True).to(log_p.dtype))
        score = (top.exp() * (self.sigma * math.sqrt(2 * math.pi))).clamp(max=1.0)
        return position[..., 0], self._deviation(log_p, position), score[..., 0]

    def _vertex(self, values: Tensor, peak: Tensor) -> Tensor:
        """The parabola's vertex (N, K, 1); values: logarithms relative to the highest bin's."""
        # Distances relative to the radius: sums of their powers then fit into float32.
        t = (self.index - peak) / self.radius
        inside = (t.abs() <= 1 + 0.25 / self.radius).to(values.dtype)
        weights = torch.exp(0.5 * values) * inside
        powers = [weights, weights * t, weights * t * t]
        m0, m1, m2 = (power.sum(dim=-1, keepdim=True) for power in powers)
        m3, m4 = ((powers[2] * factor).sum(dim=-1, keepdim=True) for factor in (t, t * t))
        v0, v1, v2 = ((power * values).sum(dim=-1, keepdim=True) for power in powers)
        determinant = m4 * (m2 * m0 - m1 * m1) - m3 * (m3 * m0 - m1 * m2) + m2 * (m3 * m1 - m2 * m2)
        a = v2 * (m2 * m0 - m1 * m1) - m3 * (v1 * m0 - m1 * v0) + m2 * (v1 * m1 - m2 * v0)
        b = m4 * (v1 * m0 - v0 * m1) - v2 * (m3 * m0 - m1 * m2) + m2 * (m3 * v0 - v1 * m2)
        usable = (determinant > 1e-9 / self.radius**6) & (a < 0)
        offset = torch.where(usable, -b / (2 * torch.where(usable, a, torch.full_like(a, -1.0))), torch.zeros_like(a))
        offset = torch.where(offset.abs() <= 1, offset, torch.zeros_like(a))
        return peak + offset * self.radius

    def _deviation(self, log_p: Tensor, position: Tensor) -> Tensor:
        """√(variance - σ²) of the distribution within ±4σ of the position, at least half a bin: (N, K)."""
        reach = math.ceil(4 * self.sigma)
        centre = position.round().clamp(0, log_p.shape[-1] - 1)
        p = log_p.exp() * ((self.index - centre).abs() <= reach + 0.25).to(log_p.dtype)
        distance = self.index - position
        variance = (p * distance * distance).sum(dim=-1) / p.sum(dim=-1).clamp(min=1e-12)
        return (variance - self.sigma**2).clamp(min=0.25).sqrt()


class Decoder(nn.Module):
    """x logits (N, K, W·k) and y logits (N, K, H·k) → keypoints (N, K, 2), scores (N, K), std (N, K, 2).

    Positions and standard deviations in crop pixels, the latter with config.std_scale.
    """

    def __init__(self, config: PoseConfig) -> None:
        super().__init__()
        self.ratio, self.std_scale = config.split_ratio, config.std_scale
        self.x, self.y = (
            AxisDecoder(bins, sigma, config.temperature) for bins, sigma in zip(config.bins, config.sigma, strict=True)
        )

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits → keypoints, scores, standard deviations."""
        (x, x_std, x_score), (y, y_std, y_score) = self.x(x), self.y(y)
        keypoints = torch.stack([x, y], dim=-1) / self.ratio
        std = torch.stack([x_std, y_std], dim=-1) * (self.std_scale / self.ratio)
        return keypoints, torch.minimum(x_score, y_score), std
