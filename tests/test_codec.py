"""Decoding against known truth, and the flip test's shift."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posecli.errors import UsageError
from posecli.geometry import oks, person_areas
from posecli.keypoints import COCO17
from posecli.pose.codec import DECODERS, decode, log_softmax, merge_flipped, oks_sigmas_in_bins
from posecli.train.loss import gaussian_labels
from tests.labels import gaussians


def gaussian_logits(mean: float, bins: int = 384, sigma: float = 6.0) -> np.ndarray:
    return -((np.arange(bins) - mean) ** 2) / (2 * sigma**2)


def test_vectors_of_the_reference_sheet() -> None:
    logits = gaussian_logits(140.6)
    assert decode(logits, 6, "argmax").bins / 2 == 70.5
    assert decode(logits, 6, "parabola").bins / 2 == pytest.approx(70.3, abs=1e-4)
    assert decode(logits, 6, "dark").bins / 2 == pytest.approx(70.3, abs=1e-3)


OKS_SIGMA = np.float32(20.0)


@pytest.mark.parametrize("decoder", ["dark", "parabola"])
@given(mean=st.floats(0, 383), sigma=st.sampled_from([2.0, 3.0, 4.9, 6.0, 20.0]))
def test_gaussians_are_read_back_exactly_also_at_borders(decoder: str, mean: float, sigma: float) -> None:
    probabilities = gaussians(mean, 384, sigma)
    logits = np.log(np.maximum(probabilities, 1e-38))
    assert float(decode(logits, sigma, decoder).bins) == pytest.approx(mean, abs=0.02)


@given(
    logits=st.lists(st.floats(-50, 50), min_size=5, max_size=64),
    sigma=st.floats(0.5, 20),
    decoder=st.sampled_from(sorted(DECODERS)),
)
def test_any_logits_give_finite_bounded_results(logits: list[float], sigma: float, decoder: str) -> None:
    values = np.array(logits, np.float32)
    before = values.copy()
    result = decode(values, sigma, decoder, oks_sigma_bins=OKS_SIGMA)
    assert np.array_equal(values, before)  # the caller's array stays as it is
    assert np.isfinite(result.bins) and np.isfinite(result.std) and result.std > 0
    assert 0 <= result.scores <= 1
    assert 0 <= result.bins <= len(values) - 1 or decoder != "oks"
    # Of bins that are equal up to rounding any may count as the highest.
    highest = np.flatnonzero(values >= values.max() - 1e-4)
    assert np.abs(float(result.bins) - highest).min() <= max(2.0, 1.5 * sigma) + 1 or decoder == "oks"


@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_flat_logits_do_not_jump(decoder: str) -> None:
    result = decode(np.zeros((3, 17, 64), np.float32), 4.0, decoder, oks_sigma_bins=OKS_SIGMA)
    # Nothing is known: the first bin, or where most of the others are near.
    expected = 31.5 if decoder == "oks" else 0
    assert (np.abs(result.bins - expected) <= 6).all()


@given(
    peaks=st.lists(st.tuples(st.floats(0, 95), st.floats(0.05, 1), st.floats(1, 12)), min_size=1, max_size=3),
    sigma_bins=st.floats(2, 30),
)
def test_oks_decoding_is_where_the_expected_similarity_is_highest(peaks: list, sigma_bins: float) -> None:
    p = sum(share * gaussians(mean, 96, sigma) for mean, share, sigma in peaks)
    p = p / p.sum()
    found = float(decode(np.log(np.maximum(p, 1e-30)), 6.0, "oks", oks_sigma_bins=np.float32(sigma_bins)).bins)

    def expected(place: float) -> float:
        return sum(p[b] * np.exp(-((b - place) ** 2) / (2 * sigma_bins**2)) for b in range(96))

    best = max(expected(place) for place in np.linspace(0, 95, 96 * 4))
    assert 0 <= found <= 95
    assert expected(found) >= best * (1 - 1e-3)


def test_oks_decoding_prefers_a_wide_place_to_a_narrow_one_and_stays_on_a_gaussian() -> None:
    narrow, wide = gaussians(20.0, 384, 3.0), gaussians(200.0, 384, 12.0)
    logits = np.log(np.maximum(0.4 * narrow + 0.6 * wide, 1e-30))
    assert decode(logits, 6.0, "parabola").bins == pytest.approx(20, abs=0.1)
    assert decode(logits, 6.0, "oks", oks_sigma_bins=np.float32(30)).bins == pytest.approx(200, abs=0.1)
    lone = np.stack([gaussian_logits(m) for m in (70.3, 190.0, 301.77)])
    np.testing.assert_allclose(
        decode(lone, 6.0, "oks", oks_sigma_bins=OKS_SIGMA).bins, [70.3, 190.0, 301.77], atol=0.01
    )


def test_oks_sigma_is_the_gaussian_of_oks() -> None:
    deviation = oks_sigmas_in_bins(COCO17.sigmas, [0.53 * 100 * 200])
    assert deviation is not None and deviation.shape == (1, 17)
    shift = np.zeros((1, 17, 2))
    shift[0, :, 0] = deviation[0]
    alike = oks(shift, np.zeros((1, 17, 2)), np.ones((1, 17)), person_areas([[0, 0, 100, 200]]), COCO17.sigmas)
    assert alike[0] == pytest.approx(np.exp(-0.5), rel=1e-6)
    assert oks_sigmas_in_bins(None, [1.0]) is None
    with pytest.raises(UsageError, match="no OKS sigmas"):
        decode(np.zeros((1, 3, 64)), 2, "oks")


def test_a_constant_added_to_the_logits_changes_nothing() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 17, 128)).astype(np.float32)
    a, b = decode(logits, 3.0), decode(logits + 7.5, 3.0)
    np.testing.assert_allclose(a.bins, b.bins, atol=1e-3)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


def test_score_is_one_for_an_ideal_label_and_falls_with_spread() -> None:
    ideal = decode(gaussian_logits(100.0), 6).scores
    wide = decode(gaussian_logits(100.0, sigma=12), 6).scores
    assert ideal == pytest.approx(1.0, abs=1e-3)
    assert wide == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("own", [1.0, 3.0, 8.0])
def test_standard_deviation_is_the_spread_beyond_the_label(own: float) -> None:
    total = float(np.hypot(6.0, own))
    assert decode(gaussian_logits(190.3, sigma=total), 6).std == pytest.approx(own, rel=0.15)


def test_labels_are_exact_normalised_and_agree_with_torch() -> None:
    import torch

    means = np.array([-3.0, 0.0, 0.3, 101.47, 383.0, 390.0])
    labels = gaussians(means, 384, 6.0)
    np.testing.assert_allclose(labels.sum(-1), 1, atol=1e-12)
    slow = np.array([[np.exp(-((b - m) ** 2) / 72) for b in range(384)] for m in means])
    np.testing.assert_allclose(labels, slow / slow.sum(-1, keepdims=True), atol=1e-12)
    torch_labels = gaussian_labels(torch.tensor(means, dtype=torch.float32), 384, 6.0).numpy()
    np.testing.assert_allclose(torch_labels, labels, atol=1e-6)


def test_log_softmax_against_the_direct_sum() -> None:
    logits = np.random.default_rng(1).normal(size=(4, 50)).astype(np.float32)
    direct = np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(log_softmax(logits), direct, atol=1e-5)


@pytest.mark.parametrize("k", [1.0, 1.5, 2.0, 3.0, 4.0])
def test_flip_shift_puts_the_mirrored_peak_back(k: float) -> None:
    width, u = 192, 70.3
    bins = int(width * k)
    x = gaussian_logits(k * u, bins)[None, None]
    mirrored = gaussian_logits(k * (width - 1 - u), bins)[None, None]
    y = gaussian_logits(50, 64)[None, None]
    merged, merged_y = merge_flipped((x, y), (mirrored, y), (0,), k)
    assert float(decode(merged, 6).bins[0, 0]) / k == pytest.approx(u, abs=0.02)
    np.testing.assert_allclose(merged_y, y, rtol=1e-6)


def test_flip_swaps_left_and_right() -> None:
    x = np.stack([gaussian_logits(20, 64), gaussian_logits(40, 64)])[None]
    mirrored = np.stack([gaussian_logits(2 * (31 - 20), 64), gaussian_logits(2 * (31 - 10), 64)])[None]
    merged, _ = merge_flipped((x, x), (mirrored, x), (1, 0), 2.0)
    np.testing.assert_allclose(decode(merged, 6).bins[0], [20, 40], atol=0.05)


def test_unknown_decoder_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="choose from argmax"):
        decode(np.zeros(10), 2, "softargmax")


@given(u=st.floats(8, 183), k=st.sampled_from([1.0, 2.0, 3.0, 4.0]))
def test_flip_shift_for_any_place(u: float, k: float) -> None:
    bins = int(192 * k)
    x, y = gaussian_logits(k * u, bins)[None, None], gaussian_logits(9, 32)[None, None]
    mirrored = gaussian_logits(k * (191 - u), bins)[None, None]
    merged, _ = merge_flipped((x, y), (mirrored, y), (0,), k)
    assert float(decode(merged, 6).bins[0, 0]) / k == pytest.approx(u, abs=0.02)


def test_loss_vectors_of_the_reference_sheet() -> None:
    """MMPose's form: mean over bins, sum over the batch, divided by the keypoints."""
    import torch

    from posecli.train.loss import kl_sums

    def mmpose_form(people: int) -> float:
        total = 0.0
        for axis, (mean, bins) in enumerate(((150.0, 384), (200.0, 512))):
            # The other axis predicts its label exactly and adds nothing.
            points = torch.zeros(people, 17, 2)
            points[..., axis] = mean / 2
            other = torch.log(gaussian_labels(points[..., 1 - axis] * 2, 64, 6.0))
            flat = torch.zeros(people, 17, bins)
            logits = (flat, other) if axis == 0 else (other, flat)
            summed, _ = kl_sums(logits, points, torch.ones(people, 17), split_ratio=2, sigma=(6, 6))
            total += 2 * float(summed) / bins
        return total / 17

    assert mmpose_form(1) == pytest.approx(0.01305, abs=2e-5)
    assert mmpose_form(64) == pytest.approx(0.8351, abs=1e-3)
