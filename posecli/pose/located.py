"""Keypoints in crop pixels with the network's other outputs: what is mapped back to the source."""

from dataclasses import dataclass

import numpy as np

from posecli.types import FloatArray


@dataclass(frozen=True, eq=False)
class Located:
    """People of N crops. All float32.

    keypoints (N, K, 2) and their standard deviations std (N, K, 2), as predicted, in crop pixels; scores (N, K).
    person_log_odds (N,), box_sides (N, 4): see runner.Outputs. finite: whether all outputs of the network were.
    """

    keypoints: FloatArray
    std: FloatArray
    scores: FloatArray
    person_log_odds: FloatArray | None
    box_sides: FloatArray | None
    finite: bool = True

    @classmethod
    def unpacked(cls, values: FloatArray, points: int) -> "Located":
        """From one row a crop: keypoints, std, scores, finite, and perhaps log-odds and sides. points: K."""
        keypoints, std, scores, finite, odds, sides = np.split(
            values, np.cumsum([2 * points, 2 * points, points, 1, 1]), axis=1
        )
        return cls(
            keypoints.reshape(-1, points, 2),
            std.reshape(-1, points, 2),
            scores,
            odds[:, 0] if odds.shape[1] else None,
            sides if sides.shape[1] else None,
            bool(finite.all()),
        )
