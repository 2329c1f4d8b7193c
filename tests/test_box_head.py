"""The box head: boxes of proposals that end where the pose network sees the person end."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from posecli import geometry
from posecli.errors import DataError
from posecli.pose.config import PoseConfig
from posecli.pose.estimator import Estimator, load_estimator, mirrored_sides
from posecli.pose.loading import load_network
from posecli.pose.network import BoxHead, SimCC
from posecli.pose.outputs import Outputs
from posecli.pose.verification import BOX_HEAD_SHARE, refine_boxes, verify
from posecli.train.init import build_model, read_init
from posecli.types import Detections, Frame, Poses
from posecli.weights.files import load_weights, save_weights
from tests.media_factory import picture

BOXES = np.array([[5, 5, 40, 60], [30, 2, 80, 69]], np.float32)
SCORES = np.array([0.6, 0.5], np.float32)


@pytest.fixture(scope="module")
def seeing_weights(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with person score and box head that depend on the crop."""
    tensors, header = load_weights(tiny_weights)
    config = replace(load_network(tiny_weights)[1], person_score=True, box_head=True)
    torch.manual_seed(0)
    head = BoxHead(1280)
    nn.init.normal_(head.sides.weight, std=0.3)
    tensors |= {"person_score.weight": torch.randn(1, 1280) * 0.1, "person_score.bias": torch.zeros(1)}
    tensors |= {f"box_head.{name}": tensor for name, tensor in head.state_dict().items()}
    path = tmp_path_factory.mktemp("extent") / "seeing.safetensors"
    save_weights(path, tensors, header | {"config": config.to_json()})
    return path


@pytest.fixture(scope="module")
def seeing(seeing_weights: Path) -> Estimator:
    return load_estimator(str(seeing_weights), device="cpu", runtime="torch")


@given(
    corners=st.lists(st.floats(-50, 900), min_size=4, max_size=4),
    sides=st.lists(st.floats(-0.5, 1.5), min_size=4, max_size=4),
)
def test_sides_of_a_crop_lie_where_its_pixels_do(corners: list[float], sides: list[float]) -> None:
    x1, y1, x2, y2 = corners
    box = [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)]
    matrices = geometry.crop_matrices(box, (256, 192))
    back = geometry.crop_to_source([sides], matrices, (256, 192))[0]
    again = geometry.transform(matrices[0], back.reshape(2, 2)) / [192, 256]
    np.testing.assert_allclose(again.ravel(), sides, atol=1e-6)
    # The whole crop is the padded box.
    whole = geometry.crop_to_source([[0, 0, 1, 1]], matrices, (256, 192))[0]
    np.testing.assert_allclose(whole[2:] - whole[:2], geometry.padded_size(box, 0.75), rtol=1e-6)


def test_an_untrained_output_gives_back_a_box_of_the_crop_s_shape() -> None:
    sides = BoxHead(8).eval()(torch.randn(1, 8, 8, 6)).detach().numpy()
    box = np.array([[100, 50, 190, 170]])
    back = geometry.crop_to_source(sides, geometry.crop_matrices(box, (256, 192)), (256, 192))
    np.testing.assert_allclose(back, box, atol=1e-3)


def answering(estimator: Estimator, *extents: list[list[float]]) -> Estimator:
    """The same estimator, whose network is sure of everybody and gives these sides, one list a call."""
    answers = iter(extents)

    def run(crops: np.ndarray) -> Outputs:
        sure = np.full(len(crops), 9, np.float32)
        return replace(estimator.runner(crops), person_log_odds=sure, box_sides=np.array(next(answers), np.float32))

    return replace(estimator, runner=replace(estimator.runner, run=run))


def test_proposals_end_where_the_network_says(seeing: Estimator) -> None:
    frame, lines = Frame(picture(90, 70)), [[0.2, 0.1, 0.7, 0.8], [0.3, 0.2, 2.0, 0.6]]
    plain = answering(seeing, lines)([frame], [Detections(BOXES, SCORES)])[0]
    np.testing.assert_array_equal(plain.boxes, BOXES)  # boxes that are no proposals stay as they are
    judged = verify(answering(seeing, lines), [frame], [Detections(BOXES, SCORES)], 0.0)[0]
    sizes = geometry.padded_size(BOXES, seeing.config.input_size[1] / seeing.config.input_size[0])
    corner = (BOXES[:, :2] + BOXES[:, 2:]) / 2 - sizes / 2
    shares = np.array(lines).reshape(2, 2, 2)
    seen = (corner[:, None] + shares * sizes[:, None]).reshape(2, 4)
    mean = BOX_HEAD_SHARE * seen + (1 - BOX_HEAD_SHARE) * BOXES
    expected = np.clip(mean, 0, [90, 70, 90, 70])
    assert expected[1, 2] == 90  # cut off by the picture
    assert len(judged)
    for box, keypoints in zip(judged.boxes, judged.keypoints, strict=True):
        row = int(np.abs(expected - box).max(axis=1).argmin())
        np.testing.assert_allclose(box, expected[row], atol=1e-3)
        np.testing.assert_array_equal(keypoints, plain.keypoints[row])


def test_a_flipped_run_averages_with_the_mirror_image(seeing: Estimator) -> None:
    frame, found = Frame(picture(90, 70)), Detections(BOXES[:1], SCORES[:1])
    flipped = answering(replace(seeing, flip=True), [[0.1, 0.2, 0.5, 0.9]], [[0.3, 0.3, 0.9, 0.7]])
    plain = answering(seeing, [[0.1, 0.25, 0.6, 0.8]])
    first, second = (verify(estimator, [frame], [found], 0.0)[0] for estimator in (flipped, plain))
    np.testing.assert_allclose(first.boxes, second.boxes, atol=1e-3)


@pytest.mark.parametrize("flip", [False, True])
def test_runtimes_agree_on_the_extent(seeing_weights: Path, flip: bool) -> None:
    frame, found = Frame(picture(90, 70)), Detections(BOXES, SCORES)
    first, second = (
        verify(load_estimator(str(seeing_weights), device="cpu", runtime=runtime, flip=flip), [frame], [found], 0.0)[0]
        for runtime in ("torch", "openvino")
    )
    np.testing.assert_allclose(first.boxes, second.boxes, atol=0.05)


def test_unsure_proposals_get_a_flip_test(seeing: Estimator) -> None:
    """Of three proposals only the one near the threshold is averaged with its mirror image."""
    frame = Frame(picture(90, 70))
    boxes = np.array([[5, 5, 40, 60], [30, 2, 80, 69], [0, 0, 30, 30]], np.float32)
    seen: list[int] = []

    def run(crops: np.ndarray) -> Outputs:
        seen.append(len(crops))
        return replace(seeing.runner(crops), person_log_odds=np.zeros(len(crops), np.float32))

    watched = replace(seeing, runner=replace(seeing.runner, run=run))
    scores = np.array([0.9, 0.6, 0.1], np.float32)
    judged = verify(watched, [frame], [Detections(boxes, scores)], 0.55, flip_tests=[True])[0]
    assert seen == [3, 1]
    plain, flipped = (
        replace(watched, flip=flip)([frame], [Detections(boxes, scores)])[0].keypoints for flip in (False, True)
    )
    for row, expected in ((0, plain[0]), (1, flipped[1])):
        (place,) = np.flatnonzero(judged.box_scores == scores[row])
        np.testing.assert_allclose(judged.keypoints[place], expected, atol=1e-4)
    seen.clear()
    watched([frame], [Detections(boxes, scores)])
    assert seen == [3]
    alone = replace(
        seeing, runner=replace(seeing.runner, run=lambda crops: replace(seeing.runner(crops), person_log_odds=None))
    )
    assert len(verify(alone, [frame], [Detections(boxes, scores)], 0.3, flip_tests=[True])[0]) == 2


def test_mirrored_sides_twice_are_the_same() -> None:
    sides = np.random.default_rng(0).uniform(0, 1, (5, 4)).astype(np.float32)
    np.testing.assert_allclose(mirrored_sides(mirrored_sides(sides)), sides, atol=1e-6)
    np.testing.assert_allclose(mirrored_sides(np.array([[0.1, 0.2, 0.6, 0.9]], np.float32)), [[0.4, 0.2, 0.9, 0.9]])


@given(sides=st.lists(st.floats(-300, 300), min_size=4, max_size=4))
@settings(deadline=None)
def test_boxes_end_with_the_picture_and_never_vanish(sides: list[float]) -> None:
    frame = Frame(picture(90, 70))
    poses = Poses.from_coco([{"keypoints": [0, 0, 0] * 17, "bbox": [5, 5, 35, 55]}])
    (box,) = refine_boxes(poses, np.array([sides]), frame).boxes
    assert (box[:2] >= 0).all() and box[2] <= 90 and box[3] <= 70
    assert (box[2:] - box[:2] >= 1 - 1e-4).all()
    if (np.clip(sides[2:], 0, [90, 70]) - np.clip(sides[:2], 0, [90, 70]) < 1).any():
        np.testing.assert_array_equal(box, BOXES[0])


def test_a_box_head_needs_a_person_score_and_any_input_size_has_one() -> None:
    with pytest.raises(DataError, match="person score"):
        PoseConfig(box_head=True)
    config = PoseConfig(deconv_channels=(), person_score=True, box_head=True, input_size=(64, 32), sigma=(2, 2))
    assert PoseConfig.from_json(config.to_json()) == config
    with torch.inference_mode():
        outputs = SimCC(config).eval()(torch.randn(2, 3, 64, 32))
    assert [tuple(output.shape) for output in outputs[2:]] == [(2,), (2, 4)]


def test_weights_without_the_output_are_read_as_before() -> None:
    values = PoseConfig().to_json()
    del values["box_head"]
    assert not PoseConfig.from_json(values).box_head


def test_training_on_keeps_or_leaves_out_the_output(seeing_weights: Path) -> None:
    start = read_init(str(seeing_weights), "mobilenet_v2")
    assert start.config is not None
    model, notes = build_model(replace(start.config, box_head=False), start)
    assert notes == ["the box head is left out"] and model.box_head is None
    same, notes = build_model(start.config, start)
    assert notes == [] and same.box_head is not None
    torch.testing.assert_close(same.box_head.sides.weight, start.tensors["box_head.sides.weight"])
