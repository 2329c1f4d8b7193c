"""The One-Euro filter: a low-pass filter whose cutoff frequency rises with the speed."""

from dataclasses import dataclass, replace

import numpy as np

from posecli.geometry import Float64Array
from posecli.types import Poses


@dataclass(frozen=True)
class OneEuroOptions:
    """Parameters of the filter.

    min_cutoff: cutoff in Hz at rest. beta: increase of the cutoff in Hz per speed in box sizes (longer side) a second.
    speed_cutoff: cutoff in Hz of the speed's own low-pass filter. max_age: seconds without a detection after which a
    track's filter is reset.
    """

    min_cutoff: float = 4.0
    beta: float = 30.0
    speed_cutoff: float = 1.0
    max_age: float = 0.5


@dataclass(frozen=True, eq=False)
class _State:
    """One person: position and speed (K, 2) at a time."""

    time: float
    position: Float64Array
    speed: Float64Array


class OneEuro:
    """Casiez, Roussel and Vogel, "1 € Filter" (CHI 2012), for each coordinate of each track id.

    It ignores the predicted standard deviations; keypoint_std stays that of the network.
    """

    def __init__(self, options: OneEuroOptions | None = None) -> None:
        self._options = options or OneEuroOptions()
        self._states: dict[int, _State] = {}

    def __call__(self, time: float, poses: Poses) -> Poses:
        """The smoothed poses of a frame at a time in seconds. Poses without track ids are returned unchanged."""
        if poses.track_ids is None:
            return poses
        self._states = {i: s for i, s in self._states.items() if time - s.time <= self._options.max_age}
        result = np.array(poses.keypoints, np.float64)
        sizes = (poses.boxes[:, 2:] - poses.boxes[:, :2]).max(axis=1, initial=1.0)
        for row, track in enumerate(poses.track_ids.tolist()):
            self._states[track] = self._step(self._states.get(track), time, result[row], float(sizes[row]))
            result[row] = self._states[track].position
        return replace(poses, keypoints=result.astype(np.float32), raw_keypoints=poses.keypoints)

    def _step(self, state: _State | None, time: float, seen: Float64Array, size: float) -> _State:
        if state is None:
            return _State(time, seen.copy(), np.zeros_like(seen))
        options, gap = self._options, max(time - state.time, 1e-3)
        speed = state.speed + _share(options.speed_cutoff, gap) * ((seen - state.position) / gap - state.speed)
        cutoff = options.min_cutoff + options.beta * np.abs(speed) / size
        position = state.position + _share(cutoff, gap) * (seen - state.position)
        return _State(time, position, speed)


def _share(cutoff: Float64Array | float, gap: float) -> Float64Array:
    """Weight of the new value in a low-pass filter of a cutoff frequency in Hz, after a gap in seconds."""
    return np.asarray(1 / (1 + 1 / (2 * np.pi * np.asarray(cutoff) * gap)))
