"""Causal smoothing of keypoints with the predicted standard deviations as measurement noise."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posecli.geometry import Float64Array
from posecli.keypoints import KeypointSet
from posecli.tracking import kalman, one_euro
from posecli.tracking.kalman import KalmanState
from posecli.types import IntArray, Poses

# (time in seconds, Poses with track ids) → smoothed Poses. Frames come in the order of time.
Smoother = Callable[[float, Poses], Poses]

# Lower limit of the seconds between two frames, for clips whose timestamps do not increase.
SHORTEST = 1e-3


@dataclass(frozen=True)
class SmoothOptions:
    """Parameters of the smoother. Lengths are relative to the person's size, the longer side of the box.

    noise_share: part of the predicted standard deviation that is independent from frame to frame; the rest is
    correlated error, which no filter can remove. min_std: lower limit of a measurement's standard deviation.
    acceleration_noise: initial root of the spectral density of the acceleration, 1/s^1.5; adapted for each keypoint
    within [min_factor, max_factor] times this value, at adaptation_rate, 1/s.
    gate: squared Mahalanobis distance (2 degrees of freedom) above which a measurement is an outlier: 1.1 % of
    Gaussian ones.
    initial_speed_std: standard deviation of a new track's speed, 1/s.
    max_age: seconds without a detection after which a track's filter is reset. max_gap: the same for offline smoothing,
    which fills shorter gaps.
    """

    noise_share: float = 0.5
    min_std: float = 0.001
    acceleration_noise: float = 2.0
    min_factor: float = 0.05
    max_factor: float = 20.0
    adaptation_rate: float = 4.0
    gate: float = 9.0
    initial_speed_std: float = 0.5
    max_age: float = 0.5
    max_gap: float = 0.8


@dataclass(frozen=True, eq=False)
class SmoothedTracks:
    """Filter states of M tracks.

    ids (M,); motion: states of the keypoints (M, K, 2); acceleration_noise (M, K); sizes (M,) in pixels; seen (M,):
    time of the last detection in seconds.
    """

    ids: IntArray
    motion: KalmanState
    acceleration_noise: Float64Array
    sizes: Float64Array
    seen: Float64Array

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Any) -> "SmoothedTracks":
        if kalman.selects_all(rows, len(self)):
            return self
        return SmoothedTracks(
            self.ids[rows], self.motion[rows], self.acceleration_noise[rows], self.sizes[rows], self.seen[rows]
        )

    @classmethod
    def concatenate(cls, parts: "list[SmoothedTracks]") -> "SmoothedTracks":
        """The tracks of several, one after the other."""
        return cls(
            np.concatenate([part.ids for part in parts]),
            KalmanState.concatenate([part.motion for part in parts]),
            np.concatenate([part.acceleration_noise for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            np.concatenate([part.seen for part in parts]),
        )


class KalmanSmoother:
    """A Kalman filter for each keypoint of each track id; see `begin` and `advance`.

    keypoints of the result are the filtered ones, raw_keypoints the given ones, std is the filter's posterior.
    Tracks are independent of each other.
    """

    def __init__(self, options: SmoothOptions | None = None) -> None:
        self._options = options or SmoothOptions()
        self._people: SmoothedTracks | None = None

    def __call__(self, time: float, poses: Poses) -> Poses:
        """The smoothed poses of a frame at a time in seconds. Poses without track ids are returned unchanged."""
        if poses.track_ids is None:
            return poses
        options = self._options
        variance = variances(poses, options)
        known = begin(time, poses, variance, options)[np.zeros(0, np.int64)] if self._people is None else self._people
        known = known[time - known.seen <= options.max_age]
        if np.array_equal(known.ids, poses.track_ids):
            self._people = self._seen(time, poses, known, variance)
            return smoothed(poses, self._people.motion)
        same = known.ids[:, None] == poses.track_ids[None]
        before, rows = np.nonzero(same)
        now = self._seen(time, poses.rows(rows), known[before], variance[rows])
        if len(rows) < len(poses):
            new = ~same.any(axis=0)
            now = SmoothedTracks.concatenate([now, begin(time, poses, variance, options)[new]])
            rows = np.concatenate([rows, np.flatnonzero(new)])
        now = now[np.argsort(rows)]
        lost = ~same.any(axis=1)
        self._people = SmoothedTracks.concatenate([now, known[lost]]) if lost.any() else now
        return smoothed(poses, now.motion)

    def _seen(self, time: float, poses: Poses, known: SmoothedTracks, variance: Float64Array) -> SmoothedTracks:
        """Known tracks, in the order of the poses, updated with these measurements."""
        gap = time - known.seen
        predicted = predict(known.motion, known.acceleration_noise, known.sizes, gap)
        measured = poses.keypoints.astype(np.float64)
        motion, acceleration_noise = advance(
            predicted, known.acceleration_noise, gap, measured, variance, self._options
        )
        return SmoothedTracks(known.ids, motion, acceleration_noise, sizes(poses), np.full(len(poses), float(time)))


def begin(time: float, poses: Poses, variance: Float64Array, options: SmoothOptions) -> SmoothedTracks:
    """New tracks of the poses, with the variance (N, K, 2) of their keypoints."""
    assert poses.track_ids is not None
    size = sizes(poses)
    speed = (options.initial_speed_std * size[:, None, None]) ** 2
    motion = kalman.start(poses.keypoints, variance, speed)
    return SmoothedTracks(
        poses.track_ids,
        motion,
        np.full(poses.scores.shape, options.acceleration_noise),
        size,
        np.full(len(poses), float(time)),
    )


def sizes(poses: Poses) -> Float64Array:
    """Longer side (N,) of the boxes in pixels, at least 1."""
    return np.asarray((poses.boxes[:, 2:] - poses.boxes[:, :2]).max(axis=1, initial=1.0), np.float64)


def variances(poses: Poses, options: SmoothOptions) -> Float64Array:
    """Measurement variance (N, K, 2) in pixels²."""
    floor = options.min_std * sizes(poses)[:, None, None]
    return np.asarray(np.maximum(options.noise_share * poses.std.astype(np.float64), floor) ** 2)


def predict(
    motion: KalmanState, acceleration_noise: Float64Array, size: Float64Array, seconds: Float64Array
) -> KalmanState:
    """The predicted states (M, K, 2) of tracks of a size (M,), some seconds (M,) later."""
    density = (acceleration_noise * size[:, None]) ** 2
    return kalman.predict(motion, np.maximum(seconds, SHORTEST)[:, None, None], density[..., None])


def advance(
    predicted: KalmanState,
    acceleration_noise: Float64Array,
    seconds: Float64Array,
    measured: Float64Array,
    variance: Float64Array,
    options: SmoothOptions,
    certain: NDArray[np.bool_] | None = None,
) -> tuple[KalmanState, Float64Array]:
    """States (M, K, 2) and acceleration noise (M, K) after measurements, seconds (M,) after the previous ones.

    variance (M, K, 2) is infinite where nothing was measured. certain (M, K): measurements that are never outliers,
    such as those set by hand; they do not change the acceleration noise. The variance of an innovation outside the gate
    is increased so that it moves the state no more than one at the gate would, and less the farther it is (a
    redescending weight, as in Agamennoni et al., "Approximate inference in state-space models with heavy-tailed noise",
    2012).
    The acceleration noise follows the normalised innovation squared, whose expectation is 1 for a consistent filter
    (Bar-Shalom et al. 2001, section 11.2.2).
    """
    total = predicted.position_var + variance
    distance = ((measured - predicted.position) ** 2 / total).sum(axis=-1)
    excess = np.maximum(distance / options.gate, 1.0)
    measures = np.isfinite(variance[..., 0])
    if certain is not None:
        excess, measures = np.where(certain, 1.0, excess), measures & ~certain
    motion = kalman.update(predicted, measured, total * excess[..., None] - predicted.position_var)
    surprise = np.where(measures, np.minimum(distance, options.gate) / 2 - 1, 0.0)
    # The step is bounded, so that one measurement after a gap has limited weight.
    rate = options.adaptation_rate * np.minimum(np.maximum(seconds, 0.0), 0.1)[:, None]
    calmest, wildest = options.acceleration_noise * options.min_factor, options.acceleration_noise * options.max_factor
    return motion, np.minimum(np.maximum(acceleration_noise * np.exp(rate * surprise), calmest), wildest)


def smoothed(poses: Poses, motion: KalmanState) -> Poses:
    """The poses with the keypoints and standard deviations of the states (N, K, 2)."""
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
