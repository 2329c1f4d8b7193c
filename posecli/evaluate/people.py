"""Validation people: COCO ground truth with its images, and a model's results on its boxes."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posecli.errors import DataError
from posecli.geometry import xywh_to_xyxy
from posecli.keypoints import KeypointSet, from_category
from posecli.media.images import decode_image
from posecli.pose.estimator import Estimator
from posecli.types import Detections, Frame

# Pictures whose people share a batch.
CHUNK = 8


@dataclass(frozen=True)
class Truth:
    """A COCO keypoint dataset and the folder of its images."""

    dataset: Mapping[str, Any]
    images: Path
    keypoint_set: KeypointSet

    @property
    def files(self) -> dict[int, Path]:
        """Image id → file, for images with people to judge."""
        judged = {a["image_id"] for a in self.dataset["annotations"] if is_judged(a)}
        return {i["id"]: self.images / i["file_name"] for i in self.dataset["images"] if i["id"] in judged}


def read_truth(annotations: Path, images: Path) -> Truth:
    """Read COCO keypoints. Raises DataError where the file is none, or its images are missing (counted)."""
    try:
        dataset = json.loads(annotations.read_bytes())
    except OSError as error:
        raise DataError(f"{annotations}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{annotations}: not JSON ({error})") from error
    missing = [key for key in ("images", "annotations", "categories") if key not in dataset]
    if missing or not dataset["categories"]:
        raise DataError(f"{annotations}: not COCO keypoints, no {' and '.join(missing) or 'categories'}")
    truth = Truth(dataset, images, from_category(dataset["categories"][0]))
    absent = [path for path in truth.files.values() if not path.is_file()]
    if absent:
        raise DataError(f"{len(absent)} of {len(truth.files)} images are missing, first {absent[0]}")
    return truth


def is_judged(annotation: Mapping[str, Any]) -> bool:
    """Whether a person counts: no crowd, and a labelled keypoint."""
    labelled = any(value > 0 for value in annotation.get("keypoints", ())[2::3])
    return not annotation.get("iscrowd") and labelled


def results_on_true_boxes(estimator: Estimator, truth: Truth) -> list[dict[str, Any]]:
    """COCO results of a model given the true boxes, each of score 1.

    Pictures are read as stored, without their EXIF orientation, since annotations refer to that.
    """
    boxes: dict[int, list[Any]] = {}
    for annotation in truth.dataset["annotations"]:
        if is_judged(annotation):
            boxes.setdefault(annotation["image_id"], []).append(annotation["bbox"])
    results = []
    for chunk in _chunks(list(truth.files.items())):
        frames = [Frame(decode_image(p.read_bytes(), str(p), ignore_orientation=True)) for _, p in chunk]
        people = []
        for image_id, _ in chunk:
            found = xywh_to_xyxy(np.array(boxes[image_id], np.float64)).astype(np.float32)
            people.append(Detections(found, np.ones(len(found), np.float32)))
        for (image_id, _), poses in zip(chunk, estimator(frames, people), strict=True):
            for points, score in zip(poses.keypoints, poses.person_scores, strict=True):
                flat = np.concatenate([points, np.ones((len(points), 1))], axis=1).reshape(-1)
                results.append(
                    {"image_id": image_id, "category_id": 1, "keypoints": flat.tolist(), "score": float(score)}
                )
    return results


def _chunks(items: list[tuple[int, Path]]) -> Iterator[list[tuple[int, Path]]]:
    for first in range(0, len(items), CHUNK):
        yield items[first : first + CHUNK]
