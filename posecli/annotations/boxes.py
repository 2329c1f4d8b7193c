"""People's boxes of a COCO file: ground truth with its images, or a list of detections."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posecli.annotations.categories import Category, is_person, read_categories
from posecli.annotations.coco_keypoints import Entry, annotation_label, find_image
from posecli.annotations.document import Repairs, entries_of, garbage_collection_paused, number, read_json, shown
from posecli.annotations.ids import IdMap, map_ids
from posecli.annotations.images import Image, read_images
from posecli.annotations.people import FARTHEST, LARGEST, box_of, is_crowd, read_box
from posecli.errors import DataError

# COCO's category id of people, for lists of detections without categories.
PERSON_ID = 1


@dataclass(frozen=True)
class Box:
    """A box (x, y, width, height) of an image (internal id).

    own_id: the annotation's id in the file. where: the annotation as error messages name it.
    """

    image: int
    box: list[float]
    score: float
    own_id: Any
    where: str


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of a file. images: None for a list of detections. skipped: reason → number of entries left out."""

    images: tuple[Image, ...] | None
    ids: IdMap
    boxes: tuple[Box, ...]
    skipped: Counter[str]
    notes: tuple[str, ...]


@garbage_collection_paused()
def read_person_boxes(path: Path, prefer: str | None = None) -> Boxes:
    """The boxes of people; see choose_people. Crowds and other categories are counted in skipped.

    Raises DataError where the file is neither a dataset nor a list of detections, where all boxes are of other
    categories, and for an invalid entry, which it names.
    """
    document = read_json(path)
    repairs = Repairs()
    images: tuple[Image, ...] | None = None
    if isinstance(document, dict):
        if document.get("images") is None or document.get("annotations") is None:
            raise DataError(f"{path}: neither a COCO dataset (images, annotations) nor a list of detections")
        images, ids = read_images(document["images"], path, repairs)
        entries = list(entries_of(document["annotations"], "annotation", path, repairs))
        nameless = [image for image in images if not image.file_name]
        if nameless:
            raise DataError(
                f"{path}: {len(nameless)} of {len(images)} images are without a file_name, "
                f"first {shown(nameless[0].own_id)}"
            )
        if entries and all(entry.get("bbox") is None and not entry.get("keypoints") for _, entry in entries):
            raise DataError(f"{path}: its annotations have no bbox")
    elif isinstance(document, list):
        entries = list(entries_of(document, "entry", path, repairs))
        for place, entry in entries:
            if "image_id" not in entry:
                raise DataError(f"{path}: entry {place} has no image_id or bbox")
        ids = map_ids([entry["image_id"] for _, entry in entries])
    else:
        raise DataError(f"{path}: neither a COCO dataset nor a list of detections")
    given = document.get("categories") if isinstance(document, dict) else None
    chosen = choose_people(given, entries, prefer, path, repairs)
    boxes, skipped = _read_boxes(entries, chosen, ids, images is None, path, repairs)
    return Boxes(images, ids, boxes, skipped, repairs.lines())


def read_all_boxes(path: Path) -> Boxes:
    """The boxes of a COCO dataset, of all categories: each needs its image and a size. Raises DataError."""
    document = read_json(path)
    if not isinstance(document, dict) or not document.get("images") or not document.get("annotations"):
        raise DataError(f"{path}: not a COCO dataset with images and annotations")
    repairs = Repairs()
    images, ids = read_images(document["images"], path, repairs)
    entries = list(entries_of(document["annotations"], "annotation", path, repairs))
    boxes = []
    for place, entry in entries:
        where = annotation_label(entry, place)
        image = find_image(entry, ids, where, path, repairs)
        if image is None:
            raise DataError(f"{path}: {where}: no image {shown(entry['image_id'])} in the file")
        box = read_box(entry.get("bbox"))
        if box is None:
            raise DataError(f"{path}: {where}: bbox {_plain(entry.get('bbox'))} is not x, y, width, height")
        boxes.append(Box(image, box, 1.0, place if entry.get("id") is None else entry["id"], where))
    return Boxes(images, ids, tuple(boxes), Counter(), repairs.lines())


def choose_people(
    given: Any, entries: Sequence[tuple[int, Entry]], prefer: str | None, path: Path, repairs: Repairs
) -> list[bool]:
    """Which entries are of people.

    The category named `prefer`, else "person", else the only one with keypoints, else the only one. Without a list of
    categories: the only category_id in use, else 1. Entries without a category_id are people. Any other choice than
    "person" is reported. Raises DataError where none can be chosen, or all entries are of other categories.
    """
    categories = read_categories(given, entries, path, repairs)
    if not categories.all:
        return _without_categories(entries, path, repairs)
    chosen = _choose(categories.all, prefer)
    if chosen is None:
        known = ", ".join(map(str, categories.all[:8]))
        raise DataError(f"{path}: no category is called person, and it is unclear which one is meant: {known}")
    mine = [of is None or of == chosen.id for of in categories.of_annotations]
    if entries and not any(mine):
        counts = [f"{categories.counts[c.id]} of {c}" for c in categories.all if categories.counts[c.id]]
        counts += [f"{count} of {value}, which is not listed" for value, count in categories.unlisted.items()]
        raise DataError(f"{path}: none of its {len(entries)} boxes is of category {chosen}: {', '.join(counts[:8])}")
    if not is_person(chosen):
        repairs.remarks.append(f"category {chosen} taken")
    return mine


def _choose(categories: Sequence[Category], prefer: str | None) -> Category | None:
    wanted = [c for c in categories if prefer and c.name.strip().casefold() == prefer.strip().casefold()]
    people = [c for c in categories if is_person(c)]
    with_keypoints = [c for c in categories if c.has_keypoints]
    for found in (wanted[-1:], people[-1:], with_keypoints, categories):
        if len(found) == 1:
            return found[0]
    return None


def _without_categories(entries: Sequence[tuple[int, Entry]], path: Path, repairs: Repairs) -> list[bool]:
    given = [entry.get("category_id") for _, entry in entries]
    ids = map_ids([value for value in given if value is not None])
    of = [None if value is None else ids.find(value) for value in given]
    if len(ids.own) <= 1:
        own = next(iter(ids.own.values()), PERSON_ID)
        if own not in (PERSON_ID, str(PERSON_ID)):
            repairs.remarks.append(f"boxes of category {shown(own)} taken, the only one")
        return [True] * len(entries)
    chosen = ids.find(PERSON_ID)
    chosen = ids.find_loosely(PERSON_ID) if chosen is None else chosen
    if chosen is None:
        texts = [i for i, own in ids.own.items() if isinstance(own, str) and own.strip().casefold() == "person"]
        chosen = texts[0] if texts else None
    if chosen is None and None not in of:
        known = ", ".join(shown(own) for own in list(ids.own.values())[:8])
        raise DataError(
            f"{path}: none of its {len(entries)} boxes is of category {PERSON_ID}, people: they are of {known}"
        )
    if chosen is not None:
        repairs.remarks.append(f"boxes of category {shown(ids.own[chosen])} taken, of {len(ids.own)} categories")
    return [value is None or value == chosen for value in of]


def _read_boxes(
    entries: Sequence[tuple[int, Entry]],
    mine: Sequence[bool],
    ids: IdMap,
    scored: bool,
    path: Path,
    repairs: Repairs,
) -> tuple[tuple[Box, ...], Counter[str]]:
    skipped: Counter[str] = Counter()
    boxes: list[Box] = []
    for (place, entry), is_mine in zip(entries, mine, strict=True):
        where = f"entry {place}" if scored else annotation_label(entry, place)
        image = ids.find(entry["image_id"]) if scored else find_image(entry, ids, where, path, repairs)
        if image is None:
            continue
        if not is_mine:
            skipped["of another category"] += 1
        elif is_crowd(entry.get("iscrowd")):
            skipped["crowds"] += 1
        else:
            box = _box(entry, f"{path}: {where}", where, scored, repairs)
            if box is None:
                skipped["without a bbox"] += 1
                continue
            score = 1.0 if not scored else number(entry.get("score", 1.0))
            if score is None or not 0 <= score <= 1:
                raise DataError(f"{path}: {where}: score {_plain(entry.get('score'))} is not within 0 to 1")
            own_id = place if entry.get("id") is None else entry["id"]
            boxes.append(Box(image, box, score, own_id, where))
    if entries and not boxes and not skipped:
        first = entries[0][1].get("image_id")
        raise DataError(f"{path}: no image {shown(first)} in the file, which does not list those of its boxes")
    return tuple(boxes), skipped


def _box(entry: Entry, full: str, where: str, scored: bool, repairs: Repairs) -> list[float] | None:
    """A box with sides of at least 0; None where a person has none. Raises DataError for an invalid box."""
    given = entry.get("bbox")
    values = [number(side) for side in given] if isinstance(given, list) else []
    box = [value for value in values if value is not None]
    if given is None and not scored:
        points = _labelled(entry)
        if not points:
            return None
        repairs.add("annotation", "without bbox: made from the labelled keypoints", where)
        return box_of(points, ["?"] * (len(points) // 3), full)
    if given is None:
        raise DataError(f"{full} has no image_id or bbox")
    if len(values) != 4 or len(box) != 4 or min(box[2:]) < 0 or max(box[2:]) > LARGEST or max(map(abs, box)) > FARTHEST:
        raise DataError(f"{full}: bbox {_plain(given)} is not x, y, width, height")
    if any(isinstance(side, str) for side in given):
        repairs.add("annotation", "with bbox as text: read as numbers", where)
    return box


def _labelled(entry: Mapping[str, Any]) -> list[float]:
    """The labelled keypoints of an annotation as x, y, v; their names are not needed."""
    given = entry.get("keypoints")
    flat: list[Any] = []
    for value in given if isinstance(given, list) else []:
        flat += value if isinstance(value, list) else [value]
    points: list[float] = []
    for triple in zip(flat[::3], flat[1::3], flat[2::3], strict=False):
        values = [value for value in map(number, triple) if value is not None and abs(value) <= FARTHEST]
        if len(values) == 3 and values[2] > 0:
            points += values
    return points


def _plain(value: Any) -> str:
    """The repr of a value, shortened."""
    text = shown(value)
    return text.replace("NaN", "nan").replace("Infinity", "inf")
