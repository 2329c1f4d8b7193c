"""A small data set of people drawn as dots, for training in tests."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from posecli.keypoints import COCO17
from posecli.pose.config import PoseConfig
from posecli.train.data import Source, read_people
from posecli.train.packing import Crops, pack_crops
from posecli.train.recipe import Recipe, Stage
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
    """Twelve images of one dotted person each, laid out as COCO, and the same again for validation."""
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
        stages=(Stage((32, 32), samples // 2, 8), Stage((64, 64), samples // 2, 8, lr_factor=0.5)),
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
