"""People from a file, or the whole picture as one person."""

import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import orjson

from posecli.detect.detector import Detector, DetectorOptions
from posecli.errors import DataError, UsageError
from posecli.types import Detections, Frame
from posecli.weights.files import sha256

LOG = logging.getLogger(__name__)
PERSON = 1


def build_whole(options: DetectorOptions) -> Detector:
    """One person that fills the picture, score 1."""

    def find(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        return [Detections(np.array([[0, 0, f.width, f.height]], np.float32), np.ones(1, np.float32)) for f in frames]

    return Detector(find, "whole", 0.0, "none", "cpu")


def build(options: DetectorOptions) -> Detector:
    """People from a COCO file: ground truth, results, or a list of detections.

    Pictures are found by their file name (ground truth lists names), frames of a video by `NAME#000012`, as
    posecli's own coco.json names them, and a list of detections by the number that the file name is, as COCO's
    are. A picture that the file does not know is an error: nobody in it would be a guess.
    """
    path = Path(options.argument)
    threshold = options.threshold if options.threshold is not None else 0.0
    table = read_boxes(path, threshold, options.max_people)
    if table.skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in table.skipped.items())
        LOG.warning("%s: boxes left out: %s", path.name, reasons)

    def find(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        return [_inside(table.of(name, frame), frame, name) for frame, name in zip(frames, names, strict=True)]

    return Detector(find, options.argument and f"boxes:{path.name}", threshold, "none", "cpu", sha256(path))


def _inside(people: Detections, frame: Frame, name: str) -> Detections:
    """People without those whose box does not touch the picture."""
    touches = (people.boxes[:, :2] < (frame.width, frame.height)).all(axis=1) & (people.boxes[:, 2:] > 0).all(axis=1)
    if touches.all():
        return people
    LOG.warning("%s: boxes left out: %d outside of the picture", name, (~touches).sum())
    return Detections(people.boxes[touches], people.scores[touches])


@dataclass(frozen=True, eq=False)
class BoxTable:
    """Detections by image id.

    names: base name → the (file name, image id) pairs that have it; None where the file lists no pictures.
    skipped: why entries were left out → how many.
    """

    path: Path
    by_id: dict[int, Detections]
    names: dict[str, list[tuple[str, int]]] | None
    skipped: Counter[str]

    def of(self, name: str, frame: Frame | None = None) -> Detections:
        """The people of the picture of this name. Raises DataError where the file does not know it."""
        path = PurePath(name)
        of_video = frame is not None and frame.time is not None
        if self.names is None:
            if of_video:
                raise DataError(f"{name}: {self.path.name} has image ids only, which frames of a video have not")
            if not (path.stem.isascii() and path.stem.isdigit()):
                raise DataError(f"{name}: {self.path.name} has image ids only, and this name is no number")
            # A list of detections does not say which pictures have nobody: absent means nobody.
            return self.by_id.get(int(path.stem), Detections.empty())
        if frame is not None and of_video:
            path = path.with_name(f"{path.name}#{frame.index:06d}")
        image_id = self.id_of(path)
        if image_id is None:
            raise DataError(f"{name}: {self.path.name} does not list this picture")
        return self.by_id.get(image_id, Detections.empty())

    def id_of(self, path: PurePath) -> int | None:
        """The image id of the picture at this place, None where the file does not list it.

        Raises DataError where it lists several of that name and the folders do not tell them apart.
        """
        known = (self.names or {}).get(path.name, [])
        if len(known) > 1:
            text = path.as_posix()
            known = [item for item in known if text == item[0] or text.endswith(f"/{item[0]}")]
            if len(known) != 1:
                raise DataError(f"{path}: {self.path.name} lists several pictures named {path.name}")
        return known[0][1] if known else None


def read_boxes(path: Path, threshold: float = 0.0, limit: int = 100) -> BoxTable:
    """Read a COCO ground truth ({"images", "annotations"}) or a results list ([{image_id, bbox, score}]).

    Crowds, other categories than person (1), boxes without a size and scores below the threshold are left out
    and counted. Raises DataError where the file is not such JSON, or a box or score is broken: negative or
    missing sides, values that are not finite, scores beyond 0 to 1.
    """
    document = _read_json(path)
    names: dict[str, list[tuple[str, int]]] | None = None
    entries = document
    if isinstance(document, dict):
        entries = document.get("annotations")
        if "images" not in document or not isinstance(entries, list):
            raise DataError(f"{path}: neither a COCO dataset (images, annotations) nor a list of detections")
        names = _read_names(document["images"], path)
        if entries and all(isinstance(entry, dict) and "bbox" not in entry for entry in entries):
            raise DataError(f"{path}: its annotations have no bbox")
    elif not isinstance(document, list):
        raise DataError(f"{path}: neither a COCO dataset nor a list of detections")
    known = None if names is None else {image_id for pairs in names.values() for _, image_id in pairs}
    skipped: Counter[str] = Counter()
    grouped: dict[int, list[tuple[float, list[float]]]] = {}
    for number, entry in enumerate(entries, 1):
        image_id, box, score = _read_entry(entry, f"{path}: entry {number}", truth=names is not None)
        if known is not None and image_id not in known:
            raise DataError(f"{path}: entry {number} is of image {image_id}, which the file does not list")
        if entry.get("category_id", PERSON) != PERSON:
            skipped["of another category"] += 1
        elif entry.get("iscrowd"):
            skipped["crowds"] += 1
        elif box[2] == 0 or box[3] == 0:
            skipped["without a size"] += 1
        elif score < threshold:
            skipped["below the threshold"] += 1
        else:
            grouped.setdefault(image_id, []).append((score, box))
    by_id = {}
    for image_id, people in grouped.items():
        people.sort(key=lambda item: -item[0])
        boxes = np.array([box for _, box in people[:limit]], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([score for score, _ in people[:limit]], np.float32)
        by_id[image_id] = Detections(boxes.astype(np.float32), scores)
    return BoxTable(path, by_id, names, skipped)


def _read_json(path: Path) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"boxes:{path}: {error.strerror}") from error
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as strict:
        # Python writes NaN, which JSON does not know: read it, so that the entry can be named.
        try:
            return json.loads(content)
        except ValueError:
            raise DataError(f"{path}: not JSON ({strict})") from strict


def _read_names(images: Any, path: Path) -> dict[str, list[tuple[str, int]]]:
    names: dict[str, list[tuple[str, int]]] = {}
    try:
        for image in images:
            file_name = PurePath(image["file_name"]).as_posix()
            names.setdefault(PurePath(file_name).name, []).append((file_name, int(image["id"])))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: an image without a file_name, or whose id is no number") from error
    return names


def _read_entry(entry: Any, where: str, *, truth: bool) -> tuple[int, list[float], float]:
    """Image id, box (x, y, width, height) and score of an entry; truth has score 1."""
    if not isinstance(entry, dict) or "image_id" not in entry or "bbox" not in entry:
        raise DataError(f"{where} has no image_id or bbox")
    try:
        image_id = int(entry["image_id"])
        box = [float(value) for value in entry["bbox"]]
        score = 1.0 if truth else float(entry.get("score", 1.0))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: image_id, bbox or score is not a number") from error
    if len(box) != 4 or not all(map(math.isfinite, box)) or box[2] < 0 or box[3] < 0:
        raise DataError(f"{where}: bbox {entry['bbox']} is not x, y, width, height")
    if not 0 <= score <= 1:
        raise DataError(f"{where}: score {entry['score']} is not within 0 to 1")
    return image_id, box, score
