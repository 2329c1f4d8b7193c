"""Batches of training samples as tensors."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posecli.pose.config import PoseConfig
from posecli.train.distributed import Distributed
from posecli.train.loader import prefetch
from posecli.train.packing import Crops
from posecli.train.pixel_store import PixelStore, Planner
from posecli.train.recipe import Recipe, Stage
from posecli.train.samples import Sampler


@dataclass(frozen=True)
class Batch:
    """This process's part of the batch of one step.

    crops (N, H, W, 3) uint8, points (N, K, 2) in crop pixels, weights (N, K). present (N,): 1 for a person, 0 for a
    negative, -1 where that is not learned: people without labels, and padding. sides (N, 4): the person's box relative
    to the crop's size, with sides_weights (N,), 0 for negatives. taught (N,): weights of the divergence from the
    teacher, 0 for negatives and padding. ids: N texts that identify the people. samples: number in all processes.
    weight_sum: sum of the weights that the loss is divided by; of all processes after counted_together. large: the same
    crops at the teacher's input size, where that differs.
    """

    crops: Tensor
    points: Tensor
    weights: Tensor
    present: Tensor
    sides: Tensor
    sides_weights: Tensor
    taught: Tensor
    ids: tuple[str, ...]
    samples: int
    weight_sum: Tensor
    large: Tensor | None = None

    def parts(self, count: int) -> list["Batch"]:
        """Up to count parts of nearly equal size for gradient accumulation."""
        size = -(-len(self.ids) // count)
        return [self._rows(slice(first, first + size)) for first in range(0, len(self.ids), size)]

    def _rows(self, rows: slice) -> "Batch":
        tensors = {name: tensor[rows] for name, tensor in self._per_sample().items()}
        return replace(self, ids=self.ids[rows], **tensors)

    def pinned(self) -> "Batch":
        """The batch in page-locked memory, for asynchronous copies to a GPU."""
        return replace(self, **{name: tensor.pin_memory() for name, tensor in self._per_sample().items()})

    def _per_sample(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {n: v for n, v in values.items() if isinstance(v, Tensor) and n != "weight_sum"}


def counted_together(stream: Iterable[Batch], distributed: Distributed, device: torch.device) -> Iterator[Batch]:
    """The batches with weight_sum summed over all processes."""
    for batch in stream:
        yield replace(batch, weight_sum=distributed.sum(batch.weight_sum.to(device)))


def batches(
    crops: Crops,
    recipe: Recipe,
    stage: Stage,
    start: int,
    end: int,
    distributed: Distributed | None = None,
    negatives: Crops | None = None,
    teacher_size: tuple[int, int] | None = None,
    *,
    unlabelled: Crops | None = None,
    workers: int = 0,
    device: torch.device | None = None,
    store: PixelStore | None = None,
) -> Generator[Batch, None, None]:
    """Batches for samples start to end of the run, prefetched by a thread or by worker processes.

    They do not depend on workers; see samples.Sampler, also for the other arguments. device: that of training; for CUDA
    batches are in pinned memory. store: augments on its device, where the crops stay; None for numpy and OpenCV.
    """
    distributed = distributed or Distributed()
    rank, size = distributed.rank, distributed.size
    sampler = Sampler(crops, recipe, stage, end, rank, size, negatives, teacher_size, unlabelled)
    on_gpu = device is not None and device.type == "cuda"
    keys = range(start, end, stage.batch_size)
    if store is None:
        for found in prefetch(sampler, keys, workers):
            batch = _batch(found)
            yield batch.pinned() if on_gpu else batch
        return
    for samples, values, pixels in prefetch(Planner(sampler, not store.resident), keys, workers):
        labels = {**values, "crops": torch.empty((len(samples), 0)), "large": None}
        batch = _batch(labels)
        made, large = store.crops(samples, pixels, sampler)
        yield replace(batch.pinned() if on_gpu else batch, crops=made, large=large)


def _batch(fields: Mapping[str, Any]) -> Batch:
    tensors: dict[str, Any] = {n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in fields.items()}
    return Batch(**tensors, weight_sum=tensors["weights"].sum())


def normalise(crops: Tensor, config: PoseConfig, device: torch.device) -> Tensor:
    """uint8 RGB (N, H, W, 3) → normalised float (N, 3, H, W), channels last in memory."""
    preprocessing = config.preprocessing
    pixels = crops.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    if preprocessing.channels == "BGR":
        pixels = pixels.flip(1)
    mean, std = (_channels(values, device) for values in (preprocessing.mean, preprocessing.std))
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=16)
def _channels(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """(1, 3, 1, 1); cached, since each copy to a GPU would wait for it."""
    return torch.tensor(values, device=device).view(1, 3, 1, 1)
