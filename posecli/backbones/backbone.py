"""What a backbone says of itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn


class Backbone(NamedTuple):
    """Layers before any head: crops (N, 3, H, W) → features (N, channels, H/stride, W/stride).

    levels: names of the module's children whose outputs are the last at 1/16, 1/8 and 1/4 of the input's size, with
    their channels, for laterals; empty where it offers none. coarse: channels of a second, coarser output, from which
    the heads of the whole crop read; None where the module gives one output, which then serves.
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
