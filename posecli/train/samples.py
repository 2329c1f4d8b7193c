"""Training samples as a pure function of the recipe and the sample's number. Does not import torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posecli.train.augment import Plan, crop_of, plan_sample
from posecli.train.packing import Crops
from posecli.train.recipe import Recipe, Stage

Float = NDArray[np.float64]


@lru_cache(maxsize=2)
def sample_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of samples in an epoch: a pure function of seed and epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass(frozen=True)
class Sample:
    """One sample: its plan, and what is learned from it.

    kind: "people", "negatives" or "unlabelled", the crops that row is a row of. points (K, 2) in pixels of the
    augmented crop, weights (K,). present: 1 for a person, 0 for a negative, -1 for a person without
    labels. sides (4,): the person's box relative to the crop's size, with its weight. taught: weight of the divergence
    from the teacher. id: text that identifies the person.
    """

    kind: str
    row: int
    plan: Plan
    points: Float
    weights: Float
    present: float
    sides: Float
    sides_weight: float
    taught: float
    id: str


@dataclass(frozen=True)
class Sampler:
    """Makes batches of samples by their number, the same in every process.

    Sample number n is always the same crop with the same augmentation, also in a resumed run and for any number of
    processes: process rank gets every size-th sample of each batch, from rank on. end: samples at the end of the stage.
    negatives: crops without a person, for recipe.negatives_share of the samples. unlabelled: people without labels, for
    recipe.unlabelled_share of the samples; the other samples are the same as without them. teacher_size: (height,
    width) of the teacher's input; crops are then made at that size and downsampled for the model.
    """

    crops: Crops
    recipe: Recipe
    stage: Stage
    end: int
    rank: int = 0
    size: int = 1
    negatives: Crops | None = None
    teacher_size: tuple[int, int] | None = None
    unlabelled: Crops | None = None

    def __call__(self, first: int) -> dict[str, Any]:
        """This process's part of the batch that starts with sample first: the fields of a Batch by name."""
        samples, values = self.planned(first)
        crops = np.stack([self._crop(sample) for sample in samples])
        height, width = self.stage.input_size
        if crops.shape[1:3] == (height, width):
            return {**values, "crops": crops, "large": None}
        small = [cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA) for crop in crops]
        return {**values, "crops": np.stack(small), "large": crops}

    def planned(self, first: int) -> tuple[list[Sample], dict[str, Any]]:
        """The same without pixels: the samples, and all fields of the Batch but crops and large."""
        numbers = range(first, min(first + self.stage.batch_size, self.end))
        # Where the last batch has no sample left for a process, it gets one that does not count.
        mine = numbers[self.rank :: self.size]
        samples = [self.sample(number) for number in mine or numbers[:1]]
        counts = float(bool(mine))
        return samples, {
            "points": self._points(samples),
            "weights": _stacked([s.weights for s in samples]) * np.float32(counts),
            "present": np.array([s.present if mine else -1 for s in samples], np.float32),
            "sides": _stacked([s.sides for s in samples]),
            "sides_weights": np.array([s.sides_weight * counts for s in samples], np.float32),
            "taught": np.array([s.taught * counts for s in samples], np.float32),
            "ids": tuple(s.id for s in samples),
            "samples": len(numbers),
        }

    @property
    def made_size(self) -> tuple[int, int]:
        """(height, width) at which crops are made."""
        return self.teacher_size or self.stage.input_size

    def crops_of(self, kind: str) -> Crops:
        """The crops of a sample's kind."""
        found = {"people": self.crops, "negatives": self.negatives, "unlabelled": self.unlabelled}[kind]
        assert found is not None
        return found

    def sample(self, number: int) -> Sample:
        """Sample number n of the run."""
        if self.unlabelled is not None:
            # A separate generator, so that the random numbers of other samples do not change.
            random = np.random.default_rng([self.recipe.seed, 2, number])
            if random.random() < self.recipe.unlabelled_share:
                return self._without_labels(self.unlabelled, number, random)
        random = np.random.default_rng([self.recipe.seed, 1, number])
        negatives = self.negatives
        if negatives is not None and random.random() < self.recipe.negatives_share:
            row = int(random.integers(len(negatives)))
            # Random points in place of keypoints, so that negatives get the same augmentation as people.
            box = negatives.people.boxes[row]
            points = random.uniform(box[:2], box[2:], (len(negatives.people.keypoint_set), 2))
            plan = self._plan(negatives, row, points, np.ones(len(points)), number, random)
            nothing = plan.weights * 0
            name = negatives.people.ids[row]
            return Sample("negatives", row, plan, plan.keypoints, nothing, 0.0, plan.sides, 0.0, 0.0, name)
        epoch, place = divmod(number, len(self.crops))
        row = int(sample_order(len(self.crops), self.recipe.seed, epoch)[place])
        people = self.crops.people
        plan = self._plan(self.crops, row, people.keypoints[row], people.weights[row], number, random)
        labels = plan.keypoints, plan.weights, 1.0, plan.sides, plan.sides_weight, 1.0
        return Sample("people", row, plan, *labels, people.ids[row])

    def _without_labels(self, source: Crops, number: int, random: np.random.Generator) -> Sample:
        """A person without labels: the keypoints, which are the teacher's, guide the augmentation only."""
        people, row = source.people, int(random.integers(len(source)))
        plan = self._plan(source, row, people.keypoints[row], people.weights[row], number, random)
        taught = float(people.weights[row].max())  # the folder's weight
        labels = plan.keypoints, plan.weights * 0, -1.0, plan.sides, 0.0, taught
        return Sample("unlabelled", row, plan, *labels, people.ids[row])

    def _plan(
        self, source: Crops, row: int, points: Float, weights: Float, number: int, random: np.random.Generator
    ) -> Plan:
        """The plan of a sample; beyond is the row of another crop."""
        return plan_sample(
            source.size(row),
            source.people.boxes[row],
            points,
            weights,
            source.people.keypoint_set,
            self.made_size,
            self.recipe.augmentation_at(number),
            random,
            self.recipe.model.preprocessing.padding,
            lambda: int(random.integers(len(source))),
        )

    def _crop(self, sample: Sample) -> NDArray[np.uint8]:
        source, other = self.crops_of(sample.kind), sample.plan.beyond
        beyond = None if other is None else source.pixels(other)
        return crop_of(sample.plan, source.pixels(sample.row), beyond, self.made_size)

    def _points(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Points (N, K, 2) in pixels of the model's input; pixel centres are at integers."""
        points, height = np.stack([s.points for s in samples]), self.stage.input_size[0]
        if self.made_size != self.stage.input_size:
            points = (points + 0.5) * height / self.made_size[0] - 0.5
        return points.astype(np.float32)


def _stacked(rows: Sequence[Float]) -> NDArray[np.float32]:
    return np.stack(rows).astype(np.float32)
