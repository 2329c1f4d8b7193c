"""Measure person detectors: choose their thresholds on held-out training photos, then report on validation.

    python recipes/measure_detector.py --data SHARED --weights weights/person.safetensors

Where the pose weights have a person score, each detector is also measured as `posecli run` uses it: its proposals
verified by the pose model.

--weights may be given several times: the detectors are then measured with one pose model in one run. With --write
a detector's threshold is written into its file as the default.
"""

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from train_detector import is_held_out

from posecli.detect import Detector, load_detector
from posecli.evaluate.ground_truth import read_ground_truth
from posecli.evaluate.predictions import predict, true_boxes
from posecli.evaluate.scoring import score_keypoints
from posecli.geometry import iou, xywh_to_xyxy
from posecli.media.images import decode_image
from posecli.pose.estimator import load_estimator
from posecli.predict import Predictor
from posecli.types import Detections, Frame
from posecli.weights.files import load_weights, save_weights

FALSE_PEOPLE = 0.05


def read_frame(path: Path) -> Frame:
    return Frame(decode_image(path.read_bytes(), str(path), ignore_orientation=True))


def read_held_out(data: Path, annotations: str, images: str) -> list[tuple[Path, np.ndarray, np.ndarray]]:
    """The photos that training left out: file, people and regions to ignore, as x1 y1 x2 y2."""
    document = json.loads((data / annotations).read_bytes())
    table = Path(annotations).stem
    photos = []
    for image in document["images"]:
        if is_held_out(table, image["file_name"]):
            of_image = [a for a in document["annotations"] if a["image_id"] == image["id"]]
            true, ignored = (
                xywh_to_xyxy([a["bbox"] for a in of_image if bool(a.get("iscrowd")) is crowd] or np.zeros((0, 4)))
                for crowd in (False, True)
            )
            photos.append((data / images / image["file_name"], true, ignored))
    return photos


def choose_threshold(data: Path, detector: Detector) -> dict[str, float]:
    """The default score, from photos that training held out, and what it means there.

    It has the best F2 at IoU 0.5 on everyday photos among those with at most FALSE_PEOPLE on a photo of nobody.
    F2 weighs recall double: a person who was missed is worse for a user than a box too many.
    """
    everyday = read_held_out(data, "everyday/person_keypoints_everyday.json", "everyday/images")
    nobody = read_held_out(data, "negatives/person_none.json", "negatives/images")
    scored: list[tuple[float, bool]] = []
    for path, true, ignored in everyday:
        found = detector([read_frame(path)], [""])[0]
        free = np.ones(len(true), bool)
        for box, score in zip(found.boxes, found.scores, strict=True):
            overlaps = iou([box], true)[0] * free
            if overlaps.size and overlaps.max() >= 0.5:
                free[overlaps.argmax()] = False
                scored.append((float(score), True))
            elif not (len(ignored) and iou([box], ignored).max() > 0.3):
                scored.append((float(score), False))
    wrong = np.sort(np.concatenate([detector([read_frame(path)], [""])[0].scores for path, _, _ in nobody]))
    scores, hits = np.array([score for score, _ in scored]), np.array([hit for _, hit in scored])
    best = {"f2": -1.0}
    for threshold in np.arange(0.2, 0.9, 0.01).round(2):
        kept = scores >= threshold
        false = float((wrong >= threshold).sum() / len(nobody))
        precision, recall = (
            hits[kept].mean() if kept.any() else 0.0,
            hits[kept].sum() / sum(len(t) for _, t, _ in everyday),
        )
        f2 = 5 * precision * recall / max(4 * precision + recall, 1e-9)
        if false <= FALSE_PEOPLE and f2 > best["f2"]:
            best = {"threshold": threshold, "f2": f2, "recall": recall, "precision": precision, "false_people": false}
    return {name: round(float(value), 3) for name, value in best.items()}


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--weights", type=click.Path(path_type=Path, exists=True), required=True, multiple=True)
@click.option("--pose", default="pose", help="Pose weights for the end-to-end figure.")
@click.option("--threshold", type=float, help="Instead of the one chosen on held-out photos.")
@click.option("--flip/--no-flip", default=True)
@click.option("--write", is_flag=True, help="Write the threshold into the weights' header.")
def main(data: Path, weights: tuple[Path, ...], pose: str, threshold: float | None, flip: bool, write: bool) -> None:
    """Print the figures as JSON."""
    truth = read_ground_truth(data / "coco/annotations/person_keypoints_val2017.json", data / "coco/val2017")
    frames = {i["id"]: read_frame(data / "coco/val2017" / i["file_name"]) for i in truth.dataset["images"]}
    estimator = load_estimator(pose, flip=flip)
    true = score_keypoints(truth.dataset, predict(estimator, truth, true_boxes(truth)).results, truth.keypoint_set)
    report = {}
    for path in weights:
        detector = load_detector("person", weights=path, threshold=0.02)
        held_out = choose_threshold(data, detector) if threshold is None else {"threshold": threshold}
        found = {image_id: detector([frame], [""])[0] for image_id, frame in frames.items()}
        figures, kept = measure_boxes(truth.dataset, found, held_out["threshold"])
        own = score_keypoints(truth.dataset, predict(estimator, truth, kept).results, truth.keypoint_set)
        keypoints = {
            name: {"own boxes": round(own.values[name], 4), "true boxes": round(true.values[name], 4)}
            for name in ("AP", "AP50")
        }
        ratio = round(own.values["AP"] / max(true.values["AP"], 1e-9), 3)
        report[str(path)] = {"held_out": held_out} | figures | {"keypoints": keypoints, "ratio": ratio}
        if estimator.config.person_score:
            proposing = load_detector("person", weights=path, threshold=threshold)
            rescoring = Predictor(replace(proposing, threshold=0.0), replace(estimator, flip=False))
            judged = {i: rescored(rescoring, frame) for i, frame in frames.items()}
            figures, _ = measure_boxes(truth.dataset, judged, proposing.threshold)
            own = score_keypoints(truth.dataset, predict(estimator, truth, proposing).results, truth.keypoint_set)
            report[f"{path}, verified"] = {
                "threshold": proposing.threshold,
                **figures,
                "keypoints": {name: round(own.values[name], 4) for name in ("AP", "AP50")},
                "ratio": round(own.values["AP"] / max(true.values["AP"], 1e-9), 3),
            }
        if write:
            tensors, header = load_weights(path)
            header["config"]["threshold"] = held_out["threshold"]
            save_weights(path, tensors, header)
    click.echo(json.dumps(report, indent=2))


def rescored(predictor: Predictor, frame: Frame) -> Detections:
    """All proposals of a frame with the scores that verification gives them; the detector's threshold is 0."""
    poses = predictor.predict([frame], [""])[0]
    return Detections(poses.boxes, poses.box_scores)


def measure_boxes(
    dataset: Mapping[str, Any], found: dict[int, Detections], threshold: float
) -> tuple[dict[str, object], dict[int, Detections]]:
    """AP, AP50, recall of people with 5 or more keypoints by size, false people; and who reaches the threshold."""
    boxes = [
        {"image_id": i, "category_id": 1, "bbox": [*map(float, [x1, y1, x2 - x1, y2 - y1])], "score": float(s)}
        for i, people in found.items()
        for (x1, y1, x2, y2), s in zip(people.boxes, people.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(dataset))
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(boxes), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    kept = {i: Detections(p.boxes[p.scores >= threshold], p.scores[p.scores >= threshold]) for i, p in found.items()}
    wanted: dict[str, list[bool]] = {}
    for annotation in dataset["annotations"]:
        if annotation["iscrowd"] or annotation["num_keypoints"] < 5:
            continue
        people = kept[annotation["image_id"]].boxes
        hit = bool(len(people)) and float(iou([xywh_to_xyxy(annotation["bbox"])], people).max()) >= 0.5
        size = "small" if annotation["area"] < 32**2 else "medium" if annotation["area"] < 96**2 else "large"
        for group in (size, "all"):
            wanted.setdefault(group, []).append(hit)
    with_people = {a["image_id"] for a in dataset["annotations"]}
    empty = [i for i in found if i not in with_people]
    figures = {
        "AP": round(float(evaluation.stats[0]), 4),
        "AP50": round(float(evaluation.stats[1]), 4),
        "recall": {group: [round(float(np.mean(hits)), 3), len(hits)] for group, hits in sorted(wanted.items())},
        "false_people": [sum(len(kept[i]) for i in empty), len(empty)],
    }
    return figures, kept


if __name__ == "__main__":
    main()
