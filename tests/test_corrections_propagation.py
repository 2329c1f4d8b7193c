"""Propagation of corrections, and the list of people by need, on clips whose truth is known."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posecli.corrections.corrections import Corrections
from posecli.corrections.need import UNUSUAL, needs
from posecli.corrections.propagation import Measured, propagate, smooth_anchored
from posecli.errors import UsageError
from posecli.keypoints import COCO17
from posecli.tracking import kalman
from posecli.tracking.offline import smooth_track
from posecli.tracking.smoothing import SmoothOptions
from posecli.types import Poses
from tests.painted import RED, Walker, box_of, line
from tests.run_factory import RATE, make_run

WALKER = Walker(200, RED, line(100, 500, 80, 4))
FRAMES = 100
WRONG, WRIST = slice(30, 70), 9


def clip(noise: float = 0.5) -> tuple[np.ndarray, list[Poses]]:
    """The truth (F, K, 2), and the poses of a network with little noise, of track 1."""
    random = np.random.default_rng(0)
    truth = np.array([WALKER.keypoints(frame / RATE) for frame in range(FRAMES)])
    poses = [
        Poses(
            keypoints=(points + random.normal(0, noise, points.shape))[None].astype(np.float32),
            std=np.ones((1, 17, 2), np.float32),
            scores=np.full((1, 17), 0.9, np.float32),
            boxes=box_of(points)[None].astype(np.float32),
            box_scores=np.full(1, 0.9, np.float32),
            person_scores=np.full(1, 0.8, np.float32),
            track_ids=np.ones(1, np.int64),
        )
        for points in truth
    ]
    return truth, poses


def failed(poses: list[Poses], by: tuple[float, float] = (40, -30)) -> list[Poses]:
    result = []
    for frame, given in enumerate(poses):
        keypoints = given.keypoints.copy()
        keypoints[0, WRIST] += by if WRONG.start <= frame < WRONG.stop else (0, 0)
        result.append(replace(given, keypoints=keypoints))
    return result


def fix(corrections: Corrections, truth: np.ndarray, frame: int, index: int = WRIST) -> None:
    moved = {str(index): [*truth[frame, index].tolist(), 2]}
    corrections.apply(
        {"op": "keypoints", "input": "clip.mp4", "frame": frame, "person": "p0", "keypoints": moved}, "test"
    )


def test_frames_between_two_corrections_follow_and_nothing_else_moves(tmp_path: Path) -> None:
    truth, poses = clip()
    out = make_run(tmp_path / "out", {"clip.mp4": failed(poses)})
    with Corrections.open(out, write=True) as corrections:
        assert propagate(corrections, "clip.mp4", 1) == {}
        for frame in (WRONG.start, WRONG.stop - 1):
            fix(corrections, truth, frame)
        seq = corrections.seq
        found = propagate(corrections, "clip.mp4", 1)
        assert corrections.seq == seq
        assert {key for people in found.values() for key in people} == {"p0"}
        assert {index for people in found.values() for index in people["p0"]} == {WRIST}
        inside = set(range(WRONG.start + 1, WRONG.stop - 1))
        assert inside <= set(found) <= {f for f in range(FRAMES) if WRONG.start - 13 <= f <= WRONG.stop + 12}
        errors = [np.hypot(*(np.array(found[f]["p0"][WRIST]) - truth[f, WRIST])) for f in inside]
        assert np.mean(errors) < 10 and max(errors) < 20  # 50 in each frame before
        values = {str(f): {"p0": {str(WRIST): list(of["p0"][WRIST])}} for f, of in found.items()}
        corrections.apply({"op": "propagate", "input": "clip.mp4", "track": 1, "values": values}, "test")
        person = corrections.frame("clip.mp4", 50).people[0]
        assert person.propagated == (WRIST,) and person.corrected == ()
        # Once accepted, the same proposal changes nothing more.
        assert propagate(corrections, "clip.mp4", 1) == {}
        with pytest.raises(UsageError, match="no person has this id"):
            propagate(corrections, "clip.mp4", 2)


def test_accepted_people_hold_the_path_and_stay(tmp_path: Path) -> None:
    truth, poses = clip()
    out = make_run(tmp_path / "out", {"clip.mp4": failed(poses)})
    with Corrections.open(out, write=True) as corrections:
        fix(corrections, truth, WRONG.start)
        corrections.apply({"op": "accept", "input": "clip.mp4", "frame": WRONG.start + 3, "person": "p0"}, "test")
        found = propagate(corrections, "clip.mp4", 1)
        assert WRONG.start + 3 not in found and WRONG.start + 2 in found


def test_exchanged_sides_are_found_by_two_corrections() -> None:
    truth, poses = clip()
    measured = np.array([given.keypoints[0] for given in poses], np.float64)
    measured[WRONG, [9, 10]] = measured[WRONG, [10, 9]]
    anchors, places = np.zeros((FRAMES, 17), bool), measured.copy()
    for frame in (WRONG.start, WRONG.stop - 1):
        anchors[frame, 9], places[frame, 9] = True, truth[frame, 9]
    times, ones = np.arange(FRAMES) / RATE, np.ones((FRAMES, 17, 2))
    given = Measured(times, np.full(FRAMES, 200.0), measured, ones, anchors, places)
    found, reached = smooth_anchored(given, [9], COCO17)
    assert reached[WRONG].all() and not reached[0].any()
    assert np.hypot(*(found[WRONG, 0] - truth[WRONG, 9]).T).max() < 4


def slow_smoother(
    times: np.ndarray, measured: np.ndarray, variance: np.ndarray, density: float, speed: float
) -> np.ndarray:
    """Means of all positions given all measurements: one large Gaussian, without recursion."""
    count, still = len(times), 0.0
    precision, weighted = np.zeros((2 * count, 2 * count)), np.zeros(2 * count)
    precision[1, 1] += 1 / speed
    for i in range(count):
        precision[2 * i, 2 * i] += still + (1 / variance[i] if np.isfinite(variance[i]) else 0)
        weighted[2 * i] += measured[i] / variance[i] if np.isfinite(variance[i]) else 0
        if i:
            t = times[i] - times[i - 1]
            noise = np.linalg.inv(density * np.array([[t**3 / 3, t**2 / 2], [t**2 / 2, t]]))
            step = np.hstack([-np.array([[1, t], [0, 1]]), np.eye(2)])
            part = slice(2 * i - 2, 2 * i + 2)
            precision[part, part] += step.T @ noise @ step
    return np.asarray(np.linalg.solve(precision, weighted)[::2])


def test_smooth_track_is_the_posterior_of_all_measurements() -> None:
    random = np.random.default_rng(3)
    count = 12
    times = np.cumsum(random.uniform(0.02, 0.1, count))
    measured = np.cumsum(random.normal(0, 1, (count, 1, 2)), axis=0)
    variance = random.uniform(0.5, 2, (count, 1, 2))
    variance[3:6] = np.inf
    variance[8] = 1e-6
    # All are certain: no gate, and an acceleration noise that does not change.
    options = SmoothOptions()
    found = smooth_track(times, np.full(count, 50.0), measured, variance, np.ones((count, 1), bool), options)
    density, speed = (options.acceleration_noise * 50) ** 2, (options.initial_speed_std * 50) ** 2
    for axis in (0, 1):
        expected = slow_smoother(times, measured[:, 0, axis], variance[:, 0, axis], density, speed)
        np.testing.assert_allclose(found.position[:, 0, axis], expected, atol=1e-6)
    assert isinstance(found, kalman.KalmanState) and abs(found.position[8, 0] - measured[8, 0]).max() < 1e-3


def test_needs_name_what_is_unusual(tmp_path: Path) -> None:
    _, poses = clip()
    changed = list(poses)
    jump, swap, doubt, low = 20, 40, 60, 80
    changed[jump] = replace(
        poses[jump], keypoints=poses[jump].keypoints + np.eye(17)[WRIST][None, :, None].astype(np.float32) * 60
    )
    changed[swap] = replace(poses[swap], keypoints=poses[swap].keypoints[:, list(COCO17.flip_indices)])
    changed[doubt] = replace(poses[doubt], std=poses[doubt].std * 12)
    changed[low] = replace(poses[low], scores=poses[low].scores * np.float32(0.2))
    out = make_run(tmp_path / "out", {"clip.mp4": changed, "a.jpg": [replace(poses[0], track_ids=None)]})
    with Corrections.open(out, write=True) as corrections:
        found = needs(corrections)
        assert {need.frame for need in found[:3]} | {need.frame for need in found[3:6]} >= {jump, doubt, low}
        assert [need.score for need in found] == sorted((need.score for need in found), reverse=True)
        tops = {reason: found.by(reason)[0].frame for reason in UNUSUAL}
        assert tops["deviation"] == doubt and tops["scores"] == low and tops["jump"] in (jump, swap)
        assert tops["swap"] in (swap, swap + 1)
        assert found[-1].input in ("a.jpg", "clip.mp4") and all(0 <= v <= 3 for n in found for v in n.reasons.values())
        times = sorted(need.frame for need in found if need.input == "clip.mp4")
        assert min(np.diff(times)) >= 12
        corrections.apply({"op": "accept", "input": "clip.mp4", "frame": doubt, "person": "p0"}, "test")
        again = needs(corrections)
        assert doubt not in {need.frame for need in again}
        with pytest.raises(KeyError):
            found.by("other")


def test_needs_of_no_people(tmp_path: Path) -> None:
    out = make_run(tmp_path / "out", {"a.jpg": [Poses.empty(17)], "clip.mp4": [Poses.empty(17)] * 3})
    with Corrections.open(out, write=False) as corrections:
        assert list(needs(corrections)) == []


def test_memory_of_needs_does_not_grow_with_frames(tmp_path: Path) -> None:
    _, poses = clip()

    def repeated(count: int) -> Iterator[Poses]:
        return (poses[frame % FRAMES] for frame in range(count))

    peaks = []
    for count in (400, 1200):
        out = make_run(tmp_path / str(count), {"clip.mp4": repeated(count)})
        with Corrections.open(out, write=False) as corrections:
            tracemalloc.start()
            needs(corrections)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 800 * 1000
