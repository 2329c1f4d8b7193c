"""Training images of the person detector: COCO boxes, ignored regions, photos without people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posecli.annotations.coco_keypoints import read_dataset
from posecli.annotations.people import is_crowd, read_box
from posecli.errors import DataError

Boxes = NDArray[np.float32]
# Longest side in pixels and JPEG quality of the images in memory.
LONGEST_SIDE = 512
_QUALITY = 92
_SMALLEST = 2


def _boxes(values: Sequence[Any]) -> Boxes:
    return np.asarray(values, np.float32).reshape(-1, 4)


@dataclass(frozen=True)
class DetectionSource:
    """A COCO file, the folder of its images, and how often each image is used in an epoch.

    Boxes with iscrowd, and whole images with persons_complete: false, are ignored regions, where people may be
    unlabelled: they have no loss. A score of a box is a teacher's and lowers its weight.
    """

    annotations: Path
    images: Path
    repeat: int = 1


@dataclass(frozen=True)
class Labels:
    """boxes (N, 4) x1 y1 x2 y2 in pixels and their weights (N,); ignored (M, 4): regions without loss."""

    boxes: Boxes
    weights: NDArray[np.float32]
    ignored: Boxes

    @classmethod
    def of(cls, boxes: Sequence[Any], weights: Sequence[float], ignored: Sequence[Any]) -> "Labels":
        """From lists, which may be empty."""
        return cls(_boxes(boxes), np.asarray(weights, np.float32), _boxes(ignored))


NO_LABELS = Labels.of([], [], [])


@dataclass(frozen=True)
class Photo:
    """An encoded image with its labels in its pixels. path: its file."""

    encoded: NDArray[np.uint8]
    labels: Labels
    path: Path

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return np.asarray(cv2.imdecode(self.encoded, cv2.IMREAD_COLOR_RGB), np.uint8)


def read_photos(sources: Sequence[DetectionSource], longest: int = LONGEST_SIDE) -> list[Photo]:
    """All images, downsampled to a longest side of `longest` pixels, each as often as its source says.

    Raises DataError for a file that is not a COCO file, or an image that cannot be read.
    """
    photos = []
    for source in sources:
        document = read_dataset(source.annotations, ("images", "annotations"))
        of_image: dict[Any, list[Mapping[str, Any]]] = {}
        for annotation in document["annotations"]:
            of_image.setdefault(annotation["image_id"], []).append(annotation)
        for image in document["images"]:
            photo = _read_photo(source.images / image["file_name"], image, of_image.get(image["id"], []), longest)
            photos += [photo] * source.repeat
    if not photos:
        raise DataError("no pictures to learn from")
    return photos


def _read_photo(path: Path, image: Mapping[str, Any], annotations: list[Mapping[str, Any]], longest: int) -> Photo:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    except (OSError, cv2.error) as error:
        raise DataError(f"{path}: cannot be read") from error
    if pixels is None:
        raise DataError(f"{path}: not an image")
    scale = min(1.0, longest / max(pixels.shape[:2]))
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return Photo(np.asarray(encoded, np.uint8).ravel(), read_labels(image, annotations, scale), path)


def read_labels(image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], scale: float) -> Labels:
    """Labels of an image that is resized by `scale`."""
    boxes, weights, ignored = [], [], []
    for annotation in annotations:
        box = read_box(annotation.get("bbox"))
        if box is None:
            continue
        x, y, w, h = np.asarray(box, float) * scale
        if is_crowd(annotation.get("iscrowd", 0)) or min(w, h) < _SMALLEST:
            ignored.append([x, y, x + w, y + h])
        else:
            boxes.append([x, y, x + w, y + h])
            weights.append(min(1.0, 0.4 + 0.75 * annotation.get("score", 1.0)))
    if not image.get("persons_complete", True):
        ignored.append([0, 0, image["width"], image["height"]])
    return Labels.of(boxes, weights, ignored)
