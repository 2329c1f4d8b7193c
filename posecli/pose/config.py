"""What a SimCC model is: everything needed to build it, feed it and read its output."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from posecli.errors import DataError
from posecli.keypoints import COCO17, KeypointSet


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
class PoseConfig:
    """A SimCC network and its codec.

    laterals: whether the trunk's finer features are added to each transposed convolution (Lin et al., "Feature
    Pyramid Networks", CVPR 2017, section 3).
    presence: whether a further output says if the crop shows a person at all (as the presence flag of Bazarevsky et
    al., "BlazePose: On-device Real-time Body Pose Tracking", 2020).
    extent: whether another one says where that person's box really ends; only with presence.
    input_size: (height, width) of the crop in pixels.
    split_ratio: k, bins per crop pixel; width · k and height · k are the numbers of bins.
    sigma: standard deviation of the label's Gaussian in bins, (x, y).
    temperature: the network's logits are multiplied by it before the softmax (RTMPose's beta).
    std_scale: what calibration multiplies the predicted standard deviations by.
    """

    backbone: str = "mobilenet_v2"
    deconv_channels: tuple[int, ...] = (128,)
    deconv_kernel: int = 4
    laterals: bool = False
    presence: bool = False
    extent: bool = False
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
        if self.extent and not self.presence:
            raise DataError("an extent output needs a presence output beside it")
        if min(self.sigma) <= 0 or self.temperature <= 0:
            raise DataError("sigma and temperature must be positive")
        if len(self.deconv_channels) > 3 or self.deconv_kernel not in (2, 3, 4):
            raise DataError("a head has 0 to 3 transposed convolutions with a kernel of 2, 3 or 4")

    @property
    def bins(self) -> tuple[int, int]:
        """Number of bins along x and along y."""
        height, width = self.input_size
        return int(width * self.split_ratio), int(height * self.split_ratio)

    @property
    def map_size(self) -> tuple[int, int]:
        """(height, width) of the K maps that the two linear layers read."""
        up = 2 ** len(self.deconv_channels)
        return self.input_size[0] // 32 * up, self.input_size[1] // 32 * up

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        keypoints = self.keypoints
        return {
            "backbone": self.backbone,
            "deconv_channels": list(self.deconv_channels),
            "deconv_kernel": self.deconv_kernel,
            "laterals": self.laterals,
            "presence": self.presence,
            "extent": self.extent,
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
        """The inverse of to_json. Raises DataError where a value is missing or unknown."""
        try:
            keypoints = values["keypoints"]
            preprocessing = values["preprocessing"]
            return cls(
                backbone=values["backbone"],
                deconv_channels=tuple(values["deconv_channels"]),
                deconv_kernel=values["deconv_kernel"],
                laterals=values.get("laterals", False),  # older weights know none
                presence=values.get("presence", False),
                extent=values.get("extent", False),
                input_size=tuple(values["input_size"]),
                split_ratio=values["split_ratio"],
                sigma=tuple(values["sigma"]),
                temperature=values["temperature"],
                std_scale=values["std_scale"],
                keypoints=KeypointSet(
                    name=keypoints["name"],
                    names=tuple(keypoints["names"]),
                    skeleton=tuple((a, b) for a, b in keypoints["skeleton"]),
                    flip_pairs=tuple((a, b) for a, b in keypoints["flip_pairs"]),
                    sigmas=None if keypoints["sigmas"] is None else tuple(keypoints["sigmas"]),
                ),
                preprocessing=Preprocessing(
                    channels=preprocessing["channels"],
                    mean=tuple(preprocessing["mean"]),
                    std=tuple(preprocessing["std"]),
                    padding=preprocessing["padding"],
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"pose configuration in the weights' header is not readable: {error}") from error
