"""Categories of COCO files, and results with the file's own ids."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posecli.annotations.boxes import read_person_boxes
from posecli.annotations.coco_keypoints import read_annotations
from posecli.detect.boxes import read_boxes
from posecli.errors import DataError, UsageError
from posecli.evaluate.ground_truth import read_ground_truth
from posecli.evaluate.predictions import read_results
from posecli.evaluate.scoring import score_keypoints
from posecli.keypoints import COCO17
from tests.annotations_factory import dataset, each, renamed, with_hand, write

__all__ = ["write"]  # fixtures


def test_the_category_is_told_and_can_be_chosen(write: Callable[[Any], Path]) -> None:
    path = write(with_hand())
    found = read_annotations(path)
    assert len(found.people) == 6 and any('"person" (id 1) taken beside "hand" (id 2)' in note for note in found.notes)
    for wanted in ("hand", "HAND", "2"):
        hands = read_annotations(path, wanted)
        assert [person["id"] for person in hands.people] == [50] and hands.keypoint_set.names == ("a", "b", "c")
    with pytest.raises(UsageError, match=r'--category "foot".*"hand" \(id 2\), "person" \(id 1\)'):
        read_annotations(path, "foot")
    document = with_hand()
    document["categories"][1]["name"] = "dancer"
    assert read_annotations(write(document)).category.name == "dancer"  # more annotations
    document["categories"][0]["name"] = "Person"
    assert read_annotations(write(document)).category.id == 2


def test_boxes_are_of_the_person_whatever_its_number(write: Callable[[Any], Path]) -> None:
    def boxes(categories: Any, ids: list[Any]) -> int:
        images = [{"id": 1, "file_name": "a.jpg"}]
        annotations = [{"image_id": 1, "category_id": i, "bbox": [n, 0, 9, 9]} for n, i in enumerate(ids)]
        document = {"images": images, "annotations": annotations, "categories": categories}
        return len(read_person_boxes(write(document)).boxes)

    person, ball = {"id": 3, "name": "Person"}, {"id": 1, "name": "ball"}
    assert boxes([ball, person], [3, 3, 1]) == 2
    assert boxes([ball, {"id": 0, "name": "x", "keypoints": ["a"]}], [0, 1]) == 1
    assert boxes([{"id": 0, "name": "human"}], [0, 0]) == 2
    assert boxes([{"id": "p", "name": "person"}], ["p"]) == 1
    assert boxes(None, [0, 0]) == 2 and boxes(None, [7, 1, 1]) == 2
    for categories, ids, words in (
        ([ball, person], [1, 1], r"none of its 2 boxes is of category \"Person\" \(id 3\): 2 of \"ball\""),
        ([ball, {"id": 2, "name": "car"}], [1, 2], "no category is called person"),
        (None, [5, 6], "is of category 1, people: they are of 5, 6"),
    ):
        with pytest.raises(DataError, match=words):
            boxes(categories, ids)
    results = [{"image_id": 1, "category_id": 0, "bbox": [0, 0, 5, 5], "score": 0.9}] * 3
    found = read_boxes(write(results))
    assert len(found.by_id[1]) == 3 and "boxes of category 0 taken" in found.notes[0]


def test_boxes_of_pictures_named_by_text(write: Callable[[Any], Path]) -> None:
    entries = [{"image_id": i, "bbox": [0, 0, 5, 5], "score": 0.9} for i in ("holiday", "b.jpg", "00012")]
    table = read_boxes(write(entries))
    assert [len(table.of(name)) for name in ("x/holiday.png", "b.jpg", "12.jpg", "other.jpg")] == [1, 1, 1, 0]


def test_results_keep_the_ids_of_the_file(write: Callable[[Any], Path], tmp_path: Path) -> None:
    document = dataset()
    renamed(lambda i: f"frame-{i}")(document)
    document["categories"][0]["id"] = "p"
    each("annotations", category_id="p")(document)
    path = write(document)
    truth = read_ground_truth(path, path.parent, needs_images=False)
    results = tmp_path / "r.json"
    items = [{"image_id": a["image_id"], "category_id": "p", "keypoints": a["keypoints"], "score": 1}
             for a in document["annotations"]]  # fmt: skip
    results.write_text(json.dumps(items))
    found = read_results(results, truth)
    assert score_keypoints(truth.dataset, found.results, COCO17).values["AP"] == 1
    assert [truth.own_result(item)["image_id"] for item in found.results] == [a["image_id"] for a in items]
    assert truth.own_result(found.results[0])["category_id"] == "p"


def test_results_by_text_are_matched_or_the_difference_is_seen(write: Callable[[Any], Path], tmp_path: Path) -> None:
    truth = read_ground_truth(write(dataset()), tmp_path, needs_images=False)
    results = tmp_path / "r.json"

    def read(image_id: Any) -> Any:
        item = {"image_id": image_id, "category_id": 1, "keypoints": [1, 1, 1] * 17, "score": 1}
        results.write_text(json.dumps([item]))
        return read_results(results, truth)

    assert 'first: "1" for 1' in read("1").remarks[0]
    with pytest.raises(DataError, match='not in the annotations: "1a"; there they are like 1'):
        read("1a")


@pytest.mark.filterwarnings("error")
def test_results_beyond_all_size_are_far_away(write: Callable[[Any], Path], tmp_path: Path) -> None:
    truth = read_ground_truth(write(dataset()), tmp_path, needs_images=False)
    results = tmp_path / "r.json"
    items = [{"image_id": 1, "keypoints": [1e308, -1e308, 1] * 17, "score": score} for score in (1e308, 0.5)]
    results.write_text(json.dumps(items))
    found = read_results(results, truth)
    assert np.isfinite(found.keypoints).all() and np.isfinite(found.scores).all()
    assert score_keypoints(truth.dataset, found.results, COCO17).values["AP"] == 0
