"""Measure person detectors at their default score on COCO val2017; `choose_detector.py` chooses that score.

    python recipes/measure_detector.py --data SHARED --weights weights/person.safetensors

Where the pose weights have a person score, each detector is also measured as `posecli run` uses it: its proposals
verified by the pose model.

--weights may be given several times: the detectors are then measured with one pose model in one run.
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

from posecli.detect import load_detector
from posecli.evaluate.ground_truth import read_ground_truth
from posecli.evaluate.predictions import predict, true_boxes
from posecli.evaluate.scoring import score_keypoints
from posecli.geometry import iou, xywh_to_xyxy
from posecli.media.images import decode_image
from posecli.pose.estimator import load_estimator
from posecli.predict import Predictor
from posecli.types import Detections, Frame


def read_frame(path: Path) -> Frame:
    return Frame(decode_image(path.read_bytes(), str(path), ignore_orientation=True))


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--weights", type=click.Path(path_type=Path, exists=True), required=True, multiple=True)
@click.option("--pose", default="pose", help="Pose weights for the end-to-end figure.")
@click.option("--threshold", type=float, help="Instead of the weights' default score.")
@click.option("--flip/--no-flip", default=True)
@click.option("--precision", default="fp32", help="Of both networks, as in posecli run.")
def main(data: Path, weights: tuple[Path, ...], pose: str, threshold: float | None, flip: bool, precision: str) -> None:
    """Print the figures as JSON."""
    truth = read_ground_truth(data / "coco/annotations/person_keypoints_val2017.json", data / "coco/val2017")
    frames = {i["id"]: read_frame(data / "coco/val2017" / i["file_name"]) for i in truth.dataset["images"]}
    estimator = load_estimator(pose, flip=flip, precision=precision)
    true = score_keypoints(truth.dataset, predict(estimator, truth, true_boxes(truth)).results, truth.keypoint_set)
    report = {}
    for path in weights:
        detector = load_detector("person", weights=path, threshold=0.02, precision=precision)
        default = load_detector("person", weights=path, threshold=threshold, precision=precision).threshold
        found = {image_id: detector([frame], [""])[0] for image_id, frame in frames.items()}
        figures, kept = measure_boxes(truth.dataset, found, default)
        own = score_keypoints(truth.dataset, predict(estimator, truth, kept).results, truth.keypoint_set)
        keypoints = {
            name: {"own boxes": round(own.values[name], 4), "true boxes": round(true.values[name], 4)}
            for name in ("AP", "AP50")
        }
        ratio = round(own.values["AP"] / max(true.values["AP"], 1e-9), 3)
        report[str(path)] = {"threshold": default} | figures | {"keypoints": keypoints, "ratio": ratio}
        if estimator.config.person_score:
            proposing = load_detector("person", weights=path, threshold=threshold, precision=precision)
            rescoring = Predictor(replace(proposing, verified=0.0), replace(estimator, flip=False))
            judged = {i: rescored(rescoring, frame) for i, frame in frames.items()}
            figures, _ = measure_boxes(truth.dataset, judged, proposing.verified)
            own = score_keypoints(truth.dataset, predict(estimator, truth, proposing).results, truth.keypoint_set)
            report[f"{path}, verified"] = {
                "threshold": proposing.verified,
                **figures,
                "keypoints": {name: round(own.values[name], 4) for name in ("AP", "AP50")},
                "ratio": round(own.values["AP"] / max(true.values["AP"], 1e-9), 3),
            }
    click.echo(json.dumps(report, indent=2))


def rescored(predictor: Predictor, frame: Frame) -> Detections:
    """All proposals of a frame with their scores after verification, without a threshold."""
    poses = predictor.predict([frame], [""])[0]
    return Detections(poses.boxes, poses.box_scores)


def measure_boxes(
    dataset: Mapping[str, Any], found: dict[int, Detections], threshold: float
) -> tuple[dict[str, object], dict[int, Detections]]:
    """AP, AP50, recall of people with 5 or more keypoints by size, false positives; and people above the threshold."""
    ap, ap50 = average_precision(dataset, found)
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
        "AP": round(ap, 4),
        "AP50": round(ap50, 4),
        "recall": {group: [round(float(np.mean(hits)), 3), len(hits)] for group, hits in sorted(wanted.items())},
        "false_people": [sum(len(kept[i]) for i in empty), len(empty)],
    }
    return figures, kept


def average_precision(dataset: Mapping[str, Any], found: Mapping[int, Detections]) -> tuple[float, float]:
    """COCO's AP and AP50 of people's boxes."""
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
    return float(evaluation.stats[0]), float(evaluation.stats[1])


if __name__ == "__main__":
    main()
