"""Which category of a COCO file the people are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posecli.annotations.document import Repairs, entries_of, shown
from posecli.annotations.ids import IdMap, map_ids
from posecli.errors import DataError, UsageError

PERSON = "person"


@dataclass(frozen=True)
class Category:
    """A category of a COCO file. id: internal (IdMap); own_id: that of the file. entry: its fields."""

    id: int
    own_id: Any
    entry: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name, "" where it has none."""
        name = self.entry.get("name")
        return name if isinstance(name, str) else "" if name is None else shown(name)

    @property
    def has_keypoints(self) -> bool:
        """Whether it names keypoints."""
        return bool(self.entry.get("keypoints"))

    def __str__(self) -> str:
        return f"{shown(self.name)} (id {shown(self.own_id)})" if self.name else f"id {shown(self.own_id)}"


@dataclass(frozen=True, eq=False)
class Categories:
    """All categories of a file, and the category of each annotation.

    of_annotations: internal ids, None for an annotation without a category_id, -1 for one that is not listed.
    counts: number of annotations by internal id. unlisted: the same by a category_id that is not listed.
    """

    all: tuple[Category, ...]
    of_annotations: tuple[int | None, ...]
    counts: Counter[int | None]
    unlisted: Mapping[str, int]


def read_categories(
    given: Any, annotations: Sequence[tuple[int, Mapping[str, Any]]], path: Path, repairs: Repairs
) -> Categories:
    """The categories, and that of each annotation (number, entry). Raises DataError for an invalid list."""
    entries = [entry for _, entry in entries_of(given, "category", path, repairs)]
    # Annotations without a category_id belong to a category without an id, if it is the only one.
    ids = map_ids([entry.get("id") for entry in entries])
    found: dict[int, Category] = {}
    for entry in entries:
        internal = ids.find(entry.get("id"))
        assert internal is not None
        if internal in found:
            repairs.add("category", "whose id a category before has too: the last one counts", str(found[internal]))
        found[internal] = Category(internal, entry.get("id"), entry)
    unlisted: Counter[str] = Counter()
    of = tuple(_category_of(annotation, ids, place, repairs, unlisted) for place, annotation in annotations)
    return Categories(tuple(found.values()), of, Counter(of), unlisted)


def _category_of(
    annotation: Mapping[str, Any], ids: IdMap, place: int, repairs: Repairs, unlisted: Counter[str]
) -> int | None:
    value = annotation.get("category_id")
    internal = ids.find(value)
    if internal is not None or value is None:
        return internal
    internal = ids.find_loosely(value)
    if internal is None:
        unlisted[shown(value)] += 1
        return -1
    repairs.add(
        "annotation",
        f"whose category_id is {_kind(value)} and the category's id is not: matched all the same",
        f"annotation number {place}: {shown(value)}",
    )
    return internal


def _kind(value: Any) -> str:
    return "text" if isinstance(value, str) else "a number"


def choose_category(
    categories: Categories, counts: Mapping[int | None, int], wanted: str | None, path: Path, repairs: Repairs
) -> Category:
    """The category to work on: the wanted one (name or id), else "person", else the only one with keypoints.

    Of several with keypoints and none called person, the one with most annotations is taken. counts: annotations with
    keypoints by internal id. A choice among several is reported. Raises UsageError for a wanted category that does
    not exist, DataError where there is none at all.
    """
    if not categories.all:
        raise DataError(f"{path}: not COCO keypoints, no categories")
    if wanted is not None:
        return find_category(categories.all, wanted, path)
    with_keypoints = [category for category in categories.all if category.has_keypoints]
    # The annotations may have keypoints although no category names them.
    candidates = with_keypoints or [c for c in categories.all if counts.get(c.id)] or list(categories.all)
    people = [category for category in candidates if is_person(category)]
    chosen = max(people or candidates, key=lambda category: counts.get(category.id, 0))
    if len(candidates) > 1 or (len(categories.all) > 1 and not people):
        others = ", ".join(str(category) for category in candidates[:6] if category is not chosen)
        beside = f" beside {others}{' ...' if len(candidates) > 6 else ''}" if others else ""
        repairs.remarks.append(f"category {chosen} taken{beside}; --category takes another")
    return chosen


def is_person(category: Category) -> bool:
    """Whether its name is "person", ignoring letter case."""
    return category.name.strip().casefold() == PERSON


def find_category(categories: Sequence[Category], wanted: str, path: Path) -> Category:
    """A category by its name, or else by its id. Raises UsageError that lists them."""
    text = wanted.strip().casefold()
    found = [c for c in categories if c.name == wanted] or [c for c in categories if c.name.strip().casefold() == text]
    if not found:
        ids = map_ids([category.own_id for category in categories])
        internal = ids.find(wanted)
        internal = ids.find_loosely(wanted) if internal is None else internal
        own = None if internal is None else ids.own[internal]
        found = [c for c in categories if internal is not None and c.own_id == own]
    if not found:
        known = ", ".join(str(category) for category in categories[:12])
        raise UsageError(f"--category {shown(wanted)}: {path} has {known or 'no categories'}")
    return found[-1]
