"""Measure a person detector: choose its threshold on held-out training photos, then report on validation.

python recipes/measure_detector.py --data SHARED --weights weights/person.safetensors
"""

import contextlib
import io
import json
import zlib
from pathlib import Path

import click
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from posecli.detect import load_detector
from posecli.evaluate.people import read_truth
from posecli.evaluate.predictions import predict, true_boxes
from posecli.evaluate.scoring import score_keypoints
from posecli.geometry import iou, xywh_to_xyxy
from posecli.media.images import decode_image
from posecli.pose.estimator import load_estimator
from posecli.types import Detections, Frame


def read_frame(path: Path) -> Frame:
    return Frame(decode_image(path.read_bytes(), str(path), ignore_orientation=True))


def choose_threshold(data: Path, detector) -> tuple[float, float]:
    """The score with the best F2 at IoU 0.5 on the everyday photos that training held out.

    F2 weighs recall double: a person who was missed is worse for a user than a box too many.
    """
    document = json.loads((data / "everyday/person_keypoints_everyday.json").read_bytes())
    held_out = [i for i in document["images"] if zlib.crc32(i["file_name"].encode()) % 20 == 0]
    scored: list[tuple[float, bool]] = []
    total = 0
    for image in held_out:
        of_image = [a for a in document["annotations"] if a["image_id"] == image["id"]]
        true = xywh_to_xyxy([a["bbox"] for a in of_image if not a.get("iscrowd")] or np.zeros((0, 4)))
        ignored = xywh_to_xyxy([a["bbox"] for a in of_image if a.get("iscrowd")] or np.zeros((0, 4)))
        total += len(true)
        found = detector([read_frame(data / "everyday/images" / image["file_name"])], [""])[0]
        free = np.ones(len(true), bool)
        for box, score in zip(found.boxes, found.scores, strict=True):
            overlaps = iou([box], true)[0] * free
            if overlaps.size and overlaps.max() >= 0.5:
                free[overlaps.argmax()] = False
                scored.append((float(score), True))
            elif not (len(ignored) and iou([box], ignored).max() > 0.3):
                scored.append((float(score), False))
    scored.sort(reverse=True)
    hits = np.cumsum([hit for _, hit in scored])
    precision, recall = hits / np.arange(1, len(scored) + 1), hits / total
    f2 = 5 * precision * recall / (4 * precision + recall)
    return round(scored[int(f2.argmax())][0], 2), float(f2.max())


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--weights", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--pose", default="pose", help="Pose weights for the end-to-end figure.")
@click.option("--threshold", type=float, help="Instead of the one chosen on held-out photos.")
@click.option("--flip/--no-flip", default=True)
def main(data: Path, weights: Path, pose: str, threshold: float | None, flip: bool) -> None:
    """Print the figures as JSON."""
    detector = load_detector("person", weights=weights, threshold=0.02)
    report: dict[str, object] = {}
    if threshold is None:
        threshold, report["held_out_f2"] = choose_threshold(data, detector)
    report["threshold"] = threshold

    truth = read_truth(data / "coco/annotations/person_keypoints_val2017.json", data / "coco/val2017")
    dataset = truth.dataset
    frames = {i["id"]: read_frame(data / "coco/val2017" / i["file_name"]) for i in dataset["images"]}
    found = {image_id: detector([frame], [""])[0] for image_id, frame in frames.items()}
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
    report |= {"AP": round(float(evaluation.stats[0]), 4), "AP50": round(float(evaluation.stats[1]), 4)}

    kept = {i: Detections(p.boxes[p.scores >= threshold], p.scores[p.scores >= threshold]) for i, p in found.items()}
    wanted: dict[str, list[bool]] = {}
    for annotation in dataset["annotations"]:
        if annotation["iscrowd"] or annotation["num_keypoints"] < 5:
            continue
        people = kept[annotation["image_id"]].boxes
        box = xywh_to_xyxy(annotation["bbox"])
        hit = bool(len(people)) and float(iou([box], people).max()) >= 0.5
        size = "small" if annotation["area"] < 32**2 else "medium" if annotation["area"] < 96**2 else "large"
        for group in (size, "all"):
            wanted.setdefault(group, []).append(hit)
    report["recall"] = {group: [round(float(np.mean(hits)), 3), len(hits)] for group, hits in sorted(wanted.items())}
    with_people = {a["image_id"] for a in dataset["annotations"]}
    empty = [i for i in frames if i not in with_people]
    report["false_people"] = [sum(len(kept[i]) for i in empty), len(empty)]

    estimator = load_estimator(pose, flip=flip)
    results = predict(estimator, truth, kept).results
    own = score_keypoints(dataset, results, truth.keypoint_set).values
    true = score_keypoints(dataset, predict(estimator, truth, true_boxes(truth)).results, truth.keypoint_set).values
    report["keypoint_AP"] = {"own boxes": round(own["AP"], 4), "true boxes": round(true["AP"], 4)}
    report["keypoint_AP"]["ratio"] = round(own["AP"] / max(true["AP"], 1e-9), 3)
    report["keypoint_AP50"] = {"own boxes": round(own["AP50"], 4), "true boxes": round(true["AP50"], 4)}
    click.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
