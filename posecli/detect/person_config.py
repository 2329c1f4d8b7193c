"""Configuration of the embedded person detector."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posecli.errors import DataError
from posecli.weights.files import parsed_config
from posecli.weights.header import Fields, shown

if TYPE_CHECKING:
    from torch import nn

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
    build: "Callable[[PersonConfig], tuple[nn.Module, nn.Module]]"


def _cspnext(config: PersonConfig) -> "tuple[nn.Module, nn.Module]":
    """RTMDet-nano's backbone, neck and head."""
    from posecli.detect.rtmdet import Features, Head  # imports torch

    return Features(config.channels), Head(config.channels, config.convolutions)


ARCHITECTURES = {
    "fcos_cspnext": Architecture((8, 16, 32), _cspnext),
}


def read_person_config(path: Path, header: Mapping[str, Any]) -> PersonConfig:
    """The configuration in a weights file's header; path: for messages. Raises DataError where it is invalid."""
    return parsed_config(path, header, "detector", PersonConfig.from_json)
