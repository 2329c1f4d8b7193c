"""Constant-velocity Kalman filter and smoother for any number of independent coordinates at once.

Each coordinate has the state (position, velocity) and is driven by white-noise acceleration of a given spectral
density: Bar-Shalom, Li and Kirubarajan, "Estimation with Applications to Tracking and Navigation" (2001), section
6.2.2. All matrices are 2×2 and written out, so that one numpy call handles all keypoints of all people; arrays of
the same shape (...) hold the entries.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posecli.geometry import Float64Array


@dataclass(frozen=True, eq=False)
class KalmanState:
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

    def __getitem__(self, rows: Any) -> "KalmanState":
        if selects_all(rows, len(self.position)):
            return self
        return KalmanState(*[part[rows] for part in self.parts])

    def where(self, chosen: NDArray[np.bool_], other: "KalmanState") -> "KalmanState":
        """These rows of the first axis where chosen (rows,), else those of other."""
        rows = chosen.reshape(-1, *(1,) * (self.position.ndim - 1))
        return KalmanState(*[np.where(rows, a, b) for a, b in zip(self.parts, other.parts, strict=True)])

    @classmethod
    def concatenate(cls, parts: "list[KalmanState]") -> "KalmanState":
        """Several states along the first axis."""
        return cls(*[np.concatenate(arrays) for arrays in zip(*[part.parts for part in parts], strict=True)])


def selects_all(rows: Any, count: int) -> bool:
    """Whether a mask or index array selects all of count rows in order, so that a copy can be saved."""
    if not isinstance(rows, np.ndarray) or rows.shape != (count,):
        return False
    return bool(rows.all() if rows.dtype == bool else (rows == np.arange(count)).all())


def start(position: ArrayLike, position_var: ArrayLike, velocity_var: ArrayLike) -> KalmanState:
    """The state after the first measurement: velocity 0 with the given variances of position and velocity."""
    first: Float64Array = np.array(position, np.float64)
    zeros = np.zeros_like(first)
    variance, speeds = (zeros + np.asarray(values, np.float64) for values in (position_var, velocity_var))
    return KalmanState(first, zeros, variance, zeros, speeds)


def predict(motion: KalmanState, seconds: ArrayLike, acceleration: ArrayLike) -> KalmanState:
    """The prediction step. acceleration: spectral density of the white noise, in pixels²/s³."""
    t, q = np.asarray(seconds, np.float64), np.asarray(acceleration, np.float64)
    drift = motion.covariance + t * motion.velocity_var
    return KalmanState(
        motion.position + t * motion.velocity,
        motion.velocity,
        motion.position_var + t * (motion.covariance + drift) + q * t**3 / 3,
        drift + q * t**2 / 2,
        motion.velocity_var + q * t,
    )


def update(predicted: KalmanState, measured: ArrayLike, variance: ArrayLike) -> KalmanState:
    """The update step for measured positions with a variance in pixels², infinite where nothing was measured."""
    share: Float64Array = 1 / (predicted.position_var + np.asarray(variance, np.float64))
    gain, velocity_gain = predicted.position_var * share, predicted.covariance * share
    innovation: Float64Array = np.asarray(measured, np.float64) - predicted.position
    return KalmanState(
        predicted.position + gain * innovation,
        predicted.velocity + velocity_gain * innovation,
        (1 - gain) * predicted.position_var,
        (1 - gain) * predicted.covariance,
        predicted.velocity_var - velocity_gain * predicted.covariance,
    )


def smooth(filtered: KalmanState, predicted: KalmanState, later: KalmanState, seconds: ArrayLike) -> KalmanState:
    """One backward step of the Rauch-Tung-Striebel smoother (1965), as in Särkkä (2013), theorem 8.2.

    filtered: the state after the update at this time. predicted: its prediction `seconds` later. later: the smoothed
    state at that later time.
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
    return KalmanState(
        filtered.position + g11 * dx + g12 * dv,
        filtered.velocity + g21 * dx + g22 * dv,
        filtered.position_var + g11 * g11 * da + 2 * g11 * g12 * db + g12 * g12 * dd,
        filtered.covariance + g11 * g21 * da + (g11 * g22 + g12 * g21) * db + g12 * g22 * dd,
        filtered.velocity_var + g21 * g21 * da + 2 * g21 * g22 * db + g22 * g22 * dd,
    )
