"""RTMPose's and RTMW's heads: one token a keypoint, a gated attention unit over them, SimCC's two classifiers.

Jiang et al., "RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose", arXiv 2303.07399, section 3.2, and
"RTMW: Real-Time Multi-Person 2D and 3D Whole-body Pose Estimation", arXiv 2407.08634, section 3.2.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from posecli.backbones.cspnext import POSE, CSPNeXtPAFPN
from posecli.pose.config import PoseConfig


class ScaleNorm(nn.Module):
    """Vectors (..., d) of root mean square 1, times one learnt gain.

    Nguyen and Salazar, "Transformers without Tears: Improving the Normalization of Self-Attention", 2019, section 2.2.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) → the same shape."""
        size = x.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-5)
        return x / size * self.gain


class GatedAttention(nn.Module):
    """A gated attention unit: (N, K, d) → the same shape, each token seeing the others.

    Hua et al., "Transformer Quality in Linear Time", ICML 2022, section 2.2: squared ReLU attention of one head, its
    result gated. As in RTMPose the scores are divided by √keys, not by the number of tokens, without positions, and the
    input is added with a learnt factor a channel.
    """

    def __init__(self, width: int, keys: int, expanded: int) -> None:
        super().__init__()
        self.sizes = [expanded, expanded, keys]
        self.norm = ScaleNorm()
        self.uv = nn.Linear(width, 2 * expanded + keys, bias=False)
        self.gamma = nn.Parameter(torch.rand(2, keys))
        self.beta = nn.Parameter(torch.rand(2, keys))
        self.out = nn.Linear(expanded, width, bias=False)
        self.scale = nn.Parameter(torch.ones(width))
        nn.init.xavier_uniform_(self.uv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, d) → (N, K, d)."""
        gate, value, base = torch.split(functional.silu(self.uv(self.norm(x))), self.sizes, dim=-1)
        query, key = (base * self.gamma[i] + self.beta[i] for i in range(2))
        scores = functional.relu(query @ key.transpose(1, 2) / self.sizes[2] ** 0.5).square()
        return x * self.scale + cast(Tensor, self.out(gate * (scores @ value)))


class RTMCCHead(nn.Module):
    """RTMPose's head: a large convolution to one map a keypoint, each map a token.

    forward: the backbone's features, of which the coarsest count, → logits over x (N, K, W·k) and y (N, K, H·k).
    """

    def __init__(self, config: PoseConfig, channels: int, levels: Sequence[int] = ()) -> None:
        super().__init__()
        sizes, cells = config.attention, config.map_size[0] * config.map_size[1]
        self.final = nn.Conv2d(channels, len(config.keypoints), sizes.kernel, padding=sizes.kernel // 2)
        self.norm = ScaleNorm()
        self.embed = nn.Linear(cells, sizes.hidden, bias=False)
        self.attention = GatedAttention(sizes.hidden, sizes.keys, sizes.expanded)
        self.fc_x = nn.Linear(sizes.hidden, config.bins[0], bias=False)
        self.fc_y = nn.Linear(sizes.hidden, config.bins[1], bias=False)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features from fine to coarse → x and y logits."""
        maps = self.final(features[-1]).flatten(2)
        tokens = self.attention(self.embed(self.norm(maps)))
        return self.fc_x(tokens), self.fc_y(tokens)


class MapConv(nn.Sequential):
    """A k×k convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class RTMWHead(nn.Module):
    """RTMW's head: a path aggregation neck, then tokens of maps at 1/32 and at 1/16 side by side.

    The maps at 1/16 also get the coarser features, their channels rearranged as pixels. forward: features at 1/16, 1/8
    and, last, 1/32 → logits as RTMCCHead's.
    """

    def __init__(self, config: PoseConfig, channels: int, levels: Sequence[int] = ()) -> None:
        super().__init__()
        sizes, keypoints = config.attention, len(config.keypoints)
        cells = config.map_size[0] * config.map_size[1]
        half, quarter = channels // 2, channels // 4
        self.neck = CSPNeXtPAFPN((levels[1], levels[0], channels), None, blocks=sizes.neck_blocks, style=POSE)
        self.coarse = MapConv(channels, keypoints, sizes.kernel)
        self.coarse_norm, self.coarse_embed = ScaleNorm(), nn.Linear(cells, sizes.hidden // 2, bias=False)
        self.shuffled = MapConv(quarter, quarter, sizes.kernel)
        self.fine = MapConv(half + quarter, keypoints, sizes.kernel)
        self.fine_norm, self.fine_embed = ScaleNorm(), nn.Linear(4 * cells, sizes.hidden // 2, bias=False)
        self.attention = GatedAttention(sizes.hidden, sizes.keys, sizes.expanded)
        self.fc_x = nn.Linear(sizes.hidden, config.bins[0], bias=False)
        self.fc_y = nn.Linear(sizes.hidden, config.bins[1], bias=False)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features at 1/16, 1/8 and 1/32 → x and y logits."""
        middle, finest, coarsest = features
        _, fine, coarse = self.neck((finest, middle, coarsest))
        first = self.coarse_embed(self.coarse_norm(self.coarse(coarse).flatten(2)))
        fine = torch.cat([self.shuffled(functional.pixel_shuffle(coarse, 2)), fine], dim=1)
        second = self.fine_embed(self.fine_norm(self.fine(fine).flatten(2)))
        tokens = self.attention(torch.cat([first, second], dim=2))
        return self.fc_x(tokens), self.fc_y(tokens)
