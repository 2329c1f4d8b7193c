"""torchvision's official detectors, by name."""

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights

from posecli.detect.detector import Detector, DetectorOptions
from posecli.errors import DataError, MachineError, UsageError
from posecli.runtime.device import is_gpu, resolve_device
from posecli.runtime.lanes import gpu_errors
from posecli.runtime.precision import resolve_precision
from posecli.runtime.torch_runtime import COMPUTING
from posecli.stages import stage
from posecli.types import Detections, Frame
from posecli.weights.files import sha256

DEFAULT_THRESHOLD = 0.5
PERSON = 1


def build(name: str, options: DetectorOptions) -> Detector:
    """An official detector with its official weights, on torch.

    Raises MachineError where the weights are neither given, nor in $POSECLI_WEIGHTS_DIR or torch.hub's cache, nor
    downloadable; DataError for a file of other content.
    """
    if options.runtime not in ("auto", "torch"):
        raise UsageError(f"--detector {name} runs on torch only, not on {options.runtime}")
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device, bfloat16_measured=False)
    lower = torch.float16 if precision == "float16" else torch.bfloat16
    path = options.weights or official_weights(name)
    threshold = DEFAULT_THRESHOLD if options.threshold is None else options.threshold
    if not path.is_file():
        raise MachineError(f"{path}: no such weights file")
    model = get_model(name, weights=None, weights_backbone=None, **_limits(name, threshold))
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # an invalid pickle can raise any exception
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path}: not the weights of {name} ({reason[:120]})") from error
    if name == "keypointrcnn_resnet50_fpn":
        _only_boxes(model)
    model.eval().to(device)
    on_gpu = is_gpu(device)

    @torch.inference_mode()
    def find(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        # One image a call: torchvision pads a batch to its largest image, which changes the result.
        result = []
        for frame in frames:
            with stage("detector"), COMPUTING, gpu_errors(torch.device(device)):
                pixels = torch.from_numpy(frame.pixels).to(device).permute(2, 0, 1).float() / 255
                with torch.autocast("cuda" if on_gpu else "cpu", lower, enabled=precision != "float32"):
                    output = model([pixels])[0]
                sides = output["boxes"][:, 2:] - output["boxes"][:, :2]
                people = (output["labels"] == PERSON) & (output["scores"] >= threshold) & (sides >= 1).all(dim=1)
                boxes = output["boxes"][people][: options.max_people].float().cpu().numpy()
                scores = output["scores"][people][: options.max_people].float().cpu().numpy()
                result.append(Detections(boxes.astype(np.float32), scores.astype(np.float32)))
        return result

    return Detector(find, name, threshold, "torch", device, sha256(path), precision=precision)


def official_weights(name: str) -> Path:
    """The file of a detector's official weights, downloaded into torch.hub's cache if needed.

    It is looked for in $POSECLI_WEIGHTS_DIR first. Its name ends with the start of its SHA-256, which is checked.
    """
    weights = get_model_weights(name).DEFAULT
    file_name = str(weights.url).rsplit("/", 1)[-1]
    places = [Path(torch.hub.get_dir()) / "checkpoints"]
    if folder := os.environ.get("POSECLI_WEIGHTS_DIR"):
        places.insert(0, Path(folder).expanduser())
    for place in places:
        path = place / file_name
        if path.is_file():
            if not sha256(path).startswith(path.stem.rsplit("-", 1)[-1]):
                raise MachineError(f"{path}: damaged, its SHA-256 is not the one in its name; delete it and try again")
            return path
    try:
        with redirect_stdout(sys.stderr):  # torch.hub prints to stdout, which is for --json
            weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: wrong hash of the download
        reason = str(getattr(error, "reason", error)).splitlines()[0]
        raise MachineError(
            f"{name}: cannot fetch {weights.url} ({reason}); put {file_name} into {places[0]}, "
            "or give it with --detector-weights"
        ) from error
    return places[-1] / file_name


def _only_boxes(model: nn.Module) -> None:
    """Keypoint R-CNN without its keypoint head, and with the batch norms of its official weights."""
    setattr(model.roi_heads, "keypoint_roi_pool", None)  # noqa: B010 - to mypy roi_heads may be a tensor
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0  # torchvision sets it so together with these weights


def _limits(name: str, threshold: float) -> dict[str, Any]:
    """Fewer proposals than torchvision's thousand, since people are few, and none below the threshold."""
    if "rcnn" in name:
        # The threshold is applied before NMS, which is then faster.
        return {"box_score_thresh": threshold, "box_detections_per_img": 100, "rpn_post_nms_top_n_test": 300}
    return {"score_thresh": threshold, "topk_candidates": 300, "detections_per_img": 100}
