"""CSPNeXt and its path aggregation neck, as in RTMDet.

Lyu et al., "RTMDet: An Empirical Study of Designing Real-Time Object Detectors", arXiv 2212.07784. Written from that
description, with depthwise separable convolutions as in the paper's "nano" model. Without norms every convolution has a
bias, as after folding batch norms into their convolutions.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (8, 16, 32)
# Channels at widen 1 and blocks at deepen 1 of the stages at strides 4, 8, 16 and 32.
_CHANNELS = (128, 256, 512, 1024)
_BLOCKS = (3, 6, 6, 3)
_STEM = 64


class Conv(nn.Sequential):
    """k×k convolution, batch norm if asked for, SiLU: (N, C, H, W) → (N, D, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, norm: bool = False):
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=not norm)
        ]
        if norm:
            layers.append(nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03))
        super().__init__(*layers, nn.SiLU(inplace=True))


class SeparableConv(nn.Sequential):
    """k×k convolution of each channel, then 1×1, each with its norm and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, norm: bool = False):
        super().__init__(
            Conv(inputs, inputs, kernel, stride, groups=inputs, norm=norm), Conv(inputs, outputs, 1, norm=norm)
        )


class Block(nn.Module):
    """3×3 then 5×5 depthwise separable convolutions, added to the input if asked for."""

    def __init__(self, channels: int, residual: bool, norm: bool):
        super().__init__()
        self.conv1 = SeparableConv(channels, channels, 3, norm=norm)
        self.conv2 = SeparableConv(channels, channels, 5, norm=norm)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        out: Tensor = self.conv2(self.conv1(x))
        return out + x if self.residual else out


class ChannelAttention(nn.Module):
    """Scales channels by a hard sigmoid of a 1×1 convolution of their means."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        return x * functional.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class CSPLayer(nn.Module):
    """Cross stage partial layer: half of the channels pass through blocks; a 1×1 convolution fuses both halves."""

    def __init__(self, inputs: int, outputs: int, blocks: int, residual: bool, attention: bool, norm: bool):
        super().__init__()
        half = outputs // 2
        self.main = Conv(inputs, half, 1, norm=norm)
        self.short = Conv(inputs, half, 1, norm=norm)
        self.blocks = nn.Sequential(*(Block(half, residual, norm) for _ in range(blocks)))
        self.attention = ChannelAttention(2 * half) if attention else nn.Identity()
        self.final = Conv(2 * half, outputs, 1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, D, H, W)."""
        joined = torch.cat([self.blocks(self.main(x)), self.short(x)], dim=1)
        out: Tensor = self.final(self.attention(joined))
        return out


class SpatialPyramidPooling(nn.Module):
    """The map concatenated with its maxima over 5×5, 9×9 and 13×13, between two 1×1 convolutions."""

    def __init__(self, channels: int, norm: bool):
        super().__init__()
        self.before = Conv(channels, channels // 2, 1, norm=norm)
        self.after = Conv(channels * 2, channels, 1, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → the same shape."""
        x = self.before(x)
        # Two maxima over 5×5, one after the other, are one over 9×9, and three one over 13×13.
        pooled = [x]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, 1, 2))
        out: Tensor = self.after(torch.cat(pooled, dim=1))
        return out


class CSPNeXt(nn.Module):
    """The backbone: (N, 3, H, W) with H and W multiples of 32 → maps at strides 8, 16 and 32.

    widen, deepen: factors of the channels and blocks; the paper's nano is 0.25 and 0.33.
    channels: those of the maps, at widen 0.25 64, 128 and 256.
    """

    def __init__(self, widen: float = 0.25, deepen: float = 0.33, norm: bool = False):
        super().__init__()
        stem = int(_STEM * widen)
        widths = [int(channels * widen) for channels in _CHANNELS]
        self.channels = tuple(widths[1:])
        self.stem = nn.Sequential(
            Conv(3, stem // 2, 3, 2, norm=norm),
            Conv(stem // 2, stem // 2, 3, norm=norm),
            Conv(stem // 2, stem, 3, norm=norm),
        )
        stages = []
        for number, (inputs, outputs, blocks) in enumerate(zip([stem, *widths], widths, _BLOCKS, strict=False)):
            last = number == len(widths) - 1
            layers: list[nn.Module] = [SeparableConv(inputs, outputs, 3, 2, norm=norm)]
            if last:
                layers.append(SpatialPyramidPooling(outputs, norm))
            count = max(1, round(blocks * deepen))
            layers.append(CSPLayer(outputs, outputs, count, residual=not last, attention=True, norm=norm))
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) → [(N, C, H/8, W/8), (N, 2C, H/16, W/16), (N, 4C, H/32, W/32)]."""
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[1:]


class CSPNeXtPAFPN(nn.Module):
    """Path aggregation, top-down and then bottom-up; all output maps have the same number of channels."""

    def __init__(self, channels: Sequence[int], outputs: int, deepen: float = 0.33, norm: bool = False):
        super().__init__()
        count = max(1, round(3 * deepen))

        def layer(inputs: int, out: int) -> CSPLayer:
            return CSPLayer(inputs, out, count, residual=False, attention=False, norm=norm)

        pairs = list(pairwise(channels))
        self.reduce = nn.ModuleList(Conv(coarse, fine, 1, norm=norm) for fine, coarse in pairs)
        self.up = nn.ModuleList(layer(2 * fine, fine) for fine, _ in pairs)
        self.down = nn.ModuleList(SeparableConv(fine, fine, 3, 2, norm=norm) for fine, _ in pairs)
        self.back = nn.ModuleList(layer(2 * fine, coarse) for fine, coarse in pairs)
        self.out = nn.ModuleList(SeparableConv(inputs, outputs, 3, norm=norm) for inputs in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps from fine to coarse, each half as large as the one before → as many, with `outputs` channels."""
        x = maps[-1]
        reduced: list[Tensor] = []
        for level in reversed(range(len(self.reduce))):
            x = self.reduce[level](x)
            reduced.insert(0, x)
            larger = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = self.up[level](torch.cat([larger, maps[level]], dim=1))
        results = [x]
        for level, coarse in enumerate(reduced):
            x = self.back[level](torch.cat([self.down[level](x), coarse], dim=1))
            results.append(x)
        return [layer(x) for layer, x in zip(self.out, results, strict=True)]
