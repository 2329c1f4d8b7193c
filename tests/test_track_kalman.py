"""The filter and smoother of constant velocity against plain matrices, one coordinate at a time."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.tracking import kalman


def slow(
    times: np.ndarray, seen: np.ndarray, r: np.ndarray, q: float, v0: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Filtered and smoothed means (T, 2) and covariances (T, 2, 2) with matrices, as textbooks write them."""
    h = np.array([[1.0, 0.0]])
    m, p = np.array([seen[0], 0.0]), np.diag([r[0], v0])
    means, covariances, priors = [m], [p], []
    for i in range(1, len(times)):
        t = times[i] - times[i - 1]
        f = np.array([[1, t], [0, 1]])
        noise = q * np.array([[t**3 / 3, t**2 / 2], [t**2 / 2, t]])
        m, p = f @ m, f @ p @ f.T + noise
        priors.append((f, m, p))
        if np.isfinite(r[i]):
            s = h @ p @ h.T + r[i]
            k = p @ h.T @ np.linalg.inv(s)
            m, p = m + (k @ (seen[i] - h @ m)).ravel(), p - k @ s @ k.T
        means.append(m)
        covariances.append(p)
    smoothed, smoothed_p = [means[-1]], [covariances[-1]]
    for i in range(len(times) - 2, -1, -1):
        f, prior, prior_p = priors[i]
        g = covariances[i] @ f.T @ np.linalg.inv(prior_p)
        smoothed.append(means[i] + g @ (smoothed[-1] - prior))
        smoothed_p.append(covariances[i] + g @ (smoothed_p[-1] - prior_p) @ g.T)
    return np.array(means), np.array(covariances), np.array(smoothed[::-1]), np.array(smoothed_p[::-1])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 25))
def test_filter_and_smoother_against_matrices(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    times = np.cumsum(random.uniform(0.01, 0.2, count))
    seen = random.normal(0, 30, (count, 3))
    r = random.uniform(0.5, 20, (count, 3))
    r[1:][random.random((count - 1, 3)) < 0.2] = np.inf
    q, v0 = random.uniform(10, 1000), random.uniform(10, 1000)
    filtered, predicted = [kalman.start(seen[0], r[0], v0)], []
    for i in range(1, count):
        predicted.append(kalman.predict(filtered[-1], times[i] - times[i - 1], q))
        filtered.append(kalman.update(predicted[-1], seen[i], r[i]))
    smoothed = [filtered[-1]]
    for i in range(count - 2, -1, -1):
        smoothed.append(kalman.smooth(filtered[i], predicted[i], smoothed[-1], times[i + 1] - times[i]))
    smoothed.reverse()
    for axis in range(3):
        m, p, sm, sp = slow(times, seen[:, axis], r[:, axis], q, v0)
        for motions, mean, covariance in ((filtered, m, p), (smoothed, sm, sp)):
            got = np.array([[x.position[axis], x.velocity[axis]] for x in motions])
            np.testing.assert_allclose(got, mean, rtol=1e-6, atol=1e-6)
            got = np.array([[x.position_var[axis], x.covariance[axis], x.velocity_var[axis]] for x in motions])
            expected = np.stack([covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]], axis=1)
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
