"""A small COCO dataset for tests, and changes to it."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posecli.evaluate.ground_truth import read_ground_truth
from posecli.evaluate.scoring import score_keypoints
from tests.test_eval_command import people

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    def to_file(document: Any) -> Path:
        path = tmp_path / "a.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return to_file


def dataset() -> dict[str, Any]:
    """Six people in three images, each with one keypoint that is not labelled."""
    document = copy.deepcopy(dict(people(6, 3).dataset))
    for annotation in document["annotations"]:
        annotation["keypoints"][3:6] = [0, 0, 0]
        annotation["num_keypoints"] = 16
    return document


def each(part: str, **change: Any) -> Change:
    def do(document: dict[str, Any]) -> None:
        for number, entry in enumerate(document[part]):
            for key, value in change.items():
                entry[key] = value(number, entry) if callable(value) else value

    return do


def without(part: str, key: str) -> Change:
    return lambda document: [entry.pop(key) for entry in document[part]] and None


def renamed(new: Callable[[int], Any]) -> Change:
    def do(document: dict[str, Any]) -> None:
        each("images", id=lambda _, entry: new(entry["id"]))(document)
        each("annotations", image_id=lambda _, entry: new(entry["image_id"]))(document)

    return do


def unlabelled(value: Any) -> Change:
    return each("annotations", keypoints=lambda _, a: a["keypoints"][:3] + [value, value, 0] + a["keypoints"][6:])


def nested(document: dict[str, Any]) -> None:
    each("annotations", keypoints=lambda _, a: np.reshape(a["keypoints"], (-1, 3)).tolist())(document)


def category(**fields: Any) -> Change:
    return lambda document: document["categories"][0].update(fields)


def null_entries(document: dict[str, Any]) -> None:
    for part in ("images", "annotations", "categories"):
        document[part].append(None)


def mappings(document: dict[str, Any]) -> None:
    for part in ("images", "annotations"):
        document[part] = {str(entry["id"]): entry for entry in document[part]}


def figures(path: Path) -> dict[str, float]:
    """AP of the truth moved by some pixels."""
    truth = read_ground_truth(path, path.parent, needs_images=False)
    results = []
    for number, person in enumerate(truth.dataset["annotations"]):
        points = np.array(person["keypoints"], float).reshape(17, 3) + (4 + number, 3, 0)
        results.append({"image_id": person["image_id"], "keypoints": points.reshape(-1).tolist(), "score": 0.5})
    return score_keypoints(truth.dataset, results, truth.keypoint_set).values


def with_hand() -> dict[str, Any]:
    document = dataset()
    document["categories"].insert(0, {"id": 2, "name": "hand", "keypoints": ["a", "b", "c"]})
    hand = {"id": 50, "image_id": 1, "category_id": 2, "bbox": [1, 1, 5, 5], "keypoints": [1, 1, 2] * 3}
    document["annotations"].insert(0, hand)
    return document
