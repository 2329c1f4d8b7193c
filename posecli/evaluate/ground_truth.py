"""COCO keypoint ground truth of an evaluation, with its images."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from posecli.annotations.coco_keypoints import read_annotations
from posecli.annotations.document import quoted_name
from posecli.annotations.ids import IdMap
from posecli.annotations.images import Image
from posecli.annotations.names import find_files, missing_line
from posecli.annotations.pixels import read_pixels
from posecli.errors import DataError, MediaError
from posecli.keypoints import KeypointSet
from posecli.types import PixelArray
from posecli.weights.files import read_header
from posecli.weights.fingerprints import overlap
from posecli.weights.graphs import is_graph


@dataclass(frozen=True)
class GroundTruth:
    """A COCO keypoint dataset, of one category, and the folder of its images.

    dataset: in the form of annotations.coco_keypoints.Annotations.people; ids of images and category are internal.
    missing: missing or unreadable images, left out. left_out: ids of all images of the file that are not evaluated.
    places: files of images whose path is not images / file_name. ids: the file's own ids of images, None where they
    equal the internal ones; own_category: the file's own id of the category. notes: repairs, as sentences.
    """

    dataset: Mapping[str, Any]
    images: Path
    keypoint_set: KeypointSet
    missing: tuple[Path, ...] = ()
    left_out: frozenset[int] = frozenset()
    places: Mapping[int, Path] = field(default_factory=dict)
    ids: IdMap | None = None
    own_category: Any = None
    notes: tuple[str, ...] = ()

    @property
    def category_id(self) -> int:
        """The category id of ground truth and results."""
        return int(self.dataset["categories"][0]["id"])

    @cached_property
    def files(self) -> dict[int, Path]:
        """Image id → file, for all images, also those without people: detections there are false positives."""
        return {
            i["id"]: self.places[i["id"]] if i["id"] in self.places else self.images / i["file_name"]
            for i in self.dataset["images"]
        }

    @cached_property
    def sizes(self) -> dict[int, tuple[int, int] | None]:
        """Image id → (width, height) that the annotations refer to, None where unknown."""
        return {i["id"]: (i["width"], i["height"]) if i.get("width") else None for i in self.dataset["images"]}

    def pixels(self, image_id: int) -> PixelArray:
        """The image (height, width, 3) RGB in the orientation of its annotations. Raises MediaError."""
        return read_pixels(self.files[image_id], self.sizes.get(image_id))[0]

    def own_result(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """An entry of a results file with the annotation file's own ids."""
        category = self.category_id if self.own_category is None else self.own_category
        image_id = result["image_id"]
        return {**result, "image_id": image_id if self.ids is None else self.ids.own[image_id], "category_id": category}


def read_ground_truth(
    annotations: Path,
    images: Path,
    *,
    limit: int | None = None,
    missing_limit: float = 0.0,
    needs_images: bool = True,
    category: str | None = None,
    option: str = "--allow-missing",
) -> GroundTruth:
    """Read COCO keypoints through annotations.coco_keypoints; with limit, only the first images.

    category: name or id of the people's category, see read_annotations. Missing and unreadable images are left out,
    with their people, if they are at most missing_limit (a share) of all; needs_images=False does not look for images.
    option: the option that allows missing images, for the error. Raises DataError where the file is not a COCO dataset
    with keypoints, for invalid annotations, and for missing images (with their number and the first one).
    """
    given = read_annotations(annotations, category)
    entry = {"id": given.category.id, "name": given.category.name, "keypoints": list(given.keypoint_set.names)}
    dataset = {
        "images": [_entry(image) for image in given.images],
        "annotations": list(given.people),
        "categories": [entry],
    }
    truth = GroundTruth(
        dataset, images, given.keypoint_set, ids=given.ids, own_category=given.category.own_id, notes=given.notes
    )
    if not any(is_evaluated(person) for person in given.people):
        truth = replace(truth, notes=(*truth.notes, "no person with a labelled keypoint: there is nothing to measure"))
    chosen = given.images[:limit]
    if limit is not None:
        truth = _only(truth, {image.id for image in chosen})
    if needs_images:
        files = find_files(chosen, images)
        truth = replace(truth, places={**files.there, **files.missing}, notes=(*truth.notes, *files.notes))
        absent, what = dict(files.missing), "images"
        if missing_limit > 0 and len(absent) <= missing_limit * len(chosen):
            unreadable = _unreadable(truth, files.there)
            absent |= unreadable
            what = "images (or are unreadable)" if unreadable else what
        if absent and len(absent) > missing_limit * len(chosen):
            raise DataError(f"{missing_line(absent.values(), len(chosen), what)}: --images, or {option}")
        if absent:
            truth = replace(_only(truth, set(truth.files) - set(absent)), missing=tuple(absent.values()))
    if not truth.dataset["images"]:
        raise DataError(f"{annotations}: no image is left to evaluate in {images}")
    return truth


def _entry(image: Image) -> dict[str, Any]:
    entry = {"id": image.id, "file_name": image.file_name}
    return entry if image.size is None else {**entry, "width": image.size[0], "height": image.size[1]}


def _unreadable(truth: GroundTruth, there: Mapping[int, Path]) -> dict[int, Path]:
    sizes = truth.sizes

    def fails(image_id: int) -> bool:
        try:
            read_pixels(there[image_id], sizes.get(image_id))
        except MediaError:
            return True
        return False

    with ThreadPoolExecutor(2) as pool:
        found = pool.map(fails, there)
        return {image_id: there[image_id] for image_id, failed in zip(there, found, strict=True) if failed}


def _only(truth: GroundTruth, image_ids: set[int]) -> GroundTruth:
    images = truth.dataset["images"]
    dataset = {
        **truth.dataset,
        "images": [image for image in images if image["id"] in image_ids],
        "annotations": [a for a in truth.dataset["annotations"] if a["image_id"] in image_ids],
    }
    left_out = truth.left_out | {image["id"] for image in images if image["id"] not in image_ids}
    return replace(truth, dataset=dataset, left_out=left_out)


def is_evaluated(annotation: Mapping[str, Any]) -> bool:
    """Whether COCO evaluates an annotation: no crowd, and at least one labelled keypoint."""
    labelled = any(value > 0 for value in annotation.get("keypoints", ())[2::3])
    return not annotation.get("iscrowd") and labelled


def training_overlap(weights: Path, truth: GroundTruth) -> tuple[int, str]:
    """Number of the images that a model was trained on according to its header, and the first one's name."""
    # A graph's header never lists them.
    header = {} if is_graph(weights) else read_header(weights)
    training = header.get("training")
    known = training.get("images") if isinstance(training, Mapping) else None
    # Imported weights and those of early versions of posecli do not list training images.
    try:
        shared = overlap(known, truth.files.values()) if isinstance(known, Mapping) else []
    except DataError as error:
        raise DataError(f"{weights}: {error}") from error
    return len(shared), quoted_name(shared[0].name) if shared else ""
