"""Choose a detector's proposal and default score together with a pose model's person score, on held-out photos.

    python recipes/choose_scores.py --data SHARED --weights weights/person.safetensors --pose weights/pose.safetensors

prints a line for every pair of scores: recall and precision of people with 5 or more keypoints (IoU 0.5) on everyday
and street photos held out of the detector's training, recall on COCO images that no model is trained on
(coco/train2017_more, human labels), crops per detected person, and false positives on photos without people that the
person score was not trained on. --write PROPOSAL,DEFAULT writes a pair into the detector's header.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from posecli.detect import load_detector
from posecli.geometry import iou, xywh_to_xyxy
from posecli.media.images import decode_image
from posecli.pose.estimator import Estimate, load_estimator
from posecli.pose.verification import rescored_and_refined, select
from posecli.types import Frame
from posecli.weights.files import load_weights, save_weights

LOWEST = 0.12
PROPOSALS = (0.25, 0.28, 0.3, 0.32, 0.33, 0.35, 0.4)
DEFAULTS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
TABLES = {
    "everyday": ("everyday/person_keypoints_everyday.json", "everyday/images"),
    "street": ("street/person_keypoints_street.json", "street/images"),
    "more": ("coco/annotations/person_keypoints_train2017_more.json", "coco/train2017_more"),
    "none": ("negatives/person_none.json", "negatives/images"),
}


@dataclass(frozen=True)
class Photo:
    """A photo with its N proposals; boxes xyxy of people that should be detected, and of others, which do not count."""

    frame: Frame
    estimate: Estimate | None
    people: np.ndarray
    others: np.ndarray

    def found(self, proposal: float, default: float, sigmas: tuple[float, ...] | None) -> tuple[np.ndarray, int]:
        """Boxes of detected people, and the number of crops that were estimated."""
        if self.estimate is None:
            return np.zeros((0, 4)), 0
        rows = np.flatnonzero(self.estimate.poses.box_scores >= proposal)
        poses = rescored_and_refined(self.estimate, self.frame).rows(rows)
        return poses.boxes[select(poses, default, sigmas)], len(rows)


def is_held_out(table: str, name: str) -> bool:
    """Whether a photo is held out, and used here."""
    if table == "none":
        return zlib.crc32(name.encode()) % 5 == 0
    return table == "more" or int(hashlib.sha256(name.encode()).hexdigest(), 16) % 20 == 0


def read_photos(data: Path, table: str) -> Iterator[tuple[Frame, np.ndarray, np.ndarray]]:
    """Held-out photos with the boxes of people with 5 or more keypoints, and of other people and crowds."""
    annotations, folder = TABLES[table]
    document = json.loads((data / annotations).read_bytes())
    for image in document["images"]:
        if is_held_out(table, image["file_name"]):
            path = data / folder / image["file_name"]
            of_image = [a for a in document["annotations"] if a["image_id"] == image["id"]]
            wanted = [not a.get("iscrowd") and a.get("num_keypoints", 17) >= 5 for a in of_image]
            boxes = xywh_to_xyxy(np.array([a["bbox"] for a in of_image], float).reshape(-1, 4))
            chosen = np.array(wanted, bool)
            yield Frame(decode_image(path.read_bytes(), "", ignore_orientation=True)), boxes[chosen], boxes[~chosen]


def matched(boxes: np.ndarray, people: np.ndarray) -> np.ndarray:
    """(N,) whether each box is the first one that matches its person."""
    free, hits = np.ones(len(people), bool), np.zeros(len(boxes), bool)
    for row, box in enumerate(boxes if len(people) else ()):
        overlaps = iou([box], people)[0] * free
        if overlaps.max() >= 0.5:
            free[overlaps.argmax()], hits[row] = False, True
    return hits


def figures(photos: list[Photo], proposal: float, default: float, sigmas: tuple[float, ...] | None) -> dict[str, float]:
    """Recall, precision, crops per detected person, and the number of false positives."""
    hits = people = crops = kept = wrong = 0
    for photo in photos:
        boxes, estimated = photo.found(proposal, default, sigmas)
        hit = matched(boxes, photo.people)
        other = np.zeros(len(boxes), bool)
        if len(photo.others) and len(boxes):
            other = iou(boxes, photo.others).max(axis=1) > 0.3
        hits, people = hits + int(hit.sum()), people + len(photo.people)
        crops, kept, wrong = crops + estimated, kept + len(boxes), wrong + int((~hit & ~other).sum())
    return {
        "recall": round(hits / max(people, 1), 3),
        "precision": round(hits / max(hits + wrong, 1), 3),
        "crops": round(crops / max(kept, 1), 2),
        "wrong": wrong,
    }


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--weights", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--pose", default="pose", show_default=True)
@click.option("--write", metavar="PROPOSAL,DEFAULT")
def main(data: Path, weights: Path, pose: str, write: str | None) -> None:
    """Print the figures, or write a pair."""
    if write is not None:
        tensors, header = load_weights(weights)
        proposal, default = (float(value) for value in write.split(","))
        header["config"] |= {"proposal": proposal, "verified": default}
        save_weights(weights, tensors, header)
        return
    detector, estimator = load_detector("person", weights=weights, threshold=LOWEST), load_estimator(pose)
    sigmas = estimator.config.keypoints.sigmas
    photos: dict[str, list[Photo]] = {}
    for table in TABLES:
        photos[table] = []
        for frame, people, others in read_photos(data, table):
            boxes = detector([frame], [""])[0]
            estimate = None
            if len(boxes):
                estimate = estimator.estimate([frame], [boxes])[0]
            photos[table].append(Photo(frame, estimate, people, others))
    for proposal in PROPOSALS:
        for default in DEFAULTS:
            if default >= proposal:
                row = {table: figures(photos[table], proposal, default, sigmas) for table in TABLES}
                click.echo(json.dumps({"proposal": proposal, "default": default, **row}))


if __name__ == "__main__":
    main()
