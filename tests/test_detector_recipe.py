"""The recipe of the embedded detector: its parts, and a run in small that is interrupted and goes on."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torchvision.ops import box_iou

from posecli.detect import load_detector
from posecli.detect.person import PersonConfig, level_sizes, locations
from posecli.types import Frame
from posecli.weights.files import find_weights, load_weights
from tests.media_factory import picture

STRIDES = PersonConfig().strides
RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_detector", RECIPES / "train_detector.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_detector"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the training data is: six photos of people, one not fully labelled, three of nobody."""
    root = tmp_path_factory.mktemp("shared")
    person = {"category_id": 1, "bbox": [20, 10, 40, 70], "score": 0.8, "iscrowd": 0}
    crowd = {"category_id": 1, "bbox": [80, 5, 30, 30], "iscrowd": 1}
    tables = {
        ("everyday", "everyday/person_keypoints_everyday.json", "everyday/images"): 5,
        ("coco", "coco/annotations/person_keypoints_train2017.json", "coco/train2017"): 1,
        ("none", "negatives/person_none.json", "negatives/images"): 3,
    }
    for (name, table, folder), count in tables.items():
        (root / folder).mkdir(parents=True)
        (root / table).parent.mkdir(parents=True, exist_ok=True)
        images = [
            {"id": i, "file_name": f"{name}{i}.png", "width": 128, "height": 96, "persons_complete": name != "coco"}
            for i in range(count)
        ]
        people = [] if name == "none" else [{**a, "image_id": i} for i in range(count) for a in (person, crowd)]
        annotations = [{"id": i, **a} for i, a in enumerate(people, 1)]
        (root / table).write_text(json.dumps({"images": images, "annotations": annotations}))
        for i, image in enumerate(images):
            cv2.imwrite(str(root / folder / image["file_name"]), picture(128, 96, i))
    return root


def test_a_run_goes_on_where_it_stopped_and_gives_weights_that_run(
    recipe: ModuleType, data: Path, tmp_path: Path
) -> None:
    def train(images: int) -> dict[str, torch.Tensor]:
        options = ["--data", data, "--init", find_weights("person"), "--out", tmp_path, "--images", images]
        options += ["--batch-size", 4, "--size", 64, "--size", 96, "--run-size", 96, "--freeze", 14]
        result = CliRunner().invoke(recipe.main, [str(option) for option in options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        tensors, header = load_weights(tmp_path / "person.safetensors")
        assert header["training"]["images"] == images and header["training"]["sizes"] == [64, 96]
        return tensors

    before, after = train(4), train(8)
    assert before.keys() == after.keys() == load_weights(find_weights("person"))[0].keys()
    assert all(torch.isfinite(value).all() for value in after.values() if value.is_floating_point())
    key = "head.classification_head.cls_logits.weight"
    assert not torch.equal(before[key], after[key])
    assert torch.equal(before["backbone.body.0.0.weight"], after["backbone.body.0.0.weight"])
    detector = load_detector("person", device="cpu", runtime="torch", weights=tmp_path / "person.safetensors")
    assert detector([Frame(picture())], ["x"])[0].boxes.shape[1] == 4


def test_labels_move_with_the_picture_and_crowds_are_not_asked(recipe: ModuleType, data: Path, tmp_path: Path) -> None:
    photos = recipe.read_photos(data, tmp_path)
    assert [len(p.labels.boxes) for p in photos] == [1] * 6 + [0] * 3
    assert photos[0].labels.weights == pytest.approx(1.0)
    centres, sizes = locations((96, 128), STRIDES)
    index = recipe.assign(photos[0].labels, centres, sizes)
    inside = (centres >= torch.tensor([80, 5])).all(1) & (centres <= torch.tensor([110, 35])).all(1)
    assert (index[inside] == -2).all() and (index == 0).any() and (index[~inside] >= -1).all()
    assert (recipe.assign(photos[5].labels, centres, sizes) != -1).all(), "a photo not fully labelled has no background"
    for seed in range(20):
        _, labels = recipe.place(photos[0], (96, 128), 0.6, 1.7, np.random.default_rng(seed))
        assert (labels.boxes >= 0).all() and (labels.boxes[:, 2:] <= (128, 96)).all()


def test_empty_parts_have_nobody_in_them(recipe: ModuleType) -> None:
    """People are painted red: no red is left."""
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[10:80, 20:60] = (0, 0, 255)
    boxes = np.array([[20, 10, 60, 80]], np.float32)
    labels = recipe.Labels(boxes, np.ones(1, np.float32), np.zeros((0, 4), np.float32))
    photo = recipe.Photo(cv2.imencode(".png", pixels)[1].ravel(), labels, False)
    parts = [recipe.empty_part(photo, (40, 50), np.random.default_rng(seed)) for seed in range(30)]
    found = [part for part in parts if part is not None]
    assert len(found) > 10
    for part, nobody in found:
        assert part.shape == (40, 50, 3) and not len(nobody.boxes)
        assert part[..., 0].max() < 128


def test_overlap_of_pairs_equals_torchvisions(recipe: ModuleType) -> None:
    torch.manual_seed(0)
    first, second = (torch.cat([p, p + torch.rand(50, 2) * 9 + 0.1], 1) for p in torch.rand(2, 50, 2) * 10)
    torch.testing.assert_close(recipe.pair_iou(first, second), box_iou(first, second).diagonal())


@pytest.mark.parametrize("size", [(416, 416), (256, 416), (320, 192)])
def test_locations_lie_where_the_convolutions_look(size: tuple[int, int]) -> None:
    centres, sizes = locations(size, STRIDES)
    assert len(centres) == len(sizes) == sum(h * w for h, w in level_sizes(size, STRIDES))
    for stride in STRIDES:
        of_level = centres[sizes == stride]
        assert (of_level % stride == 0).all() and (of_level < torch.tensor(size[::-1])).all()
