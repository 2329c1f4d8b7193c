"""Validation people: COCO ground truth with its images."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from posecli.errors import DataError
from posecli.keypoints import KeypointSet, from_category
from posecli.weights.files import load_weights
from posecli.weights.fingerprints import overlap


@dataclass(frozen=True)
class Truth:
    """A COCO keypoint dataset, of one category, and the folder of its images.

    missing: images that are not there, left out. left_out: ids of all images of the file that are not judged.
    """

    dataset: Mapping[str, Any]
    images: Path
    keypoint_set: KeypointSet
    missing: tuple[Path, ...] = ()
    left_out: frozenset[int] = frozenset()

    @property
    def category_id(self) -> int:
        """The category of truth and results alike."""
        return int(self.dataset["categories"][0]["id"])

    @property
    def files(self) -> dict[int, Path]:
        """Image id → file, for all images: people found where nobody is count too."""
        return {i["id"]: self.images / i["file_name"] for i in self.dataset["images"]}

    @property
    def judged_files(self) -> dict[int, Path]:
        """Image id → file, for images with people that count."""
        judged = {a["image_id"] for a in self.dataset["annotations"] if is_judged(a)}
        return {image_id: path for image_id, path in self.files.items() if image_id in judged}


def read_truth(
    annotations: Path,
    images: Path,
    *,
    limit: int | None = None,
    allow_missing: bool = False,
    needs_images: bool = True,
) -> Truth:
    """Read COCO keypoints; with limit, only the first images.

    The first category with keypoints is the one that is judged. Missing images are left out with allow_missing, their
    people too; needs_images=False does not look. Raises DataError where the file is no COCO dataset with keypoints,
    where an annotation is broken, or where images are missing (counted, the first named).
    """
    try:
        dataset = json.loads(annotations.read_bytes())
    except OSError as error:
        raise DataError(f"{annotations}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{annotations}: not JSON ({error})") from error
    missing = [key for key in ("images", "annotations", "categories") if key not in dataset]
    if missing or not dataset["categories"]:
        raise DataError(f"{annotations}: not COCO keypoints, no {' and '.join(missing) or 'categories'}")
    category, annotations_of = first_category(dataset)
    keypoint_set = from_category(category)
    truth = Truth({**dataset, "annotations": annotations_of, "categories": [category]}, images, keypoint_set)
    known = truth.files
    for annotation in annotations_of:
        _check(annotation, known, len(keypoint_set), f"{annotations}: annotation {annotation.get('id')}")
    if limit is not None:
        truth = _only(truth, {image["id"] for image in dataset["images"][:limit]})
    if not needs_images:
        return truth
    absent = {image_id: path for image_id, path in truth.files.items() if not path.is_file()}
    if absent and not allow_missing:
        first = next(iter(absent.values()))
        raise DataError(
            f"{len(absent)} of {len(truth.files)} images are missing, first {first}: --images, or --allow-missing"
        )
    if absent:
        truth = replace(_only(truth, set(truth.files) - set(absent)), missing=tuple(absent.values()))
    if not truth.files:
        raise DataError(f"{annotations}: no image is left to evaluate in {images}")
    return truth


def first_category(dataset: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[dict[str, Any]]]:
    """The first category with keypoints, and its annotations: a file may hold boxes of other things too."""
    category = next((c for c in dataset["categories"] if c.get("keypoints")), dataset["categories"][0])
    wanted = category.get("id")
    return category, [a for a in dataset["annotations"] if a.get("category_id", wanted) == wanted]


def _check(annotation: Mapping[str, Any], images: Mapping[int, Path], count: int, where: str) -> None:
    """Refuse what pycocotools would stumble over or, worse, would not."""
    if annotation.get("image_id") not in images:
        raise DataError(f"{where} is of an image that is not listed")
    values = annotation.get("keypoints")
    if values is not None and (len(values) != 3 * count or not _finite(values)):
        raise DataError(f"{where}: keypoints are {len(values)} values, not {3 * count}, or not finite")
    if is_judged(annotation):
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not _finite(box):
            raise DataError(f"{where}: it has no bbox of x, y, width, height")
    if "area" in annotation and not _finite([annotation["area"]]):
        raise DataError(f"{where}: area {annotation['area']} is no number")


def _finite(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def _only(truth: Truth, image_ids: set[int]) -> Truth:
    images = truth.dataset["images"]
    dataset = {
        **truth.dataset,
        "images": [image for image in images if image["id"] in image_ids],
        "annotations": [a for a in truth.dataset["annotations"] if a["image_id"] in image_ids],
    }
    left_out = truth.left_out | {image["id"] for image in images if image["id"] not in image_ids}
    return replace(truth, dataset=dataset, left_out=left_out)


def is_judged(annotation: Mapping[str, Any]) -> bool:
    """Whether a person counts: no crowd, and a labelled keypoint."""
    labelled = any(value > 0 for value in annotation.get("keypoints", ())[2::3])
    return not annotation.get("iscrowd") and labelled


def leaked(weights: Path, truth: Truth) -> tuple[int, str]:
    """How many of the truth's images a model was trained on, as its header says, and the first one's name."""
    _, header = load_weights(weights)
    training = header.get("training")
    known = training.get("images") if isinstance(training, Mapping) else None
    # Weights of other makers, and of posecli's first days, do not say.
    try:
        shared = overlap(known, truth.files.values()) if isinstance(known, Mapping) else []
    except DataError as error:
        raise DataError(f"{weights}: {error}") from error
    return len(shared), shared[0].name if shared else ""
