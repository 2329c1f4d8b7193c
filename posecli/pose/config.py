"""Configuration of a SimCC model: architecture, preprocessing, decoding."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from posecli.errors import DataError
from posecli.keypoints import COCO17, KeypointSet
from posecli.weights.files import parsed_config
from posecli.weights.header import Fields, shown

# Limit of a crop's longest side in a header; trained models have some hundreds of pixels.
LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Preprocessing:
    """How source pixels become the network's input.

    mean and std are in levels 0-255, in the order of channels ("RGB" or "BGR"). padding enlarges the
    person's box before the crop.
    """

    channels: str = "RGB"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    padding: float = 1.25


@dataclass(frozen=True)
class AttentionSizes:
    """Sizes of the heads with a gated attention unit (head "rtmcc" or "rtmw").

    kernel: sides of the convolution that makes the maps. hidden: length of a keypoint's token. keys: that of queries
    and keys. expanded: that of values. neck_blocks: blocks in each layer of rtmw's neck.
    """

    kernel: int = 7
    hidden: int = 256
    keys: int = 128
    expanded: int = 512
    neck_blocks: int = 2


@dataclass(frozen=True)
class PoseConfig:
    """Configuration of a SimCC network and its decoding.

    widths, blocks: the backbone's channels and blocks a stage, where it comes in several sizes; else its own.
    head: of heads.HEADS; "simcc" has transposed convolutions, the others a gated attention unit (attention).
    laterals: whether the backbone's finer features are added to each transposed convolution (Lin et al., "Feature
    Pyramid Networks", CVPR 2017, section 3).
    person_score: whether there is an output for the probability that the crop shows a person (as the presence flag of
    Bazarevsky et al., "BlazePose: On-device Real-time Body Pose Tracking", 2020).
    box_head: whether there is an output for the person's box (box refinement); only with a person score.
    input_size: (height, width) of the crop in pixels.
    split_ratio: k, bins per crop pixel; width · k and height · k are the numbers of bins.
    sigma: standard deviation of the label's Gaussian in bins, (x, y).
    temperature: the network's logits are multiplied by it before the softmax (RTMPose's beta).
    std_scale: factor on the predicted standard deviations, from calibration.
    """

    backbone: str = "mobilenet_v2"
    widths: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    head: str = "simcc"
    attention: AttentionSizes = AttentionSizes()
    deconv_channels: tuple[int, ...] = (128,)
    deconv_kernel: int = 4
    laterals: bool = False
    person_score: bool = False
    box_head: bool = False
    input_size: tuple[int, int] = (256, 192)
    split_ratio: float = 2.0
    sigma: tuple[float, float] = (6.0, 6.0)
    temperature: float = 1.0
    keypoints: KeypointSet = COCO17
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    std_scale: float = 1.0

    def __post_init__(self) -> None:
        height, width = self.input_size
        if height % 32 or width % 32 or height <= 0 or width <= 0:
            raise DataError(f"input size {height}x{width}: both sides must be positive multiples of 32")
        for side in (height, width):
            if self.split_ratio <= 0 or side * self.split_ratio % 1:
                raise DataError(f"split ratio {self.split_ratio}: {side} pixels do not give whole bins")
        if self.box_head and not self.person_score:
            raise DataError("a box head needs a person score beside it")
        if min(self.sigma) <= 0 or self.temperature <= 0:
            raise DataError("sigma and temperature must be positive")
        if self.head != "simcc" and (self.deconv_channels or self.laterals):
            raise DataError(f"head {self.head}: it has no transposed convolutions and no laterals")
        if self.attention.kernel % 2 == 0 or self.attention.hidden % 2:
            raise DataError("a head with attention has a kernel of an odd and tokens of an even size")
        if len(self.deconv_channels) > 3 or self.deconv_kernel not in (2, 3, 4):
            raise DataError("a head has 0 to 3 transposed convolutions with a kernel of 2, 3 or 4")

    @property
    def bins(self) -> tuple[int, int]:
        """Number of bins along x and along y."""
        height, width = self.input_size
        return int(width * self.split_ratio), int(height * self.split_ratio)

    @property
    def map_size(self) -> tuple[int, int]:
        """(height, width) of the K maps that the two linear layers read. Raises DataError for an unknown backbone."""
        from posecli.backbones import find_backbone  # loads torch, which only builders of networks need

        up = 2 ** len(self.deconv_channels)
        stride = find_backbone(self.backbone).stride
        return self.input_size[0] // stride * up, self.input_size[1] // stride * up

    def resized(self, size: tuple[int, int]) -> "PoseConfig":
        """At another input size (height, width), sigma in proportion."""
        ratio = size[0] / self.input_size[0]
        return replace(self, input_size=size, sigma=(self.sigma[0] * ratio, self.sigma[1] * ratio))

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        keypoints = self.keypoints
        # What older versions do not know is left out where it says nothing.
        sizes = {name: list(getattr(self, name)) for name in ("widths", "blocks") if getattr(self, name)}
        head = {} if self.head == "simcc" else {"head": self.head, "attention": asdict(self.attention)}
        return {
            "backbone": self.backbone,
            **sizes,
            **head,
            "deconv_channels": list(self.deconv_channels),
            "deconv_kernel": self.deconv_kernel,
            "laterals": self.laterals,
            "person_score": self.person_score,
            "box_head": self.box_head,
            "input_size": list(self.input_size),
            "split_ratio": self.split_ratio,
            "sigma": list(self.sigma),
            "temperature": self.temperature,
            "std_scale": self.std_scale,
            "keypoints": {
                "name": keypoints.name,
                "names": list(keypoints.names),
                "skeleton": [list(limb) for limb in keypoints.skeleton],
                "flip_pairs": [list(pair) for pair in keypoints.flip_pairs],
                "sigmas": None if keypoints.sigmas is None else list(keypoints.sigmas),
            },
            "preprocessing": {
                "channels": self.preprocessing.channels,
                "mean": list(self.preprocessing.mean),
                "std": list(self.preprocessing.std),
                "padding": self.preprocessing.padding,
            },
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "PoseConfig":
        """The inverse of to_json.

        Raises DataError where a value is missing, unknown, of another type or out of its limits.
        """
        config = Fields.of(values, "config")
        config.only(field.name for field in fields(cls))
        height, width = config.wholes("input_size", 1, LARGEST_SIDE, count=2)
        sigma_x, sigma_y = config.numbers("sigma", 1e-3, 1e3, count=2)
        return cls(
            backbone=config.text("backbone"),
            widths=config.wholes("widths", 1, 8192, longest=20) if "widths" in values else (),
            blocks=config.wholes("blocks", 1, 200, longest=20) if "blocks" in values else (),
            head=config.text("head") if "head" in values else "simcc",
            attention=_attention(config.part("attention")) if "attention" in values else AttentionSizes(),
            deconv_channels=config.wholes("deconv_channels", 1, 4096, longest=3),
            deconv_kernel=config.whole("deconv_kernel", 2, 4),
            laterals=config.flag("laterals", False),  # missing in older weights
            person_score=config.flag("person_score", False),
            box_head=config.flag("box_head", False),
            input_size=(height, width),
            split_ratio=config.number("split_ratio", 0.25, 32),
            sigma=(sigma_x, sigma_y),
            temperature=config.number("temperature", 1e-3, 1e3),
            std_scale=config.number("std_scale", 1e-3, 1e3),
            keypoints=_keypoints(config.part("keypoints")),
            preprocessing=_preprocessing(config.part("preprocessing")),
        )


def read_pose_config(path: Path, header: Mapping[str, Any]) -> PoseConfig:
    """The configuration in a weights file's header; path: for messages. Raises DataError where it is invalid."""
    return parsed_config(path, header, "pose", PoseConfig.from_json)


def _attention(found: Fields) -> AttentionSizes:
    names = [field.name for field in fields(AttentionSizes)]
    found.only(names)
    return AttentionSizes(**{name: found.whole(name, 1, 8192) for name in names})


def _keypoints(found: Fields) -> KeypointSet:
    found.only(field.name for field in fields(KeypointSet))
    names = found.texts("names")
    pairs = found.pairs("flip_pairs", len(names), alike=True)
    flat = [index for pair in pairs for index in set(pair)]  # a pair of an index with itself counts once
    if len(set(flat)) != len(flat):
        raise DataError(f"{found.where}: flip_pairs hold a keypoint twice")
    sigmas = found.values.get("sigmas")
    return KeypointSet(
        name=found.text("name"),
        names=names,
        skeleton=found.pairs("skeleton", len(names)),
        flip_pairs=pairs,
        sigmas=None if sigmas is None else found.numbers("sigmas", 1e-4, 10, count=len(names)),
    )


def _preprocessing(found: Fields) -> Preprocessing:
    found.only(field.name for field in fields(Preprocessing))
    channels = found.text("channels")
    if channels not in ("RGB", "BGR"):
        raise DataError(f"{found.where}: channels is {shown(channels)}, not RGB or BGR")
    red, green, blue = found.numbers("mean", -1e4, 1e4, count=3)
    std_red, std_green, std_blue = found.numbers("std", 1e-4, 1e4, count=3)
    padding = found.number("padding", 0.1, 10)
    return Preprocessing(channels, (red, green, blue), (std_red, std_green, std_blue), padding)
