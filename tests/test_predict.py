"""The predictor: what it takes, what it refuses, that it is what `posecli run` does."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import posecli
from posecli.detect import Detector
from posecli.errors import UsageError
from posecli.pose import verification
from posecli.pose.estimator import Estimate, load_estimator
from posecli.predict import Predictor, load_predictor
from posecli.types import Detections, Expected, Frame, Poses
from tests.entry_points import posecli as command
from tests.media_factory import picture


@pytest.fixture(scope="module")
def predictor(tiny_weights: Path) -> Predictor:
    return load_predictor(tiny_weights, detector="whole", device="cpu", runtime="torch")


def test_one_image_gives_poses_and_a_list_gives_a_list(predictor: Predictor) -> None:
    images = [picture(90 + i, 70, i) for i in range(11)]
    single = [predictor(image) for image in images]
    mixed = [Frame(image) if i % 2 else image for i, image in enumerate(images)]
    for poses, same in zip(single, predictor(mixed), strict=True):
        assert isinstance(poses, Poses) and len(poses) == 1
        np.testing.assert_array_equal(poses.keypoints, same.keypoints)
    assert predictor([]) == []
    view = np.flip(images[0], axis=1)  # not contiguous
    np.testing.assert_array_equal(predictor(view).keypoints, predictor(view.copy()).keypoints)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((3, 40, 50), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((40, 50), np.uint8), "grey is no RGB"),
        (np.zeros((40, 50, 1), np.uint8), "grey is no RGB"),
        (np.zeros((40, 50, 4), np.uint8), "alpha"),
        (np.zeros((40, 50, 5), np.uint8), r"shape \(40, 50, 5\)"),
        (np.zeros((2, 40, 50, 3), np.uint8), "as a list"),
        (np.zeros((40, 50, 3), np.float32), r"float32: scale it to 0 to 255"),
        (np.zeros((0, 50, 3), np.uint8), "empty"),
        ("photo.jpg", r"not str; posecli.read_image"),
        (None, "not NoneType"),
    ],
)
def test_other_images_are_refused_at_once(predictor: Predictor, image: object, words: str) -> None:
    with pytest.raises(UsageError, match=rf"expected an RGB array \(height, width, 3\) of uint8.*{words}"):
        predictor(image)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match=f"image 1: .*{words}"):
        predictor([picture(), image])


def test_names_fit_the_images(predictor: Predictor, tiny_weights: Path, tmp_path: Path) -> None:
    image = picture(90, 70)
    with pytest.raises(UsageError, match="2 images, but 1 names"):
        predictor([image, image], names=["a"])
    with pytest.raises(UsageError, match="a list of 1 names"):
        predictor([image], names="a")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="one name"):
        predictor(image, names=["a"])  # type: ignore[call-overload]
    boxes = tmp_path / "boxes.json"
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}],
    }
    boxes.write_text(json.dumps(truth))
    by_name = load_predictor(tiny_weights, detector=f"boxes:{boxes}", device="cpu", runtime="torch")
    with pytest.raises(UsageError, match="give names="):
        by_name(image)
    np.testing.assert_array_equal(by_name(image, names="a.jpg").boxes, [[1, 2, 31, 42]])


def test_the_predictor_is_the_run(samples: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    photo = samples / "astronaut.jpg"
    result = command(capfd, "run", photo, "-o", tmp_path / "out", "--device", "cpu", "--no-media", "-q")
    assert result.code == 0, result.err
    written = json.loads((tmp_path / "out" / "coco.json").read_text())["annotations"]
    poses = load_predictor(device="cpu")(posecli.read_image(photo))
    assert len(written) == len(poses) >= 1
    for person, own in zip(written, poses.to_coco(), strict=True):
        assert {name: person[name] for name in own} == own


def proposing(people: Detections, proposals: Detections, threshold: float = 0.5) -> Detector:
    return Detector(lambda f, n: [people] * len(f), "x", threshold, "none", "cpu",
                    verified=threshold, propose=lambda f, n: [proposals] * len(f))  # fmt: skip


class Knowing:
    """An estimator that knows how sure each box is, and where its person ends; it notes the boxes that it is given."""

    def __init__(self, predictor: Predictor, odds: list[float], refined: list[list[float]], person_score: bool) -> None:
        self.config = replace(predictor.estimator.config, person_score=person_score)
        self._estimator, self._odds, self._refined = predictor.estimator, odds, refined
        self.given: list[list[list[float]]] = []

    def estimate(self, frames: list[Frame], boxes: list[Detections], needs_flip_test: object = None) -> list[Estimate]:
        self.given.append(boxes[0].boxes.tolist())
        poses = self._estimator(frames, boxes)
        count = len(boxes[0])
        odds, refined = np.array(self._odds[:count], np.float32), np.array(self._refined[:count])
        return [Estimate(p, odds, refined) for p in poses]

    def __call__(self, frames: list[Frame], boxes: list[Detections]) -> list[Poses]:
        return [e.poses for e in self.estimate(frames, boxes)]


LOW = Detections(np.array([[5, 5, 40, 60], [50, 2, 80, 40]], np.float32), np.array([0.6, 0.3], np.float32))
HIGH = Detections(LOW.boxes[:1], LOW.scores[:1])


def refined_boxes(ends: list[list[float]]) -> np.ndarray:
    """Boxes of LOW after refinement by the box head's boxes: their weighted means."""
    share = verification.BOX_HEAD_SHARE
    return ((1 - share) * LOW.boxes + share * np.array(ends)).astype(np.float32)


def test_proposals_are_verified_where_the_model_can_and_given_boxes_never(predictor: Predictor) -> None:
    frame, ends = [Frame(picture(90, 70))], [[5.0, 5, 40, 60], [50.0, 2, 80, 69]]
    judging = Knowing(predictor, [-3, 3], ends, person_score=True)
    verifying = Predictor(proposing(HIGH, LOW), judging)  # type: ignore[arg-type]
    (poses,) = verifying.predict(frame, [""])
    np.testing.assert_allclose(poses.boxes, refined_boxes(ends)[1:], atol=1e-4)
    assert poses.box_scores[0] > 0.8
    np.testing.assert_array_equal(verifying.estimate(frame, [LOW])[0].box_scores, LOW.scores)
    plain = Predictor(proposing(HIGH, LOW), Knowing(predictor, [-3, 3], ends, person_score=False))  # type: ignore[arg-type]
    np.testing.assert_array_equal(plain.predict(frame, [""])[0].boxes, HIGH.boxes)
    other = Predictor(replace(proposing(HIGH, LOW), propose=None), judging)  # type: ignore[arg-type]
    np.testing.assert_array_equal(other.predict(frame, [""])[0].boxes, HIGH.boxes)


def test_who_is_expected_is_found_without_a_proposal_and_no_person_where_there_is_none(samples: Path) -> None:
    predictor = load_predictor(device="cpu", precision="fp32")
    frame = posecli.read_image(samples / "balance_two_people.jpg")
    both = predictor.predict([frame], [""])[0]
    assert len(both) == 2

    def propose(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        return [Detections(both.boxes[:1], np.ones(1, np.float32))]

    one_proposal = replace(predictor, detector=replace(predictor.detector, propose=propose))
    corner = np.array([[0, 0, frame.width / 6, frame.height / 3]], np.float32)
    assert len(one_proposal.predict([frame], [""])[0]) == 1
    for new_people in (True, False):
        expected = Expected(np.concatenate([both.boxes[1:], corner]), new_people)
        found = one_proposal.predict([frame], [""], [expected])[0]
        assert len(found) == 2
    distance = np.linalg.norm(found.keypoints[1] - both.keypoints[1], axis=1)[both.scores[1] > 0.5]
    assert np.median(distance) < 0.03 * np.sqrt(np.prod(both.boxes[1, 2:] - both.boxes[1, :2]))


def test_reestimation_takes_the_refined_box_where_it_differs_much(predictor: Predictor) -> None:
    frame, ends = [Frame(picture(90, 70))], [[5.0, 5, 40, 58], [50.0, 2, 80, 76]]
    refined = refined_boxes(ends)
    near, far = Detections(LOW.boxes[:1], LOW.scores[:1]), Detections(refined[1:], LOW.scores[1:])
    for again in (False, True):
        knowing = Knowing(predictor, [3, 3], ends, person_score=True)
        (poses,) = Predictor(proposing(HIGH, LOW), knowing, again).predict(frame, [""])  # type: ignore[arg-type]
        assert len(knowing.given) == 1 + again
        expected = [predictor.estimate(frame, [boxes])[0].keypoints[0] for boxes in
                    (near, far if again else Detections(LOW.boxes[1:], LOW.scores[1:]))]  # fmt: skip
        np.testing.assert_allclose(poses.keypoints, expected, atol=1e-3)
        np.testing.assert_allclose(poses.boxes, refined, atol=1e-4)
        assert (np.diff(poses.box_scores) <= 0).all() and (poses.box_scores > 0.8).all()
    np.testing.assert_allclose(knowing.given[1], refined[1:], atol=1e-4)


def test_frames_without_proposals_change_nothing_for_the_others(tiny_weights: Path) -> None:
    estimator = load_estimator(str(tiny_weights), device="cpu", runtime="torch")
    frames = [Frame(picture(90, 70, seed)) for seed in range(3)]
    found = verification.verify(estimator, frames, [Detections.empty(), LOW, Detections.empty()], 0.2, reestimate=True)
    assert [len(poses) for poses in found] == [0, 2, 0]
    assert verification.verify(estimator, [], [], 0.2) == []
