"""The types of a backbone and its registry entry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from posecli.errors import DataError


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
    """How to make a backbone with random weights. stride: input pixels a side per cell of its finest output.

    sized: makes one of other sizes, of its channels (widths) and its blocks a stage; None where there is one size only.
    """

    build: Callable[[], Backbone]
    stride: int = 32
    sized: Callable[[Sequence[int], Sequence[int]], Backbone] | None = None

    def make(self, widths: Sequence[int] = (), blocks: Sequence[int] = ()) -> Backbone:
        """The backbone, of these sizes where they are given. Raises DataError where it has one size only."""
        if not widths and not blocks:
            return self.build()
        if self.sized is None:
            raise DataError("this backbone has one size only: it takes no widths or blocks")
        return self.sized(widths, blocks)
