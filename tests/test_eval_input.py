"""`posecli eval` on the data of others: custom keypoints, missing parts, broken files, boxes, parts of a set."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posecli.evaluate.evaluation import compare, evaluate
from posecli.evaluate.ground_truth import read_ground_truth
from posecli.evaluate.predictions import memoised
from posecli.evaluate.table import comparison_markdown
from posecli.evaluate.variants import Settings, list_variants, name_variants, predict_variants
from posecli.keypoints import COCO17
from posecli.pose.runner import Runner
from tests.entry_points import posecli
from tests.test_eval_command import command, people, predicted, validation

__all__ = ["validation"]  # a fixture

Judge = Callable[..., Any]


def perfect(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: a[key] for key in ("image_id", "category_id", "keypoints")} | {"score": 1.0}
            for a in dataset["annotations"]]  # fmt: skip


@pytest.fixture
def judge(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Judge:
    """Scores results against a dataset through the command."""

    def run(dataset: dict[str, Any], results: list[dict[str, Any]], *more: object) -> Any:
        truth, found = tmp_path / "truth.json", tmp_path / "found.json"
        truth.write_text(json.dumps(dataset))
        found.write_text(json.dumps(results))
        options = ["--bootstrap", 20, "--out", tmp_path / "out", "--json"]
        return posecli(capfd, "eval", "--ann", truth, "--results", found, *options, *more)

    return run


def test_custom_keypoints_bring_their_sigmas_and_their_category(judge: Judge) -> None:
    dataset = copy.deepcopy(people(6, 3).dataset)
    mouse = {"id": 7, "name": "mouse", "keypoints": ["snout", "left_paw", "right_paw", "tail"]}
    for annotation in dataset["annotations"]:
        annotation |= {"category_id": 7, "keypoints": annotation["keypoints"][:12], "num_keypoints": 4}
    dataset["categories"] = [{"id": 3, "name": "cage"}, mouse]
    dataset["annotations"].append({"id": 99, "image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9]})
    without = judge(dataset, perfect_of(dataset, 7))
    assert without.code == 2 and "sigmas" in without.err
    mouse["sigmas"] = [0.05, 0.08, 0.08, 0.1]
    found = judge(dataset, perfect_of(dataset, 7))
    assert found.code == 0, found.err
    metrics = json.loads(found.out)
    assert metrics["AP"] == 1 and metrics["people"] == 6
    assert [row["keypoint"] for row in metrics["keypoints"]] == mouse["keypoints"]
    other = judge(dataset, [{**item, "category_id": 3} for item in perfect_of(dataset, 7)])
    assert other.code == 1 and "of category 3, the annotations are of 7" in other.err


def perfect_of(dataset: dict[str, Any], category: int) -> list[dict[str, Any]]:
    return perfect({"annotations": [a for a in dataset["annotations"] if a["category_id"] == category]})


def test_missing_areas_are_made_of_the_boxes_with_a_warning(judge: Judge, tmp_path: Path) -> None:
    dataset = copy.deepcopy(people(6, 3).dataset)
    results = predicted(people(6, 3), 5.0).results
    given = copy.deepcopy(dataset)
    for annotation in dataset["annotations"]:
        del annotation["area"]
    for annotation in given["annotations"]:
        annotation["area"] = 0.53 * annotation["bbox"][2] * annotation["bbox"][3]
    found, expected = judge(dataset, list(results)), judge(given, list(results))
    assert "warning: 6 annotations without area: 0.53 of the box's area taken" in found.err
    assert "warning" not in expected.err
    assert json.loads(found.out)["AP"] == json.loads(expected.out)["AP"]
    report = (tmp_path / "out" / "report.html").read_text()
    assert "without area" not in report  # that of the second


def test_an_annotation_with_id_0_counts(judge: Judge) -> None:
    dataset = copy.deepcopy(people(4, 2).dataset)
    for number, annotation in enumerate(dataset["annotations"]):
        annotation["id"] = number
    found = judge(dataset, perfect(dataset))
    assert json.loads(found.out)["AP"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keypoints": [1, 2, 2]}, "3 keypoint values, not 51"),
        ({"keypoints": [1, float("nan"), 2] * 17}, "not finite"),
        ({"keypoints": [1, 2, None] * 17}, "visibility null"),
        ({"keypoints": "none"}, "not a list"),
    ],
)
def test_broken_truth_names_the_annotation(judge: Judge, change: dict[str, Any], words: str) -> None:
    dataset = copy.deepcopy(people(4, 2).dataset)
    results = perfect(dataset)
    dataset["annotations"][2] |= change
    refused = judge(dataset, results)
    assert refused.code == 1 and words in refused.err and "annotation 3" in refused.err
    assert len(refused.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"keypoints": [0] * 51, "score": 1}, "result 1 has no image_id"),
        ("text", "result 1 has no image_id"),
        ({"image_id": 1, "keypoints": ["a"] * 51, "score": 1}, "no number"),
        ({"image_id": 1, "keypoints": [0] * 51, "score": None}, "no number"),
        ({"image_id": 1, "keypoints": [0] * 51}, "missing or not finite"),
    ],
)
def test_broken_results_say_which(judge: Judge, item: Any, words: str) -> None:
    refused = judge(people(2, 1).dataset, [item])
    assert refused.code == 1 and words in refused.err and len(refused.err.strip().splitlines()) == 1


def test_results_of_a_whole_set_score_a_part_of_it(judge: Judge) -> None:
    dataset = people(12, 6).dataset
    part = judge(dataset, perfect(dataset), "--limit", 2)
    metrics = json.loads(part.out)
    assert metrics["images"] == 2 and metrics["people"] == 4 and metrics["AP"] == 1
    both = judge(dataset, perfect(dataset), "--weights", "pose")
    assert both.code == 2 and "without a model" in both.err


def test_no_other_person_lowers_the_figure_of_a_group() -> None:
    truth = people(40, 20)
    found = evaluate("perfect", truth, predicted(truth, 0.0), {}, bootstrap=5)
    groups = [*found.by_size, *found.by_visible]
    assert sum(row["people"] for row in found.by_size) == 40
    assert all(row["AP"] == pytest.approx(1.0) for row in groups if row["people"])


def test_decoders_and_flips_share_the_network(validation: Path, tiny_weights: Path) -> None:
    truth = read_ground_truth(validation / "annotations" / "person_keypoints_val2017.json", validation / "val2017")
    names = (["gt"], ["96x64"], ["torch"], ["fp32"], ["argmax", "dark", "parabola"], ["none", "shifted", "unshifted"])
    variants = list_variants([str(tiny_weights)], *names)
    together = list(predict_variants(variants, truth, Settings("cpu")))
    assert [c.name for c in together] == name_variants(variants) and together[0].name == "tiny argmax flip none"
    for variant, candidate in zip(variants, together, strict=True):
        alone = next(predict_variants([variant], truth, Settings("cpu")))
        assert alone.predictions.results == candidate.predictions.results
        assert alone.metadata["people_per_s"] and candidate.metadata["people_per_s"] is None
        assert candidate.metadata["resampled_to_this_size"]
    different = {json.dumps(c.predictions.results) for c in together}
    assert len(different) == 9

    asked: list[int] = []
    runner = memoised(Runner(lambda crops: asked.append(len(crops)) or (crops, crops), "torch", "cpu", "float32"))
    first, second = np.zeros((2, 8, 8, 3), np.uint8), np.ones((2, 8, 8, 3), np.uint8)
    for crops in (first, second, first.copy(), second):
        assert np.array_equal(runner(crops)[0], crops)
    assert asked == [2, 2]


def test_each_is_compared_with_the_first_of_its_network() -> None:
    truth = people(20, 10)
    evaluations = [
        evaluate(
            f"{w} {d}", truth, predicted(truth, n), {"weights": w, "resampled_to_this_size": w == "b"}, bootstrap=5
        )
        for w, d, n in (("a", "argmax", 5), ("a", "dark", 4), ("b", "argmax", 9), ("b", "dark", 8))
    ]
    rows = compare(evaluations)
    pairs = [(row["name"], row["against"]) for row in rows]
    assert pairs == [("a dark", "a argmax"), ("b argmax", "a argmax"), ("b dark", "b argmax")]
    table = comparison_markdown(evaluations, rows, "posecli eval a b")
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 6 and len({line.count("|") for line in lines}) == 1
    assert "posecli eval a b" in table and "b argmax *" in table and "a dark *" not in table
    assert f"{evaluations[1].scores.values['AP']:.3f} (" in lines[3]


def test_boxes_come_from_a_detector_or_a_file(
    validation: Path, tiny_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    detector = posecli(capfd, *command(validation, tmp_path / "o", tiny_weights, "--boxes", "detector", "--json"))
    assert detector.code == 0, detector.err
    assert json.loads(detector.out)["boxes"] == "detector"
    unknown = tmp_path / "unknown.json"
    unknown.write_text(json.dumps([{"image_id": 77, "bbox": [0, 0, 9, 9], "score": 1}]))
    refused = posecli(capfd, *command(validation, tmp_path / "o", tiny_weights, "--boxes", unknown))
    assert refused.code == 1 and "none of its 1 images is in the annotations: 77" in refused.err
    gone = posecli(capfd, *command(validation, tmp_path / "o", tiny_weights, "--boxes", "nobody"))
    assert gone.code == 2 and "no such file" in gone.err
    # The same pictures under other ids: names decide.
    dataset = json.loads((validation / "annotations" / "person_keypoints_val2017.json").read_text())
    for item in (*dataset["images"], *dataset["annotations"]):
        key = "id" if "file_name" in item else "image_id"
        item[key] += 500
    renumbered = tmp_path / "renumbered.json"
    renumbered.write_text(json.dumps(dataset))
    figures = []
    for boxes in ("gt", renumbered):
        result = posecli(capfd, *command(validation, tmp_path / "o", tiny_weights, "--boxes", boxes, "--json"))
        figures.append(json.loads(result.out)["AP"])
    assert figures[0] == figures[1]


def test_real_truth_fed_back_through_the_command_is_perfect(
    shared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = shared / "coco" / "annotations" / "person_keypoints_val2017.json"
    dataset = json.loads(path.read_bytes())
    results = tmp_path / "truth.json"
    results.write_text(json.dumps([a for a in perfect(dataset) if any(a["keypoints"][2::3])]))
    options = ("--data", shared / "coco", "--results", results, "--bootstrap", 0, "--out", tmp_path / "o", "--json")
    found = posecli(capfd, "eval", "--ann", "val2017", *options)
    assert found.code == 0, found.err
    metrics = json.loads(found.out)
    assert metrics["AP"] == 1.0 and metrics["AR"] == 1.0 and metrics["people"] == 553
    assert len(COCO17) == len(metrics["keypoints"])
