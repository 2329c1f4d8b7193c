"""The box head's samples and loss."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posecli import geometry
from posecli.keypoints import COCO17
from posecli.train.augment import NONE, Augmentation, augment_sample
from posecli.train.loss import box_loss_sum
from posecli.train.proposals import disturbed_box, sides_in_crop

BOX = np.array([40.0, 30, 100, 150])


@given(seed=st.integers(0, 10_000))
def test_disturbed_boxes_overlap_the_person(seed: int) -> None:
    found = disturbed_box(BOX, np.random.default_rng(seed))
    assert geometry.iou([found], [BOX])[0, 0] >= 0.25


def test_sides_of_the_crop_that_inference_makes() -> None:
    """The box's centre is the crop's, and its longer relation to the crop is 1 / padding."""
    matrix = geometry.crop_matrices(BOX, (256, 192), 1.25)[0]
    sides, weight = sides_in_crop(BOX, matrix, (256, 192))
    # Corners are continuous, pixel centres at integers: half a pixel of the crop apart.
    assert np.allclose(sides[[1, 3]], [0.1, 0.9], atol=0.5 / 256 + 1e-6) and weight == 1
    assert sides[0] + sides[2] == pytest.approx(1, abs=1.01 / 192)


def test_sides_are_what_crop_to_source_inverts() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (180, 140, 3), np.uint8)
    points, weights = random.uniform(45, 95, (17, 2)), np.ones(17)
    augmentation = Augmentation(
        flip_p=0.5, scale=0.3, shift=0.1, rotation_p=0, half_body_p=0.5, truncation_p=0, proposal_p=0.5
    )
    seen = 0
    for seed in range(20):
        _, moved, _, sides, weight = augment_sample(
            pixels, BOX, points, weights, COCO17, (64, 48), augmentation, np.random.default_rng(seed)
        )
        width, height = np.ptp(sides[[0, 2]]) * 48, np.ptp(sides[[1, 3]]) * 64
        scale = np.ptp(moved[:, 0]) / np.ptp(points[:, 0])
        assert (width, height) == pytest.approx((60 * scale, 120 * scale), rel=1e-3) and weight == 1
        seen += 1
    assert seen == 20


def test_turned_crops_teach_no_box() -> None:
    turned = Augmentation(flip_p=0, scale=0, shift=0, rotation=60, rotation_p=1, half_body_p=0, truncation_p=0)
    pixels, points = np.zeros((180, 140, 3), np.uint8), np.tile([60.0, 90], (17, 1))

    def weight(seed: int) -> float:
        random = np.random.default_rng(seed)
        return augment_sample(pixels, BOX, points, np.ones(17), COCO17, (64, 48), turned, random).sides_weight

    assert 0 < sum(weight(seed) for seed in range(30)) < 30


def test_box_loss_is_zero_for_the_right_box_and_counts_by_weight() -> None:
    wanted = torch.tensor([[0.1, 0.1, 0.9, 0.9], [0.2, 0.0, 0.6, 1.2]])
    assert float(box_loss_sum(wanted, wanted, torch.ones(2))) == pytest.approx(0, abs=1e-5)
    wrong = wanted + torch.tensor([0.1, 0, 0.1, 0])
    both = box_loss_sum(wrong, wanted, torch.ones(2))
    first = box_loss_sum(wrong, wanted, torch.tensor([1.0, 0]))
    second = box_loss_sum(wrong, wanted, torch.tensor([0, 1.0]))
    assert float(both) == pytest.approx(float(first + second)) and float(second) > float(first) > 0


def test_nothing_is_drawn_for_a_chance_of_zero() -> None:
    assert NONE.proposal_p == 0 and Augmentation().proposal_p == 0
