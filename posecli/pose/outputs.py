"""The outputs of a pose network as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Logits = tuple[Float, Float]


@dataclass(frozen=True, eq=False)
class Outputs:
    """The network's outputs for N crops.

    logits: x (N, K, W·k) and y (N, K, H·k). person_log_odds: log-odds of a person (N,), None without a person score.
    box_sides: sides of the person's box (N, 4), see network.BoxHead, or None.
    """

    logits: Logits
    person_log_odds: Float | None = None
    box_sides: Float | None = None

    @classmethod
    def of(cls, arrays: Sequence[Float]) -> "Outputs":
        """From the network's outputs in their order."""
        return cls((arrays[0], arrays[1]), *arrays[2:])
