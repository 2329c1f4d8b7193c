"""Lite-HRNet without channel shuffles: the same function in fewer operations, for inference.

A shuffle moves memory and computes nothing. Here channels stay where they are, and the weights of whatever reads them
are reordered instead. A shuffle unit becomes three convolutions of which the first reads all channels (with zeros for
the half that is kept), the last writes all (zeros likewise), and a sum with the masked input in place of a split and a
concatenation.

An order (C,) lists for each channel of a tensor the channel of the original network that it holds.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from posecli.backbones.lite_hrnet import STEM_WIDTH, WIDTHS, LiteHRNet, Module, ShuffleUnit, Stem


def _widened(conv: nn.Conv2d, inputs: Tensor | None, outputs: Tensor | None, size: tuple[int, int]) -> nn.Conv2d:
    """A 1×1 convolution with weights at some of its channels, of (inputs, outputs) in number; the others are 0.

    inputs, outputs: places (C,) of the convolution's own channels, None where it has them all.
    """
    wide = nn.Conv2d(*size, 1)
    weight = torch.zeros(size[1], conv.in_channels, 1, 1)
    bias = torch.zeros(size[1])
    rows = torch.arange(size[1]) if outputs is None else outputs
    weight[rows], bias[rows] = conv.weight.data, cast(Tensor, conv.bias).data
    wide.weight.data.zero_()
    wide.weight.data[:, torch.arange(size[0]) if inputs is None else inputs] = weight
    cast(Tensor, wide.bias).data.copy_(bias)
    return wide


class _MaskedUnit(nn.Module):
    """A shuffle unit for inputs of an order; order: that of the outputs."""

    mask: Tensor

    def __init__(self, unit: ShuffleUnit, inputs: Tensor) -> None:
        super().__init__()
        first, relu, depthwise, last, _ = unit.branch
        channels, half = len(inputs), len(inputs) // 2
        changed = inputs >= half
        # For each of the branch's channels the place among all.
        places = torch.argsort(inputs)[half:]
        reads = _widened(cast(nn.Conv2d, first), places, None, (channels, half))
        writes = _widened(cast(nn.Conv2d, last), None, places, (half, channels))
        self.branch = nn.Sequential(reads, relu, depthwise, writes, nn.ReLU())
        self.register_buffer("mask", (~changed).float().view(1, -1, 1, 1))
        self.order = torch.where(changed, 2 * (inputs - half) + 1, 2 * inputs)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x * self.mask + self.branch(x))


class _UnshuffledStem(nn.Module):
    """The stem without its split, concatenation and shuffle; ORDER: of its outputs."""

    ORDER = torch.arange(STEM_WIDTH).view(-1, 2).t().flatten()

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        near_depthwise, near_last, _ = cast(tuple[nn.Conv2d, nn.Conv2d, nn.ReLU], tuple(stem.near))
        first, relu, depthwise, last, _ = stem.far
        half = STEM_WIDTH // 2
        near, far = torch.arange(half), torch.arange(half, STEM_WIDTH)
        every = nn.Conv2d(STEM_WIDTH, STEM_WIDTH, 3, 2, 1, groups=STEM_WIDTH)
        for own, given in ((every.weight, near_depthwise.weight), (every.bias, near_depthwise.bias)):
            cast(Tensor, own).data.zero_()
            cast(Tensor, own).data[:half] = cast(Tensor, given).data
        self.conv = stem.conv
        self.near = nn.Sequential(every, _widened(near_last, near, near, (STEM_WIDTH, STEM_WIDTH)))
        self.far = nn.Sequential(
            _widened(cast(nn.Conv2d, first), far, None, (STEM_WIDTH, STEM_WIDTH)),
            relu,
            depthwise,
            _widened(cast(nn.Conv2d, last), None, far, (STEM_WIDTH, STEM_WIDTH)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu(self.conv(x))
        # Each of the two is 0 where the other is not.
        return nn.functional.relu(self.near(x) + self.far(x))


class _SummedModule(nn.Module):
    """A module whose sums are made from the coarsest map on, each with one map more and enlarged by two.

    The weights of the finest map's way to the others are doubled in place of adding it twice.
    """

    def __init__(self, module: Module) -> None:
        super().__init__()
        self.branches, self.fuse = module.branches, module.fuse
        for ways in list(self.fuse)[1:]:
            last = cast(nn.Conv2d, cast(nn.Sequential, cast(nn.ModuleDict, ways)["0"])[-1])
            last.weight.data *= 2
            cast(Tensor, last.bias).data *= 2

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        outputs = [branch(x) for branch, x in zip(self.branches, inputs, strict=True)]
        fused = []
        for target, ways in enumerate(cast(Iterable[nn.ModuleDict], self.fuse)):
            coarser: Tensor | None = None
            for source in reversed(range(target + 1, len(outputs))):
                part = ways[str(source)](outputs[source])
                part = part if coarser is None else part + coarser
                coarser = nn.functional.interpolate(part, scale_factor=2.0)
            total = 2 * outputs[0] if target == 0 else ways["0"](outputs[0])
            for source in range(1, target + 1):
                total = total + (outputs[source] if source == target else ways[str(source)](outputs[source]))
            total = total if coarser is None else total + coarser
            if target == 0:
                outputs[0] = total
            fused.append(nn.functional.relu(total))
        return fused


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
            modules = cast(nn.ModuleList, stage)
            for i, module in enumerate(modules):
                orders = _without_shuffles(cast(Module, module), orders)
                modules[i] = _SummedModule(cast(Module, module))
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
