"""torchvision's official detectors, by name."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torchvision.models import get_model, get_model_weights

from posecli.detect.detector import Detector, DetectorOptions
from posecli.errors import DataError, MachineError, UsageError
from posecli.pose.runtimes import resolve_device
from posecli.types import Detections, Frame
from posecli.weights.files import sha256

DEFAULT_THRESHOLD = 0.5
PERSON = 1


def build(name: str, options: DetectorOptions) -> Detector:
    """An official detector with its official weights, on torch.

    Raises MachineError where the weights are neither given, nor in $POSECLI_WEIGHTS_DIR or torch.hub's
    cache, nor to be had from the network.
    """
    if options.runtime not in ("auto", "torch"):
        raise UsageError(f"--detector {name} runs on torch only, not on {options.runtime}")
    device = resolve_device(options.device)
    path = options.weights or official_weights(name)
    model = get_model(name, weights=None, weights_backbone=None, **_limits(name))
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a wrong pickle fails in many ways
        raise DataError(f"{path}: not the weights of {name} ({str(error).splitlines()[0][:120]})") from error
    model.eval().to(device)
    threshold = DEFAULT_THRESHOLD if options.threshold is None else options.threshold
    on_gpu = device.type == "cuda"

    @torch.inference_mode()
    def find(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        # One picture a call: torchvision pads a batch to its largest picture, which changes the result.
        result = []
        for frame in frames:
            pixels = torch.from_numpy(frame.pixels).to(device).permute(2, 0, 1).float() / 255
            with torch.autocast(device.type, torch.float16, enabled=on_gpu):
                output = model([pixels])[0]
            people = (output["labels"] == PERSON) & (output["scores"] >= threshold)
            boxes = output["boxes"][people][: options.max_people].float().cpu().numpy()
            scores = output["scores"][people][: options.max_people].float().cpu().numpy()
            result.append(Detections(boxes.astype(np.float32), scores.astype(np.float32)))
        return result

    return Detector(find, name, threshold, "torch", str(device), sha256(path))


def official_weights(name: str) -> Path:
    """The file of a detector's official weights, fetched into torch.hub's cache where it is not there yet."""
    weights = get_model_weights(name).DEFAULT
    file_name = str(weights.url).rsplit("/", 1)[-1]
    places = [Path(torch.hub.get_dir()) / "checkpoints"]
    if folder := os.environ.get("POSECLI_WEIGHTS_DIR"):
        places.insert(0, Path(folder).expanduser())
    for place in places:
        if (place / file_name).is_file():
            return place / file_name
    try:
        weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        reason = str(getattr(error, "reason", error)).splitlines()[0]
        raise MachineError(
            f"{name}: cannot fetch {weights.url} ({reason}); put {file_name} into {places[0]}, "
            "or give it with --detector-weights"
        ) from error
    return places[-1] / file_name


def _limits(name: str) -> dict[str, int]:
    """Fewer proposals than torchvision's thousand: people are few."""
    return {"box_detections_per_img": 100, "rpn_post_nms_top_n_test": 300} if "rcnn" in name else {}
