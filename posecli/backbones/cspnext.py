"""CSPNeXt and its path aggregation neck, as in RTMDet and RTMPose.

Lyu et al., "RTMDet: An Empirical Study of Designing Real-Time Object Detectors", arXiv 2212.07784. Written from that
description. The paper's "nano" model has depthwise separable convolutions throughout; RTMPose's backbones (Jiang et
al., arXiv 2303.07399) have them in the second half of each block only. Without norms, every convolution has a bias:
batch norms folded into their convolutions give exactly that.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from posecli.backbones.backbone import Backbone
from posecli.errors import DataError

STRIDES = (8, 16, 32)
# Channels at widen 1 and blocks at deepen 1 of the stages at strides 4, 8, 16 and 32.
_CHANNELS = (128, 256, 512, 1024)
_BLOCKS = (3, 6, 6, 3)
_STEM = 64
# Channels of RTMPose-m's backbone, the stem's first, and blocks a stage: widen 0.75 and deepen 0.67.
MEDIUM = ((48, 96, 192, 384, 768), (2, 4, 4, 2))


@dataclass(frozen=True)
class Style:
    """What the convolutions of a network have in common.

    norm: batch norms with this epsilon and momentum, instead of biases. separable: depthwise separable convolutions
    also where a stage begins and in the first half of each block.
    """

    norm: bool = False
    eps: float = 1e-3
    momentum: float = 0.03
    separable: bool = True


PLAIN = Style()
# The published pose models' norms are torch's own.
POSE = Style(norm=True, eps=1e-5, momentum=0.1, separable=False)


class Conv(nn.Sequential):
    """k×k convolution, batch norm if asked for, SiLU: (N, C, H, W) → (N, D, H/stride, W/stride)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, style: Style = Style()
    ):
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=not style.norm)
        ]
        if style.norm:
            layers.append(nn.BatchNorm2d(outputs, style.eps, style.momentum))
        super().__init__(*layers, nn.SiLU(inplace=True))


class SeparableConv(nn.Sequential):
    """k×k convolution of each channel, then 1×1, each with its norm and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, style: Style = PLAIN):
        super().__init__(
            Conv(inputs, inputs, kernel, stride, groups=inputs, style=style), Conv(inputs, outputs, 1, style=style)
        )


def _conv(inputs: int, outputs: int, stride: int, style: Style) -> nn.Module:
    """A 3×3 convolution, separable where the style says so."""
    return (SeparableConv if style.separable else Conv)(inputs, outputs, 3, stride, style=style)


class Block(nn.Module):
    """A 3×3 then a 5×5 depthwise separable convolution, added to the input if asked for."""

    def __init__(self, channels: int, residual: bool, style: Style):
        super().__init__()
        self.conv1 = _conv(channels, channels, 1, style)
        self.conv2 = SeparableConv(channels, channels, 5, style=style)
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

    def __init__(self, inputs: int, outputs: int, blocks: int, residual: bool, attention: bool, style: Style):
        super().__init__()
        half = outputs // 2
        self.main = Conv(inputs, half, 1, style=style)
        self.short = Conv(inputs, half, 1, style=style)
        self.blocks = nn.Sequential(*(Block(half, residual, style) for _ in range(blocks)))
        self.attention = ChannelAttention(2 * half) if attention else nn.Identity()
        self.final = Conv(2 * half, outputs, 1, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, D, H, W)."""
        joined = torch.cat([self.blocks(self.main(x)), self.short(x)], dim=1)
        out: Tensor = self.final(self.attention(joined))
        return out


class SpatialPyramidPooling(nn.Module):
    """The map concatenated with its maxima over 5×5, 9×9 and 13×13, between two 1×1 convolutions."""

    def __init__(self, channels: int, style: Style):
        super().__init__()
        self.before = Conv(channels, channels // 2, 1, style=style)
        self.after = Conv(channels // 2 * 4, channels, 1, style=style)

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

    widen, deepen: factors of the channels and blocks; the paper's nano is 0.25 and 0.33. sizes: channels of stem and
    stages, and blocks a stage, instead. channels: those of the maps, at widen 0.25 64, 128 and 256.
    """

    def __init__(
        self,
        widen: float = 0.25,
        deepen: float = 0.33,
        norm: bool = False,
        *,
        sizes: tuple[Sequence[int], Sequence[int]] | None = None,
        style: Style | None = None,
    ):
        super().__init__()
        style = style or Style(norm)
        if sizes is None:
            widths, counts = [int(c * widen) for c in (_STEM, *_CHANNELS)], [round(n * deepen) for n in _BLOCKS]
        else:
            widths, counts = list(sizes[0]), list(sizes[1])
        stem, *widths = widths
        self.channels = tuple(widths[1:])
        self.stem = nn.Sequential(
            Conv(3, stem // 2, 3, 2, style=style),
            Conv(stem // 2, stem // 2, 3, style=style),
            Conv(stem // 2, stem, 3, style=style),
        )
        stages = []
        for number, (inputs, outputs, blocks) in enumerate(zip([stem, *widths], widths, counts, strict=False)):
            last = number == len(widths) - 1
            layers: list[nn.Module] = [_conv(inputs, outputs, 2, style)]
            if last:
                layers.append(SpatialPyramidPooling(outputs, style))
            layers.append(CSPLayer(outputs, outputs, max(1, blocks), residual=not last, attention=True, style=style))
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


def cspnext_features(widths: Sequence[int] = (), blocks: Sequence[int] = ()) -> Backbone:
    """RTMPose's backbone: features at 1/32. widths: channels of the stem and four stages; blocks: of each stage.

    Without sizes those of RTMPose-m. Raises DataError for another number of stages.
    """
    widths, blocks = widths or MEDIUM[0], blocks or MEDIUM[1]
    if len(widths) != 5 or len(blocks) != 4 or min(blocks) < 1 or min(widths) < 2:
        raise DataError("backbone cspnext: widths are five numbers above 1, blocks four above 0")
    body = CSPNeXt(sizes=(widths, blocks), style=POSE)
    stages = {f"stage{i + 1}": stage for i, stage in enumerate(body.stages)}
    levels = tuple((f"stage{i}", widths[i]) for i in (3, 2, 1))
    return Backbone(nn.Sequential(OrderedDict(stem=body.stem, **stages)), widths[4], levels)


class CSPNeXtPAFPN(nn.Module):
    """Path aggregation, top-down and then bottom-up; all output maps have the same number of channels.

    outputs: these channels; without them the maps keep their own. blocks: in each layer, instead of deepen.
    """

    def __init__(
        self,
        channels: Sequence[int],
        outputs: int | None,
        deepen: float = 0.33,
        norm: bool = False,
        *,
        blocks: int | None = None,
        style: Style | None = None,
    ):
        super().__init__()
        count = blocks or max(1, round(3 * deepen))
        chosen = style or Style(norm)

        def layer(inputs: int, out: int) -> CSPLayer:
            return CSPLayer(inputs, out, count, residual=False, attention=False, style=chosen)

        pairs = list(pairwise(channels))
        self.reduce = nn.ModuleList(Conv(coarse, fine, 1, style=chosen) for fine, coarse in pairs)
        self.up = nn.ModuleList(layer(2 * fine, fine) for fine, _ in pairs)
        self.down = nn.ModuleList(_conv(fine, fine, 2, chosen) for fine, _ in pairs)
        self.back = nn.ModuleList(layer(2 * fine, coarse) for fine, coarse in pairs)
        if outputs is None:
            self.out = nn.ModuleList(nn.Identity() for _ in channels)
        else:
            self.out = nn.ModuleList(SeparableConv(inputs, outputs, 3, style=chosen) for inputs in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps from fine to coarse, each half as large as the last → as many, of `outputs` channels or their own."""
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
