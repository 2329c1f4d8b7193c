"""Training data: COCO-format keypoints from several sources, and negatives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posecli import geometry
from posecli.annotations.boxes import read_all_boxes
from posecli.annotations.coco_keypoints import read_annotations
from posecli.annotations.document import number, shown
from posecli.annotations.images import Image
from posecli.annotations.names import find_files, missing_line
from posecli.errors import DataError
from posecli.keypoints import KeypointSet, same_keypoints

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """A COCO file and the folder of its images; weight scales the loss of its people."""

    annotations: Path
    images: Path
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class People:
    """N labelled people of K keypoints, and their images.

    images: N paths. ids: N texts, source and annotation id. boxes: (N, 4) xyxy. keypoints: (N, K, 2). sizes: (width,
    height) of each one's image, None where unknown; boxes and keypoints refer to images of this size, see
    annotations.pixels.
    weights: (N, K), 0 where a keypoint is not labelled, else its confidence times its source's weight.
    remarks: what was left out, as sentences for the user; notes: repairs. listed: number of all images; absent: number
    of those left out so far.
    """

    keypoint_set: KeypointSet
    images: tuple[Path, ...]
    ids: tuple[str, ...]
    boxes: Float
    keypoints: Float
    weights: Float
    remarks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int] | None, ...] = ()
    listed: int = 0
    absent: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> "People":
        """The people at these indices."""
        rows = [int(i) for i in indices]
        return replace(
            self,
            images=tuple(self.images[i] for i in rows),
            ids=tuple(self.ids[i] for i in rows),
            boxes=self.boxes[rows],
            keypoints=self.keypoints[rows],
            weights=self.weights[rows],
            sizes=tuple(self.sizes[i] for i in rows) if self.sizes else (),
        )


def read_negatives(sources: Sequence[Source], keypoint_set: KeypointSet, *, missing_limit: float = 0.0) -> People:
    """Boxes without a person: all boxes of the sources' files, of any category. Their weights are 0.

    missing_limit: as in read_people. Raises DataError for files that are not in COCO format, annotations without a box
    or image, and too many missing images.
    """
    found = _Found()
    for source in sources:
        given = read_all_boxes(source.annotations)
        assert given.images is not None
        found.look(source, given.images, given.notes)
        for box in given.boxes:
            nothing = np.zeros((len(keypoint_set), 2))
            found.add(source, box.image, box.own_id, box.box, nothing, nothing[:, 0])
    if not found.boxes:
        raise DataError("no box in " + ", ".join(str(s.annotations) for s in sources))
    return _without_missing(found.people(keypoint_set), found.missing, missing_limit)


def trained_images(people: People, negatives: People | None) -> tuple[Path, ...]:
    """The images of both, one for each person or box."""
    return people.images if negatives is None else (*people.images, *negatives.images)


# Above this share of keypoints outside of their images, labels and images do not belong together.
OUTSIDE_LIMIT = 0.1


def read_people(sources: Sequence[Source], *, missing_limit: float = 0.0, category: str | None = None) -> People:
    """All people with at least one labelled keypoint, in the order of the sources and their files.

    category: name or id, see annotations.coco_keypoints. Crowds are left out. "keypoint_weights" (0 to 1) scale the
    loss of single keypoints; keypoints outside their image have weight 0. People of missing images are left out
    where these are at most missing_limit (a share) of all. What was left out stands in the remarks, what was repaired
    in the notes.

    Raises DataError for files that are not COCO keypoints, keypoint lists of a wrong length, values that
    are not finite, sources with different keypoint sets, more than a tenth of a source's keypoints outside
    their images, too many missing images, or no person at all.
    """
    keypoint_set: KeypointSet | None = None
    found = _Found()
    remarks: list[str] = []
    for source in sources:
        given = read_annotations(source.annotations, category)
        if keypoint_set is not None and not same_keypoints(given.keypoint_set, keypoint_set):
            raise DataError(f"{source.annotations}: its keypoints differ from those of the sources before it")
        keypoint_set = keypoint_set or given.keypoint_set
        found.look(source, given.images, given.notes)
        sizes = {image.id: image.size for image in given.images}
        outside = labelled = 0
        for person in given.people:
            if person["iscrowd"] or not person["num_keypoints"]:
                continue
            points, weight = _labels(person, f"{source.annotations.name}: annotation {shown(person['id'])}")
            if not (weight > 0).any():
                continue
            inside = _inside(points, sizes[person["image_id"]])
            labelled += int((weight > 0).sum())
            outside += int(((weight > 0) & ~inside).sum())
            if not ((weight > 0) & inside).any():
                continue
            weight = weight * inside * source.weight
            found.add(source, person["image_id"], person["id"], person["bbox"], points, weight)
        if outside > OUTSIDE_LIMIT * labelled:
            raise DataError(f"{source.annotations}: {outside} of {labelled} keypoints lie outside their images")
        if outside:
            remarks.append(f"{source.annotations.name}: {outside} of {labelled} keypoints outside their images unused")
    if keypoint_set is None or not found.boxes:
        raise DataError("no person with a labelled keypoint in " + ", ".join(str(s.annotations) for s in sources))
    people = replace(found.people(keypoint_set), remarks=tuple(remarks))
    return _without_missing(people, found.missing, missing_limit)


class _Found:
    """Collects people from several files."""

    def __init__(self) -> None:
        self.missing: set[Path] = set()
        self.boxes: list[Float] = []
        self._places: dict[int, Path] = {}
        self._sizes: dict[int, tuple[int, int] | None] = {}
        self._rows: list[tuple[Path, str, tuple[int, int] | None, Float, Float]] = []
        self._notes: list[str] = []

    def look(self, source: Source, images: Sequence[Image], notes: Sequence[str]) -> None:
        """Start with a file: find its images."""
        files = find_files(images, source.images)
        self._places = {**files.there, **files.missing}
        self.missing |= set(files.missing.values())
        self._sizes = {image.id: image.size for image in images}
        self._notes += [f"{source.annotations.name}: {note}" for note in (*notes, *files.notes)]

    def add(self, source: Source, image: int, own_id: Any, box: Sequence[float], points: Float, weight: Float) -> None:
        """Add a person or box of the last file."""
        self.boxes.append(geometry.xywh_to_xyxy(np.array(box, np.float64)))
        identity = f"{source.annotations.stem}:{own_id}"
        self._rows.append((self._places[image], identity, self._sizes[image], points, weight))

    def people(self, keypoint_set: KeypointSet) -> People:
        """All people."""
        images, ids, sizes, points, weights = zip(*self._rows, strict=True)
        boxes = np.stack(self.boxes)
        notes = tuple(self._notes)
        return People(keypoint_set, images, ids, boxes, np.stack(points), np.stack(weights), notes=notes, sizes=sizes)


def _inside(points: Float, size: tuple[int, int] | None) -> NDArray[np.bool_]:
    """Which keypoints are inside of their image; all where its size is unknown."""
    if size is None:
        return np.ones(len(points), bool)
    return np.asarray(((points >= 0) & (points <= np.array(size))).all(axis=-1))


def _without_missing(people: People, absent: set[Path], limit: float) -> People:
    paths = set(people.images)
    missing = paths & absent
    people = replace(people, listed=len(paths), absent=len(missing))
    if not missing:
        return people
    line = missing_line(sorted(missing), len(paths), "training images")
    if len(missing) > limit * len(paths):
        raise DataError(f"{line}; --missing-limit allows a share")
    if len(missing) == len(paths):
        raise DataError(f"{line}: none is left to train on")
    kept = people.subset([i for i, path in enumerate(people.images) if path not in missing])
    return replace(kept, remarks=(*people.remarks, line))


def _labels(person: dict[str, Any], where: str) -> tuple[Float, Float]:
    points = np.array(person["keypoints"], np.float64).reshape(-1, 3)
    weight = np.where(points[:, 2] > 0, 1.0, 0.0)
    given = person.get("keypoint_weights")
    if given is not None:
        values = [number(value) for value in given] if isinstance(given, list) else []
        if len(values) != len(points) or not all(value is not None and 0 <= value <= 1 for value in values):
            raise DataError(f"{where}: keypoint_weights must be {len(points)} values from 0 to 1")
        weight = weight * np.array(values, np.float64)
    return points[:, :2], weight
