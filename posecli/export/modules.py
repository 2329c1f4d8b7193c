"""The modules that are exported: a pose network or the person detector, with what is asked for inside."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posecli.detect.person import PersonNetwork, load_fcos, locations
from posecli.detect.person_config import PersonConfig
from posecli.errors import UsageError
from posecli.export.decoding import Decoder
from posecli.pose.config import PoseConfig
from posecli.pose.loading import load_network
from posecli.pose.network import PixelNetwork, SimCC, for_inference


@dataclass(frozen=True, eq=False)
class Graph:
    """A module to export.

    module: pixels → a tuple of tensors, one for each name of outputs. size: (height, width) of the pixels. uint8:
    whether they are levels (N, H, W, 3), else normalised float32 (N, 3, H, W). outputs: name → what it is, for the
    file's metadata. decoded: whether they are decoded positions, which are not continuous in the pixels.
    """

    module: nn.Module
    size: tuple[int, int]
    uint8: bool
    outputs: Mapping[str, str]
    preprocessing: Mapping[str, Any]
    decoded: bool = False

    @property
    def item(self) -> tuple[int, ...]:
        """Shape of the input without the batch."""
        return (*self.size, 3) if self.uint8 else (3, *self.size)


class _Shuffle(nn.Module):
    """nn.ChannelShuffle in operations that ONNX has."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        return x.reshape(-1, self.groups, channels // self.groups, height, width).transpose(1, 2).flatten(1, 2)


class _Pose(nn.Module):
    """A SimCC network, with normalisation and decoding inside where asked for."""

    def __init__(self, network: SimCC, config: PoseConfig, uint8: bool, decode: bool) -> None:
        super().__init__()
        network = copy.deepcopy(network)
        network.box_head = None
        if not decode:
            network.person_score = None
        self.network: nn.Module = PixelNetwork(network, config) if uint8 else network
        self.decoder = Decoder(config) if decode else None

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        x, y, *others = self.network(pixels)
        return (x, y) if self.decoder is None else (*self.decoder(x, y), *others)


class _Detector(nn.Module):
    """The detector at one size of its input: pixels → boxes (N, A, 4) and scores (N, A)."""

    centres: Tensor
    sizes: Tensor

    def __init__(self, network: PersonNetwork, size: tuple[int, int], uint8: bool) -> None:
        super().__init__()
        self.network, self.uint8 = network, uint8
        for name, values in zip(("centres", "sizes"), locations(size, network.strides), strict=True):
            self.register_buffer(name, values.clone(), persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        normalised = self.network.normalise(pixels) if self.uint8 else pixels
        return self.network.boxes(normalised, self.centres, self.sizes)


def load_graph(path: Path, kind: str, *, uint8: bool, decode: bool) -> Graph:
    """The graph of a weights file of this kind ("pose" or "detector").

    Raises DataError where the file is damaged, UsageError where the kind has no such form.
    """
    graph = _detector(path, uint8, decode) if kind == "detector" else _pose(path, uint8, decode)
    for parent in list(graph.module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ChannelShuffle):
                setattr(parent, name, _Shuffle(child.groups))
    graph.module.eval().requires_grad_(False)
    return graph


def _pose(path: Path, uint8: bool, decode: bool) -> Graph:
    network, config = load_network(path)
    outputs = {
        "simcc_x": "logits over x: N, keypoints, width x split ratio; not multiplied by the temperature",
        "simcc_y": "logits over y: N, keypoints, height x split ratio",
    }
    if decode:
        outputs = {
            "keypoints": "x and y in crop pixels, pixel centres at integers: N, keypoints, 2",
            "scores": "0 to 1: N, keypoints",
            "std": "standard deviations of x and y in crop pixels: N, keypoints, 2",
        }
        if config.person_score:
            outputs["person_log_odds"] = "log-odds that the crop shows a person, to be added to the box score's: N"
    pixels = config.preprocessing
    described = {"mean": list(pixels.mean), "std": list(pixels.std), "padding": pixels.padding}
    # With the normalisation inside, the module also reorders the channels.
    preprocessing = {"channels": "RGB" if uint8 else pixels.channels, **described}
    module = _Pose(for_inference(network), config, uint8, decode)
    return Graph(module, config.input_size, uint8, outputs, preprocessing, decoded=decode)


def _detector(path: Path, uint8: bool, decode: bool) -> Graph:
    if decode:
        raise UsageError(f"--decode: {path} is a detector, whose boxes are decoded already; NMS follows outside")
    model, config = load_fcos(path)
    outputs = {
        "boxes": "x1, y1, x2, y2 in pixels of the letterboxed image, before NMS: N, boxes, 4",
        "scores": "0 to 1: N, boxes",
    }
    module = _Detector(PersonNetwork(model, config), config.input_size, uint8)
    return Graph(module, config.input_size, uint8, outputs, _letterbox(config))


def _letterbox(config: PersonConfig) -> dict[str, Any]:
    return {
        "channels": "RGB",
        "mean": list(config.mean),
        "std": list(config.std),
        "letterbox": "scaled to fit, top left, the rest grey (114)",
        "threshold": config.threshold,
        "nms_iou": config.nms_iou,
    }


def fixed_pixels(graph: Graph, items: int) -> Tensor:
    """The pixels that a file is checked on: (items, ...) in the form of the graph's input, always the same."""
    generator = torch.Generator().manual_seed(1)
    height, width = graph.size
    coarse = torch.rand((items, 3, height // 16, width // 16), generator=generator)
    levels = torch.nn.functional.interpolate(coarse, size=graph.size, mode="bilinear") * 255
    levels = (levels + 20 * torch.randn(levels.shape, generator=generator)).clamp(0, 255).round()
    if graph.uint8:
        return levels.permute(0, 2, 3, 1).to(torch.uint8).contiguous()
    mean, std = (torch.tensor(graph.preprocessing[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (levels - mean) / std
