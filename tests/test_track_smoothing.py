"""Smoothers: known answers, nothing mixed between people, gaps, outliers, and less error than before."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.keypoints import COCO17
from posecli.tracking.offline import smooth_offline
from posecli.tracking.smoothing import SMOOTHERS, KalmanSmoother, SmoothOptions
from posecli.types import Poses
from tests.moving import MOTIONS, Errors, moving, seen
from tests.test_track_kalman import slow

NAMES = [*SMOOTHERS, "offline"]
ARRAYS = ("keypoints", "std", "scores", "boxes", "box_scores", "person_scores", "track_ids")


def smooth(name: str, times: np.ndarray, poses: list[Poses]) -> list[Poses]:
    if name == "offline":
        return list(smooth_offline(zip(times.tolist(), poses, strict=True)))
    smoother = SMOOTHERS[name](COCO17)
    return [smoother(time, found) for time, found in zip(times.tolist(), poses, strict=True)]


def clip(kind: str = "walk", seed: int = 0, count: int = 90, errors: Errors | None = None, height: float = 300.0):  # type: ignore[no-untyped-def]
    """Times with uneven steps, truth (T, 17, 2), and what a network saw."""
    random = np.random.default_rng(seed)
    times = np.cumsum(random.uniform(0.8, 1.2, count)) / 27
    truth = moving(kind, times, height, random)
    return times, truth, seen(truth, times, errors or Errors(), random)


def together(first: list[Poses], second: list[Poses]) -> list[Poses]:
    """Both people in one clip; ids 1 and 2, the second before the first in odd frames."""
    result = []
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        b = replace(b, track_ids=np.full(len(b), 2)) if len(b) else replace(b, track_ids=np.zeros(0, np.int64))
        a = a if len(a) else replace(a, track_ids=np.zeros(0, np.int64))
        parts = (b, a) if i % 2 else (a, b)
        result.append(Poses(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in ARRAYS}))
    return result


def of_track(poses: Poses, track: int) -> np.ndarray:
    return poses.keypoints[poses.track_ids == track] if poses.track_ids is not None else poses.keypoints[:0]


@pytest.mark.parametrize("name", NAMES)
def test_who_stands_still_and_is_seen_exactly_stays(name: str) -> None:
    times, truth, poses = clip(errors=Errors(white=0, slow=0, outliers=0, swaps=0, misses=0))
    still = [replace(p, keypoints=truth[:1].astype(np.float32)) for p in poses]
    for out in smooth(name, times, still):
        np.testing.assert_allclose(out.keypoints, truth[:1], atol=1e-3)


@pytest.mark.parametrize("name", ["kalman", "offline"])
def test_constant_velocity_is_given_back(name: str) -> None:
    times, truth, poses = clip(errors=Errors(white=0, slow=0, outliers=0, swaps=0, misses=0))
    line = truth[:1] + times[:, None, None] * np.array([120.0, -40.0])
    moved = [replace(p, keypoints=k[None].astype(np.float32)) for p, k in zip(poses, line, strict=True)]
    for out, expected in list(zip(smooth(name, times, moved), line, strict=True))[25:]:
        np.testing.assert_allclose(out.keypoints[0], expected, atol=0.5)


@pytest.mark.parametrize("kind", MOTIONS)
@pytest.mark.parametrize("name", ["kalman", "offline"])
def test_smoothing_lowers_the_error_and_does_not_lag(name: str, kind: str) -> None:
    times, truth, poses = clip(kind, count=200)
    rows = [i for i, p in enumerate(poses) if len(p) and i >= 10]

    def error(result: list[Poses]) -> np.ndarray:
        return np.stack([result[i].keypoints[0] - truth[i] for i in rows])

    before, after = error(poses), error(smooth(name, times, poses))
    assert np.sqrt((after**2).mean()) < 0.9 * np.sqrt((before**2).mean())
    assert np.median(np.abs(after)) < 1.02 * np.median(np.abs(before))
    jitter = [np.sqrt((np.diff(e, 2, axis=0) ** 2).mean()) for e in (before, after)]
    assert jitter[1] < 0.7 * jitter[0]
    if kind != "still":
        velocity = np.gradient(truth, times, axis=0)[rows]
        late = -((after - before).clip(-20, 20) * velocity).sum() / (velocity**2).sum()
        assert abs(late) < (0.03 if name == "kalman" else 0.01), "seconds"


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), name=st.sampled_from(NAMES))
def test_nothing_is_mixed_between_people(seed: int, name: str) -> None:
    times, _, first = clip("walk", seed, 45, Errors(misses=0.1))
    second = seen(
        moving("fast", times, 200, np.random.default_rng(seed + 1)), times, Errors(), np.random.default_rng(seed)
    )
    both = smooth(name, times, together(first, second))
    for track, poses in ((1, first), (2, second)):
        for shared, single in zip(both, smooth(name, times, poses), strict=True):
            np.testing.assert_allclose(of_track(shared, track), single.keypoints, atol=1e-3)


@pytest.mark.parametrize("name", ["kalman", "offline"])
def test_an_outlier_is_left_out_and_a_jump_that_stays_is_followed(name: str) -> None:
    times, truth, poses = clip("still", errors=Errors(white=0.3, slow=0, outliers=0, swaps=0, misses=0))
    far = [replace(p, keypoints=p.keypoints + (100 if i == 50 else 0)) for i, p in enumerate(poses)]
    out = smooth(name, times, far)
    assert np.abs(out[50].keypoints[0] - truth[50]).mean() < 5
    assert out[50].raw_keypoints is not None and np.allclose(out[50].raw_keypoints, far[50].keypoints)
    jumped = [replace(p, keypoints=p.keypoints + (100 if i >= 50 else 0)) for i, p in enumerate(poses)]
    assert np.abs(smooth(name, times, jumped)[65].keypoints[0] - truth[65] - 100).mean() < 5


@pytest.mark.parametrize("name", ["kalman", "offline"])
def test_the_filter_knows_how_sure_it_is(name: str) -> None:
    """The std returned is below the network's, and about right for errors that are new in every frame."""
    times, truth, poses = clip("walk", errors=Errors(white=1.0, slow=0, outliers=0, swaps=0, misses=0), count=200)
    if name == "offline":
        out = list(smooth_offline(zip(times.tolist(), poses, strict=True), SmoothOptions(noise_share=1.0)))
    else:
        smoother = KalmanSmoother(SmoothOptions(noise_share=1.0))
        out = [smoother(t, p) for t, p in zip(times.tolist(), poses, strict=True)]
    normalised = np.stack([(p.keypoints[0] - k) / p.std[0] for p, k in zip(out[20:], truth[20:], strict=True)])
    assert 0.7 < normalised.std() < 1.4
    assert np.mean([(a.std / b.std).mean() for a, b in zip(out[20:], poses[20:], strict=True)]) < 0.8


def test_offline_against_matrices() -> None:
    """Without gate and learning, in one window: a textbook's smoother for every coordinate."""
    times, _, poses = clip(count=30, errors=Errors(misses=0))
    options = SmoothOptions(gate=np.inf, adaptation_rate=0.0, noise_share=1.0, acceleration_noise=1.0, min_std=0.0)
    size = float((poses[0].boxes[0, 2:] - poses[0].boxes[0, :2]).max())
    poses = [replace(p, boxes=poses[0].boxes) for p in poses]
    out = list(smooth_offline(zip(times.tolist(), poses, strict=True), options, block=100))
    for joint, axis in ((0, 0), (9, 1), (16, 0)):
        values = np.array([float(p.keypoints[0, joint, axis]) for p in poses])
        r = np.array([float(p.std[0, joint, axis]) ** 2 for p in poses])
        *_, mean, covariance = slow(times, values, r, size**2, (options.initial_speed_std * size) ** 2)
        np.testing.assert_allclose([p.keypoints[0, joint, axis] for p in out], mean[:, 0], rtol=1e-4)
        np.testing.assert_allclose([p.std[0, joint, axis] for p in out], np.sqrt(covariance[:, 0, 0]), rtol=1e-3)


def test_blocks_make_no_seams() -> None:
    times, _, poses = clip(count=150)
    whole = list(smooth_offline(zip(times.tolist(), poses, strict=True), block=1000))
    parts = list(smooth_offline(zip(times.tolist(), poses, strict=True)))
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=0.5)
        assert a.filled is not None and b.filled is not None and a.filled.tolist() == b.filled.tolist()
    assert any(p.filled.any() for p in parts if p.filled is not None)


@pytest.mark.parametrize("first", [10, 24, 30, 50])
def test_short_gaps_are_filled_and_long_ones_are_not(first: int) -> None:
    """Wherever the gap lies to the blocks."""
    times, truth, poses = clip("slow", count=90, errors=Errors(misses=0, outliers=0, swaps=0))
    for length, error in ((8, 10), (18, 30), (30, None)):
        filled = error is not None
        gone = [Poses.empty(17) if first <= i < first + length else p for i, p in enumerate(poses)]
        gone = [p if len(p) else replace(p, track_ids=np.zeros(0, np.int64)) for p in gone]
        out = smooth("offline", times, gone)
        assert len(out) == len(poses)
        for i in range(first, first + length):
            assert len(out[i]) == filled
            if filled:
                assert out[i].filled is not None and out[i].filled.all() and out[i].track_ids.tolist() == [1]  # type: ignore[union-attr]
                assert np.abs(out[i].keypoints[0] - truth[i]).max() < 0.08 * 300
                assert 0 < out[i].box_scores[0] < gone[0].box_scores[0]
                assert np.abs(out[i].boxes - poses[i].boxes).max() < error
        assert not any(p.filled.any() for i, p in enumerate(out) if p.filled is not None and len(gone[i]))


def test_an_endless_clip_runs_flat() -> None:
    """No more frames are taken than two seconds need."""
    _, _, poses = clip(count=60)
    taken = 0

    def endless() -> Iterator[tuple[float, Poses]]:
        nonlocal taken
        while True:
            yield taken / 25, poses[taken % 60]
            taken += 1

    most = 0
    for yielded, _ in zip(range(400), smooth_offline(endless()), strict=False):
        most = max(most, taken - yielded)
    assert most <= 52


@pytest.mark.parametrize("name", NAMES)
def test_odd_clips(name: str) -> None:
    times, _, poses = clip(count=12)
    empty = [Poses.empty(17)] * 12
    assert [len(p) for p in smooth(name, times, empty)] == [0] * 12
    untracked = [replace(p, track_ids=None) for p in poses]
    assert [p.keypoints.tolist() for p in smooth(name, times, untracked)] == [p.keypoints.tolist() for p in poses]
    standing = smooth(name, np.zeros(12), poses)
    assert all(np.isfinite(p.keypoints).all() and np.isfinite(p.std).all() for p in standing)
    assert len(smooth(name, times[:1], poses[:1])) == 1 and not smooth(name, times[:0], [])
    far_apart = smooth(name, np.arange(12) * 10.0, poses)
    assert all(np.allclose(a.keypoints, b.keypoints, atol=1e-3) for a, b in zip(far_apart, poses, strict=True))


def test_poses_stay_float32_and_rows_in_order() -> None:
    times, _, poses = clip(count=40)
    for name in ("kalman", "one-euro", "offline"):
        for given_, out in zip(poses, smooth(name, times, poses), strict=True):
            assert out.keypoints.dtype == np.float32 and out.std.dtype == np.float32
            assert len(out) >= len(given_) and np.array_equal(out.boxes[: len(given_)], given_.boxes)
    assert all(a < b for a, b in pairwise(times))
