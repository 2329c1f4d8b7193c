"""Smoothing that knows how sure the network was, frame by frame, without looking ahead."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posecli.geometry import Float64Array
from posecli.keypoints import KeypointSet
from posecli.tracking import kalman, one_euro
from posecli.tracking.kalman import Motion
from posecli.types import IntArray, Poses

# Seconds of a frame, and its Poses with track ids → the same people, smoothed. Frames come in the order of time.
Smoother = Callable[[float, Poses], Poses]

# Seconds that pass at least from frame to frame, also where a clip's clock stands still.
SHORTEST = 1e-3


@dataclass(frozen=True)
class SmoothOptions:
    """Lengths are in shares of a person's size, the longer side of the box.

    noise: what part of the network's standard deviation is new in every frame; the rest is an error that it
    repeats, which no filter can tell from the truth. floor: least standard deviation of a sight.
    agility: root of the spectral density of the acceleration, 1/s^1.5, to begin with. Each keypoint's own motion
    changes it, by a factor from calmest to wildest, at a rate of learning, 1/s.
    gate: squared Mahalanobis distance, with 2 degrees of freedom, from which a sight counts as an outlier: 1.1 % of
    Gaussian ones do.
    usual_speed: standard deviation of the speed of somebody new, 1/s.
    memory: seconds out of sight after which somebody begins anew.
    """

    noise: float = 0.5
    floor: float = 0.001
    agility: float = 2.0
    calmest: float = 0.05
    wildest: float = 20.0
    learning: float = 4.0
    gate: float = 9.0
    usual_speed: float = 0.5
    memory: float = 0.5


@dataclass(frozen=True, eq=False)
class People:
    """M people in the middle of a clip.

    ids (M,); motion of their keypoints (M, K, 2); agility (M, K); sizes (M,) in pixels; seen (M,), seconds.
    """

    ids: IntArray
    motion: Motion
    agility: Float64Array
    sizes: Float64Array
    seen: Float64Array

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Any) -> "People":
        if kalman.everybody(rows, len(self)):
            return self
        return People(self.ids[rows], self.motion[rows], self.agility[rows], self.sizes[rows], self.seen[rows])

    @classmethod
    def join(cls, parts: "list[People]") -> "People":
        """Several, one after the other."""
        return cls(
            np.concatenate([part.ids for part in parts]),
            Motion.join([part.motion for part in parts]),
            np.concatenate([part.agility for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            np.concatenate([part.seen for part in parts]),
        )


class KalmanSmoother:
    """A Kalman filter for each keypoint of each track id; see `begin` and `advance`.

    The result's keypoints are the filtered ones, raw_keypoints those given, std the filter's own posterior.
    Nothing is mixed between ids.
    """

    def __init__(self, options: SmoothOptions | None = None) -> None:
        self._options = options or SmoothOptions()
        self._people: People | None = None

    def __call__(self, time: float, poses: Poses) -> Poses:
        """The people of a frame at a time in seconds, smoothed. Without track ids nothing is changed."""
        if poses.track_ids is None:
            return poses
        options = self._options
        variance = variances(poses, options)
        known = begin(time, poses, variance, options)[np.zeros(0, np.int64)] if self._people is None else self._people
        known = known[time - known.seen <= options.memory]
        if np.array_equal(known.ids, poses.track_ids):
            self._people = self._seen(time, poses, known, variance)
            return smoothed(poses, self._people.motion)
        same = known.ids[:, None] == poses.track_ids[None]
        before, rows = np.nonzero(same)
        now = self._seen(time, poses.rows(rows), known[before], variance[rows])
        if len(rows) < len(poses):
            new = ~same.any(axis=0)
            now = People.join([now, begin(time, poses, variance, options)[new]])
            rows = np.concatenate([rows, np.flatnonzero(new)])
        now = now[np.argsort(rows)]
        lost = ~same.any(axis=1)
        self._people = People.join([now, known[lost]]) if lost.any() else now
        return smoothed(poses, now.motion)

    def _seen(self, time: float, poses: Poses, known: People, variance: Float64Array) -> People:
        """People known from before, in the order of the poses, after this sight of them."""
        gap = time - known.seen
        predicted = predict(known.motion, known.agility, known.sizes, gap)
        measured = poses.keypoints.astype(np.float64)
        motion, agility = advance(predicted, known.agility, gap, measured, variance, self._options)
        return People(known.ids, motion, agility, sizes(poses), np.full(len(poses), float(time)))


def begin(time: float, poses: Poses, variance: Float64Array, options: SmoothOptions) -> People:
    """People seen for the first time, with the variance (N, K, 2) of their keypoints."""
    assert poses.track_ids is not None
    size = sizes(poses)
    speed = (options.usual_speed * size[:, None, None]) ** 2
    motion = kalman.start(poses.keypoints, variance, speed)
    return People(
        poses.track_ids, motion, np.full(poses.scores.shape, options.agility), size, np.full(len(poses), float(time))
    )


def sizes(poses: Poses) -> Float64Array:
    """(N,) longer side of the boxes in pixels, at least 1."""
    return np.asarray((poses.boxes[:, 2:] - poses.boxes[:, :2]).max(axis=1, initial=1.0), np.float64)


def variances(poses: Poses, options: SmoothOptions) -> Float64Array:
    """(N, K, 2) of what is new in each frame's error, in pixels²."""
    floor = options.floor * sizes(poses)[:, None, None]
    return np.asarray(np.maximum(options.noise * poses.std.astype(np.float64), floor) ** 2)


def predict(motion: Motion, agility: Float64Array, size: Float64Array, seconds: Float64Array) -> Motion:
    """Motion (M, K, 2) of people of a size (M,) some seconds (M,) later."""
    density = (agility * size[:, None]) ** 2
    return kalman.predict(motion, np.maximum(seconds, SHORTEST)[:, None, None], density[..., None])


def advance(
    predicted: Motion,
    agility: Float64Array,
    seconds: Float64Array,
    measured: Float64Array,
    variance: Float64Array,
    options: SmoothOptions,
) -> tuple[Motion, Float64Array]:
    """Motion (M, K, 2) and agility (M, K) after a sight, seconds (M,) after the one before.

    variance (M, K, 2) is infinite where nothing was seen. An innovation outside the gate is trusted so much less
    that it moves the state no more than one at the gate's edge would, and less the farther it is (a redescending
    weight, as in Agamennoni et al., "Approximate inference in state-space models with heavy-tailed noise", 2012).
    The agility follows the ratio of the squared innovations to their expectation, which is 1 for a filter
    that fits (Bar-Shalom et al. 2001, section 11.2.2): who moves more than was expected gets a livelier model.
    """
    total = predicted.position_var + variance
    distance = ((measured - predicted.position) ** 2 / total).sum(axis=-1)
    excess = np.maximum(distance / options.gate, 1.0)
    motion = kalman.update(predicted, measured, total * excess[..., None] - predicted.position_var)
    surprise = np.where(np.isfinite(variance[..., 0]), np.minimum(distance, options.gate) / 2 - 1, 0.0)
    # A step is bounded, so that one sight after a pause does not decide alone.
    rate = options.learning * np.minimum(np.maximum(seconds, 0.0), 0.1)[:, None]
    calmest, wildest = options.agility * options.calmest, options.agility * options.wildest
    return motion, np.minimum(np.maximum(agility * np.exp(rate * surprise), calmest), wildest)


def smoothed(poses: Poses, motion: Motion) -> Poses:
    """The poses with these keypoints and their standard deviations."""
    return replace(
        poses,
        keypoints=motion.position.astype(np.float32),
        std=np.sqrt(motion.position_var).astype(np.float32),
        raw_keypoints=poses.keypoints,
    )


def _none(keypoint_set: KeypointSet) -> Smoother:
    return lambda time, poses: poses


def _kalman(keypoint_set: KeypointSet) -> Smoother:
    return KalmanSmoother()


def _one_euro(keypoint_set: KeypointSet) -> Smoother:
    return one_euro.OneEuro()


# Name → function that makes a smoother for one clip.
SMOOTHERS: dict[str, Callable[[KeypointSet], Smoother]] = {"none": _none, "kalman": _kalman, "one-euro": _one_euro}
