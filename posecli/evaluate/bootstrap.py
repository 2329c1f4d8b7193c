"""Bootstrap over images: confidence intervals, and paired differences with p-values.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3 (percentile interval). Images, not
people, are resampled: people of one image are not independent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posecli.evaluate.scoring import OKS_THRESHOLDS, RECALLS, CocoMatches, Scores

Float = NDArray[np.float64]
# Figure → range of area, and which of the ten OKS thresholds.
FIGURES: Mapping[str, tuple[str, slice]] = {
    "AP": ("all", slice(None)),
    "AP50": ("all", slice(0, 1)),
    "AP75": ("all", slice(5, 6)),
    "APm": ("medium", slice(None)),
    "APl": ("large", slice(None)),
}


@dataclass(frozen=True)
class Difference:
    """Difference of two evaluations (second minus first) with its 95 % interval.

    p_value: two-sided; twice the share of resampled differences on the other side of 0.
    """

    value: float
    low: float
    high: float
    p_value: float


def resampled(scores: Scores, *, count: int = 1000, seed: int = 0) -> dict[str, Float]:
    """Figures (count,) by name over images drawn with replacement. The same seed draws the same images."""
    random = np.random.default_rng(seed)
    images = scores.images
    values: dict[str, list[float]] = {name: [] for name in FIGURES}
    areas = {area: _Curve(matched) for area, matched in scores.matched.items()}
    for first in range(0, count, _AT_ONCE):
        drawn = np.stack(
            [
                np.bincount(random.integers(0, images, images), minlength=images).astype(np.float64)
                for _ in range(min(_AT_ONCE, count - first))
            ]
        )
        by_area = {area: curve.precision(drawn) for area, curve in areas.items()}
        for name, (area, thresholds) in FIGURES.items():
            values[name] += by_area[area][:, thresholds].mean(axis=1).tolist() if by_area else [0.0] * len(drawn)
    return {name: np.array(of_name) for name, of_name in values.items()}


def interval(values: Float, share: float = 0.95) -> tuple[float, float]:
    """The percentile interval; resamples without a person (nan) do not count."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def difference(first: Float, second: Float, value: float) -> Difference:
    """Second minus first of paired resamples; value is the difference on the images themselves."""
    gap = second - first
    gap = gap[np.isfinite(gap)]
    low, high = interval(gap)
    other_side = (np.count_nonzero(gap <= 0) if value > 0 else np.count_nonzero(gap >= 0)) / max(1, len(gap))
    return Difference(value, low, high, min(1.0, 2 * other_side))


# Draws that are evaluated together.
_AT_ONCE = 25


class _Curve:
    """Average precision of one range of area as a function of how often each image counts."""

    def __init__(self, matched: CocoMatches) -> None:
        order = np.argsort(-matched.scores, kind="mergesort")
        # Most predictions do not count in the ranges of medium and of large people.
        order = order[matched.counted[:, order].any(axis=0)]
        self._images = matched.images[order]
        self._hit = (matched.hit & matched.counted)[:, order]
        self._miss = (~matched.hit & matched.counted)[:, order]
        self._people = matched.people

    def precision(self, drawn: Float) -> Float:
        """Average precision (D, 10) by OKS threshold for D draws (D, images); nan where no person was drawn."""
        people = drawn @ self._people
        weight = drawn[:, None, self._images]
        hits, misses = np.cumsum(self._hit * weight, axis=-1), np.cumsum(self._miss * weight, axis=-1)
        precision = hits / np.maximum(hits + misses, np.spacing(1.0))
        # The envelope: the best precision at this recall or a higher one.
        precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
        padded = np.concatenate([precision, np.zeros((*precision.shape[:-1], 1))], axis=-1)
        # The first place where each recall is reached: one search for all rows, whose hits are kept apart.
        count, rows = hits.shape[-1], np.arange(len(drawn) * len(OKS_THRESHOLDS)).reshape(*hits.shape[:-1], 1)
        apart = rows * (2 * people.max(initial=0) + 2)
        wanted = _hits_for(RECALLS, np.maximum(people, 1)[:, None])[:, None] + apart
        place = np.searchsorted((hits + apart).ravel(), wanted.ravel()).reshape(wanted.shape) - count * rows
        result = np.take_along_axis(padded, place, axis=-1).mean(axis=-1)
        return np.where(people[:, None] > 0, result, np.nan)


def _hits_for(recalls: Float, people: Float) -> Float:
    """The fewest hits that reach each recall as hits / people, in the arithmetic of pycocotools."""
    fewest = np.ceil(recalls * people)
    fewest += fewest / people < recalls
    return np.asarray(fewest - ((fewest - 1) / people >= recalls))
