"""Decoding of SimCC's distributions to coordinates (Li et al., ECCV 2022), in numpy and OpenCV.

A keypoint at crop pixel u has its mean at bin μ = k·u. Distances are in bins unless stated otherwise. Labels are made
in `train/loss.py`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from posecli.errors import UsageError

Float = NDArray[np.float32]
# Rows that are transformed together: about one person's, which stay in the processor's cache.
_BLURRED_AT_ONCE = 20


class Decoded(NamedTuple):
    """Decoded values of one axis. All are (...,) for logits (..., B).

    bins: sub-bin position of the peak. std: standard deviation in bins. scores: in [0, 1].
    """

    bins: Float
    std: Float
    scores: Float


def log_softmax(logits: ArrayLike) -> Float:
    """log softmax over the last axis, in a new float32 array."""
    values = np.asarray(logits, np.float32)
    shifted = values - values.max(axis=-1, keepdims=True)
    result: Float = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def decode_argmax(log_p: Float, sigma: float, oks_sigma_bins: Float | None) -> Float:
    """The highest bin."""
    return np.asarray(log_p.argmax(axis=-1), np.float32)


def decode_parabola(log_p: Float, sigma: float, oks_sigma_bins: Float | None) -> Float:
    """Vertex of a parabola fitted to log p around the highest bin; exact for a sampled Gaussian.

    Weighted least squares over ±1.5σ bins with weights √p, the window cut off at the borders. Where the parabola does
    not open downwards, or its vertex is outside of the window, the result is the highest bin.
    """
    peak, offset = _fit_parabola(log_p, max(1, round(1.5 * sigma)))
    return np.asarray(peak + offset, np.float32)


def decode_dark(log_p: Float, sigma: float, oks_sigma_bins: Float | None) -> Float:
    """DARK's Taylor step on the blurred distribution's logarithm, in one dimension.

    Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020,
    section 3.2: μ = m - D'(m) / D''(m) with D the log of the distribution blurred by a Gaussian of the
    label's σ. Where the blur's window crosses a border, and for steps without a maximum or beyond max(2, σ) bins,
    decode_parabola is used instead.
    """
    bins = log_p.shape[-1]
    if bins < 5:
        return decode_parabola(log_p, sigma, oks_sigma_bins)
    reach = max(2, int(np.ceil(2 * sigma)))
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2)).astype(np.float32)
    kernel /= kernel.sum()
    peak = log_p.argmax(axis=-1)
    # Only five bins of the blurred curve are needed, and the bins within the blur's window around them.
    window = np.clip(peak, 2, bins - 3)[..., None] + np.arange(-reach - 2, reach + 3)
    inside = (window >= 0) & (window < bins)
    p = np.exp(np.take_along_axis(log_p, np.clip(window, 0, bins - 1), axis=-1)) * inside
    blurred = np.stack([(p[..., i : i + 2 * reach + 1] * kernel).sum(axis=-1) for i in range(5)], axis=-1)
    curve = np.log(np.maximum(blurred, 1e-30))
    first = 0.5 * (curve[..., 3] - curve[..., 1])
    second = 0.25 * (curve[..., 4] - 2 * curve[..., 2] + curve[..., 0])
    downwards = second < -1e-9
    step = np.where(downwards, -first / np.where(downwards, second, -1.0), np.inf)
    usable = downwards & (np.abs(step) <= max(2.0, sigma)) & (peak >= reach + 2) & (peak < bins - reach - 2)
    result: Float = np.where(usable, peak + np.where(usable, step, 0.0), decode_parabola(log_p, sigma, oks_sigma_bins))
    return result.astype(np.float32)


def decode_oks(log_p: Float, sigma: float, oks_sigma_bins: Float | None) -> Float:
    """The position with the highest expected OKS under the predicted distribution.

    A keypoint's term of OKS is exp(-d² / 2τ²), a product of one factor for each axis (Lin et al., COCO keypoint
    evaluation). SimCC predicts the axes independently, so the expectation factorises too: each axis is convolved with
    a Gaussian of τ, OKS's own sigma, and its maximum taken. DARK blurs by the label's σ instead and starts from the
    maximum before the blur. Of two peaks the one with more probability within τ wins, not the highest bin.

    Raises UsageError without OKS sigmas.
    """
    if oks_sigma_bins is None:
        raise UsageError("decoder 'oks': these keypoints have no OKS sigmas; choose another")
    bins = log_p.shape[-1]
    blurred = _blurred(np.exp(log_p), np.asarray(oks_sigma_bins, np.float32))
    peak = blurred.argmax(axis=-1)
    middle = np.minimum(np.maximum(peak, 1), bins - 2)
    around = _at(blurred, middle[..., None] + np.arange(-1, 2))
    before, at, after = np.moveaxis(np.log(np.maximum(around, 1e-30)), -1, 0)
    curvature = before - 2 * at + after
    downwards = curvature < -1e-12
    step = 0.5 * (before - after) / np.where(downwards, curvature, -1.0)
    return np.asarray(np.where(downwards, middle + np.minimum(np.maximum(step, -1), 1), peak), np.float32)


def _blurred(values: Float, sigmas: Float) -> Float:
    """Rows (..., B) convolved with Gaussians of standard deviations (...) in bins, zero outside of the bins.

    The Fourier transform of a Gaussian is a Gaussian. OpenCV's transform takes a fifth of the time of numpy's.
    """
    bins = values.shape[-1]
    rows = values.reshape(-1, bins)
    factors: Float = np.broadcast_to(sigmas, values.shape[:-1]).reshape(-1, 1) ** 2
    exponents = _exponents(bins)
    blurred = np.empty_like(rows)
    # Twice the bins avoid circular wrap-around.
    padded = np.zeros((min(len(rows), _BLURRED_AT_ONCE), 2 * bins), np.float32)
    for first in range(0, len(rows), _BLURRED_AT_ONCE):
        some = rows[first : first + _BLURRED_AT_ONCE]
        padded[: len(some), :bins] = some
        spectrum = cv2.dft(padded[: len(some)], flags=cv2.DFT_ROWS)
        spectrum *= np.exp(exponents * factors[first : first + len(some)])
        flags = cv2.DFT_ROWS | cv2.DFT_INVERSE | cv2.DFT_SCALE | cv2.DFT_REAL_OUTPUT
        blurred[first : first + len(some)] = cv2.dft(spectrum, dst=spectrum, flags=flags)[:, :bins]
    return blurred.reshape(values.shape)


@lru_cache(maxsize=16)
def _exponents(bins: int) -> Float:
    """-1/2 times the squared angular frequencies of twice as many bins.

    In the order of OpenCV's spectrum: Re 0, Re 1, Im 1, Re 2, Im 2, …, Re B.
    """
    frequency = (2 * np.pi * np.fft.rfftfreq(2 * bins)).astype(np.float32)
    return np.asarray(-0.5 * np.repeat(frequency, 2)[1:-1] ** 2, np.float32)


# A decoder maps log-probabilities (..., B), the label's σ and OKS's (..., or None), both in bins, to positions (...) in
# bins.
DECODERS: dict[str, Callable[[Float, float, Float | None], Float]] = {
    "argmax": decode_argmax,
    "dark": decode_dark,
    "oks": decode_oks,
    "parabola": decode_parabola,
}
# Values of --decode; "auto" depends on the keypoint set.
CHOICES = ("auto", *DECODERS)


def decode(
    logits: ArrayLike,
    sigma: float,
    decoder: str = "parabola",
    temperature: float = 1.0,
    oks_sigma_bins: Float | None = None,
) -> Decoded:
    """Decode one axis: logits (..., B) to positions, standard deviations and scores. The input is not changed.

    oks_sigma_bins: (...), see oks_sigmas_in_bins. Only the decoder "oks" needs it.

    The score is the distribution's maximum relative to that of an ideal label of this σ, at most 1. The standard
    deviation is that of the distribution without the label's σ: √(variance - σ²), at least half a bin. The variance is
    taken within ±4σ of the position; a second peak farther away lowers the score only.
    """
    if decoder not in DECODERS:
        raise UsageError(f"decoder {decoder!r}: choose from {', '.join(DECODERS)}")
    log_p = log_softmax(np.asarray(logits, np.float32) * np.float32(temperature))
    position = DECODERS[decoder](log_p, sigma, oks_sigma_bins)
    ideal = 1.0 / (sigma * np.sqrt(2 * np.pi))
    scores = np.minimum(np.exp(log_p.max(axis=-1)) / ideal, 1.0).astype(np.float32)
    return Decoded(position, _standard_deviation(log_p, position, sigma), scores)


def oks_sigmas_in_bins(sigmas: Sequence[float] | None, area: ArrayLike) -> Float | None:
    """The standard deviations 2σ·√area of OKS's Gaussians, (N, K), for N people of these areas (N,) in square bins.

    None without sigmas.
    """
    if sigmas is None:
        return None
    return np.asarray(2 * np.asarray(sigmas) * np.sqrt(np.asarray(area))[..., None], np.float32)


def merge_flipped(
    logits: tuple[ArrayLike, ArrayLike],
    flipped: tuple[ArrayLike, ArrayLike],
    flip_indices: tuple[int, ...],
    split_ratio: float,
) -> tuple[Float, Float]:
    """Mean of the logits of a crop and of its mirror image, keypoints swapped back.

    Mirroring maps pixel u to W-1-u, hence bin b to kW-k-b: after reversing the bins the peak is k-1 bins too far
    right, and is shifted back (by interpolation where k is not an integer).
    logits and flipped: x (N, K, W·k) and y (N, K, H·k).
    """
    order = list(flip_indices)
    x, y = (np.asarray(values, np.float32) for values in logits)
    flipped_x, flipped_y = (np.asarray(values, np.float32)[:, order] for values in flipped)
    source = np.minimum(np.arange(x.shape[-1]) + (split_ratio - 1), x.shape[-1] - 1)
    low = np.floor(source).astype(np.int64)
    part = (source - low).astype(np.float32)
    backwards = flipped_x[..., ::-1]
    shifted = backwards[..., low]
    if part.any():
        shifted = shifted * (1 - part) + backwards[..., np.minimum(low + 1, x.shape[-1] - 1)] * part
    return np.asarray((x + shifted) / 2, np.float32), np.asarray((y + flipped_y) / 2, np.float32)


def _window(log_p: Float, centre: NDArray[np.int64], radius: int) -> tuple[NDArray[np.int64], Float]:
    """Offsets t (2r+1,) and log p (..., 2r+1) around centre; -inf outside the bins."""
    offsets = np.arange(-radius, radius + 1)
    index = centre[..., None] + offsets
    inside = (index >= 0) & (index < log_p.shape[-1])
    return offsets, np.where(inside, _at(log_p, np.minimum(np.maximum(index, 0), log_p.shape[-1] - 1)), -np.inf)


def _at(values: Float, index: NDArray[np.int64]) -> Float:
    """Values (..., B) at index (..., M) along the last axis; np.take_along_axis is slow for few rows."""
    bins = values.shape[-1]
    first = np.arange(0, values.size, bins).reshape(*values.shape[:-1], 1)
    return np.asarray(values.reshape(-1)[first + index])


def _fit_parabola(log_p: Float, radius: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Highest bin and the vertex's offset from it, 0 where the fit is not used."""
    peak = log_p.argmax(axis=-1)
    offsets, window = _window(log_p, peak, radius)
    t = offsets.astype(np.float64)
    weights = np.exp(0.5 * (window - window.max(axis=-1, keepdims=True)).astype(np.float64))
    values = np.where(np.isfinite(window), window, 0.0).astype(np.float64)
    # Weighted normal equations of a quadratic, solved by Cramer's rule for all rows at once.
    m0, m1, m2, m3, m4 = (weights @ t**i for i in range(5))
    weighted = weights * values
    v0, v1, v2 = (weighted @ t**i for i in range(3))
    determinant = m4 * (m2 * m0 - m1 * m1) - m3 * (m3 * m0 - m1 * m2) + m2 * (m3 * m1 - m2 * m2)
    a = v2 * (m2 * m0 - m1 * m1) - m3 * (v1 * m0 - m1 * v0) + m2 * (v1 * m1 - m2 * v0)
    b = m4 * (v1 * m0 - v0 * m1) - v2 * (m3 * m0 - m1 * m2) + m2 * (m3 * v0 - v1 * m2)
    solvable = determinant > 1e-9
    opens_down = solvable & (a < 0)
    offset = np.where(opens_down, -b / (2 * np.where(opens_down, a, -1.0)), 0.0)
    offset = np.where(np.abs(offset) <= radius, offset, 0.0)
    return peak, offset


def _standard_deviation(log_p: Float, position: Float, sigma: float) -> Float:
    radius = int(np.ceil(4 * sigma))
    centre = np.minimum(np.maximum(np.rint(position), 0), log_p.shape[-1] - 1).astype(np.int64)
    offsets, window = _window(log_p, centre, radius)
    p = np.exp(window)
    distance = offsets + (centre - position)[..., None]
    variance = (p * distance**2).sum(axis=-1) / np.maximum(p.sum(axis=-1), 1e-12)
    return np.asarray(np.sqrt(np.maximum(variance - sigma**2, 0.25)), np.float32)
