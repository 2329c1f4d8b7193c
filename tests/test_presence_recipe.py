"""The recipes of the person score: which boxes are people's, and which nobody's, to train on."""

import importlib
import json
import struct
import zlib
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
def recipes() -> tuple[ModuleType, ModuleType]:
    """fit_presence and propose_nobody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPES))
        return importlib.import_module("fit_presence"), importlib.import_module("propose_nobody")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the training data is: photos of one person, and many of nobody."""
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
def test_share_on_against_counted_pixels(recipes: tuple[ModuleType, ModuleType], seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.integers(0, 12, (5, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1).astype(float)
    masks = np.zeros((5, 14, 14), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    expected = [max((masks[i] & masks[j]).sum() for j in (3, 4)) / masks[i].sum() for i in range(3)]
    np.testing.assert_allclose(recipes[0].share_on(boxes[:3], boxes[3:]), expected)
    assert not recipes[0].share_on(boxes[:3], np.zeros((0, 4))).any()


def test_labels_of_boxes(recipes: tuple[ModuleType, ModuleType]) -> None:
    people = [{"id": 7, "bbox": [0, 0, 10, 20]}, {"id": 9, "bbox": [50, 0, 10, 10], "iscrowd": 1}]
    boxes = np.array([[0, 0, 10, 18], [0, 0, 10, 8], [51, 1, 55, 5], [80, 80, 90, 90]], float)
    assert recipes[0].label(boxes, people, True).tolist() == [7, -1, -1, 0]
    assert recipes[0].label(boxes, people, False).tolist() == [7, -1, -1, -1]
    assert recipes[0].label(boxes, [], True).tolist() == [0, 0, 0, 0]


def test_photos_of_nobody_are_searched_in_parts(recipes: tuple[ModuleType, ModuleType]) -> None:
    """A detector that always finds the view's own box gives every part's place in the photo."""

    def detector(frames: list[Frame], names: list[str]) -> list[Detections]:
        height, width = frames[0].pixels.shape[:2]
        return [Detections(np.array([[0, 0, width, height]], np.float32), np.array([width / 1000], np.float32))]

    boxes, scores = recipes[1].propose(picture(120, 90), detector, True)
    assert len(boxes) == 6 and boxes[0].tolist() == [0, 0, 120, 90] and scores[0] == np.float32(0.12)
    assert [40, 30, 120, 90] in boxes.tolist() and [20, 15, 100, 75] in boxes.tolist()
    assert len(recipes[1].propose(picture(120, 90), detector, False)[0]) == 1


def test_boxes_of_nobody_overlap_nobody_and_come_from_no_held_out_photo(
    recipes: tuple[ModuleType, ModuleType], data: Path, tmp_path: Path
) -> None:
    fit, propose = recipes
    found = CliRunner().invoke(
        propose.main,
        ["--data", str(data), "--weights", str(find_weights("person")), "--out", str(tmp_path), "--lowest", "0.03"],
        catch_exceptions=False,
    )
    assert found.exit_code == 0, found.output
    document = json.loads((tmp_path / "everyday.json").read_text())
    people = np.array([[20, 10, 80, 90]], float)
    for annotation in document["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert fit.share_on(np.array([[x, y, x + width, y + height]]), people)[0] <= propose.OVERLAP
    held = {f"none{i}.png" for i in range(24) if fit.is_held_out("person_none", f"none{i}.png")}
    used = {image["file_name"] for image in json.loads((tmp_path / "nobody.json").read_text())["images"]}
    assert held and used and not used & held


def test_more_photos_of_nobody_are_one_more_table(
    recipes: tuple[ModuleType, ModuleType], data: Path, tmp_path: Path
) -> None:
    for name in ("b.jpg", "a.jpg"):
        cv2.imwrite(str(tmp_path / name), picture(60, 40))
    (tmp_path / "notes.txt").write_text("no photo")
    *_, (table, folder, document) = recipes[0].read_tables(data, tmp_path)
    assert (table, folder, document["annotations"]) == ("person_none", tmp_path, [])
    assert [image["file_name"] for image in document["images"]] == ["a.jpg", "b.jpg"]
    assert len(list(recipes[0].read_tables(data, None))) == 3


def resource_file(files: dict[str, bytes], compressed: set[str]) -> bytes:
    """A Qt resource file, version 1, with one folder of these files: magic, version, where what begins; then that."""
    names = data = b""
    places: dict[str, tuple[int, int]] = {}
    for name, content in {"art": b"", **files}.items():
        stored = struct.pack(">I", len(content)) + zlib.compress(content) if name in compressed else content
        places[name] = (len(names), len(data))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        data += struct.pack(">I", len(stored)) + stored
    tree = struct.pack(">IHII", 0, 2, 1, 1)  # the root, with one child from node 1 on
    tree += struct.pack(">IHII", places["art"][0], 2, len(files), 2)
    for name in files:
        tree += struct.pack(">IHHHI", places[name][0], name in compressed, 0, 0, places[name][1])
    start = 20
    return (
        struct.pack(">4sIIII", b"qres", 1, start, start + len(tree), start + len(tree) + len(data))
        + tree
        + data
        + names
    )


def test_photos_of_nobody_come_out_of_packages_and_their_resource_files(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPES))
        copies = importlib.import_module("photos_of_nobody")
        (tmp_path / "list.txt").write_text(
            "cats art/cat.png\ncats art/big.png\ntools bin/saw.png\ntools bin/gone.png\n"
        )
        patch.setattr(copies, "LIST", tmp_path / "list.txt")
        pictures = {"cat.png": picture(50, 40), "big.png": picture(900, 600), "dog.png": picture(30, 30)}
        files = {name: cv2.imencode(".png", pixels)[1].tobytes() for name, pixels in pictures.items()}
        for folder in ("cats", "tools/bin", "others"):
            (tmp_path / "packages" / folder).mkdir(parents=True)
        (tmp_path / "packages/cats/all.rcc").write_bytes(resource_file(files, {"big.png"}))
        (tmp_path / "packages/tools/bin/saw.png").write_bytes(files["cat.png"])
        out = tmp_path / "out"
        result = CliRunner().invoke(copies.main, ["--packages", str(tmp_path / "packages"), "--out", str(out)])
        assert result.exit_code == 0 and "3 photos" in result.output and "1 not found" in result.output
        sizes = {path.name: cv2.imread(str(path)).shape[:2] for path in out.iterdir()}
        assert sizes == {"cats-art-cat.jpg": (40, 50), "cats-art-big.jpg": (427, 640), "tools-bin-saw.jpg": (40, 50)}
        (tmp_path / "packages/others/bad.rcc").write_bytes(b"qres" + bytes(40))
        (tmp_path / "list.txt").write_text("others art/cat.png\n")
        result = CliRunner().invoke(copies.main, ["--packages", str(tmp_path / "packages"), "--out", str(out)])
        assert result.exit_code == 1 and "not a Qt resource file" in result.output
