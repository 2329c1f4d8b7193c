"""The embedded person detector: letterbox, network, non-maximum suppression."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from posecli.detect.detector import Detector, DetectorOptions
from posecli.detect.person_config import PersonConfig, read_person_config
from posecli.detect.views import CANDIDATES, GREY, Locate, View, fitted
from posecli.detect.windows import merge_windows, split_windows
from posecli.geometry import nms
from posecli.media.scaling import scaled
from posecli.runtime import CompiledNetwork, ModuleSpec, compile_network, is_gpu, resolve_device
from posecli.runtime.precision import resolve_precision
from posecli.stages import stage
from posecli.types import Detections, Frame, PixelArray
from posecli.weights.files import find_weights, read_header, sha256

if TYPE_CHECKING:
    from torch import nn

MIN_SIDE = 192
# Views in memory at the same time.
_MOST_VIEWS = 64


def module_spec(weights: Path | None = None) -> tuple[ModuleSpec, PersonConfig]:
    """What runtimes need to know about the network of weights/person.safetensors, or the file given; its configuration.

    Raises DataError where the header is invalid, MachineError where there is no file.
    """
    path = weights or find_weights("person")
    config = read_person_config(path, read_header(path))

    def network() -> "nn.Module":
        from posecli.detect.person import PersonNetwork, load_fcos  # imports torch

        return PersonNetwork(*load_fcos(path))

    # In bfloat16 it finds one more false person and moves AP by up to 0.005 (results/precision.md): not by default.
    spec = ModuleSpec(network, sha256(path), cpu_batch=1, gpu_batch=8, compared_at=config.input_size)
    return spec, config


def build(options: DetectorOptions) -> Detector:
    """Load weights/person.safetensors, or the file given."""
    spec, config = module_spec(options.weights)
    where = resolve_device(options.device)
    resident = options.resident
    if resident is None:
        resident = is_gpu(where) and options.runtime in ("auto", "torch")
    if resident:
        from posecli.detect.resident import ResidentDetector  # imports torch

        computed = resolve_precision(options.precision, where, bfloat16_measured=spec.bfloat16_measured)
        locate: Locate = ResidentDetector(spec, config, where, computed, options.max_people)
        runtime = "torch"
    else:
        compiled = compile_network(spec, device=where, runtime=options.runtime, precision=options.precision)
        locate = partial(_locate, compiled, config, options.max_people)
        runtime, computed = compiled.runtime, compiled.precision
    threshold, verified = config.threshold, config.verified
    if options.threshold is not None:
        threshold = verified = options.threshold
    lowest = min(config.proposal, verified)

    def search(frames: Sequence[Frame], score_threshold: float) -> list[Detections]:
        return search_views(locate, config, frames, score_threshold, options.max_people)

    def find(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        return search(frames, threshold)

    def propose(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        return search(frames, lowest)

    return Detector(
        find,
        "person",
        threshold,
        runtime,
        where,
        spec.key,
        propose=propose,
        proposal=lowest,
        verified=verified,
        precision=computed,
    )


def search_views(
    locate: Locate, config: PersonConfig, frames: Sequence[Frame], score_threshold: float, max_people: int
) -> list[Detections]:
    """People of each frame whose score reaches the threshold."""
    # A very wide or tall frame is searched in several views, any other one in a single view.
    windows = [split_windows(frame.width, frame.height) for frame in frames]
    views = [View(frame, window) for frame, parts in zip(frames, windows, strict=True) for window in parts]
    result: dict[int, Detections] = {}
    shapes = [canvas_shape(view.size, config.input_size) for view in views]
    for shape in dict.fromkeys(shapes):
        every = [i for i, other in enumerate(shapes) if other == shape]
        for rows in (every[first : first + _MOST_VIEWS] for first in range(0, len(every), _MOST_VIEWS)):
            result |= zip(rows, locate([views[i] for i in rows], shape, score_threshold), strict=True)
    found, first = [], 0
    for parts in windows:
        people = result[first]
        if len(parts) > 1:
            each = [result[i] for i in range(first, first + len(parts))]
            people = merge_windows(each, parts, config.nms_iou, max_people)
        found.append(people)
        first += len(parts)
    return found


def _locate(
    network: CompiledNetwork,
    config: PersonConfig,
    max_people: int,
    views: Sequence[View],
    shape: tuple[int, int],
    score_threshold: float,
) -> list[Detections]:
    """People of each view, in its pixels, by a network of numpy arrays."""
    frames = [view.window.of(view.frame) for view in views]
    with stage("letterbox", len(views)):
        images, scales = letterbox([frame.pixels for frame in frames], shape)
    with stage("detector", len(views)):
        boxes, scores = network(images)
    with stage("selection", len(views)):
        return [
            select(boxes[k], scores[k], scales[k], frame, score_threshold, config.nms_iou, max_people)
            for k, frame in enumerate(frames)
        ]


def canvas_shape(image: tuple[int, int], largest: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) that an image of (height, width) is letterboxed to.

    The image fills the largest canvas in one direction; in the other one the canvas is the next multiple of 64, which
    limits padding and the number of shapes, each of which OpenVINO compiles on its own.
    """
    scale = min(whole / side for side, whole in zip(image, largest, strict=True))
    height, width = (
        min(whole, max(MIN_SIDE, -(-round(side * scale) // 64) * 64))
        for side, whole in zip(image, largest, strict=True)
    )
    return height, width


def letterbox(pixels: Sequence[PixelArray], size: tuple[int, int]) -> tuple[PixelArray, list[tuple[float, float]]]:
    """Images scaled to fit (height, width), top left, the rest grey: (N, height, width, 3); and (sx, sy) of each.

    A source pixel x is at (x + 1/2)·s - 1/2 of the letterbox; corners of boxes are multiplied by s.
    """
    height, width = size
    canvas = np.full((len(pixels), height, width, 3), GREY, np.uint8)
    scales = []
    for i, image in enumerate(pixels):
        to_h, to_w = fitted((image.shape[0], image.shape[1]), size)
        canvas[i, :to_h, :to_w] = scaled(image, to_w, to_h)
        scales.append((to_w / pixels[i].shape[1], to_h / pixels[i].shape[0]))
    return canvas, scales


def select(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    scale: tuple[float, float],
    frame: Frame,
    threshold: float,
    iou: float,
    limit: int,
) -> Detections:
    """Boxes (A, 4) in letterbox pixels to people of the frame: threshold, clipping, NMS, limit."""
    rows = np.flatnonzero(scores >= threshold)
    rows = rows[np.argsort(-scores[rows], kind="stable")][:CANDIDATES]
    sx, sy = scale
    found = boxes[rows] / np.array([sx, sy, sx, sy], np.float32)
    found = np.clip(found, 0, np.array([frame.width, frame.height] * 2, np.float32))
    large = ((found[:, 2:] - found[:, :2]) >= 1).all(axis=1)
    found, found_scores = found[large], scores[rows][large]
    kept = nms(found, found_scores, iou)[:limit]
    return Detections(found[kept].astype(np.float32), np.clip(found_scores[kept], 0, 1).astype(np.float32))
