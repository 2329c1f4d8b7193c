"""Regions of a Label Studio task of a picture: its results by region, and the people that they make."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import cos, radians, sin
from typing import Any

from posecli.annotations.document import number, shown
from posecli.convert.dataset import Box, Person, unlabelled
from posecli.convert.fields import track_of
from posecli.convert.label_studio_values import Entry
from posecli.errors import DataError
from posecli.keypoints import KeypointSet

# Decimals of a pixel: 0.01 of a coordinate come back exactly.
DECIMALS = 6
_LABELS = ("keypointlabels", "rectanglelabels", "labels")
_HIDDEN = frozenset({"hidden", "occluded", "invisible", "not visible"})
_SHAPES = frozenset({"rectangle", "rectanglelabels", "keypoint", "keypointlabels"})


@dataclass
class Region:
    """A rectangle or a point, in pixels. box, point: one of them. links: ids of regions by relations."""

    id: str
    parent: str
    label: str = ""
    box: Box | None = None
    point: tuple[float, float] | None = None
    hidden: bool = False
    track: int | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)


def read_regions(
    results: Sequence[Any], size: tuple[int, int] | None, where: str, left_out: Counter[str]
) -> tuple[list[Region], tuple[int, int] | None]:
    """The regions of a task's results, and the picture's size in pixels. size: where the results do not say it.

    Results of one id are one region: shape, label, choice of visibility, track id. Raises DataError.
    """
    regions: dict[str, Region] = {}
    for result in results:
        if not isinstance(result, dict):
            raise DataError(f"{where}: a result is {shown(result)}, not an object with fields")
        kind, value = result.get("type"), result.get("value")
        if kind == "relation":
            continue
        if not isinstance(value, dict) or not isinstance(kind, str):
            raise DataError(f"{where}: a result of type {shown(kind)} without a value")
        own = str(result.get("id", f"#{len(regions)}"))
        if kind in _SHAPES:
            found = _size(result) or size
            if found is None:
                raise DataError(f"{where}: neither original_width and original_height nor the picture's size")
            size = size or found
            regions[own] = _shape(own, result, value, found, where, regions.get(own), left_out)
        elif kind in ("choices", "number", "labels", "textarea"):
            _add(regions.setdefault(own, Region(own, str(result.get("parentID") or ""))), kind, value)
        else:
            left_out[f"results of type {shown(kind)}"] += 1
    for result in results:
        if result.get("type") == "relation":
            ends = str(result.get("from_id")), str(result.get("to_id"))
            for one, other in (ends, ends[::-1]):
                if one in regions:
                    regions[one].links.append(other)
    return [region for region in regions.values() if region.box or region.point], size


def _size(result: Entry) -> tuple[int, int] | None:
    width, height = number(result.get("original_width")), number(result.get("original_height"))
    if width is None or height is None or not (1 <= width < 2**31 and 1 <= height < 2**31):
        return None
    return int(width), int(height)


def _shape(
    own: str,
    result: Entry,
    value: Entry,
    size: tuple[int, int],
    where: str,
    before: Region | None,
    left_out: Counter[str],
) -> Region:
    region = before or Region(own, "")
    region.parent = str(result.get("parentID") or "") or region.parent
    numbers = {key: number(value.get(key)) for key in ("x", "y", "width", "height")}
    x, y, width, height = numbers["x"], numbers["y"], numbers["width"], numbers["height"]
    if x is None or y is None:
        raise DataError(f"{where}: region {shown(own)} has no x and y")
    if number(result.get("image_rotation") or 0):
        left_out["rotations of pictures"] += 1
    if result["type"].startswith("keypoint"):
        region.point = _pixels(x, size[0]), _pixels(y, size[1])
        region.hidden = region.hidden or value.get("hidden") is True
    else:
        if width is None or height is None or not (width > 0 and height > 0):
            raise DataError(f"{where}: rectangle {shown(own)} has no width and height")
        turn = number(value.get("rotation") or 0) or 0.0
        region.box = _upright((x, y, width, height), turn, size)
        left_out["rotation of a box"] += bool(turn % 360)
    meta = result.get("meta")
    if isinstance(meta, dict) and isinstance(meta.get("posecli"), dict):
        region.meta = meta["posecli"]
    _add(region, result["type"], value)
    return region


def _add(region: Region, kind: str, value: Entry) -> None:
    """Add a label, a choice or a number to a region."""
    for key in _LABELS:
        given = value.get(key)
        if isinstance(given, list) and given and isinstance(given[0], str):
            region.label = given[0]
    choices = value.get("choices")
    if kind == "choices" and isinstance(choices, list):
        region.hidden = any(isinstance(c, str) and c.strip().casefold() in _HIDDEN for c in choices)
    if kind == "number":
        region.track = track_of(value.get("number"))


def _pixels(value: float, side: int) -> float:
    return round(value / 100 * side, DECIMALS)


def _upright(box: tuple[float, float, float, float], degrees: float, size: tuple[int, int]) -> Box:
    """The upright box in pixels around a rectangle in per cent, which is turned about its left upper corner."""
    x, y, width, height = (value / 100 * side for value, side in zip(box, (*size, *size), strict=True))
    if not degrees % 360:
        return round(x, DECIMALS), round(y, DECIMALS), round(width, DECIMALS), round(height, DECIMALS)
    c, s = cos(radians(degrees)), sin(radians(degrees))
    corners = [(x + a * c - b * s, y + a * s + b * c) for a in (0, width) for b in (0, height)]
    left, top = min(a for a, _ in corners), min(b for _, b in corners)
    right, bottom = max(a for a, _ in corners), max(b for _, b in corners)
    return round(left, DECIMALS), round(top, DECIMALS), round(right - left, DECIMALS), round(bottom - top, DECIMALS)


def people_of(
    regions: Sequence[Region], label: str, keypoint_set: KeypointSet, left_out: Counter[str]
) -> tuple[Person, ...]:
    """The people of a picture: rectangles of the label, with the points that belong to them.

    A point belongs to its parent, to what a relation joins it with, or else to the smallest rectangle around it that
    has no such point yet. Without any rectangle all points are one person, if each stands once.
    """
    boxes = [region for region in regions if region.box is not None]
    own = [box for box in boxes if box.label in (label, "")]
    for box in boxes:
        left_out[f"rectangles {shown(box.label)}"] += box not in own
    members: dict[str, dict[str, Region]] = {box.id: {} for box in boxes}
    orphans: list[Region] = []
    for region in regions:
        if region.point is None:
            continue
        if region.label not in keypoint_set.names:
            left_out[f"keypoints {shown(region.label)}"] += 1
            continue
        owner = next((key for key in (region.parent, *region.links) if key in members), None)
        if owner is None:
            orphans.append(region)
        elif region.label in members[owner]:
            left_out["second keypoints of one name of a person"] += 1
        else:
            members[owner][region.label] = region
    if not boxes and orphans:
        names = Counter(region.label for region in orphans)
        if max(names.values()) == 1:
            return (_person(None, {region.label: region for region in orphans}, keypoint_set),)
    for region in orphans:
        around = [box for box in own if _contains(box, region) and region.label not in members[box.id]]
        if around:
            nearest = min(around, key=lambda box: box.box[2] * box.box[3] if box.box else 0.0)
            members[nearest.id][region.label] = region
        else:
            left_out["keypoints of no person"] += 1
    return tuple(_person(box, members[box.id], keypoint_set) for box in own)


def _contains(box: Region, region: Region) -> bool:
    assert box.box is not None and region.point is not None
    x, y, width, height = box.box
    return x <= region.point[0] <= x + width and y <= region.point[1] <= y + height


def _person(box: Region | None, points: Mapping[str, Region], keypoint_set: KeypointSet) -> Person:
    keypoints: list[float] = list(unlabelled(keypoint_set))
    for name, region in points.items():
        assert region.point is not None
        place = 3 * keypoint_set.names.index(name)
        keypoints[place : place + 3] = [*region.point, 1 if region.hidden else 2]
    if box is None:
        return Person(tuple(keypoints))
    fields = box.meta.get("fields")
    return Person(
        tuple(keypoints),
        None if "box" in box.meta else box.box,
        box.track,
        box.meta.get("id"),
        fields if isinstance(fields, dict) else {},
    )
