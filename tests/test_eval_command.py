"""`posecli eval`: resampling, error types, calibration, comparisons, the report in a browser."""

import contextlib
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from posecli.evaluate.bootstrap import FIGURES, _Curve, difference, interval, resampled
from posecli.evaluate.error_types import ERROR_TYPES, calibrate_std, classify_errors, match_people
from posecli.evaluate.ground_truth import GroundTruth, read_ground_truth
from posecli.evaluate.predictions import Predictions, suppress
from posecli.evaluate.scoring import NAMES, average_precision, prepare_truth, score_keypoints
from posecli.keypoints import COCO17
from posecli.weights.files import load_weights, save_weights
from posecli.weights.fingerprints import fingerprint
from tests.entry_points import posecli
from tests.media_factory import picture, write_photo

CPU = ("--device", "cpu", "--runtime", "torch")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def people(count: int, images: int, seed: int = 0) -> GroundTruth:
    random = np.random.default_rng(seed)
    annotations = []
    for i in range(count):
        x, y = random.uniform(0, 200, 2)
        points = np.concatenate([random.uniform(0, 100, (17, 2)) + (x, y), np.full((17, 1), 2)], axis=1)
        annotations.append(
            {
                "id": i + 1,
                "image_id": i % images + 1,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [x, y, 100, 100],
                "area": float(random.choice([40**2, 70**2, 110**2])),
                "num_keypoints": 17,
                "keypoints": points.reshape(-1).tolist(),
            }
        )
    listed = [{"id": i + 1, "file_name": f"{i + 1:06d}.png", "width": 320, "height": 320} for i in range(images)]
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.names)}
    return GroundTruth({"images": listed, "annotations": annotations, "categories": [category]}, Path(), COCO17)


def predicted(truth: GroundTruth, noise: float, seed: int = 1) -> Predictions:
    random = np.random.default_rng(seed)
    annotations = truth.dataset["annotations"]
    points = np.array([a["keypoints"] for a in annotations]).reshape(-1, 17, 3)[..., :2]
    points = (points + random.normal(0, noise, points.shape) * random.uniform(0, 2, (len(points), 1, 1))).astype(
        np.float32
    )
    scores = random.uniform(0.1, 1, len(points)).astype(np.float32)
    return as_predictions([a["image_id"] for a in annotations], points, scores)


def as_predictions(ids: list[int], points: np.ndarray, scores: np.ndarray) -> Predictions:
    results = tuple(
        {
            "image_id": i,
            "category_id": 1,
            "keypoints": np.concatenate([p, np.ones((17, 1))], axis=1).reshape(-1).tolist(),
            "score": float(s),
        }
        for i, p, s in zip(ids, points, scores, strict=True)
    )
    return Predictions(np.array(ids), points, scores, None, None, results)


def by_pycocotools(truth: GroundTruth, results: tuple[dict[str, Any], ...]) -> dict[str, float]:
    """The figures by pycocotools alone."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = prepare_truth(truth.dataset)
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(r) for r in results]), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(COCO17.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES, map(float, evaluation.stats), strict=True))


@given(seed=st.integers(0, 1000), noise=st.sampled_from([1.0, 5.0, 12.0]), unlabelled=st.integers(0, 12))
@settings(max_examples=15, deadline=None)
def test_the_figures_are_those_of_pycocotools(seed: int, noise: float, unlabelled: int) -> None:
    """Also with people without labelled keypoints, whose OKS is of the distance to their box, and crowds."""
    truth = people(30, 9, seed)
    results = predicted(truth, noise, seed).results
    for number, annotation in enumerate(truth.dataset["annotations"][:unlabelled]):
        annotation |= {"keypoints": [0] * 51, "num_keypoints": 0} if number % 3 else {"iscrowd": 1}
    expected = by_pycocotools(truth, results)
    assert score_keypoints(truth.dataset, results, COCO17).values == pytest.approx(expected, abs=1e-12)
    prepared = prepare_truth(truth.dataset)["annotations"]
    for _ in range(2):  # pycocotools writes into the annotations
        value = average_precision(prepared, results, COCO17.sigmas or (), truth.files)
        assert value == pytest.approx(expected["AP"], abs=1e-12)


@given(seed=st.integers(0, 1000), noise=st.sampled_from([1.0, 5.0, 12.0]))
@settings(max_examples=15, deadline=None)
def test_every_image_once_gives_the_figures_of_pycocotools(seed: int, noise: float) -> None:
    truth = people(30, 9, seed)
    scores = score_keypoints(truth.dataset, predicted(truth, noise, seed).results, COCO17)
    for name, (area, thresholds) in FIGURES.items():
        mine = _Curve(scores.matched[area]).precision(np.ones((1, scores.images)))[0, thresholds].mean()
        expected = scores.values[name]
        assert mine == pytest.approx(expected, abs=1e-12) or (expected == -1 and np.isnan(mine))


def test_drawing_an_image_twice_is_having_it_twice() -> None:
    """Weights against a dataset in which the images really are repeated."""
    truth = people(16, 6)
    found = predicted(truth, 6.0)
    drawn = np.array([2.0, 0, 1, 3, 0, 1])
    images, annotations, results = [], [], []
    for place, times in enumerate(drawn):
        for _ in range(int(times)):
            new = len(images) + 1
            images.append({"id": new, "file_name": f"{new}.png"})
            annotations += [{**a, "image_id": new} for a in truth.dataset["annotations"] if a["image_id"] == place + 1]
            results += [{**r, "image_id": new} for r in found.results if r["image_id"] == place + 1]
    repeated = {"images": images, "annotations": annotations, "categories": truth.dataset["categories"]}
    expected = score_keypoints(repeated, results, COCO17).values
    curve = _Curve(score_keypoints(truth.dataset, found.results, COCO17).matched["all"])
    assert curve.precision(drawn[None]).mean() == pytest.approx(expected["AP"], abs=1e-9)


def test_intervals_hold_the_figure_and_differences_are_paired() -> None:
    truth = people(80, 40)
    better, worse = (score_keypoints(truth.dataset, predicted(truth, noise).results, COCO17) for noise in (4.0, 6.0))
    first, second = resampled(worse, count=200), resampled(better, count=200)
    low, high = interval(first["AP"])
    assert low < worse.values["AP"] < high and 0.01 < high - low < 0.4
    found = difference(first["AP"], second["AP"], better.values["AP"] - worse.values["AP"])
    assert found.low > 0 and found.p_value < 0.05
    assert found.high - found.low < (high - low), "pairing makes differences surer than figures"
    same = difference(first["AP"], first["AP"], 0.0)
    assert (same.low, same.high, same.p_value) == (0, 0, 1)


def test_kinds_of_errors_of_made_up_mistakes() -> None:
    truth = people(2, 1, seed=4)
    annotations = truth.dataset["annotations"]
    for annotation, offset in zip(annotations, (0.0, 1000.0), strict=True):
        # Keypoints on a wide grid: none is near another.
        points = np.array([[100.0 * (i % 5), 100.0 * (i // 5), 2] for i in range(17)]) + (offset, 0, 0)
        annotation |= {"keypoints": points.reshape(-1).tolist(), "area": 60.0**2}
    points = np.array([a["keypoints"] for a in annotations]).reshape(2, 17, 3)[..., :2]
    moved = points.copy()
    moved[0, 5] += (9, 0)  # a shoulder: similarity about 0.64
    moved[0, 7] = points[0, 8]  # the other elbow
    moved[0, 9] = points[1, 9]  # the other person's wrist
    moved[0, 15] += (45, 45)  # nothing there
    found = as_predictions([1, 1], moved.astype(np.float32), np.array([0.9, 0.8], np.float32))
    matches = match_people(truth, found)
    types = classify_errors(truth, matches)
    row = int(np.flatnonzero(matches.true == 0)[0])
    expected = {5: "jitter", 7: "inversion", 9: "swap", 15: "miss"}
    for k in range(17):
        assert ERROR_TYPES[types[row, k]] == expected.get(k, "good"), COCO17.names[k]


@given(scale=st.floats(0.3, 4.0))
@settings(max_examples=20, deadline=None)
def test_calibration_finds_the_scale_that_was_taken_out(scale: float) -> None:
    random = np.random.default_rng(0)
    std = random.uniform(1, 9, (400, 17, 2))
    residuals = random.normal(0, 1, std.shape) * std * scale
    found = calibrate_std(COCO17.names, residuals, std, np.ones((400, 17), bool))
    assert found.scale == pytest.approx(scale, rel=0.05)
    assert found.within_1_scaled == pytest.approx(0.683, abs=0.005)
    assert found.within_2_scaled == pytest.approx(0.954, abs=0.01)


def test_suppression_keeps_the_better_of_two_alike() -> None:
    truth = people(3, 1, seed=2)
    points = np.array([a["keypoints"] for a in truth.dataset["annotations"]]).reshape(3, 17, 3)[..., :2]
    twice = np.concatenate([points, points[:1] + 0.2]).astype(np.float32)
    found = as_predictions([1, 1, 1, 1], twice, np.array([0.5, 0.6, 0.7, 0.9], np.float32))
    kept = suppress(found, COCO17.sigmas or (), 0.9)
    assert sorted(kept.scores.tolist()) == pytest.approx([0.6, 0.7, 0.9])
    assert len(suppress(found, COCO17.sigmas or (), 1.0)) == 4


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures with two made-up people each, laid out as COCO."""
    root = tmp_path_factory.mktemp("val")
    truth = people(16, 8)
    for image in truth.dataset["images"]:
        write_photo(root / "val2017" / image["file_name"], picture(320, 320, image["id"]))
    (root / "annotations").mkdir()
    (root / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(truth.dataset))
    return root


def command(validation: Path, out: Path, *more: object) -> list[object]:
    return ["eval", "--ann", "val2017", "--data", validation, "--out", out, *CPU, "--bootstrap", 50, *more]


def test_one_model_writes_figures_results_and_report(
    validation: Path, tiny_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = posecli(capfd, *command(validation, tmp_path, tiny_weights, "--json"))
    assert result.code == 0, result.err
    metrics = json.loads(result.out)
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["intervals_95"]) == set(FIGURES) and metrics["people"] == 16 and metrics["images"] == 8
    results = json.loads((tmp_path / "coco_results.json").read_text())
    truth = read_ground_truth(validation / "annotations" / "person_keypoints_val2017.json", validation / "val2017")
    assert len(results) == 16
    assert score_keypoints(truth.dataset, results, COCO17).values["AP"] == metrics["AP"]


def test_the_poses_are_those_of_run(
    validation: Path, tiny_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    truth = validation / "annotations" / "person_keypoints_val2017.json"
    options = ["--weights", tiny_weights, *CPU]
    ran = posecli(
        capfd,
        "run",
        validation / "val2017",
        "--detector",
        f"boxes:{truth}",
        "--no-media",
        *options,
        "-o",
        tmp_path / "a",
    )
    assert ran.code == 0, ran.err
    evaluated = posecli(capfd, *command(validation, tmp_path / "b", tiny_weights, "--boxes", truth))
    assert evaluated.code == 0, evaluated.err

    def table(folder: str) -> dict:
        items = json.loads((tmp_path / folder / "coco_results.json").read_text())
        return {(r["image_id"], tuple(r["bbox"])): (r["keypoints"], r["score"]) for r in items}

    assert table("a") == table("b")


def test_truth_as_results_is_perfect_and_broken_results_are_refused(
    validation: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    truth = json.loads((validation / "annotations" / "person_keypoints_val2017.json").read_text())
    items = [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 1.0}
        for a in truth["annotations"]
    ]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(items))
    perfect = posecli(capfd, *command(validation, tmp_path / "o", "--results", path, "--json"))
    assert perfect.code == 0 and json.loads(perfect.out)["AP"] == pytest.approx(1.0)
    path.write_text("[]")
    empty = posecli(capfd, *command(validation, tmp_path / "o", "--results", path, "--json"))
    assert empty.code == 0 and json.loads(empty.out)["AP"] == 0
    for broken, words in (
        ([{**items[0], "score": float("nan")}], "not finite"),
        ([{**items[0], "image_id": 77}], "77"),
        ([{**items[0], "keypoints": [1, 2, 3]}], "3 keypoint values"),
        ({}, "which is a list"),
    ):
        path.write_text(json.dumps(broken))
        refused = posecli(capfd, *command(validation, tmp_path / "o", "--results", path))
        assert refused.code == 1 and words in refused.err and "Traceback" not in refused.err


def test_models_trained_on_these_images_are_refused(
    validation: Path, tiny_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tensors, header = load_weights(tiny_weights)
    seen = fingerprint(sorted((validation / "val2017").iterdir())[:3])
    leaky = tmp_path / "leaky.safetensors"
    save_weights(leaky, tensors, {**header, "training": {"images": seen}})
    refused = posecli(capfd, *command(validation, tmp_path / "o", leaky))
    assert refused.code == 1 and "trained on 3 of the 8 images" in refused.err
    forced = posecli(capfd, *command(validation, tmp_path / "o", leaky, "--allow-overlap", "--json"))
    assert forced.code == 0 and json.loads(forced.out)["trained_on_images"] == 3


def test_missing_images_and_places_are_told(
    validation: Path, tiny_weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(validation, copy)
    (copy / "val2017" / "000002.png").unlink()
    refused = posecli(capfd, *command(copy, tmp_path / "o", tiny_weights))
    assert refused.code == 1 and "1 of 8 images are missing" in refused.err and "000002.png" in refused.err
    allowed = posecli(capfd, *command(copy, tmp_path / "o", tiny_weights, "--allow-missing", "--json"))
    assert allowed.code == 0 and json.loads(allowed.out)["images"] == 7
    limited = posecli(capfd, *command(validation, tmp_path / "o", tiny_weights, "--limit", 3, "--json"))
    assert json.loads(limited.out)["images"] == 3
    nowhere = posecli(capfd, "eval", "--ann", "val2017", "--data", tmp_path)
    assert nowhere.code == 1 and "give --data" in nowhere.err
    for wrong in (("--decode", "magic"), ("--flip-test", "twice"), ("--input-size", "big"), ("--rank-by", "luck")):
        assert posecli(capfd, *command(validation, tmp_path / "o", tiny_weights, *wrong)).code == 2


def test_the_choices_of_the_help_are_those_of_the_registries() -> None:
    from posecli.cli import eval as command
    from posecli.evaluate.predictions import RANKINGS
    from posecli.evaluate.variants import FLIPS
    from posecli.pose.codec import CHOICES
    from posecli.runtime import RUNTIMES

    assert sorted(command.DECODER_NAMES) == sorted(CHOICES) and command.FLIP_TESTS == FLIPS
    assert ("auto", *RUNTIMES) == command.RUNTIME_NAMES and tuple(RANKINGS) == command.RANKINGS


@pytest.fixture(scope="module")
def compared(validation: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import sys

    from posecli.cli import main as front

    out = tmp_path_factory.mktemp("compared")
    before = sys.argv
    decoders = ["--decode", "argmax", "--decode", "parabola", "--flip-test", "none", "--flip-test", "shifted"]
    sys.argv = ["posecli", *map(str, command(validation, out, tiny_weights, *decoders))]
    try:
        with pytest.raises(SystemExit) as caught:
            front.main()
    finally:
        sys.argv = before
    assert caught.value.code == 0
    return out


def test_variants_are_compared_on_the_same_images(compared: Path) -> None:
    document = json.loads((compared / "comparison.json").read_text())
    assert [m["name"] for m in document["models"]] == [
        "tiny argmax flip none",
        "tiny argmax flip shifted",
        "tiny parabola flip none",
        "tiny parabola flip shifted",
    ]
    for row, model in zip(document["differences"], document["models"][1:], strict=True):
        assert row["AP"]["value"] == pytest.approx(model["AP"] - document["models"][0]["AP"])
        assert row["AP"]["low"] <= row["AP"]["high"]
    assert len(list(compared.glob("*/metrics.json"))) == 4


def test_the_report_loads_nothing_from_elsewhere(compared: Path) -> None:
    html = (compared / "report.html").read_text()
    assert 'src="http' not in html and "<link" not in html and "@import" not in html and "<script" not in html


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_report_in_a_browser(validation: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A browser without a network finds the tables, the charts and every picture with its pixels."""
    truth = read_ground_truth(validation / "annotations" / "person_keypoints_val2017.json", validation / "val2017")
    for name, noise in (("a", 3.0), ("b", 6.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps(predicted(truth, noise).results))
    results = [f"--results={tmp_path / name}.json" for name in "ab"]
    assert posecli(capfd, *command(validation, tmp_path / "out", *results)).code == 0
    page = tmp_path / "probe.html"
    probe = """<script>addEventListener('load', () => {
      const count = s => document.querySelectorAll(s).length;
      const whole = [...document.images].every(i => i.complete && i.naturalWidth > 0);
      document.title = [count('table'), count('svg'), document.images.length, whole,
        document.documentElement.scrollWidth <= innerWidth].join(' ');
    })</script></body>"""
    html = (tmp_path / "out" / "report.html").read_text()
    # The page's own policy would not let the probe run, nor any other script.
    html, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    assert count == 1
    page.write_text(html.replace("</body>", probe))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    options += ["--window-size=1100,900", "--proxy-server=127.0.0.1:9", "--virtual-time-budget=8000"]
    line = [str(CHROMIUM), *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    dumped = subprocess.run(line, capture_output=True, text=True, timeout=120)
    title = dumped.stdout.split("<title>")[1].split("</title>")[0].split()
    assert int(title[0]) >= 4 and int(title[1]) >= 3 and int(title[2]) >= 16, title
    assert title[3:] == ["true", "true"], title
