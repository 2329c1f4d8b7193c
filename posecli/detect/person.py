"""The embedded person detector: torchvision's FCOS, with a small backbone and head (ARCHITECTURES).

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator

from posecli.backbones import cspnext
from posecli.detect.rtmdet import Features, Head
from posecli.errors import DataError
from posecli.weights.header import Fields, shown

# Longest side of the letterboxed picture that a header may ask for.
LARGEST_SIDE = 4096


@dataclass(frozen=True)
class PersonConfig:
    """What the embedded detector is: it stands in its weights' header.

    architecture: a name of ARCHITECTURES. input_size: largest (height, width) that images are letterboxed to.
    channels, convolutions: of the head. threshold: default lowest score of a person, of the detector alone. proposal,
    verified: lowest scores of a proposal and of a person, where the pose model verifies proposals.
    """

    architecture: str = "fcos_cspnext"
    input_size: tuple[int, int] = (416, 416)
    channels: int = 64
    convolutions: int = 2
    threshold: float = 0.3
    proposal: float = 0.3
    verified: float = 0.3
    nms_iou: float = 0.5
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "PersonConfig":
        """From a weights header's "config"; what is not there has its default.

        Raises DataError for a value that is unknown, of another type or out of its limits.
        """
        defaults = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(cls()).items()}
        # Older headers have one default score for both.
        defaults["verified"] = values.get("threshold", defaults["verified"])
        found = Fields.of({**defaults, **values}, "config")
        found.only(defaults)
        architecture = found.text("architecture")
        if architecture not in ARCHITECTURES:
            raise DataError(f"config: architecture {shown(architecture)} is none of {', '.join(ARCHITECTURES)}")
        height, width = found.wholes("input_size", 32, LARGEST_SIDE, count=2)
        if height % 32 or width % 32:
            raise DataError(f"config: input_size is {height}, {width}, not multiples of 32")
        red, green, blue = found.numbers("mean", -1e4, 1e4, count=3)
        std_red, std_green, std_blue = found.numbers("std", 1e-4, 1e4, count=3)
        channels = found.whole("channels", 32, 2048)
        if channels % 32:
            raise DataError(f"config: channels is {channels}, not a multiple of 32")
        return cls(
            architecture=architecture,
            input_size=(height, width),
            channels=channels,
            convolutions=found.whole("convolutions", 1, 16),
            threshold=found.number("threshold", 0, 1),
            proposal=found.number("proposal", 0, 1),
            verified=found.number("verified", 0, 1),
            nms_iou=found.number("nms_iou", 0, 1),
            mean=(red, green, blue),
            std=(std_red, std_green, std_blue),
        )

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the levels, in pixels of the letterboxed image."""
        return ARCHITECTURES[self.architecture].strides


@dataclass(frozen=True)
class Architecture:
    """An entry of ARCHITECTURES.

    strides: of the levels. build: gives the backbone, which maps (N, 3, H, W) to a dict of maps from fine to coarse,
    and the head.
    """

    strides: tuple[int, ...]
    build: Callable[[PersonConfig], tuple[nn.Module, nn.Module]]


def _cspnext(config: PersonConfig) -> tuple[nn.Module, nn.Module]:
    """RTMDet-nano's backbone, neck and head."""
    return Features(config.channels), Head(config.channels, config.convolutions)


ARCHITECTURES = {
    "fcos_cspnext": Architecture(cspnext.STRIDES, _cspnext),
}


def build_fcos(config: PersonConfig) -> FCOS:
    """torchvision's FCOS with one class, person, under label 0."""
    backbone, head = ARCHITECTURES[config.architecture].build(config)
    anchors = AnchorGenerator(tuple((s,) for s in config.strides), ((1.0,),) * len(config.strides))
    return FCOS(
        backbone,
        num_classes=1,
        anchor_generator=anchors,
        head=head,
        min_size=config.input_size[0],
        max_size=max(config.input_size),
        image_mean=[value / 255 for value in config.mean],
        image_std=[value / 255 for value in config.std],
        score_thresh=config.threshold,
        nms_thresh=config.nms_iou,
        topk_candidates=400,
        detections_per_img=100,
    )


class PersonNetwork(nn.Module):
    """FCOS as one function from pixels to boxes before NMS.

    forward: letterboxed images (N, H, W, 3) uint8 RGB, H and W multiples of 32 → boxes (N, A, 4) x1 y1 x2 y2 in
    letterbox pixels and scores (N, A), the square root of class score × centreness, as in torchvision's
    post-processing.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: FCOS, config: PersonConfig) -> None:
        super().__init__()
        self.backbone, self.head, self.strides = model.backbone, model.head, config.strides
        buffer = partial(self.register_buffer, persistent=False)
        buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1))
        buffer("std", torch.tensor(config.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W, 3) uint8 → boxes (N, A, 4), scores (N, A)."""
        pixels = self.normalise(images)
        centres, sizes = (places.to(pixels.device) for places in locations(tuple(images.shape[1:3]), self.strides))
        return self.boxes(pixels, centres, sizes)

    def normalise(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 → (N, 3, H, W) in the units of the backbone."""
        return (images.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std

    def boxes(self, pixels: Tensor, centres: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (N, 3, H, W) and the locations of their size → boxes (N, A, 4), scores (N, A)."""
        outputs = self.head(list(self.backbone(pixels).values()))
        distances = outputs["bbox_regression"].float() * sizes[:, None]
        boxes = torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)
        product = outputs["cls_logits"].float().sigmoid() * outputs["bbox_ctrness"].float().sigmoid()
        return boxes, product[..., 0].sqrt()


def level_sizes(input_size: tuple[int, int], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """(height, width) of each level's map."""
    return [(-(-input_size[0] // s), -(-input_size[1] // s)) for s in strides]


@lru_cache(maxsize=64)
def locations(input_size: tuple[int, int], strides: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Anchor centres (A, 2) and sizes (A,) in letterbox pixels, in torchvision's order. Cached: do not modify them."""
    centres, sizes = [], []
    for stride, (height, width) in zip(strides, level_sizes(input_size, strides), strict=True):
        # As in torchvision, centres are on the grid points. torchvision's strides are the ratio of the image's to the
        # map's size, which is wrong by up to a tenth where that is not an integer; these are those of the convolutions.
        y, x = torch.meshgrid(torch.arange(height) * stride, torch.arange(width) * stride, indexing="ij")
        centres.append(torch.stack([x, y], dim=-1).reshape(-1, 2).float())
        sizes.append(torch.full((height * width,), float(stride)))
    return torch.cat(centres), torch.cat(sizes)
