"""Training with augmentation on a torch device: the samples of numpy, resident or not, and the same curve."""

import csv
import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from posecli.device.images import upload
from posecli.keypoints import COCO17
from posecli.pose.config import PoseConfig
from posecli.train.augment import Augmentation, apply_changes, crop_of, draw_changes, plan_sample
from posecli.train.batches import batches
from posecli.train.data import People
from posecli.train.device_augment import crops_on_device
from posecli.train.loop import train
from posecli.train.packing import Crops
from posecli.train.pixel_store import PixelStore
from posecli.train.recipe import Recipe, Stage
from tests.media_factory import picture

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
NOTHING = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
KINDS = {
    "moved": {"flip_p": 0.5, "scale": 0.4, "rotation": 60.0, "rotation_p": 0.6, "shift": 0.1, "half_body_p": 0.3},
    "hidden": {"truncation_p": 1.0},
    "colour": {"colour": 0.3},
    "downscaled": {"downscale_p": 1.0},
    "blurred": {"blur_p": 1.0},
    "erased": {"erasing_p": 1.0},
}


@pytest.fixture(scope="module")
def crops() -> Crops:
    """A dozen people, each a dark disc at its keypoints; made without packing, which needs av."""
    random = np.random.default_rng(4)
    jpegs, boxes, keypoints = [], [], []
    for i in range(12):
        pixels, box = picture(90 + i, 120 + i, i), np.array([15.0, 20, 75, 105])
        points = random.uniform(box[:2] + 5, box[2:] - 5, (17, 2))
        for k, point in enumerate(points):
            cv2.circle(pixels, point.round().astype(int).tolist(), 4, (15 * k, 255 - 15 * k, 128), -1)
        jpegs.append(cv2.imencode(".jpg", pixels[..., ::-1])[1].ravel())
        boxes.append(box)
        keypoints.append(points)
    names = [f"{i}" for i in range(12)]
    people = People(
        COCO17, tuple(map(Path, names)), tuple(names), np.stack(boxes), np.stack(keypoints), np.ones((12, 17))
    )
    ends = np.cumsum([len(jpeg) for jpeg in jpegs])
    spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    return Crops(people, np.concatenate(jpegs), spans, np.zeros((12, 5), np.uint8))


def tiny_recipe(samples: int = 64) -> Recipe:
    model = PoseConfig(deconv_channels=(8,), input_size=(64, 64), sigma=(3, 3))
    half = samples // 2
    return Recipe(model, (Stage((32, 32), half, 8), Stage((64, 64), half, 8, lr_factor=0.5)), warmup_samples=16)


def both(augmentation: Augmentation, device: str, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Crops (N, H, W, 3) of the same random numbers, by OpenCV and on a device."""
    random = np.random.default_rng(1)
    images = [picture(140 + i, 100 + 3 * i, i) for i in range(4)]
    places = upload(images, torch.device(device))
    plans, owners = [], []
    for number in range(count):
        owner = number % len(images)
        height, width = images[owner].shape[:2]
        box = np.array([0.2 * width, 0.2 * height, 0.8 * width, 0.9 * height])
        points = random.uniform(box[:2], box[2:], (17, 2))
        labels = box, points, np.ones(17)
        sized = (64, 48), augmentation, random, 1.25
        plans.append(plan_sample((height, width), *labels, COCO17, *sized, lambda: int(random.integers(4))))
        owners.append(owner)
    beyond = [plan.beyond for plan in plans]
    expected = [
        crop_of(plan, images[owner], None if other is None else images[other], (64, 48))
        for plan, owner, other in zip(plans, owners, beyond, strict=True)
    ]
    found = crops_on_device(
        [places[i] for i in owners], [None if i is None else places[i] for i in beyond], plans, (64, 48)
    )
    return np.stack(expected), found.cpu().numpy()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_each_step_on_a_device_is_opencvs_within_a_level(device: str, kind: str) -> None:
    expected, found = both(dataclasses.replace(NOTHING, **KINDS[kind]), device)
    apart = np.abs(expected.astype(int) - found.astype(int))
    # A level of the warp is two after a change of contrast, or a second interpolation.
    assert apart.max() <= (1 if kind in ("moved", "erased", "blurred") else 2)
    assert np.quantile(apart, 0.995) <= 1 and expected.std() > 20


@pytest.mark.parametrize("device", DEVICES)
def test_all_steps_together_are_near(device: str) -> None:
    expected, found = both(Augmentation(truncation_p=0.4, blur_p=0.4, downscale_p=0.4), device, 60)
    apart = np.abs(expected.astype(int) - found.astype(int))
    assert apart.max() <= 4 and apart.mean() < 0.3


def test_changes_are_drawn_as_they_are_applied() -> None:
    crop = picture(48, 64)
    for seed in range(5):
        changes = draw_changes((64, 48), Augmentation(), np.random.default_rng(seed))
        assert apply_changes(crop.copy(), changes).shape == crop.shape


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("limit", "workers"), [(0, 0), (10**9, 0), (10**9, 1)])
def test_batches_of_a_store_are_those_of_numpy(crops: Crops, device: str, limit: int, workers: int) -> None:
    recipe, stage, where = tiny_recipe(), Stage((64, 64), 24, 8), torch.device(device)
    sources: dict[str, Crops | None] = {"people": crops, "negatives": crops, "unlabelled": None}
    store = PixelStore(where, sources, limit)
    assert store.resident == bool(limit)
    for teacher in (None, (96, 96)):
        expected = list(batches(crops, recipe, stage, 0, 24, negatives=crops, teacher_size=teacher))
        found = list(batches(crops, recipe, stage, 0, 24, negatives=crops, teacher_size=teacher, device=where,
                             store=store, workers=workers))  # fmt: skip
        for a, b in zip(expected, found, strict=True):
            assert a.ids == b.ids and a.samples == b.samples and b.crops.device.type == device
            for name in ("points", "weights", "present", "sides", "sides_weights", "taught", "weight_sum"):
                assert torch.equal(getattr(a, name), getattr(b, name).cpu()), name
            assert a.crops.shape == b.crops.shape and (a.large is None) == (b.large is None)
            assert (a.crops.int() - b.crops.cpu().int()).abs().float().mean() < 0.3
            halves = b.parts(2)
            assert [len(half.crops) for half in halves] == [4, 4]


def curve(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("device", DEVICES)
def test_a_training_with_it_has_the_same_curve(crops: Crops, tmp_path: Path, device: str) -> None:
    """And a training that is resumed ends in the same bytes on a CPU, where kernels are deterministic."""
    recipe = Recipe(
        model=PoseConfig(
            backbone="cspnext",
            widths=(8, 16, 32, 64, 128),
            blocks=(1, 1, 1, 1),
            deconv_channels=(8,),
            input_size=(64, 64),
            sigma=(3, 3),
            person_score=True,
        ),
        stages=(Stage((32, 32), 800, 8), Stage((64, 64), 400, 8)),
        warmup_samples=100,
    )
    for name, where, on_device in (("numpy", "cpu", False), ("device", device, True)):
        train(recipe, crops, tmp_path / name, negatives=crops, device=where, device_augmentation=on_device)
    first, second = (np.array(curve(tmp_path / name)) for name in ("numpy", "device"))
    assert len(first) == len(second) >= 3 and first[-1] < first[0] - 0.1
    np.testing.assert_allclose(first, second, rtol=0.1)


@pytest.mark.gpu
def test_a_training_on_a_gpu_uses_bfloat16_and_can_be_compiled(crops: Crops, tmp_path: Path) -> None:
    recipe = dataclasses.replace(tiny_recipe(128), precision="bf16")
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        assert train(recipe, crops, folder, device="cuda", compiled=compiled).is_file()
        assert np.isfinite(curve(folder)).all()
