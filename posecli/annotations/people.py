"""One person of a COCO file: keypoints, box and area in one form."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posecli.annotations.document import Repairs, number, shown
from posecli.errors import DataError
from posecli.geometry import AREA_OF_BOX

# Longest side of a valid box in pixels.
LARGEST = 1e5
# Largest valid coordinate.
FARTHEST = 1e9
# Margin of a box around keypoints, relative to its longer side.
MARGIN = 0.1


def read_keypoints(
    rows: Sequence[Any], names: Sequence[str], where: Sequence[str], path: Path, repairs: Repairs
) -> list[list[Any]]:
    """Keypoints of N annotations as flat lists of 3 K finite numbers; unlabelled (v 0) where there are none.

    Raises DataError for another number of values, and for coordinates of labelled keypoints that are not numbers.
    """
    count = 3 * len(names)
    result: list[Any] = [None] * len(rows)
    plain = [i for i, row in enumerate(rows) if type(row) is list and len(row) == count]
    for i, clean in zip(plain, _are_clean([rows[i] for i in plain]), strict=True):
        result[i] = rows[i] if clean else None
    for i, row in enumerate(rows):
        if result[i] is None:
            result[i] = _repaired(row, names, where[i], path, repairs)
    return result


def _are_clean(rows: list[list[Any]]) -> NDArray[np.bool_]:
    """Which rows, all of one length, hold only finite numbers that are not too large. One vectorised pass is fast."""
    try:
        values = np.array(rows)
    except (ValueError, TypeError, OverflowError):
        return np.zeros(len(rows), bool)
    if values.ndim != 2 or values.dtype.kind not in "iuf":
        return np.zeros(len(rows), bool)
    return np.asarray((np.abs(values) <= FARTHEST).all(axis=1))


def _repaired(row: Any, names: Sequence[str], where: str, path: Path, repairs: Repairs) -> list[Any]:
    if row is None or row == []:
        repairs.add("annotation", "without keypoints: none of them labelled", where)
        return [0] * (3 * len(names))
    if not isinstance(row, list):
        raise DataError(f"{path}: {where}: keypoints are {shown(row)}, not a list")
    if all(isinstance(point, list) and len(point) == 3 for point in row):
        repairs.add("annotation", "with keypoints in lists of three: joined", where)
        row = [value for point in row for value in point]
    if len(row) != 3 * len(names):
        raise DataError(f"{path}: {where}: {len(row)} keypoint values, not {3 * len(names)}")
    values: list[Any] = []
    for name, point in zip(names, zip(row[::3], row[1::3], row[2::3], strict=True), strict=True):
        x, y, v = (number(value) for value in point)
        if v is None and not (x in (None, 0) and y in (None, 0)):
            raise DataError(f"{path}: {where}: {name} has visibility {shown(point[2])}")
        labelled = v is not None and v > 0
        there = x is not None and y is not None and max(abs(x), abs(y)) <= FARTHEST
        if labelled and not there:
            raise DataError(f"{path}: {where}: {name} is {shown(list(point))}, not finite or no numbers")
        values += [x, y, v or 0] if there else [0, 0, 0]
    if any(isinstance(value, str) for value in row):
        repairs.add("annotation", "with keypoints as text: read as numbers", where)
    if any(number(value) is None for value in row):
        repairs.add("annotation", "with null or no numbers at keypoints that are not labelled: taken as 0", where)
    return values


def read_box(value: Any) -> list[float] | None:
    """x, y, width and height where they are numbers of a valid box, else None."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    x, y, width, height = (number(side) for side in value)
    if x is None or y is None or width is None or height is None:
        return None
    if not (0 < width <= LARGEST and 0 < height <= LARGEST and max(abs(x), abs(y)) <= FARTHEST):
        return None
    return [x, y, width, height]


def box_of(keypoints: Sequence[float], names: Sequence[str], where: str) -> list[float]:
    """A box (x, y, width, height) around labelled keypoints (3 K values). Raises DataError where it is too large."""
    points = np.array(keypoints, np.float64).reshape(len(names), 3)
    points = points[points[:, 2] > 0, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    sides = high - low
    if sides.max() > LARGEST:
        raise DataError(f"{where}: no bbox that fits, and keypoints {sides.max():.0f} pixels apart")
    margin = max(MARGIN * float(sides.max()), 4.0)
    return [*(low - margin).tolist(), *(sides + 2 * margin).tolist()]


def read_area(annotation: Mapping[str, Any], box: Sequence[float], where: str, repairs: Repairs) -> float:
    """The area that OKS divides by: the annotation's own where it is valid, else 0.53 of the box's."""
    given = annotation.get("area")
    area = number(given)
    if area is not None and area > 0:
        if isinstance(given, str):
            repairs.add("annotation", "with area as text: read as a number", where)
        return area
    kind = "without area" if given is None else "whose area is 0, less, or no number"
    repairs.add("annotation", f"{kind}: {AREA_OF_BOX} of the box's area taken", where)
    return AREA_OF_BOX * box[2] * box[3]


def is_crowd(value: Any) -> bool:
    """Whether iscrowd, a number, boolean, text or None, is set."""
    if isinstance(value, str):
        return value.strip().casefold() not in ("", "0", "0.0", "false", "no", "none", "null")
    return bool(value) and value == value
