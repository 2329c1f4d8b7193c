"""People who move at known ways, and the errors that a pose network makes on them."""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from posecli.keypoints import COCO17
from posecli.types import Poses
from tests.painted import FIGURE, box_of

# Amplitude in heights and frequency in Hz of hands and feet; elbows and knees have half of it, the trunk a tenth.
MOTIONS = {"still": (0.004, 0.3), "slow": (0.08, 0.5), "walk": (0.08, 1.0), "fast": (0.25, 2.0)}
_REACH = np.array([0.1] * 7 + [0.5, 0.5, 1.0, 1.0, 0.1, 0.1, 0.5, 0.5, 1.0, 1.0])


@dataclass(frozen=True)
class Errors:
    """Of a network's keypoints, in shares of the standard deviation it reports, which is `std` of the height.

    white: new in every frame. slow: lasting about `seconds`, as the network sees the same pixels again.
    outliers: share of keypoints far off, for `lasting` frames on average. swaps: chance a frame that left and right
    of a pair change places, likewise. misses: share of frames without the person.
    """

    std: float = 0.02
    white: float = 0.4
    slow: float = 0.6
    seconds: float = 0.7
    outliers: float = 0.003
    swaps: float = 0.003
    lasting: float = 2.5
    misses: float = 0.03


def moving(kind: str, times: np.ndarray, height: float, random: np.random.Generator) -> np.ndarray:
    """True keypoints (T, 17, 2) in pixels."""
    amplitude, frequency = MOTIONS[kind]
    phases = random.uniform(0, 2 * np.pi, (2, 17, 2))
    turning = 2 * np.pi * frequency * times[:, None, None]
    # Two sines of unlike frequency: what repeats exactly would be too easy to measure a lag on.
    swing = 0.7 * np.sin(turning + phases[0]) + 0.3 * np.sin(1.7 * turning + phases[1])
    whole = amplitude * 0.5 * np.sin(0.5 * turning + phases[0, 0])
    return np.asarray(height * (FIGURE + amplitude * _REACH[:, None] * swing + whole) + [400, 100])


def seen(truth: np.ndarray, times: np.ndarray, errors: Errors, random: np.random.Generator) -> list[Poses]:
    """What a network would say of it, one Poses with one person (or none) of track 1 a frame."""
    count, joints, _ = truth.shape
    height = np.ptp(truth[..., 1], axis=1).mean()
    step = float(np.diff(times).mean())
    keep = np.exp(-step / errors.seconds)

    def slow(shape: tuple[int, ...]) -> np.ndarray:
        """Unit variance, correlated over time."""
        start = random.normal(0, 1, (1, *shape)) / np.sqrt(1 - keep**2)
        noise = np.concatenate([start, random.normal(0, 1, (count - 1, *shape))]) * np.sqrt(1 - keep**2)
        return np.asarray(lfilter([1], [1, -keep], noise, axis=0))

    # Some joints are harder than others, and each now more and now less; the score follows.
    hard = np.exp(random.normal(0, 0.3, (1, joints, 1)) + 0.25 * slow((joints, 1)))
    std = errors.std * height * hard
    scores = np.clip(0.6 / hard[..., 0], 0.05, 0.95)
    points = truth + std * (errors.white * random.normal(0, 1, truth.shape) + errors.slow * slow((joints, 2)))
    for joint in range(joints):
        for first, last in _spells(count, errors.outliers, errors.lasting, random):
            points[first:last, joint] += random.normal(0, 0.25 * height, 2)
    for left, right in COCO17.flip_pairs:
        for first, last in _spells(count, errors.swaps, errors.lasting, random):
            points[first:last, [left, right]] = points[first:last, [right, left]]
    result = []
    for i in range(count):
        if 0 < i < count - 1 and random.random() < errors.misses:
            result.append(Poses.empty(joints))
            continue
        result.append(
            Poses(
                keypoints=points[i, None].astype(np.float32),
                std=np.broadcast_to(std[i, None], (1, joints, 2)).astype(np.float32),
                scores=scores[i, None].astype(np.float32),
                boxes=box_of(truth[i])[None].astype(np.float32),
                box_scores=np.full(1, 0.9, np.float32),
                person_scores=np.full(1, 0.5, np.float32),
                track_ids=np.ones(1, np.int64),
            )
        )
    return result


def _spells(count: int, chance: float, lasting: float, random: np.random.Generator) -> list[tuple[int, int]]:
    """Beginnings and ends of spells that begin with a chance and last so many frames on average."""
    starts = np.flatnonzero(random.random(count) < chance)
    return [(int(i), int(i + random.geometric(1 / lasting))) for i in starts]
