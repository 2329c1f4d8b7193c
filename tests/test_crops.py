"""Crops: where pixels land, how they are averaged when people are large, what lies outside."""

import cv2
import numpy as np
import pytest

from posecli import geometry
from posecli.pose.crops import cut_crops, warp


def disc(height: int, width: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    """A white disc on grey, drawn to a sixteenth of a pixel."""
    picture = np.full((height, width, 3), 80, np.uint8)
    fixed = [round(value * 16) for value in centre]
    cv2.circle(picture, fixed, round(radius * 16), (255, 255, 255), -1, cv2.LINE_AA, 4)
    return picture


def middle_of(crop: np.ndarray) -> np.ndarray:
    """The centre of what is brighter than grey, in pixels."""
    weight = np.maximum(crop[..., 0].astype(float) - 90, 0)
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("scale", [0.6, 1.0, 2.0, 2.7, 4.0, 7.3, 20.0])
@pytest.mark.parametrize("angle", [0.0, 33.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_disc_lands_where_the_matrix_says(scale: float, angle: float, mirrored: bool) -> None:
    height, width = round(130 * scale) + 3, round(101 * scale) + 5
    centre = (0.45 * width + 0.3, 0.55 * height - 0.2)
    picture = disc(height, width, centre, 9 * scale)
    cos, sin = np.cos(np.deg2rad(angle)) / scale, np.sin(np.deg2rad(angle)) / scale
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    turn[:2, 2] = (47, 66) - turn[:2, :2] @ np.array([width / 2, height / 2])
    if mirrored:
        turn = np.array([[-1.0, 0, 95], [0, 1, 0], [0, 0, 1]]) @ turn
    crop = np.empty((128, 96, 3), np.uint8)
    warp(picture, turn, crop)
    expected = geometry.transform(turn, np.array([centre]))[0]
    np.testing.assert_allclose(middle_of(crop), expected, atol=0.1)


def test_large_people_are_averaged_not_sampled() -> None:
    """A fine chequerboard becomes grey; sampling would show some of its black and white pixels."""
    y, x = np.mgrid[:1200, :900]
    picture = np.repeat((((x + y) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    crops, _ = cut_crops([picture], [np.array([[150, 200, 750, 1000]], np.float32)], (128, 96), 1.25)
    assert np.abs(crops[0, 20:-20, 20:-20].astype(int) - 127).max() <= 4


def test_outside_is_black_also_at_the_last_square() -> None:
    picture = np.full((403, 303, 3), 200, np.uint8)
    crops, matrices = cut_crops([picture], [np.array([[100, 200, 403, 604]], np.float32)], (64, 64), 1.25)
    corner = geometry.transform(matrices[0], np.array([[302.5, 402.5]]))[0]
    inside = crops[0, 3 : int(corner[1]) - 1, 3 : int(corner[0]) - 1]
    assert inside.size and inside[8:, 8:].min() >= 199
    assert crops[0, int(corner[1]) + 2 :].max() == 0 and crops[0, :, int(corner[0]) + 2 :].max() == 0
    nowhere, _ = cut_crops([picture], [np.array([[4000, 4000, 4900, 4900]], np.float32)], (64, 64), 1.25)
    assert not nowhere.any()


def test_pictures_beyond_opencv_give_the_same_crop() -> None:
    small = disc(200, 300, (150, 100), 30)
    wide = np.zeros((200, 40000, 3), np.uint8)
    wide[:, :300] = small
    box = np.array([[100, 40, 200, 160]], np.float32)
    crops = [cut_crops([picture], [box], (64, 64), 1.25)[0][0] for picture in (small, wide)]
    assert np.abs(crops[0].astype(int) - crops[1]).max() <= 1
