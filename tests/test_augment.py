"""Augmentation beyond the 3×3 matrix: truncation and low resolution."""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.keypoints import COCO17
from posecli.train.augment import NONE, augment_sample, truncate

PIXELS = np.random.default_rng(0).integers(1, 255, (120, 160, 3), np.uint8)
BOX = np.array([30.0, 10.0, 130.0, 110.0])


@given(seed=st.integers(0, 10**6), covered=st.booleans())
@settings(max_examples=200, deadline=None)
def test_beyond_the_line_there_are_neither_pixels_nor_keypoints(seed: int, covered: bool) -> None:
    """What is left shows the same pixels; the box ends where they end, and every keypoint that counts lies in it."""
    random = np.random.default_rng(seed)
    keypoints = random.uniform(BOX[:2], BOX[2:], (17, 2))
    weights = (random.random(17) < 0.7).astype(float)
    other = np.zeros((50, 40, 3), np.uint8) + np.array([9, 8, 7], np.uint8)
    pixels, box, left = truncate(PIXELS, BOX, keypoints, weights, random, other if covered else None)
    changed = (pixels != PIXELS).any(axis=-1)
    if not changed.any():
        assert np.array_equal(box, BOX) and np.array_equal(left, weights)
        return
    assert (pixels[changed] == ((9, 8, 7) if covered else (0, 0, 0))).all()
    assert (box != BOX).sum() == 1
    y, x = np.mgrid[:120, :160]
    inside = (x + 0.5 > box[0]) & (x + 0.5 < box[2]) & (y + 0.5 > box[1]) & (y + 0.5 < box[3])
    # The border's own pixel may go to either side.
    assert (changed & inside).sum() <= 160
    kept = left > 0
    assert kept.sum() >= 2 and (keypoints[kept] >= box[:2]).all() and (keypoints[kept] <= box[2:]).all()
    lost = (weights > 0) & ~kept
    assert not ((keypoints[lost] > box[:2]) & (keypoints[lost] < box[2:])).all(axis=1).any()


def test_a_person_with_one_keypoint_left_is_not_cut() -> None:
    keypoints = np.full((17, 2), 60.0)
    weights = np.zeros(17)
    weights[0] = 1
    for seed in range(20):
        pixels, box, left = truncate(PIXELS, BOX, keypoints, weights, np.random.default_rng(seed))
        assert pixels is PIXELS and box is BOX and left is weights


def test_a_coarse_crop_keeps_its_brightness_and_loses_detail() -> None:
    keypoints, weights = np.full((17, 2), 60.0), np.ones(17)
    coarse = dataclasses.replace(NONE, downscale_p=1.0)
    for seed in range(5):
        fine, few = (
            augment_sample(PIXELS, BOX, keypoints, weights, COCO17, (128, 96), kind, np.random.default_rng(seed))[0]
            for kind in (NONE, coarse)
        )
        assert few.shape == fine.shape
        inner = (slice(30, -30), slice(20, -20))
        assert abs(few[inner].mean() - fine[inner].mean()) < 6
        assert few[inner].std() < 0.8 * fine[inner].std()
