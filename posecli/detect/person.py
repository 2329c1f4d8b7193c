"""The embedded person detector: torchvision's FCOS, with a small backbone and head (ARCHITECTURES).

Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV 2019.
"""

from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator

from posecli.detect.person_config import ARCHITECTURES, PersonConfig, read_person_config
from posecli.runtime.normalise import normalise
from posecli.weights.files import fitting, load_weights


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


def load_fcos(path: Path) -> tuple[FCOS, PersonConfig]:
    """Network in float32 and configuration of a detector's weights file.

    Raises DataError where the header is invalid or the tensors do not fit it; MachineError where there is no file.
    """
    tensors, header = load_weights(path)
    config = read_person_config(path, header)
    # On torch's meta device first: a header may ask for more memory than the machine has.
    with torch.device("meta"):
        expected = build_fcos(config).state_dict()
    full = fitting(path, tensors, expected)
    model = build_fcos(config)
    model.load_state_dict(full)
    return model.eval(), config


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
        buffer("mean", torch.tensor(config.mean))
        buffer("std", torch.tensor(config.std))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W, 3) uint8 → boxes (N, A, 4), scores (N, A)."""
        pixels = self.normalise(images)
        centres, sizes = locations_on(tuple(images.shape[1:3]), self.strides, pixels.device)
        return self.boxes(pixels, centres, sizes)

    def normalise(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 → (N, 3, H, W) in the units of the backbone."""
        width = images.shape[2]
        return normalise(images, self.mean.repeat(width), self.std.repeat(width))

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


@lru_cache(maxsize=64)
def locations_on(input_size: tuple[int, int], strides: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The same on a device. Cached, since nothing can be copied to a GPU while a graph is captured."""
    centres, sizes = locations(input_size, strides)
    return centres.to(device), sizes.to(device)
