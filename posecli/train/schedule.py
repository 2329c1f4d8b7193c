"""The learning rate schedule."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Learning rate over the samples: linear warm-up, constant, cosine down to 1 %.

    constant_fraction: part of the samples (warm-up included) before the cosine decay.
    """

    learning_rate: float
    samples: int
    warmup_samples: int = 4000
    constant_fraction: float = 0.6

    def at(self, seen: int) -> float:
        """The learning rate after this many samples."""
        warm = min(1.0, (seen + 1) / max(1, self.warmup_samples))
        progress = min(1.0, seen / max(1, self.samples))
        fall = max(0.0, (progress - self.constant_fraction) / max(1e-9, 1 - self.constant_fraction))
        return self.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))
