"""Detectors by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from posecli.detect.detector import Detector, DetectorOptions
from posecli.errors import UsageError


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
    precision: str = "fp32",
    threshold: float | None = None,
    weights: Path | None = None,
    max_people: int = 100,
    resident: bool | None = None,
) -> Detector:
    """A detector by name, ready to run. boxes:FILE takes people from a file. resident: see DetectorOptions.

    Raises UsageError for an unknown name, MachineError for missing weights, DataError for a broken file.
    """
    kind, _, argument = name.partition(":")
    if kind not in DETECTORS:
        raise UsageError(f"--detector {name}: choose from {', '.join(DETECTORS)} (boxes:FILE)")
    if bool(argument) != (kind == "boxes"):
        raise UsageError(f"--detector {name}: only boxes takes, and needs, a file: boxes:FILE")
    options = DetectorOptions(argument, device, runtime, precision, threshold, weights, max_people, resident)
    return replace(DETECTORS[kind](options), options=options)
