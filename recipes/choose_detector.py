"""Choose a person detector's input size and default score on held-out photos.

    python recipes/choose_detector.py --data SHARED --weights runs/person/person.safetensors --input-size 416,512,640

prints for each input size: average precision on the held-out everyday and street photos (a teacher's labels), recall on
COCO images that no model is trained on (coco/train2017_more, human labels, not all people labelled), false positives on
held-out photos without people, the time per photo, and the score with the best F2 on everyday and street photos among
those with at most FALSE_PEOPLE false positives per photo without people. F2 weighs recall twice as much as precision: a
missed person is worse for users than a false positive. --write SIDE writes that size and its score into the weights'
header; --score and --proposal replace the best score by one that was chosen together with a pose model.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from hold_out import is_held_out_of_detector
from measure_detector import average_precision, read_frame

from posecli.detect import load_detector
from posecli.geometry import iou, xywh_to_xyxy
from posecli.types import Detections
from posecli.weights.files import load_weights, save_weights

FALSE_PEOPLE = 0.05
TABLES = {
    "everyday": ("everyday/person_keypoints_everyday.json", "everyday/images"),
    "street": ("street/person_keypoints_street.json", "street/images"),
    "more": ("coco/annotations/person_keypoints_train2017_more.json", "coco/train2017_more"),
    "no_people": ("negatives/person_none.json", "negatives/images"),
}


@dataclass(frozen=True)
class Part:
    """Held-out photos: a COCO dataset and their files by id."""

    dataset: Mapping[str, Any]
    files: dict[int, Path]


def read_part(data: Path, name: str) -> Part:
    """One of TABLES, without the training photos."""
    annotations, folder = TABLES[name]
    document = json.loads((data / annotations).read_bytes())
    table = Path(annotations).stem
    images = [i for i in document["images"] if name == "more" or is_held_out_of_detector(table, i["file_name"])]
    ids = {image["id"] for image in images}
    people = [a for a in document["annotations"] if a["image_id"] in ids]
    dataset = {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}
    return Part(dataset, {image["id"]: data / folder / image["file_name"] for image in images})


def resized(weights: Path, side: int, scores: tuple[float, float] | None, out: Path) -> Path:
    """The weights with another input size and, if given, other thresholds of people and of proposals."""
    tensors, header = load_weights(weights)
    header["config"] |= {"input_size": [side, side]}
    if scores is not None:
        header["config"] |= {"threshold": scores[0], "proposal": scores[1]}
    save_weights(out, tensors, header)
    return out


def matched(part: Part, found: Mapping[int, Detections]) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores of boxes, whether each matches a person (IoU 0.5), and the number of people; without uncertain regions."""
    scores, hits, people = [], [], 0
    for image_id, detections in found.items():
        own = [a for a in part.dataset["annotations"] if a["image_id"] == image_id]
        true, ignored = (
            xywh_to_xyxy([a["bbox"] for a in own if bool(a.get("iscrowd")) is crowd] or np.zeros((0, 4)))
            for crowd in (False, True)
        )
        people += len(true)
        free = np.ones(len(true), bool)
        for box, score in zip(detections.boxes, detections.scores, strict=True):
            overlaps = iou([box], true)[0] * free
            hit = bool(overlaps.size and overlaps.max() >= 0.5)
            if hit:
                free[overlaps.argmax()] = False
            if hit or not (len(ignored) and iou([box], ignored).max() > 0.3):
                scores.append(float(score))
                hits.append(hit)
    return np.array(scores), np.array(hits), people


def best_score(scores: np.ndarray, hits: np.ndarray, people: int, wrong: np.ndarray, empty: int) -> dict[str, float]:
    """The best default score and its figures on the held-out photos."""
    best = {"f2": -1.0}
    for threshold in np.arange(0.2, 0.9, 0.01).round(2):
        kept = scores >= threshold
        false = float((wrong >= threshold).sum() / empty)
        precision, recall = hits[kept].mean() if kept.any() else 0.0, hits[kept].sum() / people
        f2 = 5 * precision * recall / max(4 * precision + recall, 1e-9)
        if false <= FALSE_PEOPLE and f2 > best["f2"]:
            best = {"score": threshold, "f2": f2, "recall": recall, "precision": precision, "false_people": false}
    return best


def measure(weights: Path, parts: Mapping[str, Part]) -> dict[str, Any]:
    """All figures of a detector."""
    detector = load_detector("person", weights=weights, threshold=0.02)
    found: dict[str, dict[int, Detections]] = {}
    seconds, count = 0.0, 0
    for name, part in parts.items():
        found[name] = {}
        for image_id, path in part.files.items():
            frame = read_frame(path)
            began = time.perf_counter()
            found[name][image_id] = detector([frame], [""])[0]
            seconds, count = seconds + time.perf_counter() - began, count + 1
    labelled = [matched(parts[name], found[name]) for name in ("everyday", "street")]
    scores, hits = (np.concatenate([part[k] for part in labelled]) for k in (0, 1))
    wrong = np.concatenate([people.scores for people in found["no_people"].values()])
    best = best_score(scores, hits, sum(people for *_, people in labelled), wrong, len(found["no_people"]))
    more_scores, more_hits, more_people = matched(parts["more"], found["more"])
    figures: dict[str, Any] = {}
    for name in ("everyday", "street"):
        figures[f"AP {name}"], figures[f"AP50 {name}"] = average_precision(parts[name].dataset, found[name])
    figures |= best | {
        "more_recall": more_hits[more_scores >= best["score"]].sum() / more_people,
        "more_boxes": (more_scores >= best["score"]).sum() / more_people,
        "ms": 1000 * seconds / count,
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--weights", type=click.Path(path_type=Path, exists=True), required=True, multiple=True)
@click.option("--input-size", "sizes", default="416", show_default=True, help="Longest sides, with commas.")
@click.option("--write", type=int, metavar="SIDE", help="Write this size and its score into the weights.")
@click.option("--score", type=float, help="Written as the default score instead of the best one.")
@click.option("--proposal", type=float, help="Written as the lowest score of a proposal; the default score otherwise.")
def main(
    data: Path, weights: tuple[Path, ...], sizes: str, write: int | None, score: float | None, proposal: float | None
) -> None:
    """Print a line of JSON for each of the weights and sizes."""
    parts = {name: read_part(data, name) for name in TABLES}
    for path in weights:
        for side in map(int, sizes.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                figures = measure(resized(path, side, None, Path(folder) / "person.safetensors"), parts)
            click.echo(json.dumps({"weights": path.name, "input_size": side, **figures}))
            if side == write:
                chosen = figures["score"] if score is None else score
                resized(path, side, (chosen, chosen if proposal is None else proposal), path)


if __name__ == "__main__":
    main()
