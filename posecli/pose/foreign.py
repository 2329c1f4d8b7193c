"""Foreign checkpoints as posecli's models: which network it is, from the shapes of its tensors, and its codec."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from posecli.errors import DataError
from posecli.keypoints import KEYPOINT_SETS, KeypointSet, find_flip_pairs, find_keypoints
from posecli.pose.config import AttentionSizes, PoseConfig, Preprocessing
from posecli.pose.foreign_names import current_names
from posecli.pose.network import SimCC
from posecli.weights.files import fitting
from posecli.weights.header import shown

Shape = tuple[int, ...]
# Blocks of each stage, and 1 where they have three convolutions, of torchvision's ResNets.
_RESNETS: dict[tuple[int, ...], str] = {
    (2, 2, 2, 2, 0): "resnet18",
    (3, 4, 6, 3, 0): "resnet34",
    (3, 4, 6, 3, 1): "resnet50",
    (3, 4, 23, 3, 1): "resnet101",
    (3, 8, 36, 3, 1): "resnet152",
}
# The set that most models of so many keypoints have; a file's meta or name may say another.
_USUAL = {14: "crowdpose", 16: "mpii", 17: "coco17", 21: "hand21", 26: "halpe26", 68: "face68", 98: "face98"}
_USUAL |= {106: "face106", 133: "coco_wholebody"}


@dataclass(frozen=True)
class Given:
    """What the user says of a checkpoint, in place of what it says itself. Fields as those of PoseConfig."""

    keypoints: str | None = None
    input_size: tuple[int, int] | None = None
    split_ratio: float | None = None
    sigma: tuple[float, float] | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class Layout:
    """What a checkpoint is: its configuration, and posecli's name → the file's of each tensor."""

    config: PoseConfig
    names: dict[str, str]

    def state(self, path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The network's state of the file's tensors, which fit it. Raises DataError where one does not."""
        state = {name: tensors[own] for name, own in self.names.items()}
        with torch.device("meta"):
            expected = SimCC(self.config).state_dict()
        for name in expected:  # old versions of torch wrote no counter
            if name.endswith("num_batches_tracked") and name not in state:
                state[name] = torch.zeros((), dtype=torch.int64)
        return fitting(path, state, expected)


def read_layout(path: Path, shapes: Mapping[str, Shape], meta: Mapping[str, Any], given: Given) -> Layout:
    """Which network a checkpoint holds.

    path: for messages and, where nothing else tells the keypoints apart, its name. shapes: of the file's tensors, by
    the file's names. meta: what stands beside them. Raises DataError where it is none that posecli knows, or where its
    sizes contradict one another or what is given.
    """
    try:
        names = current_names(shapes)
        found = {name: shapes[own] for name, own in names.items()}
        config = _config(path, found, meta, given, numbered="backbone.4.0.conv1.weight" in names.values())
    except (KeyError, IndexError) as error:
        missing = error.args[0] if isinstance(error, KeyError) else "a tensor of other dimensions"
        raise DataError(
            f"{path}: no SimCC model that is known here ({shown(missing)} is missing); its first tensor is "
            f"{shown(min(shapes, default='none'))}"
        ) from error
    except DataError as error:
        raise DataError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    return Layout(config, names)


def _config(
    path: Path, shapes: Mapping[str, Shape], meta: Mapping[str, Any], given: Given, numbered: bool
) -> PoseConfig:
    backbone = _backbone(shapes)
    head = _head(shapes)
    simcc = head["head"] == "simcc"
    prefix = "" if simcc else "head."
    count = shapes["head.coarse.0.weight" if head["head"] == "rtmw" else f"{prefix}final.weight"][0]
    bins = shapes[f"{prefix}fc_x.weight"][0], shapes[f"{prefix}fc_y.weight"][0]
    flat = {"simcc": "fc_x", "rtmcc": "head.embed", "rtmw": "head.coarse_embed"}[head["head"]]
    cells = shapes[f"{flat}.weight"][1] // 4 ** len(head.get("deconv_channels", ()))
    size = given.input_size or _input_size(cells, bins)
    ratio = given.split_ratio or bins[0] / size[1]
    pixels = Preprocessing()
    sigma, temperature = usual_sigma(head["head"], bins, meta), 10.0 if head["head"] == "rtmcc" else 1.0
    if numbered:  # the project that posecli began as: labels of 20 bins, loss with a factor of 1.25, pixels / 255
        sigma, temperature = (20.0, 20.0), 1.25
        pixels = Preprocessing(mean=(0, 0, 0), std=(255, 255, 255), padding=1.0)
    config = PoseConfig(
        **backbone,
        **head,
        input_size=size,
        split_ratio=ratio,
        sigma=given.sigma or sigma,
        temperature=given.temperature or temperature,
        keypoints=usual_keypoints(path, count, meta, given),
        preprocessing=pixels,
    )
    if config.bins != bins:
        raise DataError(
            f"input size {size[0]}x{size[1]} and split ratio {ratio:g} do not give {bins[0]} and {bins[1]} bins"
        )
    return config


def _backbone(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    if "backbone.stem.2.0.weight" in shapes:
        stages = [f"backbone.stage{i}" for i in (1, 2, 3, 4)]
        firsts = ("backbone.stem.2", *(f"{stage}.0" for stage in stages))
        widths = [shapes[f"{first}.0.weight"][0] for first in firsts]
        blocks = [_count(shapes, rf"{stage}\.{2 if stage.endswith('4') else 1}\.blocks\.(\d+)\.") for stage in stages]
        return {"backbone": "cspnext", "widths": tuple(widths), "blocks": tuple(blocks)}
    if "backbone.18.0.weight" in shapes:
        return {"backbone": "mobilenet_v2"}
    blocks = [_count(shapes, rf"backbone\.layer{i}\.(\d+)\.") for i in (1, 2, 3, 4)]
    name = _RESNETS.get((*blocks, int("backbone.layer1.0.conv3.weight" in shapes)))
    if name is None:
        raise KeyError("a backbone" if not any(blocks) else f"a ResNet of {blocks} blocks")
    return {"backbone": name}


def _head(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    if "head.attention.uv.weight" not in shapes:
        deconv = [shapes[f"deconv.{i}.weight"] for i in (0, 3, 6) if f"deconv.{i}.weight" in shapes]
        kernels = {shape[2] for shape in deconv} | {shape[3] for shape in deconv}
        if len(kernels) > 1:
            raise DataError("its transposed convolutions have different kernels")
        kernel = kernels.pop() if kernels else 4
        return {"head": "simcc", "deconv_channels": tuple(shape[1] for shape in deconv), "deconv_kernel": kernel}
    wide = "head.fine_embed.weight" in shapes
    first = shapes["head.coarse.0.weight" if wide else "head.final.weight"]
    hidden, expanded = shapes["head.attention.out.weight"]
    sizes = AttentionSizes(first[2], hidden, shapes["head.attention.gamma"][1], expanded)
    if wide:
        sizes = replace(sizes, neck_blocks=_count(shapes, r"head\.neck\.up\.0\.blocks\.(\d+)\."))
    return {"head": "rtmw" if wide else "rtmcc", "attention": sizes, "deconv_channels": ()}


def _count(shapes: Mapping[str, Shape], pattern: str) -> int:
    """How many numbers stand in a place of the names, from 0 without a gap."""
    return len({match[1] for name in shapes if (match := re.match(pattern, name))})


def _input_size(cells: int, bins: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a crop that gives so many cells at 1/32 and has sides in the bins' proportion."""
    width = round(math.sqrt(cells * bins[0] / bins[1]))
    height = cells // max(width, 1)
    if width * height != cells or width * bins[1] != height * bins[0]:
        raise DataError("its input size does not follow from its tensors: give --input-size HEIGHTxWIDTH")
    return height * 32, width * 32


def usual_sigma(head: str, bins: tuple[int, int], meta: Mapping[str, Any]) -> tuple[float, float]:
    """σ of the distributions in bins, (x, y): what the file's own configuration says of the labels, else the usual.

    RTMPose's and RTMW's labels are softmax(10·G) of a Gaussian G of height 1, whose peak is one of σ/√10.
    """
    text = meta.get("cfg")
    codec = (
        re.search(r"SimCCLabel.{0,300}?sigma=\(?([\d.]+)(?:, *([\d.]+)\))?", text, re.DOTALL)
        if isinstance(text, str)
        else None
    )
    if codec is not None:
        sigma = _number(codec[1]), _number(codec[2] or codec[1])
    elif head == "simcc":
        sigma = 6.0, 6.0
    else:
        sigma = round(math.sqrt(bins[0] / 16), 2), round(math.sqrt(bins[1] / 16), 2)
    return sigma if head == "simcc" else (sigma[0] / math.sqrt(10), sigma[1] / math.sqrt(10))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"its configuration has the sigma {shown(text)}") from error


def usual_keypoints(path: Path, count: int, meta: Mapping[str, Any], given: Given) -> KeypointSet:
    """The set that is given, that the meta names or lists, that the file's name says, or the usual of so many."""
    if given.keypoints is not None:
        return _fitting_set(find_keypoints(given.keypoints), count)
    data = meta.get("dataset_meta")
    listed = _listed(data, count) if isinstance(data, Mapping) else None
    if listed is not None:
        return next((known for known in KEYPOINT_SETS.values() if known.names == listed.names), listed)
    known = [name for name in KEYPOINT_SETS if name in path.name.lower() and len(KEYPOINT_SETS[name]) == count]
    if known:
        return KEYPOINT_SETS[max(known, key=len)]
    if count in _USUAL:
        return KEYPOINT_SETS[_USUAL[count]]
    return KeypointSet(f"keypoints{count}", tuple(f"keypoint_{i}" for i in range(count)))


def _fitting_set(found: KeypointSet, count: int) -> KeypointSet:
    if len(found) != count:
        raise DataError(f"it has {count} keypoints, the set {found.name} {len(found)}")
    return found


def _listed(data: Mapping[str, Any], count: int) -> KeypointSet | None:
    """The names, links and mirror images that mmengine writes of its data set; None where they are not such."""
    names = data.get("keypoint_id2name")
    if not isinstance(names, Mapping) or set(names) != set(range(count)):
        return None
    texts = tuple(names[i] for i in range(count))
    if not all(isinstance(text, str) and text for text in texts) or len(set(texts)) < count:
        return None
    links = data.get("skeleton_links")
    pairs = [tuple(link) for link in links] if isinstance(links, Sequence) else []
    good = all(len(p) == 2 and all(isinstance(i, int) and 0 <= i < count for i in p) and p[0] != p[1] for p in pairs)
    name = data.get("dataset_name")
    label = name if isinstance(name, str) and name else f"keypoints{count}"
    return KeypointSet(label, texts, tuple((p[0], p[1]) for p in pairs) if good else (), find_flip_pairs(texts))
