"""Scoring equals pycocotools by hand, and is guarded where pycocotools is silently wrong."""

import contextlib
import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from posecli.errors import DataError, UsageError
from posecli.evaluate.ground_truth import is_evaluated, read_ground_truth
from posecli.evaluate.scoring import NAMES, score_keypoints
from posecli.keypoints import COCO17, KeypointSet


def truth_of(people: int, seed: int = 0) -> dict:
    random = np.random.default_rng(seed)
    annotations = []
    for i in range(people):
        points = np.concatenate([random.uniform(0, 200, (17, 2)), np.full((17, 1), 2)], axis=1)
        annotations.append(
            {
                "id": i,  # from 0, which pycocotools alone counts as unmatched
                "image_id": 1 + i // 2,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [0, 0, 200, 200],
                "area": 9000.0,
                "num_keypoints": 17,
                "keypoints": points.reshape(-1).tolist(),
            }
        )
    images = [{"id": i + 1, "file_name": f"{i}.jpg"} for i in range((people + 1) // 2)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "keypoints": list(COCO17.names)}]}


def results_of(truth: dict, noise: float = 0.0, seed: int = 1) -> list[dict]:
    random = np.random.default_rng(seed)
    results = []
    for annotation in truth["annotations"]:
        if not is_evaluated(annotation):
            continue
        points = np.array(annotation["keypoints"], float).reshape(17, 3)
        points[:, :2] += random.normal(0, noise, (17, 2)) if noise else 0
        score = float(random.uniform())
        results.append(
            {
                "image_id": annotation["image_id"],
                "category_id": 1,
                "keypoints": points.reshape(-1).tolist(),
                "score": score,
            }
        )
    return results


def by_hand(truth: dict, results: list[dict]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(map(float, evaluation.stats))


def test_truth_fed_back_is_perfect_also_with_an_id_of_zero() -> None:
    truth = truth_of(7)
    before = copy.deepcopy(truth)
    scores = score_keypoints(truth, results_of(truth), COCO17)
    assert scores.values["AP"] == pytest.approx(1.0) and (scores.people, scores.images) == (7, 4)
    assert truth == before


def test_figures_equal_pycocotools_by_hand_to_the_last_digit() -> None:
    truth = truth_of(20)
    for annotation in truth["annotations"]:
        annotation["id"] += 1
    results = results_of(truth, noise=6)
    scores = score_keypoints(truth, results, COCO17)
    assert [scores.values[name] for name in NAMES] == by_hand(truth, results)
    assert 0.05 < scores.values["AP"] < 0.95


def test_real_labels(shared: Path) -> None:
    path = shared / "coco/annotations/person_keypoints_val2017.json"
    truth = json.loads(path.read_bytes())
    assert score_keypoints(truth, results_of(truth), COCO17).values["AP"] == 1.0
    noisy = results_of(truth, noise=4)
    scores = score_keypoints(truth, noisy, COCO17)
    assert [scores.values[name] for name in NAMES] == by_hand(truth, noisy)


def test_faster_coco_eval_agrees() -> None:
    faster = pytest.importorskip("faster_coco_eval")
    truth = truth_of(20)
    for annotation in truth["annotations"]:
        annotation["id"] += 1
    results = results_of(truth, noise=6)
    coco = faster.COCO(copy.deepcopy(truth))
    evaluation = faster.COCOeval_faster(coco, coco.loadRes(copy.deepcopy(results)), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(score_keypoints(truth, results, COCO17).values["AP"], abs=1e-6)


def test_nothing_found_is_zero() -> None:
    assert score_keypoints(truth_of(3), [], COCO17).values["AP"] == 0


def test_a_missing_area_comes_from_the_box() -> None:
    truth = truth_of(4)
    for annotation in truth["annotations"]:
        del annotation["area"]
    assert score_keypoints(truth, results_of(truth), COCO17).values["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keypoints": [float("nan")] * 51}, "not finite"),
        ({"keypoints": [1.0] * 50}, "50 keypoint values, not 51"),
        ({"score": float("inf")}, "not finite"),
        ({"image_id": 77}, "not in the annotations: 77"),
    ],
)
def test_broken_results_are_refused(change: dict, words: str) -> None:
    truth = truth_of(2)
    results = results_of(truth)
    results[0] |= change
    with pytest.raises(DataError, match=words):
        score_keypoints(truth, results, COCO17)


def test_a_set_without_sigmas_asks_for_them() -> None:
    with pytest.raises(UsageError, match="sigmas"):
        score_keypoints(truth_of(2), [], KeypointSet("mouse", ("nose",)))


def test_reading_truth_counts_missing_images(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(truth_of(4)))
    with pytest.raises(DataError, match="2 of 2 images are missing"):
        read_ground_truth(path, tmp_path)
    with pytest.raises(DataError, match="No such file"):
        read_ground_truth(tmp_path / "gone.json", tmp_path)
    path.write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_ground_truth(path, tmp_path)
