"""The embedded person detector at work: letterbox, network, suppression."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import nms

from posecli.detect.detector import Detector, DetectorOptions
from posecli.detect.person import PersonConfig, PersonNetwork, build_fcos, level_sizes
from posecli.detect.windows import joined, windows_of
from posecli.errors import DataError, UsageError
from posecli.pose.runtimes import resolve_device
from posecli.runtime.signals import signal_stack_kept
from posecli.types import Detections, Frame, PixelArray
from posecli.weights.files import find_weights, fitting, load_weights, read_config, sha256

# Letterboxed pictures (N, H, W, 3) uint8 → boxes (N, A, 4) and scores (N, A).
Run = Callable[[PixelArray], tuple[NDArray[np.float32], NDArray[np.float32]]]
GREY = 114
MIN_SIDE = 192
# Views that are in memory at once.
_MOST_VIEWS = 64


def build(options: DetectorOptions) -> Detector:
    """Load weights/person.safetensors, or the file given."""
    path = options.weights or find_weights("person")
    tensors, header = load_weights(path)
    values = read_config(path, header, "detector")
    try:
        config = PersonConfig.from_json(values)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    # Built without memory first: a header may ask for more than the machine has.
    with torch.device("meta"):
        expected = build_fcos(config).state_dict()
    full = fitting(path, tensors, expected)
    model = build_fcos(config)
    model.load_state_dict(full)
    network = PersonNetwork(model, config).eval()
    device = resolve_device(options.device)
    runtime = options.runtime
    if runtime == "auto":
        runtime = "openvino" if device.type == "cpu" else "torch"
    if runtime not in RUNTIMES:
        raise UsageError(f"--runtime {runtime}: auto, {', '.join(RUNTIMES)}")
    key = sha256(path)
    run = RUNTIMES[runtime](network, config, device, key)
    threshold = config.threshold if options.threshold is None else options.threshold
    proposal = min(config.proposal, threshold) if options.confirmed else threshold

    def find(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        # A very wide or tall frame is searched as several views; any other is its own only view.
        windows = [windows_of(frame.width, frame.height) for frame in frames]
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
                pictures, scales = letterbox([views[i].pixels for i in rows], shape)
                boxes, scores = run(pictures)
                for k, i in enumerate(rows):
                    result[i] = select(
                        boxes[k], scores[k], scales[k], views[i], proposal, config.nms_iou, options.max_people
                    )
        found, first = [], 0
        for parts in windows:
            people = result[first]
            if len(parts) > 1:
                each = [result[i] for i in range(first, first + len(parts))]
                people = joined(each, parts, config.nms_iou, options.max_people)
            found.append(replace(people, lowest=threshold) if options.confirmed else people)
            first += len(parts)
        return found

    return Detector(find, "person", threshold, runtime, str(device), key)


def canvas_shape(picture: tuple[int, int], largest: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) that a picture of (height, width) is letterboxed to.

    A picture fills the largest canvas in one direction; the other ends soon after the picture, for what is
    computed on grey is lost. Steps of 64 keep the shapes, each compiled on its own by OpenVINO, few.
    """
    scale = min(whole / side for side, whole in zip(picture, largest, strict=True))
    height, width = (
        min(whole, max(MIN_SIDE, -(-round(side * scale) // 64) * 64))
        for side, whole in zip(picture, largest, strict=True)
    )
    return height, width


def letterbox(pixels: Sequence[PixelArray], size: tuple[int, int]) -> tuple[PixelArray, list[tuple[float, float]]]:
    """Pictures scaled to fit (height, width), top left, the rest grey: (N, height, width, 3); (sx, sy) each.

    A source pixel x lies at (x + 1/2)·s - 1/2 of the letterbox; corners of boxes simply scale.
    """
    height, width = size
    canvas = np.full((len(pixels), height, width, 3), GREY, np.uint8)
    scales = []
    for i, picture in enumerate(pixels):
        h, w = picture.shape[:2]
        scale = min(height / h, width / w)
        to_h, to_w = min(height, max(1, round(h * scale))), min(width, max(1, round(w * scale)))
        while min(h, w) > 1 and max(h / to_h, w / to_w) >= 4 and min(h, w) >= 8:
            # Every second pixel is enough far above the target, and costs nothing.
            picture = picture[::2, ::2]
            h, w = picture.shape[:2]
        method = cv2.INTER_AREA if h > to_h else cv2.INTER_LINEAR
        canvas[i, :to_h, :to_w] = cv2.resize(np.ascontiguousarray(picture), (to_w, to_h), interpolation=method)
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
    """Boxes (A, 4) in letterbox pixels to people of the frame: threshold, clip, suppression, limit."""
    rows = np.flatnonzero(scores >= threshold)
    rows = rows[np.argsort(-scores[rows], kind="stable")][:400]
    sx, sy = scale
    found = boxes[rows] / np.array([sx, sy, sx, sy], np.float32)
    found = np.clip(found, 0, np.array([frame.width, frame.height] * 2, np.float32))
    large = ((found[:, 2:] - found[:, :2]) >= 1).all(axis=1)
    found, found_scores = found[large], scores[rows][large]
    kept = nms(torch.from_numpy(found), torch.from_numpy(found_scores), iou).numpy()[:limit]
    return Detections(found[kept].astype(np.float32), np.clip(found_scores[kept], 0, 1).astype(np.float32))


def _torch_run(network: PersonNetwork, config: PersonConfig, device: torch.device, key: str | None) -> Run:
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    on_gpu = device.type == "cuda"
    size = 8 if on_gpu else 1  # one size of batch: results do not depend on who shares it

    @torch.inference_mode()
    def run(pictures: PixelArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        parts = []
        for first in range(0, len(pictures), size):
            chunk = pictures[first : first + size]
            if len(chunk) < size:
                fill = np.full((size - len(chunk), *chunk.shape[1:]), GREY, np.uint8)
                chunk = np.concatenate([chunk, fill])
            with torch.autocast(device.type, torch.float16, enabled=on_gpu):
                parts.append(network(torch.from_numpy(chunk).to(device)))
        boxes, scores = (torch.cat([p[i] for p in parts]).float().cpu().numpy()[: len(pictures)] for i in (0, 1))
        return boxes, scores

    return run


def _openvino_run(network: PersonNetwork, config: PersonConfig, device: torch.device, key: str | None) -> Run:
    if device.type != "cpu":
        raise UsageError(f"--runtime openvino runs on the CPU, not on {device}")
    from posecli.pose.runtimes import compile_openvino

    @cache
    def compiled(height: int, width: int) -> Any:
        return compile_openvino(network, (1, height, width, 3), key)

    @signal_stack_kept()
    def run(pictures: PixelArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        height, width = pictures.shape[1:3]
        queue = compiled(height, width)
        places = sum(h * w for h, w in level_sizes((height, width)))
        boxes = np.empty((len(pictures), places, 4), np.float32)
        scores = np.empty((len(pictures), places), np.float32)

        def keep(request: Any, row: int) -> None:
            boxes[row] = request.get_output_tensor(0).data[0]
            scores[row] = request.get_output_tensor(1).data[0]

        queue.set_callback(keep)
        for row in range(len(pictures)):
            queue.start_async({0: pictures[row : row + 1]}, row)
        queue.wait_all()
        return boxes, scores

    return run


RUNTIMES: dict[str, Callable[[PersonNetwork, PersonConfig, torch.device, str | None], Run]] = {
    "torch": _torch_run,
    "openvino": _openvino_run,
}
