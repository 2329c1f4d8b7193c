"""What a training run is: model, stages and optimiser, as plain values."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from posecli.pose.config import PoseConfig
from posecli.train.augment import WEAK, Augmentation


@dataclass(frozen=True)
class Stage:
    """A part of the schedule at one input size.

    samples: how many are seen. rate: factor on the learning rate. freeze: leading blocks of the backbone
    that stay as they are, batch norms too.
    """

    input_size: tuple[int, int]
    samples: int
    batch_size: int = 64
    rate: float = 1.0
    freeze: int = 0
    sigma: float | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a training run, the data aside.

    weak_share: last part of the schedule that uses weak augmentation. flat_share: part of the schedule at
    the full learning rate, after the warm-up and before the cosine. trunk_rate: factor on the learning
    rate of a pretrained backbone. accumulate: parts that a batch is cut into where memory is short. nobody_share: share
    of the samples that show nobody, where there are such. presence_weight, box_weight: of the losses of the person
    score and the box. heads_only: only these two heads are trained.
    teacher: SHA-256 of the weights whose distributions are learned too, with teacher_weight (distillation), or None.
    precision: of the forward and backward pass, "bf16" by autocast or "fp32".
    """

    model: PoseConfig = field(default_factory=PoseConfig)
    stages: tuple[Stage, ...] = (
        Stage((128, 96), 200_000),
        Stage((256, 192), 100_000, batch_size=32, rate=0.5),
    )
    learning_rate: float = 1.5e-3
    trunk_rate: float = 0.5
    weight_decay: float = 0.05
    warmup_samples: int = 4000
    flat_share: float = 0.6
    weak_share: float = 0.2
    clip: float = 5.0
    ema: float = 0.998
    smoothing: float = 0.0
    accumulate: int = 1
    nobody_share: float = 0.15
    presence_weight: float = 0.3
    box_weight: float = 0.3
    heads_only: bool = False
    teacher: str | None = None
    teacher_weight: float = 0.5
    precision: str = "bf16"
    marginal_start: bool = True
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    weak_augmentation: Augmentation = WEAK

    @property
    def samples(self) -> int:
        """Samples of all stages."""
        return sum(stage.samples for stage in self.stages)

    def rate_at(self, seen: int) -> float:
        """Learning rate after this many samples: linear warm-up (at most a tenth of the run), flat, cosine to 1/100."""
        warm = min(1.0, (seen + 1) / max(1, min(self.warmup_samples, self.samples / 10)))
        progress = min(1.0, seen / max(1, self.samples))
        fall = max(0.0, (progress - self.flat_share) / max(1e-9, 1 - self.flat_share))
        return self.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))

    def augmentation_at(self, seen: int) -> Augmentation:
        """The augmentation after this many samples."""
        weak = seen >= (1 - self.weak_share) * self.samples
        return self.weak_augmentation if weak else self.augmentation

    def to_json(self) -> dict[str, Any]:
        """Plain values for options.json and the weights' header."""
        values = dataclasses.asdict(self)
        return {**values, "stages": list(values["stages"]), "model": self.model.to_json()}
