"""Which samples a step sees: a pure function of the recipe and the number of samples seen before."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from posecli.train.augment import draw_sample_and_sides
from posecli.train.packing import Crops
from posecli.train.parallel import World
from posecli.train.recipe import Recipe, Stage


@dataclass(frozen=True)
class Batch:
    """What this process sees in one step, and how many samples all processes see together.

    crops (N, H, W, 3) uint8, points (N, K, 2) in crop pixels, weights (N, K). present (N,): 1 where there is a person,
    0 where there is nobody, -1 where the sample does not count. ids: N texts that tell whom a crop shows. large: the
    same crops at the teacher's input size, where that is another one. sides (N, 4): the person's box in shares of the
    crop, sides_weights (N,), 0 where there is nobody.
    """

    crops: Tensor
    points: Tensor
    weights: Tensor
    present: Tensor
    ids: tuple[str, ...]
    samples: int
    sides: Tensor
    sides_weights: Tensor
    large: Tensor | None = None

    def parts(self, count: int) -> list["Batch"]:
        """Up to count parts of nearly the same size, whose gradients are added up."""
        size = -(-len(self.ids) // count)
        spans = [slice(first, first + size) for first in range(0, len(self.ids), size)]
        return [
            Batch(
                self.crops[s],
                self.points[s],
                self.weights[s],
                self.present[s],
                self.ids[s],
                self.samples,
                self.sides[s],
                self.sides_weights[s],
                None if self.large is None else self.large[s],
            )
            for s in spans
        ]


def sample_order(count: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The order of samples in an epoch: a pure function of seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def batches(
    crops: Crops,
    recipe: Recipe,
    stage: Stage,
    start: int,
    end: int,
    world: World | None = None,
    nobody: Crops | None = None,
    teacher_size: tuple[int, int] | None = None,
) -> Iterator[Batch]:
    """Batches for samples start to end of the run, prepared ahead in another thread.

    Sample number n is always the same crop under the same augmentation, wherever a run is resumed and
    however many processes share it: process r takes every size-th sample of each batch from r on. nobody: crops
    without a person, of which recipe.nobody_share of the samples are. teacher_size: (height, width) of the teacher's
    input; the crops are drawn at that size then, and made smaller for the model.
    """
    size = teacher_size or stage.input_size
    world = world or World()
    order: dict[int, Any] = {}

    def sample(number: int) -> tuple[Any, Any, Any, bool, str, Any, float]:
        random = np.random.default_rng([recipe.seed, 1, number])
        if nobody is not None and random.random() < recipe.nobody_share:
            row = int(random.integers(len(nobody)))
            # Points at random in place of keypoints: what is done to people is done to these crops too.
            box = nobody.people.boxes[row]
            points = random.uniform(box[:2], box[2:], (len(nobody.people.keypoint_set), 2))
            crop, points, weights, sides, _ = drawn(nobody, row, points, np.ones(len(points)), number, random)
            return crop, points, weights * 0, False, nobody.people.ids[row], sides, 0.0
        epoch, place = divmod(number, len(crops))
        if epoch not in order:
            order.clear()
            order[epoch] = sample_order(len(crops), recipe.seed, epoch)
        row = int(order[epoch][place])
        people = crops.people
        crop, points, weights, sides, counted = drawn(
            crops, row, people.keypoints[row], people.weights[row], number, random
        )
        return crop, points, weights, True, people.ids[row], sides, counted

    def drawn(source: Crops, row: int, keypoints: Any, weights: Any, number: int, random: np.random.Generator) -> Any:
        return draw_sample_and_sides(
            source.pixels(row),
            source.people.boxes[row],
            keypoints,
            weights,
            source.people.keypoint_set,
            size,
            recipe.augmentation_at(number),
            random,
            recipe.model.preprocessing.padding,
            lambda: source.pixels(int(random.integers(len(source)))),
        )

    def prepare(first: int) -> Batch:
        numbers = range(first, min(first + stage.batch_size, end))
        # A process for which the last batch leaves nothing goes along with a sample that does not count.
        mine = numbers[world.rank :: world.size]
        pixels, points, weights, present, ids, sides, counted = zip(*map(sample, mine or numbers[:1]), strict=True)
        large = None
        if size != stage.input_size:
            large = torch.from_numpy(np.stack(pixels))
            pixels = tuple(cv2.resize(crop, stage.input_size[::-1], interpolation=cv2.INTER_AREA) for crop in pixels)
            # Pixel centres are at integers.
            points = tuple((p + 0.5) * stage.input_size[0] / size[0] - 0.5 for p in points)
        return Batch(
            torch.from_numpy(np.stack(pixels)),
            torch.from_numpy(np.stack(points)).float(),
            torch.from_numpy(np.stack(weights)).float() * bool(mine),
            torch.tensor(present).float() if mine else torch.full((1,), -1.0),
            ids,
            len(numbers),
            torch.from_numpy(np.stack(sides)).float(),
            torch.tensor(counted).float() * bool(mine),
            large,
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
