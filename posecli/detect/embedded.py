"""The embedded person detector: letterbox, network, non-maximum suppression."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from posecli.detect.detector import Detector, DetectorOptions
from posecli.detect.person_config import PersonConfig, read_person_config
from posecli.detect.windows import merge_windows, split_windows
from posecli.geometry import nms
from posecli.media.scaling import scaled
from posecli.runtime import CompiledNetwork, ModuleSpec, compile_network
from posecli.stages import stage
from posecli.types import Detections, Frame, PixelArray
from posecli.weights.files import find_weights, read_header, sha256

if TYPE_CHECKING:
    from torch import nn

# Architectures whose accuracy in bfloat16 was measured to be that in float32: results/precision.md.
BFLOAT16_MEASURED = ("fcos_cspnext",)
GREY = 114
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

    measured = config.architecture in BFLOAT16_MEASURED
    spec = ModuleSpec(
        network, sha256(path), cpu_batch=1, gpu_batch=8, compared_at=config.input_size, bfloat16_measured=measured
    )
    return spec, config


def build(options: DetectorOptions) -> Detector:
    """Load weights/person.safetensors, or the file given."""
    spec, config = module_spec(options.weights)
    compiled = compile_network(spec, device=options.device, runtime=options.runtime, precision=options.precision)
    threshold, verified = config.threshold, config.verified
    if options.threshold is not None:
        threshold = verified = options.threshold

    def search(frames: Sequence[Frame], score_threshold: float) -> list[Detections]:
        return _search(compiled, config, frames, score_threshold, options.max_people)

    def find(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        return search(frames, threshold)

    def propose(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        return search(frames, min(config.proposal, verified))

    return Detector(
        find,
        "person",
        threshold,
        compiled.runtime,
        compiled.device,
        spec.key,
        propose=propose,
        verified=verified,
        precision=compiled.precision,
    )


def _search(
    network: CompiledNetwork, config: PersonConfig, frames: Sequence[Frame], score_threshold: float, max_people: int
) -> list[Detections]:
    """People of each frame whose score reaches the threshold."""
    # A very wide or tall frame is searched in several views, any other one in a single view.
    windows = [split_windows(frame.width, frame.height) for frame in frames]
    views = [
        frame if len(parts) == 1 else window.of(frame)
        for frame, parts in zip(frames, windows, strict=True)
        for window in parts
    ]
    result: dict[int, Detections] = {}
    shapes = [canvas_shape((view.height, view.width), config.input_size) for view in views]
    for shape in dict.fromkeys(shapes):
        every = [i for i, other in enumerate(shapes) if other == shape]
        for rows in (every[first : first + _MOST_VIEWS] for first in range(0, len(every), _MOST_VIEWS)):
            with stage("letterbox", len(rows)):
                images, scales = letterbox([views[i].pixels for i in rows], shape)
            with stage("detector", len(rows)):
                boxes, scores = network(images)
            with stage("selection", len(rows)):
                for k, i in enumerate(rows):
                    result[i] = select(
                        boxes[k],
                        scores[k],
                        scales[k],
                        views[i],
                        score_threshold,
                        config.nms_iou,
                        max_people,
                    )
    found, first = [], 0
    for parts in windows:
        people = result[first]
        if len(parts) > 1:
            each = [result[i] for i in range(first, first + len(parts))]
            people = merge_windows(each, parts, config.nms_iou, max_people)
        found.append(people)
        first += len(parts)
    return found


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
        h, w = image.shape[:2]
        scale = min(height / h, width / w)
        to_h, to_w = min(height, max(1, round(h * scale))), min(width, max(1, round(w * scale)))
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
    rows = rows[np.argsort(-scores[rows], kind="stable")][:400]
    sx, sy = scale
    found = boxes[rows] / np.array([sx, sy, sx, sy], np.float32)
    found = np.clip(found, 0, np.array([frame.width, frame.height] * 2, np.float32))
    large = ((found[:, 2:] - found[:, :2]) >= 1).all(axis=1)
    found, found_scores = found[large], scores[rows][large]
    kept = nms(found, found_scores, iou)[:limit]
    return Detections(found[kept].astype(np.float32), np.clip(found_scores[kept], 0, 1).astype(np.float32))
