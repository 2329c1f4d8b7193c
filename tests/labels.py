"""Label distributions of SimCC in numpy, to check decoders and losses with."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def gaussians(means: ArrayLike, bins: int, sigma: float) -> NDArray[np.float64]:
    """Label distributions (..., bins) with the given means (...) in bins: Gaussians that sum to 1.

    The means are exact, not rounded to a bin, and the sum over the bins there are is 1 also at a border.
    """
    offsets = np.arange(bins) - np.asarray(means, np.float64)[..., None]
    exponent = -(offsets**2) / (2 * sigma**2)
    weights = np.exp(exponent - exponent.max(axis=-1, keepdims=True))
    result: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return result
