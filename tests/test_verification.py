"""The person score: proposals of the detector that the pose network confirms."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from posecli.detect import load_detector
from posecli.detect.person_config import PersonConfig
from posecli.keypoints import COCO17
from posecli.pose.estimator import load_estimator
from posecli.pose.loading import load_network
from posecli.pose.network import SimCC
from posecli.pose.outputs import Outputs
from posecli.pose.verification import rescore, select, verify, with_expected
from posecli.train.init import build_model, read_init
from posecli.types import Detections, Expected, Frame, Poses
from posecli.weights.files import find_weights, load_weights, save_weights
from tests.media_factory import picture

BOXES = np.array([[5, 5, 40, 60], [30, 2, 80, 69]], np.float32)


@pytest.fixture(scope="module")
def judging_weights(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a person score that depends on the crop."""
    tensors, header = load_weights(tiny_weights)
    config = replace(load_network(tiny_weights)[1], person_score=True)
    torch.manual_seed(0)
    tensors |= {"person_score.weight": torch.randn(1, 1280) * 0.1, "person_score.bias": torch.zeros(1)}
    path = tmp_path_factory.mktemp("presence") / "judging.safetensors"
    save_weights(path, tensors, header | {"config": config.to_json()})
    return path


def poses_at(keypoints: np.ndarray, box_scores: list[float]) -> Poses:
    count = len(box_scores)
    low, high = keypoints.min(axis=1), keypoints.max(axis=1)
    return Poses(
        keypoints=keypoints.astype(np.float32),
        std=np.ones((count, 17, 2), np.float32),
        scores=np.full((count, 17), 0.5, np.float32),
        boxes=np.concatenate([low, high], axis=1).astype(np.float32),
        box_scores=np.array(box_scores, np.float32),
        person_scores=np.array(box_scores, np.float32) / 2,
    )


def verified(poses: Poses, odds: np.ndarray, threshold: float, sigmas: Sequence[float] | None) -> Poses:
    rescored = rescore(poses, odds)
    return rescored.rows(select(rescored, threshold, sigmas))


def test_log_odds_add_up_and_decide() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (1, 17, 2))
    apart = np.concatenate([points, points + 500, points + 1000])
    presence = np.array([-3.0, 2.0, 0.0], np.float32)
    kept = verified(poses_at(apart, [0.8, 0.4, 0.5]), presence, 0.45, COCO17.sigmas)
    expected = 1 / (1 + np.exp(-(np.log(0.4 / 0.6) + 2)))
    np.testing.assert_allclose(kept.box_scores, [expected, 0.5], rtol=1e-6)
    np.testing.assert_allclose(kept.person_scores, [expected / 2, 0.25], rtol=1e-6)
    np.testing.assert_array_equal(kept.keypoints, apart[[1, 2]].astype(np.float32))


def test_scores_at_the_ends_stay_finite_and_no_people_stay_none() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (1, 17, 2))
    both = poses_at(np.concatenate([points, points + 300]), [1.0, 0.0])
    kept = verified(both, np.array([-200.0, 200.0], np.float32), 0.0, COCO17.sigmas)
    assert np.isfinite(kept.box_scores).all() and len(kept) == 2
    assert len(verified(Poses.empty(17), np.zeros(0, np.float32), 0.5, COCO17.sigmas)) == 0


def test_of_two_proposals_with_one_pose_the_better_stays() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (1, 17, 2))
    people = poses_at(np.concatenate([points, points + 1, points + 60]), [0.6, 0.7, 0.5])
    kept = verified(people, np.zeros(3, np.float32), 0.3, COCO17.sigmas)
    np.testing.assert_allclose(kept.box_scores, [0.7, 0.5], rtol=1e-6)


def test_of_two_proposals_with_one_box_the_better_stays_whatever_their_poses() -> None:
    random = np.random.default_rng(0)
    people = poses_at(random.uniform(0, 100, (3, 17, 2)), [0.6, 0.7, 0.5])
    boxes = np.array([[0, 0, 50, 100], [5, 0, 50, 100], [30, 0, 80, 100]], np.float32)
    kept = verified(replace(people, boxes=boxes), np.zeros(3, np.float32), 0.3, None)
    np.testing.assert_array_equal(kept.boxes, boxes[[1, 2]])


def test_expected_boxes_that_are_proposals_already_are_left_out() -> None:
    proposals = Detections(np.array([[0, 0, 10, 20]], np.float32), np.array([0.9], np.float32))
    boxes = np.array([[0, 0, 10, 19], [5, 0, 15, 20]], np.float32)
    found = with_expected(proposals, Expected(boxes), 0.3)
    np.testing.assert_array_equal(found.boxes, [[0, 0, 10, 20], [5, 0, 15, 20]])
    np.testing.assert_allclose(found.scores, [0.9, 0.3])
    alone = with_expected(Detections.empty(), Expected(boxes[1:], new_people=False), 0.3)
    np.testing.assert_array_equal(alone.boxes, boxes[1:])
    for new_people in (True, False):
        assert len(with_expected(proposals, Expected(np.zeros((0, 4), np.float32), new_people), 0.3)) == 1


def test_without_new_people_a_weak_proposal_counts_where_somebody_is_expected() -> None:
    boxes = np.array([[0, 0, 10, 20], [1, 1, 10, 20], [50, 0, 60, 20], [80, 0, 90, 20], [200, 0, 210, 20]], np.float32)
    scores = np.array([0.4, 0.35, 0.6, 0.45, 0.4], np.float32)
    people = Expected(np.array([[0, 0, 10, 21], [80, 0, 90, 12]], np.float32))
    every = with_expected(Detections(boxes, scores), people, 0.3)
    np.testing.assert_array_equal(every.boxes, boxes)
    known = with_expected(Detections(boxes, scores), replace(people, new_people=False), 0.3)
    # The nearest to each of the expected people, and who is no weak proposal.
    np.testing.assert_array_equal(known.boxes, boxes[[0, 2, 3]])
    np.testing.assert_array_equal(known.scores, scores[[0, 2, 3]])


def test_without_flip_tests_no_mirror_image_is_estimated(judging_weights: Path) -> None:
    frame, boxes = Frame(picture(90, 70)), Detections(BOXES, np.array([0.6, 0.5], np.float32))
    estimator = load_estimator(str(judging_weights), device="cpu", runtime="torch")
    plain = estimator.estimate([frame], [boxes])[0]
    assert plain.person_log_odds is not None
    scores = np.sort(rescore(plain.poses, plain.person_log_odds).box_scores)
    crops: list[int] = []

    def counted(given: np.ndarray) -> Outputs:
        crops.append(len(given))
        return estimator.runner(given)

    counting = replace(estimator, runner=replace(estimator.runner, run=counted))
    with_tests, without = [], []
    for flips, counts in (([True], with_tests), ([False], without), (None, without)):
        crops.clear()
        found = verify(counting, [frame], [boxes], float(scores[-1]) - 1e-4, flip_tests=flips)[0]
        counts += crops
    assert len(with_tests) == 2 and without == [2, 2]
    np.testing.assert_allclose(found.box_scores, scores[-1:], rtol=1e-6)
    # Of two frames in a batch each has its own.
    crops.clear()
    verify(counting, [frame] * 2, [boxes] * 2, float(scores[-1]) - 1e-4, flip_tests=[True, False])
    assert crops == [4, with_tests[1]]


def test_of_one_person_s_boxes_the_surest_stays_and_the_surest_person_comes_first() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (1, 17, 2))
    people = poses_at(np.concatenate([points + 500, points, points + 1]), [0.5, 0.7, 0.6])
    kept = verified(people, np.array([4.0, 0.0, 3.0], np.float32), 0.3, COCO17.sigmas)
    np.testing.assert_array_equal(kept.keypoints, people.keypoints[[0, 2]])


def test_given_boxes_keep_their_scores_and_proposals_are_rescored(judging_weights: Path, tiny_weights: Path) -> None:
    frame, scores = Frame(picture(90, 70)), np.array([0.9, 0.5], np.float32)
    judging, plain = (
        load_estimator(str(path), device="cpu", runtime="torch") for path in (judging_weights, tiny_weights)
    )
    boxes = Detections(BOXES, scores)
    people = judging([frame], [boxes])[0]
    np.testing.assert_array_equal(people.box_scores, scores)
    np.testing.assert_array_equal(people.keypoints, plain([frame], [boxes])[0].keypoints)
    rescored = verify(judging, [frame, frame], [boxes, Detections.empty()], 0.0)
    assert not np.isin(rescored[0].box_scores, scores).any() and len(rescored[1]) == 0
    assert len(verify(judging, [frame], [boxes], 1.0)[0]) == 0
    # A network that cannot tell leaves the box scores to decide.
    np.testing.assert_allclose(verify(plain, [frame], [boxes], 0.6)[0].box_scores, [0.9], rtol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
def test_runtimes_agree_on_presence(judging_weights: Path, flip: bool) -> None:
    frame, found = Frame(picture(90, 70)), Detections(BOXES, np.array([0.6, 0.5], np.float32))
    first, second = (
        verify(load_estimator(str(judging_weights), device="cpu", runtime=runtime, flip=flip), [frame], [found], 0.0)[0]
        for runtime in ("torch", "openvino")
    )
    np.testing.assert_allclose(first.box_scores, second.box_scores, atol=1e-3)


def test_verification_is_the_mean_of_the_trunk_s_features(judging_weights: Path) -> None:
    network, config = load_network(judging_weights)
    crops = torch.randn(2, 3, *config.input_size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        x, y, presence = network(crops)
        features = network.backbone(crops).mean(dim=(2, 3))
        assert network.person_score is not None
        expected = features @ network.person_score.weight[0] + network.person_score.bias
        np.testing.assert_allclose(presence, expected, rtol=1e-5)
        network.person_score = None
        for given, plain in zip((x, y), network(crops), strict=True):
            np.testing.assert_array_equal(given, plain)


def test_laterals_do_not_change_what_presence_sees() -> None:
    torch.manual_seed(0)
    from posecli.pose.config import PoseConfig

    config = PoseConfig(deconv_channels=(8, 8), laterals=True, person_score=True, input_size=(64, 32))
    network = SimCC(config).eval()
    crops = torch.randn(1, 3, 64, 32)
    with torch.inference_mode():
        assert network.person_score is not None
        expected = network.person_score(network.backbone(crops).mean(dim=(2, 3)))[:, 0]
        np.testing.assert_allclose(network(crops)[2], expected, rtol=1e-5)


def test_the_embedded_detector_proposes_below_its_threshold() -> None:
    frame = [Frame(picture(300, 200, 1))]
    config = PersonConfig.from_json(load_weights(find_weights("person"))[1]["config"])
    detector, low = (load_detector("person", device="cpu", threshold=threshold) for threshold in (None, 0.05))
    assert detector.threshold == config.threshold and low.threshold == 0.05
    assert detector.propose is not None and low.propose is not None
    people, proposals = detector(frame, [""])[0], detector.propose(frame, [""])[0]
    assert (people.scores >= config.threshold).all() and (proposals.scores >= config.proposal).all()
    assert set(people.scores.tolist()) <= set(proposals.scores.tolist())
    assert len(low.propose(frame, [""])[0]) >= len(proposals)
    assert load_detector("whole").propose is None


def test_training_on_leaves_the_presence_output_out(judging_weights: Path) -> None:
    start = read_init(str(judging_weights), "mobilenet_v2")
    assert start.config is not None
    model, notes = build_model(replace(start.config, person_score=False), start)
    assert notes == ["the person score is left out"]
    assert not any(name.startswith("person_score") for name in model.state_dict())
