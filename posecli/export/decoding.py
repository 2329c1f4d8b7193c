"""Decoding of SimCC's distributions inside exported graphs, by the parabola."""

import torch
from torch import Tensor, nn

from posecli.pose.codec_torch import AxisDecoder
from posecli.pose.config import PoseConfig


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
