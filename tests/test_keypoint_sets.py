"""Hands, bodies with feet, faces and whole bodies through a whole run and through the scoring."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from posecli.draw.skeleton import COLOURS, detailed, draw_person, limb_side
from posecli.evaluate.scoring import score_keypoints
from posecli.keypoints import KEYPOINT_SETS, KeypointSet, find_keypoints, from_category
from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC, initialise_head
from posecli.results.coco import coco_category
from posecli.results.openpose import BODY_25, openpose_person
from posecli.tracking.smoothing import SMOOTHERS
from posecli.weights.files import save_weights
from tests.entry_points import QUICK, posecli
from tests.media_factory import picture, write_video

SETS = {"hand21": 21, "halpe26": 26, "face106": 106, "coco_wholebody": 133}


@pytest.mark.parametrize("name", KEYPOINT_SETS)
def test_a_set_is_consistent_and_a_category_brings_it_back(name: str) -> None:
    found = KEYPOINT_SETS[name]
    flip = list(found.flip_indices)
    assert [flip[i] for i in flip] == list(range(len(found))) and found.mirrors
    assert len(set(found.names)) == len(found)
    assert all(0 <= end < len(found) for limb in found.skeleton for end in limb)
    assert found.sigmas is None or (len(found.sigmas) == len(found) and min(found.sigmas) > 0)
    assert from_category({"name": "person", "keypoints": list(found.names)}) == found


def test_sets_are_found_by_mmposes_names_too() -> None:
    assert find_keypoints("coco") is KEYPOINT_SETS["coco17"]
    assert find_keypoints("lapa") is KEYPOINT_SETS["face106"]
    assert find_keypoints("coco_wholebody_hand") is KEYPOINT_SETS["hand21"]
    whole = KEYPOINT_SETS["coco_wholebody"]
    assert whole.names[:17] == KEYPOINT_SETS["coco17"].names and whole.names[91] == "left_hand_root"
    assert whole.sigmas is not None and whole.sigmas[17] == 0.068 and whole.sigmas[20] == 0.092


def weights(path: Path, keypoints: KeypointSet) -> Path:
    """A small model of these keypoints with random weights."""
    config = PoseConfig(deconv_channels=(8,), input_size=(64, 32), sigma=(1.5, 1.5), keypoints=keypoints)
    torch.manual_seed(1)
    network = SimCC(config)
    initialise_head(network, config)
    with torch.no_grad():
        for layer in (network.fc_x, network.fc_y):
            layer.weight.mul_(20)
    save_weights(path, network.state_dict(), {"kind": "pose", "config": config.to_json()})
    return path


@pytest.mark.parametrize("name", SETS)
def test_a_run_writes_everything_for_the_set(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keypoints = KEYPOINT_SETS[name]
    count = SETS[name]
    assert len(keypoints) == count
    inputs = tmp_path / "in"
    inputs.mkdir()
    cv2.imwrite(str(inputs / "a.png"), picture(120, 90, 1))
    write_video(inputs / "b.mp4", frames=6, width=96, height=64)
    options = ("--kpt-thr", 0, "--smooth", "offline", "--blur-faces", "--trails")
    tables = [part for table in ("csv", "jsonl", "openpose") for part in ("--format", table)]
    model = weights(tmp_path / "w.safetensors", keypoints)
    result = posecli(capfd, "run", inputs, "--out", tmp_path / "out", "--weights", model, *options, *tables, *QUICK)
    assert result.code == 0, result.err
    document = json.loads((tmp_path / "out" / "coco.json").read_text())
    category = document["categories"][0]
    assert category["keypoints"] == list(keypoints.names) and len(category["skeleton"]) == len(keypoints.skeleton)
    assert category.get("sigmas") == (None if keypoints.sigmas is None else list(keypoints.sigmas))
    assert len(document["annotations"]) == 7
    assert all(len(person["keypoints"]) == 3 * count for person in document["annotations"])
    assert (tmp_path / "out" / "index.html").is_file()
    (table,) = (tmp_path / "out").rglob("b*.csv")
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 6 * count and {row["keypoint"] for row in rows} == set(keypoints.names)
    files = sorted((tmp_path / "out").rglob("b_*_keypoints.json"))
    person = json.loads(files[0].read_text())["people"][0]
    assert len(person["pose_keypoints_2d"]) == 3 * (25 if count in (26, 133) else count)
    assert len(person["hand_left_keypoints_2d"]) == (63 if count == 133 else 0)
    assert len(person["face_keypoints_2d"]) == (210 if count == 133 else 0)


def numbered(keypoints: KeypointSet) -> dict[str, Any]:
    """A person whose keypoint i is at (i, 2i) with score i/1000."""
    points = [value for i in range(len(keypoints)) for value in (i, 2 * i, 2)]
    scores = [i / 1000 for i in range(len(keypoints))]
    return {"keypoints": points, "keypoint_scores": scores, "track_id": 4}


@pytest.mark.parametrize("name", ["halpe26", "coco_wholebody"])
def test_body_25_has_each_keypoint_in_its_place(name: str) -> None:
    keypoints = KEYPOINT_SETS[name]
    body = np.reshape(openpose_person(numbered(keypoints), keypoints)["pose_keypoints_2d"], (25, 3))
    for place, joint in enumerate(BODY_25):
        if joint in keypoints.names:
            index = keypoints.names.index(joint)
            assert body[place].tolist() == [index, 2 * index, index / 1000]
    assert BODY_25[1] == "neck" and BODY_25[8] == "hip"
    if name == "coco_wholebody":  # it has neither: between shoulders 5 and 6, and hips 11 and 12
        assert body[1].tolist() == [5.5, 11, 0.005] and body[8].tolist() == [11.5, 23, 0.011]


def test_hands_and_face_of_a_whole_body_are_in_openposes_order() -> None:
    keypoints = KEYPOINT_SETS["coco_wholebody"]
    person = openpose_person(numbered(keypoints), keypoints)
    for part, first in (("face", 23), ("hand_left", 91), ("hand_right", 112)):
        columns = np.reshape(person[f"{part}_keypoints_2d"], (-1, 3))[:, 0]
        assert columns.tolist()[:68] == list(range(first, first + min(len(columns), 68)))
    assert np.reshape(person["face_keypoints_2d"], (-1, 3))[68:, 0].tolist() == [2, 1]


@pytest.mark.parametrize("name", ["hand21", "halpe26", "coco_wholebody"])
def test_keypoints_are_scored_with_the_sets_own_sigmas(name: str) -> None:
    keypoints = KEYPOINT_SETS[name]
    assert keypoints.sigmas is not None
    random = np.random.default_rng(2)
    points = random.uniform(20, 80, (len(keypoints), 2))
    person = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 100, 100], "area": 5000.0}
    truth = np.column_stack([points, np.full(len(points), 2)]).ravel().tolist()
    dataset = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "annotations": [{**person, "keypoints": truth, "num_keypoints": len(keypoints)}],
        "categories": [{**coco_category(keypoints), "id": 1}],
    }
    # Each keypoint is off by its own tolerance: OKS is exp(-1/2) for all of them, 0.607.
    off = points + np.column_stack([2 * np.array(keypoints.sigmas) * 5000**0.5, np.zeros(len(points))])
    found = np.column_stack([off, np.ones(len(points))]).ravel().tolist()
    results = [{"image_id": 1, "category_id": 1, "keypoints": found, "score": 0.9}]
    assert score_keypoints(dataset, results, keypoints).values["AP"] == pytest.approx(3 / 10, abs=1e-3)
    other = replace(keypoints, sigmas=tuple(2 * sigma for sigma in keypoints.sigmas))
    assert score_keypoints(dataset, results, other).values["AP"] > 0.7


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("smoother", sorted(SMOOTHERS))
def test_every_smoother_takes_the_set(name: str, smoother: str) -> None:
    assert SMOOTHERS[smoother](KEYPOINT_SETS[name]) is not None


def test_faces_and_hands_of_whole_bodies_are_drawn_finely() -> None:
    keypoints = KEYPOINT_SETS["coco_wholebody"]
    wrist, fingertip, shoulder, elbow = (
        keypoints.names.index(n) for n in ("left_wrist", "left_middle_finger4", "left_shoulder", "left_elbow")
    )
    areas = {}
    for name, kept in {"finger": (fingertip,), "face": (keypoints.names.index("face-3"),), "wrist": (wrist,)}.items():
        scores = np.zeros((133,), np.float32)
        scores[list(kept)] = 1
        drawn = draw_person(np.zeros((800, 400, 3), np.uint8), np.full((133, 2), 200), scores, keypoints)
        areas[name] = int((drawn.max(axis=-1) > 100).sum())
        colour = "middle" if name == "face" else "left"
        assert tuple(drawn[200, 200].tolist()) == COLOURS[colour]
    assert 0 < areas["finger"] == areas["face"] < areas["wrist"] / 3
    assert not detailed(KEYPOINT_SETS["hand21"].names) and not detailed(KEYPOINT_SETS["face68"].names)
    assert detailed(keypoints.names) == frozenset(range(23, 133))
    assert limb_side(keypoints, (shoulder, elbow)) == "left"
