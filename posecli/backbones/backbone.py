"""The types of a backbone and its registry entry."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn


class Backbone(NamedTuple):
    """Layers before any head: crops (N, 3, H, W) → features (N, channels, H/stride, W/stride).

    levels: names of the module's children with the last outputs at 1/16, 1/8 and 1/4 of the input's size, and their
    channels, for laterals; empty where it has none. coarse: channels of a second, coarser output for person score and
    box head; None where the module has one output, which is then used.
    """

    module: nn.Module
    channels: int
    levels: tuple[tuple[str, int], ...] = ()
    coarse: int | None = None


@dataclass(frozen=True)
class BackboneSpec:
    """How to make a backbone with random weights. stride: input pixels a side per cell of its finest output."""

    build: Callable[[], Backbone]
    stride: int = 32
