"""Detectors without a network: boxes from a COCO file (boxes:FILE), or the whole image as one person (whole)."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from posecli.annotations.boxes import read_person_boxes
from posecli.annotations.document import quoted_name
from posecli.annotations.ids import IdMap
from posecli.annotations.names import NameIndex
from posecli.detect.detector import Detector, DetectorOptions
from posecli.errors import DataError, UsageError
from posecli.types import Detections, Frame
from posecli.weights.files import sha256

LOG = logging.getLogger(__name__)


def build_whole(options: DetectorOptions) -> Detector:
    """One person with the box of the whole image, score 1."""

    def find(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        return [Detections(np.array([[0, 0, f.width, f.height]], np.float32), np.ones(1, np.float32)) for f in frames]

    return Detector(find, "whole", 0.0, "none", "cpu")


def build(options: DetectorOptions) -> Detector:
    """People from a COCO file: ground truth, results, or a list of detections.

    Images of a dataset are found by their file name, frames of a video by `NAME#000012` as in posecli's coco.json.
    A list of detections has image ids only: they must equal the number in the image's file name, as in COCO and YOLO.
    An image that a dataset does not list is an error; it is not taken as one without people.
    """
    path = Path(options.argument)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        raise UsageError(f"boxes:{path}: {getattr(error, 'strerror', None) or error}") from error
    threshold = options.threshold if options.threshold is not None else 0.0
    table = read_boxes(path, threshold, options.max_people)
    for note in table.notes:
        LOG.warning("%s: %s", path.name, note)
    if table.skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in table.skipped.items())
        LOG.warning("%s: boxes left out: %s", path.name, reasons)

    def find(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        return [_inside(table.of(name, frame), frame, name) for frame, name in zip(frames, names, strict=True)]

    name = options.argument and f"boxes:{path.name}"
    return Detector(find, name, threshold, "none", "cpu", sha256(path), by_name=True)


def _inside(people: Detections, frame: Frame, name: str) -> Detections:
    """People whose box overlaps the image."""
    touches = (people.boxes[:, :2] < (frame.width, frame.height)).all(axis=1) & (people.boxes[:, 2:] > 0).all(axis=1)
    if touches.all():
        return people
    LOG.warning("%s: boxes left out: %d outside of the picture", name, (~touches).sum())
    return Detections(people.boxes[touches], people.scores[touches])


@dataclass(frozen=True, eq=False)
class BoxTable:
    """Detections by internal image id (ids has the file's own).

    names: image ids by file name; None where the file lists no images. sizes: (width, height) that the boxes refer to.
    skipped: reason → number of entries left out. notes: repairs, as sentences.
    """

    path: Path
    by_id: dict[int, Detections]
    names: NameIndex[int] | None
    ids: IdMap
    sizes: dict[int, tuple[int, int] | None]
    skipped: Counter[str]
    notes: tuple[str, ...]

    def of(self, name: str, frame: Frame | None = None) -> Detections:
        """The people of the image of this name. Raises DataError where the file does not list it."""
        path = PurePath(name)
        of_video = frame is not None and frame.time is not None
        if self.names is None:
            if of_video:
                raise DataError(f"{name}: {self.path.name} has image ids only, which frames of a video have not")
            # A list of detections does not list images without people.
            image_id = next(
                (i for i in (self.id_like(text) for text in (path.stem, path.name, name)) if i is not None), None
            )
            if image_id is None and not (path.stem.isascii() and path.stem.isdigit()) and not self._has_text_ids():
                raise DataError(f"{name}: {self.path.name} has image ids only, and this name is no number")
            return Detections.empty() if image_id is None else self.by_id.get(image_id, Detections.empty())
        if frame is not None and of_video:
            path = path.with_name(f"{path.name}#{frame.index:06d}")
        image_id = self.id_of(path)
        if image_id is None:
            raise DataError(f"{name}: {self.path.name} does not list this picture, {quoted_name(path.name)}")
        size = self.sizes.get(image_id)
        if frame is not None and size is not None and size != (frame.width, frame.height):
            LOG.warning(
                "%s: its boxes are of a picture of %dx%d pixels, this one has %dx%d",
                name, *size, frame.width, frame.height,
            )  # fmt: skip
        return self.by_id.get(image_id, Detections.empty())

    def id_of(self, path: PurePath) -> int | None:
        """The image id of a path, None where the file does not list it.

        Raises DataError where it lists several of that name and the folders do not decide.
        """
        known = [] if self.names is None else self.names.find(path.as_posix())
        if len(set(known)) > 1:
            raise DataError(f"{path}: {self.path.name} lists several pictures named {quoted_name(path.name)}")
        return known[0] if known else None

    def id_like(self, value: Any) -> int | None:
        """The internal id of an image whose id in the file has this value, as text or number."""
        found = self.ids.find(value)
        return self.ids.find_loosely(value) if found is None else found

    def own(self, image_id: int) -> Any:
        """An image's id in the file."""
        return self.ids.own[image_id]

    def _has_text_ids(self) -> bool:
        return any(isinstance(own, str) and not own.strip().isdigit() for own in self.ids.own.values())


def read_boxes(path: Path, threshold: float = 0.0, limit: int = 100, prefer: str | None = None) -> BoxTable:
    """Read a COCO ground truth ({"images", "annotations"}) or a results list ([{image_id, bbox, score}]).

    Category of people: see annotations.boxes.choose_people, also for prefer. Crowds, other categories, boxes without a
    size and scores below the threshold are left out and counted. Raises DataError where the file is neither, where all
    boxes are of other categories, or where a box or score is invalid: negative or missing sides, values that are not
    finite, scores outside of 0 to 1.
    """
    given = read_person_boxes(path, prefer)
    skipped = Counter(given.skipped)
    grouped: dict[int, list[tuple[float, list[float]]]] = {}
    for entry in given.boxes:
        if entry.box[2] == 0 or entry.box[3] == 0:
            skipped["without a size"] += 1
        elif entry.score < threshold:
            skipped["below the threshold"] += 1
        else:
            grouped.setdefault(entry.image, []).append((entry.score, entry.box))
    by_id = {}
    for image_id, people in grouped.items():
        people.sort(key=lambda item: -item[0])
        boxes = np.array([box for _, box in people[:limit]], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([score for score, _ in people[:limit]], np.float32)
        by_id[image_id] = Detections(boxes.astype(np.float32), scores)
    names, sizes = None, {}
    if given.images is not None:
        names = NameIndex((image.file_name, image.id) for image in given.images if image.file_name)
        sizes = {image.id: image.size for image in given.images}
    return BoxTable(path, by_id, names, given.ids, sizes, skipped, given.notes)
