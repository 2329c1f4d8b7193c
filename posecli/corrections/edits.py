"""Edits of people: their fields, and the checks of a value from outside.

Keypoints are [x, y, v] with v 0 (not labelled), 1 (hidden) or 2 (visible), boxes [x0, y0, x1, y1], both in pixels of
the upright frame with square pixels, as in coco.json. `frame` counts the frames of an input's record from 0. A frame's
people have keys: "p3" is row 3 of the record's list, "a17" was added by edit 17.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from posecli.errors import UsageError

# Limits of what one edit may hold.
MOST_TEXT = 200
MOST_FRAMES = 1_000_000
# Ids and coordinates beyond this are an error of whoever sent them.
_MOST_ID = 2**31
_MOST_PIXELS = 1e6
_KEY = re.compile(r"[pa](0|[1-9][0-9]{0,8})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Edit:
    """One line of the journal. seq: from 1. time: ISO 8601, UTC. client: who made it.

    values: the fields of the operation, see OPERATIONS. predictions: fingerprint of the predictions that it refers to,
    None where it refers to none (undo, redo).
    """

    seq: int
    time: str
    client: str
    op: str
    values: Mapping[str, Any] = field(default_factory=dict)
    predictions: str | None = None

    @property
    def input(self) -> str | None:
        """The name of the input; None for undo and redo."""
        return self.values.get("input")

    @property
    def frame(self) -> int | None:
        """The frame; the first one of a propagation; None for undo and redo."""
        return min(map(int, self.values["values"])) if self.op == "propagate" else self.values.get("frame")

    def to_json(self) -> dict[str, Any]:
        """The line as a dict."""
        line = {"seq": self.seq, "time": self.time, "client": self.client, "op": self.op, **self.values}
        return line if self.predictions is None else {**line, "predictions": self.predictions}


def edit_from_json(line: Any, keypoints: int) -> Edit:
    """The edit of a line of the journal. keypoints: K. Raises UsageError where it is none."""
    if not isinstance(line, dict):
        raise UsageError("not an object")
    rest = dict(line)
    seq = _whole(rest.pop("seq", None), "seq", 1, 2**53)
    time, client = (_text(rest.pop(name, None), name) for name in ("time", "client"))
    predictions = rest.pop("predictions", None)
    if predictions is not None:
        predictions = _text(predictions, "predictions")
    op = rest.pop("op", None)
    if op in ("undo", "redo"):
        target = _whole(rest.pop("target", None), "target", 1, seq - 1)
        _nothing_else(rest)
        return Edit(seq, time, client, op, {"target": target}, predictions)
    return Edit(seq, time, client, str(op), checked_values({"op": op, **rest}, keypoints), predictions)


def checked_values(edit: Mapping[str, Any], keypoints: int) -> dict[str, Any]:
    """The fields of an edit's operation without "op", in a fixed order, coordinates rounded to 0.01 pixels.

    keypoints: K. Whether input, frame, person and track exist is not looked at. Raises UsageError, one line.
    """
    if not isinstance(edit, Mapping):
        raise UsageError("an edit must be an object")
    op = edit.get("op")
    if not isinstance(op, str) or op not in OPERATIONS:
        raise UsageError(f"op must be one of {', '.join(OPERATIONS)}")
    required, optional = OPERATIONS[op]
    rest = {name: value for name, value in edit.items() if name != "op"}
    values = {}
    for name in (*required, *optional):
        if name in rest:
            values[name] = _FIELDS[name](rest.pop(name), name, keypoints)
        elif name in required:
            raise UsageError(f"{op}: {name} is missing")
    _nothing_else(rest)
    _check_together(op, values, keypoints)
    return values


def _check_together(op: str, values: dict[str, Any], keypoints: int) -> None:
    """Raise UsageError for fields that are valid alone, but not together."""
    if op == "keypoints" and not values["keypoints"]:
        raise UsageError("keypoints: none is given")
    if op == "add":
        if len(values["keypoints"]) != keypoints:
            raise UsageError(f"add: all {keypoints} keypoints are needed, {len(values['keypoints'])} are given")
        values.setdefault("track", None)
    if op == "track":
        values.setdefault("until", None)
        values.setdefault("swap", False)
        if values["track"] == values["to"]:
            raise UsageError(f"track: {values['track']} already has this id")
        if values["until"] is not None and values["until"] <= values["frame"]:
            raise UsageError("track: until must be after frame")


def _nothing_else(rest: Mapping[str, Any]) -> None:
    if rest:
        raise UsageError(f"unknown field {str(next(iter(rest)))[:40]!r}")


def _text(value: Any, name: str, keypoints: int = 0) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MOST_TEXT:
        raise UsageError(f"{name} must be a text of 1 to {MOST_TEXT} characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise UsageError(f"{name} must be valid Unicode")
    return value


def _input(value: Any, name: str, keypoints: int) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError("input must be the name of an input")
    return value


def _whole(value: Any, name: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{name} must be a whole number from {least} to {most}")
    return value


def _frame(value: Any, name: str, keypoints: int) -> int:
    return _whole(value, name, 0, _MOST_ID)


def _frame_or_none(value: Any, name: str, keypoints: int) -> int | None:
    return None if value is None else _frame(value, name, keypoints)


def _flag(value: Any, name: str, keypoints: int) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be true or false")
    return value


def _person(value: Any, name: str = "person", keypoints: int = 0) -> str:
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        raise UsageError(f"{name} must be the key of a person, such as p0 or a12")
    return value


def _pixels(values: Any, count: int, name: str) -> list[float]:
    if not isinstance(values, list | tuple) or len(values) != count:
        raise UsageError(f"{name} must be {count} numbers")
    for value in values:
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _MOST_PIXELS:
            raise UsageError(f"{name} must be {count} finite numbers of at most {_MOST_PIXELS:.0f} pixels")
    return [round(float(value), 2) + 0.0 for value in values]


def _box(value: Any, name: str, keypoints: int) -> list[float]:
    box = _pixels(value, 4, name)
    if not (box[2] > box[0] and box[3] > box[1]):
        raise UsageError("box must be x0, y0, x1, y1 with x1 > x0 and y1 > y0")
    return box


def _by_index(value: Any, name: str, keypoints: int, read: Callable[[Any, str], Any]) -> dict[str, Any]:
    """A dict from texts of indices of keypoints, in their order."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} must be an object from indices of keypoints to positions")
    for index in value:
        if not isinstance(index, str) or not _NUMBER.fullmatch(index) or int(index) >= keypoints:
            raise UsageError(f"{name}: keypoints have the indices 0 to {keypoints - 1}")
    return {index: read(value[index], f"{name} {index}") for index in sorted(value, key=int)}


def _labelled(value: Any, name: str) -> list[float]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise UsageError(f"{name} must be x, y, v")
    if isinstance(value[2], bool) or value[2] not in (0, 1, 2):
        raise UsageError(f"{name}: v must be 0 (not labelled), 1 (hidden) or 2 (visible)")
    return [*_pixels(value[:2], 2, name), int(value[2])]


def _keypoints(value: Any, name: str, keypoints: int) -> dict[str, Any]:
    return _by_index(value, name, keypoints, _labelled)


def _propagated(value: Any, name: str, keypoints: int) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not 0 < len(value) <= MOST_FRAMES:
        raise UsageError(f"values must be an object of 1 to {MOST_FRAMES} frames")
    result: dict[str, Any] = {}
    for frame in value:
        if not isinstance(frame, str) or not _NUMBER.fullmatch(frame):
            raise UsageError("values: frames must be texts of whole numbers")
    for frame in sorted(value, key=int):
        people = value[frame]
        if not isinstance(people, Mapping) or not people:
            raise UsageError(f"values {frame} must be an object of people")
        result[frame] = {
            _person(key, "values"): _by_index(people[key], "values", keypoints, lambda v, n: _pixels(v, 2, n))
            for key in people
        }
    return result


_FIELDS: dict[str, Callable[[Any, str, int], Any]] = {
    "input": _input,
    "frame": _frame,
    "person": _person,
    "keypoints": _keypoints,
    "box": _box,
    "track": _frame_or_none,
    "to": _frame,
    "until": _frame_or_none,
    "swap": _flag,
    "values": _propagated,
}

# Operation → the fields that it needs, and those that it may have.
OPERATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "keypoints": (("input", "frame", "person", "keypoints"), ()),
    "box": (("input", "frame", "person", "box"), ()),
    "add": (("input", "frame", "box", "keypoints"), ("track",)),
    "delete": (("input", "frame", "person"), ()),
    "track": (("input", "frame", "track", "to"), ("until", "swap")),
    "accept": (("input", "frame", "person"), ()),
    "propagate": (("input", "track", "values"), ()),
}
