"""Packed crops for augmentation on a device: all of them there where they fit, else those of each batch."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posecli.device.images import Place, upload
from posecli.device.resizing import resize
from posecli.train.device_augment import crops_on_device
from posecli.train.packing import Crops
from posecli.train.samples import Sample, Sampler

# Share of a GPU's free memory that decoded crops may take.
_SHARE_OF_MEMORY = 0.5
# Crops that are copied at once.
_CHUNK = 1024
_THREADS = 8

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Planner:
    """Makes the plans of batches, in a loader process or thread. decodes: with the pixels of their crops."""

    sampler: Sampler
    decodes: bool

    def __call__(self, first: int) -> "tuple[list[Sample], dict[str, object], list[Pixels]]":
        """Samples, the other fields of the Batch, and the pixels of all samples' crops, then of those beyond."""
        samples, values = self.sampler.planned(first)
        if not self.decodes:
            return samples, values, []
        return samples, values, [self.sampler.crops_of(kind).pixels(row) for kind, row in needed(samples)]


def needed(samples: Sequence[Sample]) -> list[tuple[str, int]]:
    """Kind and row of the crops of all samples, then of those that hide parts of them."""
    beyond = [(s.kind, s.plan.beyond) for s in samples if s.plan.beyond is not None]
    return [*((s.kind, s.row) for s in samples), *beyond]


class PixelStore:
    """Decoded crops on a device. sources: "people", "negatives", "unlabelled" → crops.

    limit: bytes that decoded crops may take; None for half of a GPU's free memory, and nothing on a CPU. resident:
    whether all are there.
    """

    def __init__(self, device: torch.device, sources: dict[str, Crops | None], limit: int | None = None) -> None:
        self.device = device
        present = {kind: crops for kind, crops in sources.items() if crops is not None}
        sizes = {kind: [crops.size(row) for row in range(len(crops))] for kind, crops in present.items()}
        total = sum(3 * height * width for each in sizes.values() for height, width in each)
        self.resident = total <= (_memory_limit(device) if limit is None else limit)
        self._places: dict[str, list[Place]] = {}
        if self.resident:
            self._places = {kind: _loaded(crops, sizes[kind], device) for kind, crops in present.items()}

    def crops(
        self, samples: Sequence[Sample], pixels: Sequence[Pixels], sampler: Sampler
    ) -> tuple[Tensor, Tensor | None]:
        """The crops (N, H, W, 3) uint8 of samples at the model's input size, and at the teacher's where that differs.

        pixels: of Planner; empty where all crops are resident.
        """
        found = needed(samples)
        places = [self._places[kind][row] for kind, row in found] if self.resident else upload(pixels, self.device)
        beyond = iter(places[len(samples) :])
        others = [None if s.plan.beyond is None else next(beyond) for s in samples]
        made = crops_on_device(places[: len(samples)], others, [s.plan for s in samples], sampler.made_size)
        if sampler.made_size == sampler.stage.input_size:
            return made, None
        return resize(made, sampler.stage.input_size, "area"), made


def _memory_limit(device: torch.device) -> int:
    return int(_SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def _loaded(crops: Crops, sizes: Sequence[tuple[int, int]], device: torch.device) -> list[Place]:
    """All crops in one buffer on the device."""
    counts = np.array([height * width for height, width in sizes])
    firsts = np.concatenate([[0], np.cumsum(counts)])
    buffer = torch.empty((int(firsts[-1]), 3), dtype=torch.uint8, device=device)
    with ThreadPoolExecutor(_THREADS) as threads:
        for first in range(0, len(sizes), _CHUNK):
            rows = range(first, min(first + _CHUNK, len(sizes)))
            chunk = np.concatenate([pixels.reshape(-1, 3) for pixels in threads.map(crops.pixels, rows)])
            buffer[firsts[first] : firsts[first] + len(chunk)] = torch.from_numpy(chunk).to(device)
    return [
        Place(buffer, int(start), height, width, width)
        for start, (height, width) in zip(firsts[:-1], sizes, strict=True)
    ]
