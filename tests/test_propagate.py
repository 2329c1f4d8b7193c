"""Box propagation: when the detector runs, predicted boxes, and people that are dropped."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from posecli.geometry import iou
from posecli.keypoints import COCO17
from posecli.tracking.propagate import RESTART_EVERY, BoxPropagator, PropagationOptions
from posecli.types import Detections, Expected, Frame, Poses
from tests.painted import BLUE, RED, SCENES, Scene, Walker, line

Step = tuple[Frame, Poses]


def estimate(truth: Poses, boxes: Detections) -> Poses:
    """A perfect pose network: in each box the person that fills it best."""
    rows = iou(boxes.boxes, truth.boxes).argmax(axis=1) if len(boxes) else np.zeros(0, int)
    found = Poses(**{name: None if v is None else v[rows] for name, v in vars(truth).items()})
    return replace(found, boxes=boxes.boxes, box_scores=boxes.scores)


def run(steps: list[Step], every: int | None) -> tuple[list[int], list[Poses]]:
    """Indices of the frames with a detection, and the poses."""
    propagator = BoxPropagator(every, COCO17)
    detected, result = [], []
    for frame, truth in steps:
        asked = propagator.needs_detection(frame)
        found = Detections(truth.boxes, truth.box_scores) if asked else propagator.boxes(frame)
        result.append(propagator.update(frame, estimate(truth, found), asked))
        detected += [frame.index] if asked else []
    return detected, result


def steps_of(scene: Scene, noise: float = 0.0) -> list[Step]:
    return [(frame, poses) for frame, poses, _ in scene.frames(noise)]


CALM = Scene((Walker(180, RED, line(200, 260, 80, 4)), Walker(170, BLUE, line(450, 400, 90, 4))), 2)


def test_every_frame_is_the_exact_reference() -> None:
    steps = steps_of(SCENES["crossing"], noise=0.02)[:60]
    propagator = BoxPropagator(1, COCO17)
    for frame, truth in steps:
        assert propagator.needs_detection(frame)
        assert propagator.update(frame, truth, True) is truth


@pytest.mark.parametrize("every", [2, 4, 7])
def test_every_so_many_frames_at_the_latest(every: int) -> None:
    assert run(steps_of(CALM), every)[0] == list(range(0, 50, every))


def test_auto_detects_in_each_frame_while_people_overlap() -> None:
    steps = steps_of(SCENES["crossing"])
    overlap = [iou(truth.boxes, truth.boxes)[0, 1:].max(initial=0.0) for _, truth in steps]
    after = {index + 1 for index, value in enumerate(overlap) if value > PropagationOptions().max_overlap}
    after -= {len(steps)}
    detected, _ = run(steps, None)
    assert len(after) > 3 and after <= set(detected)
    assert len(set(detected) - after) < len(steps) / 4
    # Not with a number of frames.
    assert not after <= set(run(steps, 5)[0])


@pytest.mark.parametrize("rate", [10, 25, 50])
def test_auto_goes_by_seconds(rate: int) -> None:
    detected, _ = run(steps_of(replace(CALM, rate=rate)), None)
    assert np.diff(detected).tolist() == [int(np.ceil(0.3 * rate))] * (len(detected) - 1)


@pytest.mark.parametrize("every", [4, 12, None])
def test_boxes_stay_on_the_people(every: int | None) -> None:
    steps = steps_of(CALM, noise=0.01)
    for (_, truth), own in zip(steps, run(steps, every)[1], strict=True):
        assert len(own) == 2
        assert iou(own.boxes, truth.boxes).max(axis=1).min() > 0.7
        np.testing.assert_array_equal(own.box_scores, truth.box_scores)


def detected_after(change: int, steps: list[Step]) -> bool:
    """Whether the detector, asked every 30 frames, looks within two frames of a change."""
    return any(change <= index <= change + 2 for index in run(steps, 30)[0])


def test_a_cut_asks_for_the_detector_at_once() -> None:
    steps = steps_of(CALM)
    pattern = np.random.default_rng(0).integers(0, 2, (9, 16, 1)).repeat(3, 2).repeat(40, 0).repeat(40, 1)
    for i in range(10, 20):
        steps[i] = (replace(steps[i][0], pixels=(pattern * 250).astype(np.uint8)), steps[i][1])
    assert 10 in run(steps, 30)[0] and 20 in run(steps, 30)[0]


@pytest.mark.parametrize("score", [0.35, 0.05])
def test_sinking_scores_ask_for_the_detector(score: float) -> None:
    steps = steps_of(CALM)
    low = [(f, replace(p, scores=np.full_like(p.scores, score))) if f.index >= 10 else (f, p) for f, p in steps]
    assert not detected_after(10, steps) and detected_after(10, low)


def test_who_is_lost_is_dropped_until_the_detector_finds_them() -> None:
    steps = steps_of(CALM)
    gone = replace(steps[10][1], scores=np.where(np.arange(2)[:, None] == 1, 0.05, steps[10][1].scores))
    steps[10] = (steps[10][0], gone)
    detected, poses = run(steps, 30)
    assert [len(p) for p in poses[9:12]] == [2, 1, 2] and 11 in detected


def test_reaching_the_border_asks_once() -> None:
    scene = Scene((Walker(180, RED, line(560, 640, 80, 2)),), 2)
    detected, _ = run(steps_of(scene), 30)
    assert len(detected) in (3, 4) and detected[1] < 25


def test_two_that_become_one_lose_the_worse() -> None:
    frame, truth = steps_of(CALM)[0]
    propagator = BoxPropagator(30, COCO17)
    truth = replace(truth, person_scores=np.array([0.5, 0.6], np.float32))
    propagator.update(frame, truth, True)
    later = replace(frame, index=1, time=Fraction(1, 25))
    assert not propagator.needs_detection(later)
    both = replace(truth, keypoints=truth.keypoints[[1, 1]], boxes=truth.boxes[[1, 1]])
    kept = propagator.update(later, both, False)
    assert len(kept) == 1 and kept.person_scores[0] == np.float32(0.6)
    assert propagator.needs_detection(replace(frame, index=2, time=Fraction(2, 25)))


def test_people_who_stood_together_at_the_detection_stay_two() -> None:
    frame, truth = steps_of(CALM)[0]
    truth = replace(truth, keypoints=truth.keypoints[[1, 1]], boxes=truth.boxes[[1, 1]])
    propagator = BoxPropagator(30, COCO17)
    propagator.update(frame, truth, True)
    later = replace(frame, index=1, time=Fraction(1, 25))
    assert len(propagator.update(later, estimate(truth, propagator.boxes(later)), False)) == 2


def test_no_people_are_carried_as_none() -> None:
    frames = [(frame, Poses.empty(17)) for frame, _ in steps_of(CALM)]
    detected, poses = run(frames, 5)
    assert detected == list(range(0, 50, 5)) and not any(map(len, poses))


def test_boxes_ahead_are_those_of_the_next_frame_but_one() -> None:
    """A frame can be estimated while the one before it is: its boxes are known before that one's poses."""
    steps = steps_of(CALM, noise=0.01)
    propagator = BoxPropagator(9, COCO17)
    compared = 0
    ahead: Detections | None = None
    for (frame, truth), following in zip(steps, [*steps[1:], None], strict=True):
        asked = propagator.needs_detection(frame)
        found = Detections(truth.boxes, truth.box_scores) if asked else propagator.boxes(frame)
        if ahead is not None and not asked:
            np.testing.assert_array_equal(found.boxes, ahead.boxes)
            compared += 1
        ahead = None
        if following is not None and not asked:
            ahead = propagator.boxes_ahead(following[0])
            assert ahead is not None
        propagator.update(frame, estimate(truth, found), asked)
    assert compared >= 30


def test_expected_boxes_are_known_before_the_poses_of_the_frame_before() -> None:
    propagator = BoxPropagator(3, COCO17)
    steps = steps_of(CALM, noise=0.01)
    ahead: Expected | None = None
    for number, ((frame, truth), following) in enumerate(zip(steps, [*steps[1:], None], strict=True)):
        expected = propagator.expected(frame)
        if ahead is not None:
            np.testing.assert_array_equal(expected.boxes, ahead.boxes)
            assert expected.new_people and ahead.new_people
        if number > 2:
            assert len(expected.boxes) == len(truth)
            assert np.diagonal(iou(expected.boxes, truth.boxes)).min() > 0.7
        else:
            assert len(expected.boxes) == (0 if number < 2 else len(truth))
        asked = propagator.needs_detection(frame)
        ahead = None if following is None else propagator.expected_ahead(frame, following[0], asked)
        found = Detections(truth.boxes, truth.box_scores) if asked else propagator.boxes(frame)
        propagator.update(frame, estimate(truth, found), asked)


@pytest.mark.parametrize("change", ["size", "cut", "restart"])
def test_no_person_is_expected_from_another_shot_or_part(change: str) -> None:
    propagator = BoxPropagator(3, COCO17)
    for frame, truth in steps_of(CALM)[:4]:
        propagator.update(frame, truth, True)
    following = replace(frame, index=frame.index + 1)
    assert len(propagator.expected(following).boxes) == len(truth)
    other = {
        "size": replace(following, pixels=np.ascontiguousarray(following.pixels[:-2])),
        "cut": replace(following, pixels=255 - following.pixels),
        "restart": replace(following, index=RESTART_EVERY),
    }[change]
    for people in (propagator.expected(other), propagator.expected_ahead(following, other, False)):
        assert people.boxes.shape == (0, 4) and people.new_people


def test_while_people_overlap_new_people_are_looked_for_at_the_longest_interval() -> None:
    """And it is known before the poses of the frame before, as are the boxes."""
    steps = [
        (frame, replace(truth, boxes=np.repeat(truth.boxes[:1], len(truth), axis=0)) if 5 <= number < 30 else truth)
        for number, (frame, truth) in enumerate(steps_of(CALM))
    ]
    propagator = BoxPropagator(None, COCO17)
    searched, ahead = [], None
    for (frame, truth), following in zip(steps, [*steps[1:], None], strict=True):
        asked = propagator.needs_detection(frame)
        expected = propagator.expected(frame)
        if ahead is not None:
            assert expected.new_people == ahead.new_people
            np.testing.assert_array_equal(expected.boxes, ahead.boxes)
        ahead = None if following is None else propagator.expected_ahead(frame, following[0], asked)
        if asked and expected.new_people:
            searched.append(frame.index)
        propagator.update(frame, truth, asked)
    times = [float(frame.time or 0) for frame, _ in steps]
    longest = PropagationOptions.max_interval + 1.5 * (times[1] - times[0])
    gaps = {b: times[b] - times[a] for a, b in pairwise(searched)}
    assert 2 <= sum(8 <= number < 30 for number in gaps) <= 4
    assert all(gap <= (longest if number < 30 else 2 * longest) for number, gap in gaps.items())


def test_boxes_of_many_people_are_not_known_ahead() -> None:
    (frame, truth), (following, _) = steps_of(CALM)[:2]
    for ahead_people, known in ((len(truth), True), (len(truth) - 1, False)):
        propagator = BoxPropagator(9, COCO17, PropagationOptions(ahead_people=ahead_people))
        propagator.update(frame, truth, True)
        assert (propagator.boxes_ahead(following) is not None) == known


def test_without_anybody_the_detector_runs_on_every_frame() -> None:
    frames = [(frame, Poses.empty(17)) for frame, _ in steps_of(CALM)]
    assert run(frames, None)[0] == list(range(50))
