"""The Kalman filter of constant velocity, for any number of independent coordinates at once.

Every coordinate has the state (position, velocity) and is pushed by white-noise acceleration of a given
spectral density: Bar-Shalom, Li and Kirubarajan, "Estimation with Applications to Tracking and Navigation"
(2001), section 6.2.2. All matrices are 2×2 and written out, so that one call of numpy serves all keypoints of
all people; arrays of the same shape (...) hold the entries.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posecli.geometry import Float64Array


@dataclass(frozen=True, eq=False)
class Motion:
    """Means and covariances of coordinates (...), in pixels and seconds.

    position, velocity: means. position_var, covariance, velocity_var: entries of the 2×2 covariance matrix.
    """

    position: Float64Array
    velocity: Float64Array
    position_var: Float64Array
    covariance: Float64Array
    velocity_var: Float64Array

    @property
    def parts(self) -> tuple[Float64Array, ...]:
        """The five arrays, in the order above."""
        return self.position, self.velocity, self.position_var, self.covariance, self.velocity_var

    def __getitem__(self, rows: Any) -> "Motion":
        if everybody(rows, len(self.position)):
            return self
        return Motion(*[part[rows] for part in self.parts])

    def where(self, chosen: NDArray[np.bool_], other: "Motion") -> "Motion":
        """These rows of the first axis, and other's where not chosen (rows,)."""
        rows = chosen.reshape(-1, *(1,) * (self.position.ndim - 1))
        return Motion(*[np.where(rows, a, b) for a, b in zip(self.parts, other.parts, strict=True)])

    @classmethod
    def join(cls, parts: "list[Motion]") -> "Motion":
        """Several along the first axis."""
        return cls(*[np.concatenate(arrays) for arrays in zip(*[part.parts for part in parts], strict=True)])


def everybody(rows: Any, count: int) -> bool:
    """Whether a mask or positions mean all of count rows in their order: most often so, and a copy costs more."""
    if not isinstance(rows, np.ndarray) or rows.shape != (count,):
        return False
    return bool(rows.all() if rows.dtype == bool else (rows == np.arange(count)).all())


def start(position: ArrayLike, position_var: ArrayLike, velocity_var: ArrayLike) -> Motion:
    """At first sight: standing still, with what is known of the position and of usual speeds."""
    first: Float64Array = np.array(position, np.float64)
    zeros = np.zeros_like(first)
    variance, speeds = (zeros + np.asarray(values, np.float64) for values in (position_var, velocity_var))
    return Motion(first, zeros, variance, zeros, speeds)


def predict(motion: Motion, seconds: ArrayLike, acceleration: ArrayLike) -> Motion:
    """Seconds later. acceleration: spectral density of the white noise, in pixels²/s³."""
    t, q = np.asarray(seconds, np.float64), np.asarray(acceleration, np.float64)
    drift = motion.covariance + t * motion.velocity_var
    return Motion(
        motion.position + t * motion.velocity,
        motion.velocity,
        motion.position_var + t * (motion.covariance + drift) + q * t**3 / 3,
        drift + q * t**2 / 2,
        motion.velocity_var + q * t,
    )


def update(predicted: Motion, measured: ArrayLike, variance: ArrayLike) -> Motion:
    """After a sight of the positions with a variance in pixels²; infinite where there was none."""
    share: Float64Array = 1 / (predicted.position_var + np.asarray(variance, np.float64))
    gain, velocity_gain = predicted.position_var * share, predicted.covariance * share
    innovation: Float64Array = np.asarray(measured, np.float64) - predicted.position
    return Motion(
        predicted.position + gain * innovation,
        predicted.velocity + velocity_gain * innovation,
        (1 - gain) * predicted.position_var,
        (1 - gain) * predicted.covariance,
        predicted.velocity_var - velocity_gain * predicted.covariance,
    )


def smooth(filtered: Motion, predicted: Motion, later: Motion, seconds: ArrayLike) -> Motion:
    """One step back in time: Rauch, Tung and Striebel (1965), as in Särkkä (2013), theorem 8.2.

    filtered: after the sight at this time. predicted: the same moved on by seconds. later: smoothed, at that
    later time.
    """
    t = np.asarray(seconds, np.float64)
    # The gain G = P Fᵀ P'⁻¹ of 2×2 matrices, P filtered and P' predicted.
    a, b, d = predicted.position_var, predicted.covariance, predicted.velocity_var
    determinant = a * d - b * b
    p_x = filtered.position_var + t * filtered.covariance
    p_v = filtered.covariance + t * filtered.velocity_var
    g11, g12 = (p_x * d - filtered.covariance * b) / determinant, (filtered.covariance * a - p_x * b) / determinant
    g21, g22 = (p_v * d - filtered.velocity_var * b) / determinant, (filtered.velocity_var * a - p_v * b) / determinant
    dx, dv = later.position - predicted.position, later.velocity - predicted.velocity
    da, db, dd = later.position_var - a, later.covariance - b, later.velocity_var - d
    return Motion(
        filtered.position + g11 * dx + g12 * dv,
        filtered.velocity + g21 * dx + g22 * dv,
        filtered.position_var + g11 * g11 * da + 2 * g11 * g12 * db + g12 * g12 * dd,
        filtered.covariance + g11 * g21 * da + (g11 * g22 + g12 * g21) * db + g12 * g22 * dd,
        filtered.velocity_var + g21 * g21 * da + 2 * g21 * g22 * db + g22 * g22 * dd,
    )
