"""Training samples: augmentation, reproducibility, several processes."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.keypoints import COCO17
from posecli.train.augment import NONE, Augmentation, augment_sample
from posecli.train.batches import batches
from posecli.train.distributed import Distributed
from posecli.train.packing import Crops
from posecli.train.recipe import Stage
from posecli.train.samples import sample_order
from tests.dotted_people import crops, dataset, dot_colour_error, sample_of, tiny_recipe

__all__ = ["crops", "dataset"]  # fixtures


@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_augmented_keypoints_stay_on_their_dots(crops: Crops, seed: int) -> None:
    """Scale, shift, rotation, half body and the flip with its swap of left and right: pixels and points move alike."""
    # Cuts, of which test_augment.py tells, leave too few dots for a median; few pixels change their colours.
    pixels_as_they_are = {"colour": 0, "blur_p": 0, "erasing_p": 0, "downscale_p": 0, "truncation_p": 0}
    augmentation = Augmentation(flip_p=0.5, rotation=80, scale=0.4, **pixels_as_they_are)
    random = np.random.default_rng(seed)
    row = seed % len(crops)
    pixels, points, weights, _, _ = augment_sample(*sample_of(crops, row), COCO17, (256, 192), augmentation, random)
    orders = (list(range(17)), list(COCO17.flip_indices))
    if (weights > 0).sum() >= 4:
        assert min(dot_colour_error(pixels, points, weights, order) for order in orders) < 30


def test_the_same_number_is_the_same_sample_wherever_a_run_resumes(crops: Crops) -> None:
    recipe = tiny_recipe()
    stage = Stage((64, 64), 40, 8)
    whole = list(batches(crops, recipe, stage, 0, 40))
    rest = list(batches(crops, recipe, stage, 16, 40))
    for a, b in zip(whole[2:], rest, strict=True):
        assert torch.equal(a.crops, b.crops) and torch.equal(a.points, b.points) and a.ids == b.ids
    assert sorted(sample_order(12, 0, 3)) == list(range(12))
    seen = [person for batch in whole for person in batch.ids]
    everybody = sorted(crops.people.ids)
    assert sorted(seen[:12]) == everybody and sorted(seen[12:24]) == everybody


def test_without_augmentation_a_sample_is_the_crop_of_inference(crops: Crops) -> None:
    from posecli.pose.crops import cut_crops

    people = crops.people
    random = np.random.default_rng(0)
    pixels = augment_sample(*sample_of(crops, 0), COCO17, (64, 64), NONE, random).crop
    expected, _ = cut_crops([crops.pixels(0)], [people.boxes[0][None].astype(np.float32)], (64, 64), 1.25)
    assert np.abs(pixels.astype(int) - expected[0]).mean() < 1


def test_processes_share_each_epoch_without_overlap(crops: Crops) -> None:
    stage = Stage((32, 32), 30, 8)
    shares = [list(batches(crops, tiny_recipe(), stage, 0, 30, Distributed(rank, 3))) for rank in range(3)]
    alone = list(batches(crops, tiny_recipe(), stage, 0, 30))
    for whole, *parts in zip(alone, *shares, strict=True):
        counted = [person for part in parts for person in part.ids if bool(part.weights.any())]
        assert sorted(counted) == sorted(whole.ids) and {part.samples for part in parts} == {whole.samples}
    tail = next(iter(batches(crops, tiny_recipe(), Stage((32, 32), 1, 8), 0, 1, Distributed(1, 2))))
    assert tail.samples == 1 and not tail.weights.any() and tail.present.tolist() == [-1]
