"""Training: data, augmentation, loss, schedule, resuming, the command."""

import csv
import dataclasses
import json
import math
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.errors import DataError, PosecliError
from posecli.keypoints import COCO17
from posecli.pose.codec import encode
from posecli.pose.config import PoseConfig
from posecli.pose.estimator import load_network
from posecli.train.augment import NONE, Augmentation, draw_sample
from posecli.train.data import Crops, Source, pack_crops, read_people
from posecli.train.loop import batches, build_model, freeze, parameter_groups, sample_order, train
from posecli.train.loss import kl_sums
from posecli.train.recipe import Recipe, Stage
from tests.doors import posecli
from tests.media_factory import write_photo

NAMES = list(COCO17.names)


def dots(seed: int, size: tuple[int, int] = (160, 120)) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a coloured dot at every keypoint, and the keypoints (17, 3)."""
    random = np.random.default_rng(seed)
    points = random.uniform(0.2, 0.8, (17, 2)) * (size[0], size[1])
    pixels = np.full((size[1], size[0], 3), 30, np.uint8)
    for i, point in enumerate(points):
        colour = (int(60 + 11 * i), int(250 - 12 * i), 128)
        cv2.circle(pixels, np.rint(point * 16).astype(int).tolist(), 5 * 16, colour, -1, cv2.LINE_AA, 4)
    return pixels, np.concatenate([points, np.full((17, 1), 2.0)], axis=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of one dotted person each, laid out as COCO, and the same again to judge by."""
    root = tmp_path_factory.mktemp("coco")
    for part, first in (("train2017", 0), ("val2017", 100)):
        images, annotations = [], []
        for i in range(12):
            pixels, points = dots(first + i)
            write_photo(root / part / f"{first + i:06d}.png", pixels)
            images.append({"id": i + 1, "file_name": f"{first + i:06d}.png", "width": 160, "height": 120})
            annotations.append(
                {
                    "id": i + 1,
                    "image_id": i + 1,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [25, 18, 110, 84],
                    "area": 5000,
                    "num_keypoints": 17,
                    "keypoints": points.reshape(-1).tolist(),
                }
            )
        category = {"id": 1, "name": "person", "keypoints": NAMES, "skeleton": []}
        (root / "annotations").mkdir(exist_ok=True)
        document = {"images": images, "annotations": annotations, "categories": [category]}
        (root / "annotations" / f"person_keypoints_{part}.json").write_text(json.dumps(document))
    return root


def source(dataset: Path, weight: float = 1.0) -> Source:
    return Source(dataset / "annotations" / "person_keypoints_train2017.json", dataset / "train2017", weight)


@pytest.fixture(scope="module")
def crops(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Crops:
    return pack_crops(read_people([source(dataset)]), tmp_path_factory.mktemp("crops"), height=192)


def tiny_recipe(samples: int = 64, **changes: object) -> Recipe:
    recipe = Recipe(
        model=PoseConfig(deconv_channels=(8,), input_size=(64, 64), sigma=(3, 3)),
        stages=(Stage((32, 32), samples // 2, 8), Stage((64, 64), samples // 2, 8, rate=0.5)),
        warmup_samples=16,
    )
    return dataclasses.replace(recipe, **changes)  # type: ignore[arg-type]


def sample_of(crops: Crops, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    people = crops.people
    return crops.pixels(row), people.boxes[row], people.keypoints[row], people.weights[row]


def dot_colour_error(pixels: np.ndarray, points: np.ndarray, weights: np.ndarray, order: list[int]) -> float:
    """How far the colours under the keypoints are from those painted there, in levels."""
    errors = []
    for place, (x, y) in enumerate(points):
        if weights[place] > 0 and 3 < x < pixels.shape[1] - 4 and 3 < y < pixels.shape[0] - 4:
            i = order[place]
            painted = np.array([60 + 11 * i, 250 - 12 * i, 128])
            errors.append(np.abs(pixels[round(y), round(x)].astype(float) - painted).max())
    return float(np.median(errors))


def test_packed_crops_show_their_keypoints(crops: Crops) -> None:
    assert len(crops) == 12
    for i in range(len(crops)):
        points, weights = crops.people.keypoints[i], crops.people.weights[i]
        assert dot_colour_error(crops.pixels(i), points, weights, list(range(17))) < 20


@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_augmented_keypoints_stay_on_their_dots(crops: Crops, seed: int) -> None:
    """Scale, shift, rotation, half body and the mirror with its swap of sides: pixels and points move alike."""
    augmentation = Augmentation(flip_p=0.5, rotation=80, colour=0, blur_p=0, dropout_p=0, scale=0.4)
    random = np.random.default_rng(seed)
    row = seed % len(crops)
    pixels, points, weights = draw_sample(*sample_of(crops, row), COCO17, (256, 192), augmentation, random)
    orders = (list(range(17)), list(COCO17.flip_indices))
    if (weights > 0).sum() >= 4:
        assert min(dot_colour_error(pixels, points, weights, order) for order in orders) < 30


def test_the_same_number_is_the_same_sample_wherever_a_run_resumes(crops: Crops) -> None:
    recipe = tiny_recipe()
    stage = Stage((64, 64), 40, 8)
    whole = list(batches(crops, recipe, stage, 0, 40))
    rest = list(batches(crops, recipe, stage, 16, 40))
    for a, b in zip(whole[2:], rest, strict=True):
        assert torch.equal(a.crops, b.crops) and torch.equal(a.points, b.points) and a.rows == b.rows
    assert sorted(sample_order(12, 0, 3)) == list(range(12))
    seen = [row for batch in whole for row in batch.rows]
    assert sorted(seen[:12]) == list(range(12)) and sorted(seen[12:24]) == list(range(12))


def test_without_augmentation_a_sample_is_the_crop_of_inference(crops: Crops) -> None:
    from posecli.pose.crops import cut_crops

    people = crops.people
    random = np.random.default_rng(0)
    pixels, _, _ = draw_sample(*sample_of(crops, 0), COCO17, (64, 64), NONE, random)
    expected, _ = cut_crops([crops.pixels(0)], [people.boxes[0][None].astype(np.float32)], (64, 64), 1.25)
    assert np.abs(pixels.astype(int) - expected[0]).mean() < 1


def test_loss_against_a_slow_version_and_its_floor() -> None:
    random = np.random.default_rng(0)
    logits = [torch.tensor(random.normal(size=(2, 3, bins)), dtype=torch.float32) for bins in (48, 64)]
    points = torch.tensor(random.uniform(2, 20, (2, 3, 2)), dtype=torch.float32)
    weights = torch.tensor([[1.0, 0.5, 0.0], [0.2, 0.0, 1.0]])
    slow = 0.0
    for axis, sigma in enumerate((2.0, 3.0)):
        z = logits[axis].double().numpy() * 1.5
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        q = encode(points[..., axis].numpy() * 2, z.shape[-1], sigma)
        q = q * 0.9 + 0.1 / z.shape[-1]
        slow += float(((q * np.log(q / p)).sum(-1) * weights.numpy()).sum()) / 2
    total, weight = kl_sums(
        (logits[0], logits[1]), points, weights, split_ratio=2, sigma=(2, 3), temperature=1.5, smoothing=0.1
    )
    assert float(total) == pytest.approx(slow, rel=1e-4) and float(weight) == pytest.approx(2.7)
    perfect = tuple(
        torch.log(torch.tensor(encode(points[..., a].numpy() * 2, b, 2.0)) + 1e-30) for a, b in ((0, 48), (1, 64))
    )
    best, _ = kl_sums((perfect[0], perfect[1]), points, weights, split_ratio=2, sigma=(2, 2))
    assert float(best) == pytest.approx(0, abs=1e-4)


def test_schedule_warms_up_stays_and_falls() -> None:
    recipe = tiny_recipe(1000, warmup_samples=100, flat_share=0.5, learning_rate=1.0)
    rates = [recipe.rate_at(n) for n in range(0, 1001, 10)]
    assert rates[0] < 0.02 and rates[20] == 1.0 and rates[50] == 1.0
    assert all(a >= b for a, b in pairwise(rates[50:]))
    assert rates[-1] == pytest.approx(0.01)
    assert (
        recipe.augmentation_at(799) == recipe.augmentation and recipe.augmentation_at(800) == recipe.weak_augmentation
    )


def test_frozen_blocks_and_decay_groups() -> None:
    recipe = tiny_recipe()
    model = build_model(recipe.model, None, True, 0).train()
    freeze(model, 4)
    blocks = list(model.trunk.children())
    assert not any(p.requires_grad for b in blocks[:4] for p in b.parameters()) and not blocks[3].training
    assert all(p.requires_grad for b in blocks[4:] for p in b.parameters()) and blocks[4].training
    groups = parameter_groups(model, recipe)
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])
    assert sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in model.parameters())


def test_a_resumed_run_ends_in_the_same_weights(crops: Crops, tmp_path: Path) -> None:
    recipe = tiny_recipe(96)
    torch.set_num_threads(1)
    whole = train(recipe, crops, tmp_path / "whole")

    class Stop(Exception):
        pass

    def interrupt(model: object, config: object) -> dict[str, float]:
        raise Stop

    for where in (24, 72):  # once in each stage
        with pytest.raises(Stop):
            train(recipe, crops, tmp_path / "parts", evaluate=interrupt, evaluate_every=where)
    parts = train(recipe, crops, tmp_path / "parts")
    assert whole.read_bytes() == parts.read_bytes()
    rows = list(csv.DictReader((tmp_path / "whole" / "metrics.csv").open()))
    assert int(rows[-1]["samples"]) == 96 and math.isfinite(float(rows[-1]["loss"]))
    network, config = load_network(whole)
    assert config.input_size == (64, 64) and not network.training


def test_a_loss_that_is_not_finite_stops_and_names_the_people(crops: Crops, tmp_path: Path) -> None:
    people = crops.people
    broken = dataclasses.replace(
        people, keypoints=np.full_like(people.keypoints, 60.0), weights=people.weights * np.nan
    )
    with pytest.raises(PosecliError, match="loss is nan"):
        train(tiny_recipe(), Crops(broken, crops.data, crops.offsets), tmp_path)
    assert len((tmp_path / "bad_batch.csv").read_text().split()) == 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keypoints": [1, 2, 3]}, "3 keypoint values, not 51"),
        ({"keypoints": [float("nan"), 5, 2] * 17}, "not finite|not JSON"),
        ({"keypoints": [0, 0, 0] * 17}, "no person with a labelled keypoint"),
        ({"bbox": [1, 2, -3, 4]}, "not x, y, width, height"),
        ({"keypoint_weights": [2] * 17}, "from 0 to 1"),
        ({"image_id": 99}, "no image 99"),
    ],
)
def test_broken_labels_name_the_annotation(tmp_path: Path, change: dict[str, object], words: str) -> None:
    annotation = {"id": 5, "image_id": 1, "bbox": [0, 0, 9, 9], "keypoints": [1, 2, 2] * 17, **change}
    document = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "person", "keypoints": NAMES}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=words):
        read_people([Source(path, tmp_path)])


def test_sources_are_weighted_and_missing_images_counted(dataset: Path, tmp_path: Path) -> None:
    people = read_people([source(dataset), source(dataset, 0.25)])
    assert len(people) == 24 and people.weights[:12].min() == 1 and people.weights[12:].max() == 0.25
    gone = Source(source(dataset).annotations, tmp_path)
    with pytest.raises(DataError, match="12 of 12 training images are missing"):
        pack_crops(read_people([gone]), tmp_path / "cache")


def test_the_command_trains_judges_and_resumes(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--data", dataset, "--runs", tmp_path, "--name", "t", "--stages", "32x32:16,64x64:16"]
    command += ["--deconv", "8", "--batch-size", 8, "--device", "cpu", "--evaluate-every", 16]
    result = posecli(capfd, *command)
    assert result.code == 0, result.err
    folder = tmp_path / "t"
    assert {p.name for p in folder.iterdir()} >= {
        "options.json",
        "metrics.csv",
        "evaluations.csv",
        "state.pt",
        "last.safetensors",
        "best.safetensors",
    }
    assert posecli(capfd, *command).code == 0  # nothing left to do
    other = posecli(capfd, *command, "--rate", 0.1)
    assert other.code == 2 and "learning_rate" in other.err
    sheet = posecli(capfd, *command, "--name", "p", "--preview", 4)
    assert sheet.code == 0 and (tmp_path / "p" / "preview.jpg").is_file()


def test_the_command_refuses_bad_data(dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nothing = posecli(capfd, "train", "--data", tmp_path)
    assert nothing.code == 1 and "give --data" in nothing.err
    train_file, images = dataset / "annotations" / "person_keypoints_train2017.json", dataset / "train2017"
    same = posecli(
        capfd,
        "train",
        "--data",
        dataset,
        "--val-ann",
        train_file,
        "--val-images",
        images,
        "--runs",
        tmp_path,
        "--stages",
        "32x32:8",
    )
    assert same.code == 1 and "12 validation images are trained on" in same.err
    assert posecli(capfd, "train", "--data", dataset, "--stages", "abc").code == 2
    assert posecli(capfd, "train", "--ann", train_file, "--runs", tmp_path).code == 2
