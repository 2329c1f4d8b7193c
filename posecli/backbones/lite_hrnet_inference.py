"""Lite-HRNet without channel shuffles: the same function in fewer operations, for inference.

A shuffle moves memory and computes nothing. Here channels stay where they are, and the weights of whatever reads them
are reordered instead. A shuffle unit becomes three convolutions of which the first reads all channels (with zeros for
the half that is kept), the last writes all (zeros likewise), and a sum with the masked input in place of a split and a
concatenation.

An order (C,) lists for each channel of a tensor the channel of the original network that it holds.
"""

import copy
from typing import cast

import torch
from torch import Tensor, nn

from posecli.backbones.lite_hrnet import STEM_WIDTH, WIDTHS, LiteHRNet, Module, ShuffleUnit, Stem


class _MaskedUnit(nn.Module):
    """A shuffle unit for inputs of an order; order: that of the outputs."""

    mask: Tensor

    def __init__(self, unit: ShuffleUnit, inputs: Tensor) -> None:
        super().__init__()
        first, relu, depthwise, last, _ = unit.branch
        channels, half = len(inputs), len(inputs) // 2
        changed = inputs >= half
        rows = inputs[changed] - half
        reads, writes = nn.Conv2d(channels, half, 1), nn.Conv2d(half, channels, 1)
        for conv in (reads, writes):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(cast(Tensor, conv.bias))
        reads.weight.data[:, changed] = cast(Tensor, first.weight).data[:, rows]
        cast(Tensor, reads.bias).data.copy_(cast(Tensor, first.bias).data)
        writes.weight.data[changed] = cast(Tensor, last.weight).data[rows]
        cast(Tensor, writes.bias).data[changed] = cast(Tensor, last.bias).data[rows]
        self.branch = nn.Sequential(reads, relu, depthwise, writes, nn.ReLU())
        self.register_buffer("mask", (~changed).float().view(1, -1, 1, 1))
        self.order = torch.where(changed, 2 * (inputs - half) + 1, 2 * inputs)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x * self.mask + self.branch(x))


class _UnshuffledStem(nn.Module):
    """The stem without its last shuffle; ORDER: of its outputs."""

    ORDER = torch.arange(STEM_WIDTH).view(-1, 2).t().flatten()

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        self.conv, self.near, self.far = stem.conv, stem.near, stem.far

    def forward(self, x: Tensor) -> Tensor:
        x, half = nn.functional.relu(self.conv(x)), STEM_WIDTH // 2
        return torch.cat([self.near(x[:, :half]), self.far(x[:, half:])], dim=1)


class InferenceLiteHRNet(nn.Module):
    """Outputs of a LiteHRNet up to rounding errors, from a copy of its weights. forward: see LiteHRNet."""

    natural: Tensor

    def __init__(self, network: LiteHRNet) -> None:
        super().__init__()
        self.network = network = copy.deepcopy(network).cpu()
        network.stem = cast(Stem, _UnshuffledStem(network.stem))
        _reorder(network.first, _UnshuffledStem.ORDER, None)
        orders, coarsest = [torch.arange(WIDTHS[0])], _UnshuffledStem.ORDER
        for enter, stage, width in zip(network.enter, network.stages, WIDTHS[1:], strict=True):
            down, _ = cast(nn.Sequential, enter)
            _reorder(cast(nn.Sequential, down), coarsest, None)
            orders.append(torch.arange(width))
            for module in cast(nn.ModuleList, stage):
                orders = _without_shuffles(cast(Module, module), orders)
            coarsest = orders[-1]
        # Each layer of the head reads a sum in the order of a finer map, which the layer before must write.
        for i, (layer, order) in enumerate(zip(network.head, orders[::-1], strict=True)):
            following = orders[-2 - i] if i + 1 < len(orders) else None
            _reorder(cast(nn.Sequential, layer), order, following)
        self.register_buffer("natural", torch.argsort(coarsest))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Crops to features at 1/4 and at 1/32 of their size."""
        fine, coarse = self.network(x)
        return fine, coarse[:, self.natural]


def _without_shuffles(module: Module, inputs: list[Tensor]) -> list[Tensor]:
    """Replace the module's shuffle units for inputs of these orders; the orders of its outputs."""
    orders = []
    for branch, order in zip(module.branches, inputs, strict=True):
        units = cast(nn.Sequential, branch)
        for i in range(len(units)):
            unit = _MaskedUnit(cast(ShuffleUnit, units[i]), order)
            units[i], order = unit, unit.order
        orders.append(order)
    # A sum contains the branch of its own resolution, whose order the others must write.
    for target, ways in enumerate(module.fuse):
        for source, way in cast(nn.ModuleDict, ways).items():
            layers = way if isinstance(way, nn.Sequential) else nn.Sequential(way)
            _reorder(layers, orders[int(source)], orders[target])
    return orders


def _reorder(layers: nn.Sequential, inputs: Tensor, outputs: Tensor | None) -> None:
    """Reorder the weights of a chain of convolutions for its inputs' and its outputs' order, None for the original."""
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    order: Tensor | None = inputs
    for conv in convolutions:
        weight, bias = conv.weight.data, cast(Tensor, conv.bias).data
        if conv.groups > 1:  # depthwise: keeps its inputs' order
            rows = order
        else:
            if order is not None:
                weight = weight[:, order]
            rows = order = outputs if conv is convolutions[-1] else None
        conv.weight.data = weight if rows is None else weight[rows]
        cast(Tensor, conv.bias).data = bias if rows is None else bias[rows]
