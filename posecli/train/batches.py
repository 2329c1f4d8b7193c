"""Which samples a step sees: a pure function of the recipe and the number of samples seen before."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posecli.train.augment import draw_sample
from posecli.train.data import Crops
from posecli.train.parallel import World
from posecli.train.recipe import Recipe, Stage


@dataclass(frozen=True)
class Batch:
    """What this process sees in one step, and how many samples all processes see together.

    crops (N, H, W, 3) uint8, points (N, K, 2) in crop pixels, weights (N, K), rows: N places in the crops.
    """

    crops: Tensor
    points: Tensor
    weights: Tensor
    rows: tuple[int, ...]
    samples: int

    def parts(self, count: int) -> list["Batch"]:
        """Up to count parts of nearly the same size, whose gradients are added up."""
        size = -(-len(self.rows) // count)
        spans = [slice(first, first + size) for first in range(0, len(self.rows), size)]
        return [Batch(self.crops[s], self.points[s], self.weights[s], self.rows[s], self.samples) for s in spans]


def sample_order(count: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of samples in an epoch: a pure function of seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def batches(
    crops: Crops, recipe: Recipe, stage: Stage, start: int, end: int, world: World | None = None
) -> Iterator[Batch]:
    """Batches for samples start to end of the run, prepared ahead in another thread.

    Sample number n is always the same crop under the same augmentation, wherever a run is resumed and
    however many processes share it: process r takes every size-th sample of each batch from r on.
    """
    world = world or World()
    order: dict[int, Any] = {}

    def sample(number: int) -> tuple[Any, Any, Any, int]:
        epoch, place = divmod(number, len(crops))
        if epoch not in order:
            order.clear()
            order[epoch] = sample_order(len(crops), recipe.seed, epoch)
        row = int(order[epoch][place])
        people = crops.people
        random = np.random.default_rng([recipe.seed, 1, number])
        crop, points, weights = draw_sample(
            crops.pixels(row),
            people.boxes[row],
            people.keypoints[row],
            people.weights[row],
            people.keypoint_set,
            stage.input_size,
            recipe.augmentation_at(number),
            random,
            recipe.model.preprocessing.padding,
            lambda: crops.pixels(int(random.integers(len(crops)))),
        )
        return crop, points, weights, row

    def prepare(first: int) -> Batch:
        numbers = range(first, min(first + stage.batch_size, end))
        # A process for which the last batch leaves nothing goes along with a sample that does not count.
        mine = numbers[world.rank :: world.size]
        pixels, points, weights, rows = zip(*map(sample, mine or numbers[:1]), strict=True)
        return Batch(
            torch.from_numpy(np.stack(pixels)),
            torch.from_numpy(np.stack(points)).float(),
            torch.from_numpy(np.stack(weights)).float() * bool(mine),
            rows,
            len(numbers),
        )

    with ThreadPoolExecutor(1) as pool:
        starts = iter(range(start, end, stage.batch_size))
        pending = [pool.submit(prepare, first) for first in islice(starts, 2)]
        while pending:
            batch = pending.pop(0).result()
            following = next(starts, None)
            if following is not None:
                pending.append(pool.submit(prepare, following))
            yield batch
