"""Crops, boxes and OKS against slow versions and known figures."""

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from posecli import geometry
from posecli.keypoints import COCO17
from posecli.pose.crops import cut_crops

sides = st.floats(0.0, 3000)
places = st.floats(-500, 4000)


def test_the_crop_of_the_reference_sheet() -> None:
    box = geometry.xywh_to_xyxy([100, 50, 80, 200])
    assert geometry.padded_size(box, 3 / 4).tolist() == [187.5, 250.0]
    matrix = geometry.crop_matrices(box, (256, 192))[0]
    np.testing.assert_allclose(matrix[0, 0], 1.024)
    np.testing.assert_allclose(geometry.transform(matrix, [[140, 150]]), [[96, 128]])


@given(x=places, y=places, w=sides, h=sides)
def test_crop_and_back_is_the_identity_and_corners_fit(x: float, y: float, w: float, h: float) -> None:
    box = np.array([x, y, x + w, y + h])
    matrix = geometry.crop_matrices(box, (256, 192))[0]
    points = np.array([[x, y], [x + w, y + h], [0, 0], [17.25, 900]])
    back = geometry.transform(np.linalg.inv(matrix), geometry.transform(matrix, points))
    np.testing.assert_allclose(back, points, atol=1e-4)
    padded = geometry.padded_size(box, 192 / 256)
    assert padded[0] / padded[1] == pytest.approx(0.75)
    centre = np.array([x + w / 2, y + h / 2])
    corners = geometry.transform(matrix, [centre - padded / 2, centre + padded / 2])
    np.testing.assert_allclose(corners, [[0, 0], [192, 256]], atol=1e-4)
    assert (padded >= np.array([w, h]) * 1.25 - 1e-6).all()


def test_crops_show_what_the_matrix_says() -> None:
    """A bright dot in the source appears where the matrix puts it; outside the picture is black."""
    picture = np.zeros((300, 400, 3), np.uint8)
    picture[140:145, 210:215] = 255
    box = np.array([[180, 100, 240, 220]], np.float32)
    crops, matrices = cut_crops([picture], [box], (256, 192), 1.25)
    y, x = np.argwhere(crops[0, :, :, 0] > 128).mean(axis=0)
    np.testing.assert_allclose([x, y], geometry.transform(matrices[0], [[212, 142]])[0], atol=0.6)
    outside, _ = cut_crops([picture + 255], [np.array([[-300, -300, -200, -100]], np.float32)], (256, 192), 1.25)
    assert not outside.any()


def test_crops_of_several_pictures_keep_their_order() -> None:
    dark, bright = np.full((40, 40, 3), 50, np.uint8), np.full((40, 40, 3), 200, np.uint8)
    inner = np.array([[15, 15, 25, 25]], np.float32)
    crops, matrices = cut_crops([dark, bright, dark], [inner, inner.repeat(2, 0), inner[:0]], (64, 32), 1.0)
    assert [int(crop[32, 16, 0]) for crop in crops] == [50, 200, 200]
    assert matrices.shape == (3, 3, 3)


def test_pictures_wider_than_opencv_addresses_can_be_cropped() -> None:
    wide = np.zeros((8, 40000, 3), np.uint8)
    wide[:, 39000:39020] = 255
    crops, _ = cut_crops([wide], [np.array([[38990, 0, 39030, 8]], np.float32)], (64, 64), 1.0)
    assert crops[0, 32, 32, 0] > 200


boxes = st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(0, 30), st.floats(0, 30)), max_size=6)


@given(a=boxes, b=boxes)
def test_iou_against_one_pair_at_a_time(a: list[tuple[float, ...]], b: list[tuple[float, ...]]) -> None:
    first, second = (geometry.xywh_to_xyxy(np.array(v).reshape(-1, 4)) for v in (a, b))
    result = geometry.iou(first, second)
    assert result.shape == (len(a), len(b))
    for i, p in enumerate(first):
        for j, q in enumerate(second):
            w, h = min(p[2], q[2]) - max(p[0], q[0]), min(p[3], q[3]) - max(p[1], q[1])
            overlap = max(w, 0) * max(h, 0)
            union = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - overlap
            assert result[i, j] == pytest.approx(overlap / union if union > 0 else 0, abs=1e-9)


def test_oks_falls_with_distance_as_coco_says() -> None:
    truth = np.random.default_rng(0).uniform(0, 200, (17, 2))
    visible = np.ones(17)
    assert geometry.oks(truth, truth, visible, 9000.0, COCO17.sigmas) == pytest.approx(1)
    shifted = truth + [3, 0]
    expected = np.mean([np.exp(-9 / (2 * 9000 * (2 * s) ** 2)) for s in COCO17.sigmas])
    assert geometry.oks(shifted, truth, visible, 9000.0, COCO17.sigmas) == pytest.approx(expected)
    assert geometry.oks(truth, truth, np.zeros(17), 9000.0, COCO17.sigmas) == 0


def test_xywh_to_xyxy() -> None:
    values = np.array([[1.5, 2, 10, 20], [0, 0, 0, 0]])
    np.testing.assert_array_equal(geometry.xywh_to_xyxy(values), [[1.5, 2, 11.5, 22], [0, 0, 0, 0]])


@given(data=st.lists(st.tuples(*[st.integers(0, 40)] * 4, st.integers(0, 8)), max_size=25), threshold=st.floats(0, 1))
def test_nms_is_that_of_torchvision(data: list[tuple[int, ...]], threshold: float) -> None:
    """Also for equal scores, equal boxes and boxes without an area."""
    rows = np.array(data, np.float32).reshape(-1, 5)
    boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1) * np.float32(1.37)
    scores = rows[:, 4] / 8
    expected = torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
    assert geometry.nms(boxes, scores, threshold).tolist() == expected.tolist()
