"""The embedded detector on a torch device: letterbox, network and selection, one copy back a batch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from posecli.detect.person_config import PersonConfig
from posecli.detect.views import CANDIDATES, GREY, View, fitted
from posecli.device.images import Place, image_store, send
from posecli.device.nms import suppress
from posecli.device.resizing import letterbox
from posecli.geometry import nms
from posecli.runtime.fixed_batch import FixedBatch
from posecli.runtime.lanes import working
from posecli.runtime.network import ModuleSpec
from posecli.runtime.prepare import prepare
from posecli.stages import stage
from posecli.types import Detections, FloatArray


class ResidentDetector:
    """People of views of frames that are uploaded once. Several threads may call it at once."""

    def __init__(self, spec: ModuleSpec, config: PersonConfig, device: str, precision: str, max_people: int) -> None:
        self._iou, self._limit = config.nms_iou, max_people
        self._device = torch.device(device)
        self._network = prepare(spec.build(), self._device, precision)
        self._batch = FixedBatch(self._step, spec.batch(device))

    def __call__(self, views: Sequence[View], canvas: tuple[int, int], threshold: float) -> list[Detections]:
        """People of each view, in its pixels, whose score reaches the threshold. canvas: (height, width) of all views.

        Raises MachineError where the device fails.
        """
        with working(self._device) as lane:
            with stage("letterbox", 0):
                places = image_store(self._device).places([view.frame for view in views])
                parts = [place.part(*view.rectangle) for place, view in zip(places, views, strict=True)]

            def inputs(first: int, last: int) -> tuple[Tensor, Tensor]:
                with stage("letterbox", last - first):
                    images, scales = letterbox_places(parts[first:last], canvas)
                    rows = [
                        (*scale, part.width, part.height, threshold)
                        for scale, part in zip(scales, parts[first:last], strict=True)
                    ]
                    return images, send(np.array(rows, np.float32), self._device)

            with stage("detector", len(views)):
                values = self._batch(inputs, len(views), lane)
        with stage("selection", len(views)):
            return [self._people(row) for row in values]

    def _step(self, images: Tensor, numbers: Tensor) -> Tensor:
        """Images (N, H, W, 3) and numbers (N, 5), scale x and y, width, height, threshold → candidates (N, 6 · M + 1).

        Of each image boxes (M, 4), scores (M,), whether they are kept (M,), and whether that is settled.
        """
        boxes, scores = self._network(images)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        scores, order = scores[:, :CANDIDATES], order[:, :CANDIDATES]
        # No lists as indices: nothing can be copied to a GPU while a graph is captured.
        scale, limit = (numbers[:, None, first : first + 2].repeat(1, 1, 2) for first in (0, 2))
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4)) / scale
        boxes = torch.minimum(boxes.clamp(min=0), limit)
        large = ((boxes[..., 2:] - boxes[..., :2]) >= 1).all(dim=-1)
        kept, settled = suppress(boxes, large & (scores >= numbers[:, 4:]), self._iou)
        return torch.cat([boxes.flatten(1), scores, kept.float(), settled.float()[:, None]], dim=1)

    def _people(self, row: FloatArray) -> Detections:
        count = len(row) // 6
        boxes, scores, kept = row[: 4 * count].reshape(-1, 4), row[4 * count : 5 * count], row[5 * count : 6 * count]
        rows = np.flatnonzero(kept)
        if not row[-1]:
            rows = rows[nms(boxes[rows], scores[rows], self._iou)]
        rows = rows[: self._limit]
        return Detections(boxes[rows], np.clip(scores[rows], 0, 1))


def letterbox_places(places: Sequence[Place], canvas: tuple[int, int]) -> tuple[Tensor, list[tuple[float, float]]]:
    """Images scaled to fit (height, width), top left, the rest grey, and (sx, sy) of each: see embedded.letterbox."""
    sizes = [fitted((place.height, place.width), canvas) for place in places]
    scales = [(w / place.width, h / place.height) for (h, w), place in zip(sizes, places, strict=True)]
    return letterbox([place.pixels for place in places], sizes, canvas, GREY), scales
