"""The recipe that chooses a detector's default score on held-out photos."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from posecli.detect.person import build_fcos
from posecli.detect.person_config import PersonConfig
from posecli.types import Detections
from posecli.weights.files import load_weights, save_weights

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

from choose_detector import Part, best_score, matched, resized


def test_boxes_are_matched_once_and_uncertain_regions_do_not_count() -> None:
    people = [{"image_id": 1, "bbox": [0, 0, 10, 10]}, {"image_id": 1, "bbox": [50, 50, 20, 20], "iscrowd": 1}]
    boxes = np.array([[0, 0, 10, 11], [0, 0, 10, 10], [50, 50, 70, 65], [80, 0, 90, 10]], np.float32)
    found = {1: Detections(boxes, np.array([0.9, 0.8, 0.7, 0.6], np.float32))}
    scores, hits, count = matched(Part({"annotations": people}, {}), found)
    assert hits.tolist() == [True, False, False] and count == 1
    np.testing.assert_allclose(scores, [0.9, 0.8, 0.6], rtol=1e-6)


def test_the_score_keeps_false_people_few() -> None:
    scores, hits = np.array([0.9, 0.7, 0.4, 0.35]), np.array([True, True, True, False])
    free = best_score(scores, hits, 3, np.array([]), 20)
    assert 0.35 < free["score"] <= 0.4 and free["f2"] == pytest.approx(1)
    # Two of 20 photos without a person show one at 0.5: only above that are there at most 0.05 a photo.
    bound = best_score(scores, hits, 3, np.array([0.5, 0.5]), 20)
    assert 0.5 < bound["score"] <= 0.7 and bound["recall"] == pytest.approx(2 / 3) and bound["false_people"] == 0


def test_size_and_scores_are_written(tmp_path: Path) -> None:
    config = PersonConfig("fcos_cspnext", channels=32, convolutions=1)
    path = tmp_path / "person.safetensors"
    save_weights(path, build_fcos(config).state_dict(), {"kind": "detector", "config": vars(config)})
    resized(path, 320, (0.6, 0.35), path)
    tensors, header = load_weights(path)
    written = PersonConfig.from_json(header["config"])
    assert (written.input_size, written.threshold, written.proposal) == ((320, 320), 0.6, 0.35)
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
