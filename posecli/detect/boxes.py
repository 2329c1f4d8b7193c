"""People from a file, or the whole picture as one person."""

import logging
import math
from collections import Counter
from collections.abc import Sequence
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

    Frames are found by their input's file name (ground truth lists names), or by the number that the file
    name is, as COCO's are. A picture that the file does not know is an error: nobody in it would be a guess.
    """
    path = Path(options.argument)
    threshold = options.threshold if options.threshold is not None else 0.0
    table = read_boxes(path, threshold, options.max_people)

    def find(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        return [table.of(name) for name in names]

    return Detector(find, options.argument and f"boxes:{path.name}", threshold, "none", "cpu", sha256(path))


class BoxTable:
    """Detections by picture. skipped: why entries were left out → how many."""

    def __init__(self, by_id: dict[int, Detections], names: dict[str, int] | None, path: Path) -> None:
        self.by_id, self.names, self.path = by_id, names, path
        self.skipped: Counter[str] = Counter()

    def of(self, name: str) -> Detections:
        """The people of the picture of this name. Raises DataError where the file does not know it."""
        file_name = PurePath(name).name
        stem = PurePath(name).stem
        if self.names is not None:
            image_id = self.names.get(file_name)
            if image_id is None:
                raise DataError(f"{name}: {self.path.name} does not list this picture")
            return self.by_id.get(image_id, Detections.empty())
        if not stem.isdigit():
            raise DataError(f"{name}: {self.path.name} has image ids only, and this name is no number")
        # A list of detections does not say which pictures have nobody: absent means nobody.
        return self.by_id.get(int(stem), Detections.empty())


def read_boxes(path: Path, threshold: float = 0.0, limit: int = 100) -> BoxTable:
    """Read a COCO ground truth ({"images", "annotations"}) or a results list ([{image_id, bbox, score}]).

    Crowds, other categories than person (1) and scores below the threshold are left out and counted.
    Raises DataError where the file is not such JSON, or a box or score is broken: negative or missing sides,
    values that are not finite.
    """
    try:
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"boxes:{path}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    names: dict[str, int] | None = None
    if isinstance(document, dict):
        if "images" not in document or "annotations" not in document:
            raise DataError(f"{path}: neither a COCO dataset (images, annotations) nor a list of detections")
        names = {PurePath(image["file_name"]).name: int(image["id"]) for image in document["images"]}
        known: set[int] | None = set(names.values())
        entries = document["annotations"]
        if entries and "bbox" not in entries[0]:
            raise DataError(f"{path}: its annotations have no bbox")
    elif isinstance(document, list):
        entries, known = document, None
    else:
        raise DataError(f"{path}: neither a COCO dataset nor a list of detections")
    skipped: Counter[str] = Counter()
    grouped: dict[int, list[tuple[float, list[float]]]] = {}
    for number, entry in enumerate(entries):
        box, score = _read_entry(entry, f"{path}: entry {number + 1}", truth=known is not None)
        image_id = int(entry["image_id"])
        if known is not None and image_id not in known:
            raise DataError(f"{path}: entry {number + 1} is of image {image_id}, which the file does not list")
        if entry.get("category_id", PERSON) != PERSON:
            skipped["of another category"] += 1
        elif entry.get("iscrowd"):
            skipped["crowds"] += 1
        elif box[2] <= 0 or box[3] <= 0:
            skipped["without a size"] += 1
        elif score < threshold:
            skipped["below the threshold"] += 1
        else:
            grouped.setdefault(image_id, []).append((score, box))
    for reason, count in skipped.items():
        LOG.info("%s: %d entries %s left out", path.name, count, reason)
    by_id = {}
    for image_id, people in grouped.items():
        people.sort(key=lambda item: -item[0])
        boxes = np.array([box for _, box in people[:limit]], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([score for score, _ in people[:limit]], np.float32)
        by_id[image_id] = Detections(boxes.astype(np.float32), scores)
    table = BoxTable(by_id, names, path)
    table.skipped = skipped
    return table


def _read_entry(entry: Any, where: str, *, truth: bool) -> tuple[list[float], float]:
    if not isinstance(entry, dict) or "image_id" not in entry or "bbox" not in entry:
        raise DataError(f"{where} has no image_id or bbox")
    try:
        box = [float(value) for value in entry["bbox"]]
        score = 1.0 if truth else float(entry.get("score", 1.0))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: bbox or score is not a number") from error
    if len(box) != 4 or not all(map(math.isfinite, box)) or box[2] < 0 or box[3] < 0:
        raise DataError(f"{where}: bbox {entry['bbox']} is not x, y, width, height")
    if not math.isfinite(score):
        raise DataError(f"{where}: score {entry['score']} is not a number")
    return box, score
