"""Settings of a training run: model, stages, optimiser, augmentation."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from posecli.pose.config import PoseConfig
from posecli.train.augment import WEAK, Augmentation
from posecli.train.schedule import Schedule


@dataclass(frozen=True)
class Stage:
    """A part of the schedule at one input size.

    samples: number of training samples. lr_factor: factor on the learning rate. freeze: number of leading blocks of the
    backbone that are frozen, with their batch norms. sigma: of the labels, in bins; None: in proportion to the model's.
    """

    input_size: tuple[int, int]
    samples: int
    batch_size: int = 64
    lr_factor: float = 1.0
    freeze: int = 0
    sigma: float | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything but the data that the result of a training run depends on.

    weak_share: last part of the schedule, with weak augmentation. constant_fraction: part of the schedule at the full
    learning rate, after the warm-up and before the cosine. backbone_lr_factor: factor on the backbone's learning rate.
    accumulate: number of parts of a batch for gradient accumulation. negatives_share: share of negatives among the
    samples, where there are any; unlabelled_share: of people without labels. person_score_weight, box_weight: weights
    of the losses of the person score and the box head. heads_only: train only these two heads.
    teacher: SHA-256 of the teacher's weights for distillation, or None; teacher_weight: weight of its loss.
    precision: of the forward and backward pass, "bf16" by autocast or "fp32".
    """

    model: PoseConfig = field(default_factory=PoseConfig)
    stages: tuple[Stage, ...] = (
        Stage((128, 96), 200_000),
        Stage((256, 192), 100_000, batch_size=32, lr_factor=0.5),
    )
    learning_rate: float = 1.5e-3
    backbone_lr_factor: float = 0.5
    weight_decay: float = 0.05
    warmup_samples: int = 4000
    constant_fraction: float = 0.6
    weak_share: float = 0.2
    clip: float = 5.0
    ema: float = 0.998
    label_smoothing: float = 0.0
    accumulate: int = 1
    negatives_share: float = 0.15
    unlabelled_share: float = 0.0
    person_score_weight: float = 0.3
    box_weight: float = 0.3
    heads_only: bool = False
    teacher: str | None = None
    teacher_weight: float = 0.5
    precision: str = "fp32"
    marginal_start: bool = True
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    weak_augmentation: Augmentation = WEAK

    @property
    def samples(self) -> int:
        """Samples of all stages."""
        return sum(stage.samples for stage in self.stages)

    @property
    def schedule(self) -> Schedule:
        """The learning rate over all stages; the warm-up takes at most a tenth of the run."""
        warmup = int(min(self.warmup_samples, self.samples / 10))
        return Schedule(self.learning_rate, self.samples, warmup, self.constant_fraction)

    def learning_rate_at(self, seen: int) -> float:
        """The learning rate after this many samples, with the stage's factor and warm-up."""
        number, start = self._stage_at(seen)
        # Each stage has a new optimiser, which needs a warm-up.
        warm = min(1.0, (seen - start + 1) / max(1, self.warmup_samples / 2))
        return self.schedule.at(seen) * self.stages[number].lr_factor * warm

    def _stage_at(self, seen: int) -> tuple[int, int]:
        """The stage of the next sample, and the number of samples before that stage."""
        start = 0
        for number, stage in enumerate(self.stages):
            if seen < start + stage.samples:
                return number, start
            start += stage.samples
        return len(self.stages) - 1, start - self.stages[-1].samples

    def augmentation_at(self, seen: int) -> Augmentation:
        """The augmentation after this many samples."""
        weak = seen >= (1 - self.weak_share) * self.samples
        return self.weak_augmentation if weak else self.augmentation

    def to_json(self) -> dict[str, Any]:
        """Plain values for options.json and the weights' header."""
        values = dataclasses.asdict(self)
        return {**values, "stages": list(values["stages"]), "model": self.model.to_json()}
