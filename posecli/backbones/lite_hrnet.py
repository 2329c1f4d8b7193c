"""Lite-HRNet in the "naive, wider" form of PP-TinyPose, with an iterative head: features at a quarter of the input.

Yu et al., "Lite-HRNet: A Lightweight High-Resolution Network", CVPR 2021, section 3.1 (shuffle blocks in an HRNet
without conditional channel weighting). Batch norms are folded: every convolution has a bias and no norm follows it.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from posecli.backbones.backbone import Backbone

# Channels of the four resolutions (1/4, 1/8, 1/16, 1/32), and modules of the stages with 2, 3 and 4 of them.
WIDTHS = (40, 80, 160, 320)
MODULES = (2, 4, 2)
STEM_WIDTH = 32


def lite_hrnet() -> Backbone:
    """Features at 1/4, and coarse ones at 1/32."""
    return Backbone(LiteHRNet(), WIDTHS[0], coarse=WIDTHS[-1])


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1)


def _depthwise(channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, 1, groups=channels)


class Stem(nn.Module):
    """(N, 3, H, W) → (N, 32, H/4, W/4)."""

    def __init__(self) -> None:
        super().__init__()
        half = STEM_WIDTH // 2
        self.conv = nn.Conv2d(3, STEM_WIDTH, 3, 2, 1)
        self.near = nn.Sequential(_depthwise(half, 2), _pointwise(half, half), nn.ReLU())
        self.far = nn.Sequential(
            _pointwise(half, STEM_WIDTH), nn.ReLU(), _depthwise(STEM_WIDTH, 2), _pointwise(STEM_WIDTH, half), nn.ReLU()
        )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Crops (N, 3, H, W) → (N, 32, H/4, W/4)."""
        near, far = functional.relu(self.conv(x)).chunk(2, dim=1)
        return cast(Tensor, self.shuffle(torch.cat([self.near(near), self.far(far)], dim=1)))


class ShuffleUnit(nn.Module):
    """Half of the channels through 1×1, depthwise 3×3 and 1×1, then a shuffle. Keeps the shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            _pointwise(half, half), nn.ReLU(), _depthwise(half), _pointwise(half, half), nn.ReLU()
        )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → the same shape."""
        kept, changed = x.chunk(2, dim=1)
        return cast(Tensor, self.shuffle(torch.cat([kept, self.branch(changed)], dim=1)))


def _downsample(steps: int, inputs: int, outputs: int) -> nn.Sequential:
    """Halve the size steps times; only the last step changes the channels."""
    layers: list[nn.Module] = []
    for step in range(steps):
        last = step == steps - 1
        layers += [_depthwise(inputs, 2), _pointwise(inputs, outputs if last else inputs)]
        layers += [] if last else [nn.ReLU()]
    return nn.Sequential(*layers)


class Module(nn.Module):
    """Two shuffle units in each branch, then fusion of all resolutions.

    The published implementation adds the finest branch twice, and uses its fused sum for the coarser ones; the weights
    are trained for that, so it is done here too.
    """

    def __init__(self, branches: int, shuffles: int = 2) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(ShuffleUnit(WIDTHS[i]) for _ in range(shuffles))) for i in range(branches)
        )
        self.fuse = nn.ModuleList(
            nn.ModuleDict(
                {
                    str(source): _pointwise(WIDTHS[source], WIDTHS[target])
                    if source > target
                    else _downsample(target - source, WIDTHS[source], WIDTHS[target])
                    for source in range(branches)
                    if source != target
                }
            )
            for target in range(branches)
        )

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """One map (N, WIDTHS[i], h/2ⁱ, w/2ⁱ) for each branch → the same shapes."""
        outputs = [branch(x) for branch, x in zip(self.branches, inputs, strict=True)]
        fused = []
        for target, ways in enumerate(cast(Iterable[nn.ModuleDict], self.fuse)):
            first = outputs[0] if target == 0 else ways["0"](outputs[0])
            total = first + first
            for source in range(1, len(outputs)):
                part = outputs[source] if source == target else ways[str(source)](outputs[source])
                if source > target:
                    part = functional.interpolate(part, scale_factor=float(2 ** (source - target)))
                total = total + part
            if target == 0:
                outputs[0] = total
            fused.append(functional.relu(total))
        return fused


class LiteHRNet(nn.Module):
    """(N, 3, H, W) → (N, 40, H/4, W/4) and the coarsest branch (N, 320, H/32, W/32); H and W multiples of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        # The new branch of each stage has half the size of the coarsest one before.
        self.first = nn.Sequential(_depthwise(STEM_WIDTH), _pointwise(STEM_WIDTH, WIDTHS[0]), nn.ReLU())
        coarsest = (STEM_WIDTH, WIDTHS[1], WIDTHS[2])
        self.enter = nn.ModuleList(
            nn.Sequential(_downsample(1, inputs, outputs), nn.ReLU())
            for inputs, outputs in zip(coarsest, WIDTHS[1:], strict=True)
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(Module(branches) for _ in range(count))
            for branches, count in zip((2, 3, 4), MODULES, strict=True)
        )
        widths = WIDTHS[::-1]
        self.head = nn.ModuleList(
            nn.Sequential(_depthwise(inputs), _pointwise(inputs, outputs), nn.ReLU())
            for inputs, outputs in zip(widths, (*widths[1:], widths[-1]), strict=True)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Crops to features at 1/4 and at 1/32 of their size."""
        stem = self.stem(x)
        maps = [self.first(stem)]
        coarsest = stem
        for enter, stage in zip(self.enter, self.stages, strict=True):
            maps.append(enter(coarsest))
            for module in cast(nn.ModuleList, stage):
                maps = module(maps)
            coarsest = maps[-1]
        x = self.head[0](maps[-1])
        for layer, finer in zip(list(self.head)[1:], maps[-2::-1], strict=True):
            # Twice the size whatever the input's: a size taken from a tensor would be traced as a constant.
            x = finer + functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
            x = layer(x)
        return x, coarsest
