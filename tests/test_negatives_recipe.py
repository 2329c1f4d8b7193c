"""The recipe of the person score's negatives."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.types import Detections, Frame
from posecli.weights.files import find_weights
from tests.media_factory import picture

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """propose_negatives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPES))
        return importlib.import_module("propose_negatives")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the training data is: photos of one person, and many without people."""
    root = tmp_path_factory.mktemp("shared")
    person = {"category_id": 1, "bbox": [20, 10, 60, 80], "iscrowd": 0}
    tables = {
        ("everyday", "everyday/person_keypoints_everyday.json", "everyday/images"): 24,
        ("coco", "coco/annotations/person_keypoints_train2017.json", "coco/train2017"): 2,
        ("none", "negatives/person_none.json", "negatives/images"): 24,
    }
    for (name, table, folder), count in tables.items():
        (root / folder).mkdir(parents=True)
        (root / table).parent.mkdir(parents=True, exist_ok=True)
        images = [{"id": i, "file_name": f"{name}{i}.png", "width": 128, "height": 96} for i in range(count)]
        people = [] if name == "none" else [{**person, "id": i + 1, "image_id": i} for i in range(count)]
        categories = [{"id": 1, "name": "person"}]
        (root / table).write_text(json.dumps({"images": images, "annotations": people, "categories": categories}))
        for i, image in enumerate(images):
            cv2.imwrite(str(root / folder / image["file_name"]), picture(128, 96, i))
    return root


@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_share_on_against_counted_pixels(recipe: ModuleType, seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.integers(0, 12, (5, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1).astype(float)
    masks = np.zeros((5, 14, 14), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    expected = [max((masks[i] & masks[j]).sum() for j in (3, 4)) / masks[i].sum() for i in range(3)]
    np.testing.assert_allclose(recipe.share_on(boxes[:3], boxes[3:]), expected)
    assert not recipe.share_on(boxes[:3], np.zeros((0, 4))).any()


def test_photos_without_people_are_searched_in_parts(recipe: ModuleType) -> None:
    """A detector that always finds the view's own box gives every part's place in the photo."""

    def detector(frames: list[Frame], names: list[str]) -> list[Detections]:
        height, width = frames[0].pixels.shape[:2]
        return [Detections(np.array([[0, 0, width, height]], np.float32), np.array([width / 1000], np.float32))]

    boxes, scores = recipe.propose(picture(120, 90), detector, True)
    assert len(boxes) == 6 and boxes[0].tolist() == [0, 0, 120, 90] and scores[0] == np.float32(0.12)
    assert [40, 30, 120, 90] in boxes.tolist() and [20, 15, 100, 75] in boxes.tolist()
    assert len(recipe.propose(picture(120, 90), detector, False)[0]) == 1


def test_negatives_overlap_no_person_and_come_from_no_held_out_photo(
    recipe: ModuleType, data: Path, tmp_path: Path
) -> None:
    found = CliRunner().invoke(
        recipe.main,
        ["--data", str(data), "--weights", str(find_weights("person")), "--out", str(tmp_path), "--lowest", "0.03"],
        catch_exceptions=False,
    )
    assert found.exit_code == 0, found.output
    document = json.loads((tmp_path / "everyday.json").read_text())
    people = np.array([[20, 10, 80, 90]], float)
    for annotation in document["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert recipe.share_on(np.array([[x, y, x + width, y + height]]), people)[0] <= recipe.OVERLAP
    held = {f"none{i}.png" for i in range(24) if recipe.hold_out.is_held_out_of_detector("person_none", f"none{i}.png")}
    used = {image["file_name"] for image in json.loads((tmp_path / "no_people.json").read_text())["images"]}
    assert held and used and not used & held
