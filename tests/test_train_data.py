"""Training data: packed crops, broken labels, missing images, fingerprints."""

import json
import shutil
from pathlib import Path

import pytest

from posecli.errors import DataError
from posecli.train.data import Source, read_people
from posecli.train.packing import Crops
from posecli.weights.fingerprints import fingerprint, overlap
from tests.dotted_people import NAMES, crops, dataset, dot_colour_error, source

__all__ = ["crops", "dataset"]  # fixtures


def test_packed_crops_show_their_keypoints(crops: Crops) -> None:
    assert len(crops) == 12
    for i in range(len(crops)):
        points, weights = crops.people.keypoints[i], crops.people.weights[i]
        assert dot_colour_error(crops.pixels(i), points, weights, list(range(17))) < 20


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keypoints": [1, 2, 3]}, "3 keypoint values, not 51"),
        ({"keypoints": [float("nan"), 5, 2] * 17}, "not finite|not JSON"),
        ({"keypoints": [0, 0, 0] * 17}, "no person with a labelled keypoint"),
        ({"keypoint_weights": [2] * 17}, "from 0 to 1"),
        ({"image_id": 99}, "no image 99"),
        ({"keypoints": [5000, 5000, 2] * 17}, "17 of 17 keypoints lie outside"),
    ],
)
def test_broken_labels_name_the_annotation(tmp_path: Path, change: dict[str, object], words: str) -> None:
    annotation = {"id": 5, "image_id": 1, "bbox": [0, 0, 9, 9], "keypoints": [1, 2, 2] * 17, **change}
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 90, "height": 90}],
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
        read_people([gone])


def test_fingerprints_know_images_by_name_and_by_content(dataset: Path, tmp_path: Path) -> None:
    trained = sorted((dataset / "train2017").iterdir())
    known = fingerprint(trained)
    assert known["count"] == 12 and len(json.dumps(known)) < 400
    renamed, changed, new = tmp_path / "x.png", tmp_path / trained[1].name, tmp_path / "new.png"
    renamed.write_bytes(trained[0].read_bytes())
    changed.write_bytes(b"other bytes")
    new.write_bytes(b"new")
    assert overlap(known, [renamed, changed, new]) == [renamed, changed]
    assert overlap(known, (dataset / "val2017").iterdir()) == []


def test_missing_images_are_left_out_up_to_a_limit(dataset: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(dataset / "train2017", images)
    (images / "000000.png").unlink()
    half = Source(source(dataset).annotations, images)
    with pytest.raises(DataError, match=r"1 of 12 training images are missing, first .*000000"):
        read_people([half])
    people = read_people([half], missing_limit=0.1)
    assert len(people) == 11 and "000000.png" in people.remarks[0]
    nothing = Source(source(dataset).annotations, tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"12 of 12 training images are missing, first .*none is left"):
        read_people([nothing], missing_limit=1.0)


def test_keypoints_outside_the_image_do_not_count(dataset: Path, tmp_path: Path) -> None:
    document = json.loads(source(dataset).annotations.read_bytes())
    document["annotations"][0]["keypoints"][:3] = [-9, 5, 2]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    people = read_people([Source(path, dataset / "train2017")])
    assert people.weights[0, 0] == 0 and people.weights[0, 1:].all() and "1 of 204 keypoints" in people.remarks[0]


def test_other_categories_are_not_trained_on(dataset: Path, tmp_path: Path) -> None:
    document = json.loads(source(dataset).annotations.read_bytes())
    document["categories"].insert(0, {"id": 9, "name": "dog"})
    document["annotations"].append({"id": 99, "image_id": 1, "category_id": 9, "bbox": [0, 0, 9, 9], "keypoints": [1]})
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    assert len(read_people([Source(path, dataset / "train2017")])) == 12
