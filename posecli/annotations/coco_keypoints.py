"""Reader of COCO keypoints files, for training and evaluation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from posecli.annotations.categories import Categories, Category, choose_category, read_categories
from posecli.annotations.document import Repairs, entries_of, garbage_collection_paused, number, read_json, shown
from posecli.annotations.ids import IdMap
from posecli.annotations.images import Image, read_images
from posecli.annotations.people import box_of, is_crowd, read_area, read_box, read_keypoints
from posecli.annotations.whole_body import with_whole_bodies
from posecli.errors import DataError
from posecli.keypoints import COCO17, KeypointSet, describe_category

Entry = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Annotations:
    """The people of one category of a COCO file.

    people: COCO annotations, all of them with id (the file's own), image_id (internal, see IdMap), category_id,
    iscrowd (0 or 1), bbox, area, keypoints (3 K finite numbers), num_keypoints; keypoint_weights unchanged.
    A person with a labelled keypoint has a bbox and an area above 0. ids: of the images. notes: what was repaired or
    left out, a sentence for each kind with its count.
    document, entries: the file's content, and the people as they stand in it; empty unless asked for.
    """

    path: Path
    images: tuple[Image, ...]
    people: tuple[dict[str, Any], ...]
    category: Category
    keypoint_set: KeypointSet
    ids: IdMap
    notes: tuple[str, ...]
    document: Entry = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()


@garbage_collection_paused()
def read_annotations(path: Path, category: str | None = None, *, keep_document: bool = False) -> Annotations:
    """Read a COCO keypoints file. category: name or id of the people's category; by default see choose_category.

    keep_document: with the file's own content, which is large.

    Raises DataError where the file is not a COCO file with keypoints, and for ambiguous annotations, which it names;
    UsageError for a category that does not exist.
    """
    document = read_dataset(path, ("images", "annotations", "categories"))
    repairs = Repairs()
    images, ids = read_images(document["images"], path, repairs)
    entries = list(entries_of(document["annotations"], "annotation", path, repairs))
    categories = read_categories(document["categories"], entries, path, repairs)
    labelled = Counter(
        of for of, (_, entry) in zip(categories.of_annotations, entries, strict=True) if entry.get("keypoints")
    )
    chosen = choose_category(categories, labelled, category, path, repairs)
    own = _of_category(entries, categories, chosen, path, repairs)
    own, keypoint_set = with_whole_bodies(own, _keypoint_set(chosen, own, path, repairs), repairs)
    people, kept = _read_people(own, images, ids, keypoint_set, chosen, path, repairs)
    found = Annotations(path, images, people, chosen, keypoint_set, ids, repairs.lines())
    return replace(found, document=document, entries=kept) if keep_document else found


def read_dataset(path: Path, needed: Sequence[str]) -> Mapping[str, Any]:
    """The document of a COCO dataset. Raises DataError where it is none, or lacks a needed key."""
    document = read_json(path)
    if isinstance(document, list):
        raise DataError(f"{path}: a list, as results files are, not a COCO dataset (images, annotations, categories)")
    if not isinstance(document, dict):
        raise DataError(f"{path}: {shown(document)} is no COCO dataset (images, annotations, categories)")
    missing = [key for key in needed if document.get(key) is None]
    if missing or document.get("categories") == []:
        raise DataError(f"{path}: not COCO keypoints, no {' and '.join(missing) or 'categories'}")
    return document


def _of_category(
    entries: Sequence[tuple[int, Entry]], categories: Categories, chosen: Category, path: Path, repairs: Repairs
) -> list[tuple[int, Entry]]:
    own = []
    for of, (place, entry) in zip(categories.of_annotations, entries, strict=True):
        if of == chosen.id:
            own.append((place, entry))
        elif of is None:
            repairs.add("annotation", f"without category_id: taken as {chosen}", annotation_label(entry, place))
            own.append((place, entry))
    if entries and not own:
        others = ", ".join(
            [f"{categories.counts[c.id]} of {c}" for c in categories.all if categories.counts[c.id]]
            + [f"{count} of {value}, which is not listed" for value, count in categories.unlisted.items()][:5]
        )
        raise DataError(f"{path}: none of its {len(entries)} annotations is of category {chosen}: {others}")
    if categories.unlisted:
        first, count = next(iter(categories.unlisted)), sum(categories.unlisted.values())
        repairs.add("annotation", "of a category that is not listed: left out", f"category_id {first}", count)
    return own


def annotation_label(entry: Entry, place: int) -> str:
    """How messages name an annotation: by its id, else by its number in the file."""
    return f"annotation number {place}" if entry.get("id") is None else f"annotation {shown(entry['id'])}"


def _keypoint_set(chosen: Category, own: Sequence[tuple[int, Entry]], path: Path, repairs: Repairs) -> KeypointSet:
    try:
        found, notes = describe_category(chosen.entry)
    except DataError as error:
        # pycocotools does not read the names either.
        lengths = {_length(entry.get("keypoints")) for _, entry in own} - {0}
        if len(lengths) != 1 or next(iter(lengths)) % 3:
            raise DataError(f"{path}: {error}") from error
        count = next(iter(lengths)) // 3
        if count == len(COCO17):
            repairs.remarks.append(f"category {chosen} names no keypoints: COCO's {count} taken")
            return COCO17
        repairs.remarks.append(f"category {chosen} names no keypoints: {count} numbered")
        return describe_category({**chosen.entry, "keypoints": [str(i + 1) for i in range(count)]})[0]
    repairs.remarks += [f"category {chosen}: {note}" for note in notes]
    return found


def _length(keypoints: Any) -> int:
    """Number of values, in one list or in lists of three."""
    if not isinstance(keypoints, list):
        return 0
    return sum(len(value) if isinstance(value, list) else 1 for value in keypoints)


def _read_people(
    own: Sequence[tuple[int, Entry]],
    images: Sequence[Image],
    ids: IdMap,
    keypoint_set: KeypointSet,
    chosen: Category,
    path: Path,
    repairs: Repairs,
) -> tuple[tuple[dict[str, Any], ...], tuple[Entry, ...]]:
    """The people, and their entries in the file."""
    listed = []
    for place, entry in own:
        where = annotation_label(entry, place)
        internal = find_image(entry, ids, where, path, repairs)
        if internal is not None:
            listed.append((place, entry, internal, where))
    if own and not listed:
        first = own[0][1]
        where = annotation_label(first, own[0][0])
        raise DataError(
            f"{path}: {where}: no image {shown(first['image_id'])} in the file, nor those of the {len(own) - 1} others"
            + (f", which has images like {shown(images[0].own_id)}" if images else "")
        )
    names = keypoint_set.names
    given = [entry.get("keypoints") for _, entry, _, _ in listed]
    rows = read_keypoints(given, names, [where for *_, where in listed], path, repairs)
    people = []
    for (place, entry, internal, where), keypoints in zip(listed, rows, strict=True):
        labelled = sum(value > 0 for value in keypoints[2::3])
        person = {
            "id": place if entry.get("id") is None else entry["id"],
            "image_id": internal,
            "category_id": chosen.id,
            "iscrowd": int(is_crowd(entry.get("iscrowd"))),
            "keypoints": keypoints,
            "num_keypoints": labelled,
        }
        if entry.get("id") is None:
            repairs.add("annotation", "without an id: numbered", where)
        counted = number(entry.get("num_keypoints"))
        if counted is not None and counted != labelled:
            repairs.add("annotation", "whose num_keypoints is not the number of its labelled keypoints: counted", where)
        box = read_box(entry.get("bbox"))
        if labelled:
            if box is None:
                kind = "without bbox" if entry.get("bbox") is None else "whose bbox is not x, y, width, height"
                repairs.add("annotation", f"{kind}: made from the labelled keypoints", where)
                box = box_of(keypoints, names, f"{path}: {where}")
            person |= {"bbox": box, "area": read_area(entry, box, where, repairs)}
        else:
            area = number(entry.get("area"))
            box = box or [0, 0, 0, 0]
            person |= {"bbox": box, "area": area if area is not None and area > 0 else box[2] * box[3]}
        if "keypoint_weights" in entry:
            person["keypoint_weights"] = entry["keypoint_weights"]
        people.append(person)
    return tuple(people), tuple(entry for _, entry, _, _ in listed)


def find_image(entry: Entry, ids: IdMap, where: str, path: Path, repairs: Repairs) -> int | None:
    """The internal id of an annotation's image; None, counted in repairs, where the file lists no such image.

    Raises DataError for an annotation without image_id.
    """
    if "image_id" not in entry:
        raise DataError(f"{path}: {where} has no image_id")
    internal = ids.find(entry["image_id"])
    if internal is not None:
        return internal
    internal = ids.find_loosely(entry["image_id"])
    if internal is None:
        what = "of images that are not listed: left out"
        repairs.add("annotation", what, f"{where}: no image {shown(entry['image_id'])}")
    else:
        what = "whose image_id is written in another way than the image's id (text and number): matched all the same"
        repairs.add("annotation", what, f"{where}: {shown(entry['image_id'])} for {shown(ids.own[internal])}")
    return internal
