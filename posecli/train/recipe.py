"""What a training run is: model, stages and optimiser, as plain values."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from posecli.pose.config import PoseConfig
from posecli.train.augment import WEAK, Augmentation
from posecli.train.schedule import Schedule


@dataclass(frozen=True)
class Stage:
    """A part of the schedule at one input size.

    samples: how many are seen. lr_factor: factor on the learning rate. freeze: leading blocks of the backbone
    that stay as they are, batch norms too. sigma: of the labels, in bins; None: in proportion to the model's.
    """

    input_size: tuple[int, int]
    samples: int
    batch_size: int = 64
    lr_factor: float = 1.0
    freeze: int = 0
    sigma: float | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a training run, the data aside.

    weak_share: last part of the schedule that uses weak augmentation. constant_fraction: part of the schedule at
    the full learning rate, after the warm-up and before the cosine. backbone_lr_factor: factor on the backbone's
    learning rate. accumulate: parts that a batch is cut into where memory is short. negatives_share: share of
    the samples that show no person, where there are such. person_score_weight, box_weight: of the losses of the person
    score and the box. heads_only: only these two heads are trained.
    teacher: SHA-256 of the weights whose distributions are learned too, with teacher_weight (distillation), or None.
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
        """The learning rate after this many samples, the stage's factor and warm-up included."""
        number, start = self._stage_at(seen)
        # A new optimiser warms up again.
        warm = min(1.0, (seen - start + 1) / max(1, self.warmup_samples / 2))
        return self.schedule.at(seen) * self.stages[number].lr_factor * warm

    def _stage_at(self, seen: int) -> tuple[int, int]:
        """The stage of the next sample, and the samples before it."""
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
