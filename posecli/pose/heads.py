"""Heads of pose models, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from posecli.errors import DataError
from posecli.pose.attention_heads import RTMCCHead, RTMWHead
from posecli.pose.config import PoseConfig
from posecli.weights.header import shown


@dataclass(frozen=True)
class HeadSpec:
    """How to make a head.

    build: from the configuration, the channels of the backbone's last features and those of its levels (at 1/16, 1/8
    and 1/4), a module that maps features, the last at 1/32, to x and y logits. None: network.SimCC's own layers.
    levels: how many of the backbone's levels it reads, before the last features.
    """

    build: Callable[[PoseConfig, int, Sequence[int]], nn.Module] | None
    levels: int = 0


# One line adds a head; its sizes are fields of PoseConfig.
HEADS: dict[str, HeadSpec] = {
    "simcc": HeadSpec(None),
    "rtmcc": HeadSpec(RTMCCHead),
    "rtmw": HeadSpec(RTMWHead, levels=2),
}


def find_head(name: str) -> HeadSpec:
    """The head of this name. Raises DataError where there is none."""
    if name not in HEADS:
        raise DataError(f"head {shown(name)}: choose from {', '.join(HEADS)}")
    return HEADS[name]
