"""What a detector is, and the dict of all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from posecli.errors import UsageError
from posecli.types import Detections, Frame

# Frames and, for each, its input's name and path as text; boxes:FILE looks people up by them.
Find = Callable[[Sequence[Frame], Sequence[str]], list[Detections]]


@dataclass(frozen=True)
class DetectorOptions:
    """What a detector is built with.

    argument: what stood behind the colon of its name. threshold: lowest score, None for the detector's own.
    """

    argument: str = ""
    device: str = "auto"
    runtime: str = "auto"
    threshold: float | None = None
    weights: Path | None = None
    max_people: int = 100


@dataclass(frozen=True)
class Detector:
    """A detector ready to run, and what run.json says of it.

    find: people, whose scores reach the threshold. propose: boxes down to a lower score, proposals of which a pose
    model's person score can tell the people (pose.verification); None where the detector has none beside its people.
    options: what it was built with. by_name: whether people are found by the name of the input, not in its pixels.
    """

    find: Find
    name: str
    threshold: float
    runtime: str
    device: str
    weights_sha256: str | None = None
    options: DetectorOptions = field(default_factory=DetectorOptions)
    propose: Find | None = None
    by_name: bool = False

    def __call__(self, frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        """People of each frame, by descending score. names: the input each frame is of."""
        return self.find(frames, names)


def _person(options: DetectorOptions) -> Detector:
    from posecli.detect.embedded import build

    return build(options)


def _boxes(options: DetectorOptions) -> Detector:
    from posecli.detect.boxes import build

    return build(options)


def _whole(options: DetectorOptions) -> Detector:
    from posecli.detect.boxes import build_whole

    return build_whole(options)


def _torchvision(name: str) -> Callable[[DetectorOptions], Detector]:
    def build_named(options: DetectorOptions) -> Detector:
        from posecli.detect.torchvision_zoo import build

        return build(name, options)

    return build_named


# One line adds a detector: a function from DetectorOptions to Detector.
DETECTORS: dict[str, Callable[[DetectorOptions], Detector]] = {
    "person": _person,
    "boxes": _boxes,
    "whole": _whole,
    "fasterrcnn_resnet50_fpn_v2": _torchvision("fasterrcnn_resnet50_fpn_v2"),
    "fasterrcnn_mobilenet_v3_large_fpn": _torchvision("fasterrcnn_mobilenet_v3_large_fpn"),
    "fasterrcnn_mobilenet_v3_large_320_fpn": _torchvision("fasterrcnn_mobilenet_v3_large_320_fpn"),
    "ssdlite320_mobilenet_v3_large": _torchvision("ssdlite320_mobilenet_v3_large"),
    "retinanet_resnet50_fpn_v2": _torchvision("retinanet_resnet50_fpn_v2"),
    "fcos_resnet50_fpn": _torchvision("fcos_resnet50_fpn"),
    "keypointrcnn_resnet50_fpn": _torchvision("keypointrcnn_resnet50_fpn"),
}


def load_detector(
    name: str = "person",
    *,
    device: str = "auto",
    runtime: str = "auto",
    threshold: float | None = None,
    weights: Path | None = None,
    max_people: int = 100,
) -> Detector:
    """A detector by name, ready to run. boxes:FILE takes people from a file.

    Raises UsageError for an unknown name, MachineError for missing weights, DataError for a broken file.
    """
    kind, _, argument = name.partition(":")
    if kind not in DETECTORS:
        raise UsageError(f"--detector {name}: choose from {', '.join(DETECTORS)} (boxes:FILE)")
    if bool(argument) != (kind == "boxes"):
        raise UsageError(f"--detector {name}: only boxes takes, and needs, a file: boxes:FILE")
    options = DetectorOptions(argument, device, runtime, threshold, weights, max_people)
    return replace(DETECTORS[kind](options), options=options)
