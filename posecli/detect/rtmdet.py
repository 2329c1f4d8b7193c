"""RTMDet-nano's parts for torchvision's FCOS: features of CSPNeXt and its neck, and a head of separable convolutions.

Lyu et al., arXiv 2212.07784. As there, one output is both the classification score of a location and the quality of its
box (quality focal loss). It is used both as FCOS's class score and as its centreness, so that their geometric mean is
the output itself.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from posecli.backbones.cspnext import STRIDES, CSPNeXt, CSPNeXtPAFPN, SeparableConv


class Features(nn.Module):
    """CSPNeXt and its neck: (N, 3, H, W), H and W multiples of 32 → {"0": at stride 8, "1": 16, "2": 32}.

    out_channels: of every map, for torchvision.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = CSPNeXt()
        self.neck = CSPNeXtPAFPN(self.body.channels, channels)
        self.out_channels = channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Maps from fine to coarse."""
        maps = self.neck(self.body(x))
        return OrderedDict((str(level), features) for level, features in enumerate(maps))


class Head(nn.Module):
    """A tower for the score and one for the box at each stride, each of `convolutions` separable 3×3 convolutions."""

    def __init__(self, channels: int, convolutions: int) -> None:
        super().__init__()

        def towers() -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(*(SeparableConv(channels, channels, 3) for _ in range(convolutions))) for _ in STRIDES
            )

        self.score_towers, self.box_towers = towers(), towers()
        self.scores = nn.ModuleList(nn.Conv2d(channels, 1, 1) for _ in STRIDES)
        self.boxes = nn.ModuleList(nn.Conv2d(channels, 4, 1) for _ in STRIDES)

    def maps(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (N, 1, H, W) and distances to left, top, right, bottom in strides (N, 4, H, W), of each level."""
        logits = [last(tower(x)) for last, tower, x in zip(self.scores, self.score_towers, features, strict=True)]
        distances = [last(tower(x)) for last, tower, x in zip(self.boxes, self.box_towers, features, strict=True)]
        return logits, distances

    def forward(self, features: list[Tensor]) -> dict[str, Tensor]:
        """torchvision's outputs over the A locations of all levels: (N, A, 1), (N, A, 4), (N, A, 1)."""
        logits, distances = (
            torch.cat([x.flatten(2) for x in maps], dim=2).transpose(1, 2) for maps in self.maps(features)
        )
        return {"cls_logits": logits, "bbox_regression": distances, "bbox_ctrness": logits}
