"""Ids of COCO files: any JSON value, matched exactly, or else a number with a text of the same digits."""

import json
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_DIGITS = re.compile(r"[+-]?[0-9]{1,300}(\.0*)?")
# Integers up to here are exact in all JSON readers and in pycocotools' arrays.
_PLAIN = 2**53


@dataclass(frozen=True, eq=False)
class IdMap:
    """The ids of a file's images or categories.

    own: internal id → the file's own id. They are equal where all are plain integers; else internal ids count from 1.
    """

    own: Mapping[int, Any]
    _exact: Mapping[Hashable, int] = field(repr=False)
    _loose: Mapping[Hashable, int | None] = field(repr=False)

    def find(self, value: Any) -> int | None:
        """The internal id of a file's own id, None where the file does not have it."""
        return self._exact.get(value if type(value) is int else _key(value))

    def find_loosely(self, value: Any) -> int | None:
        """The same for a number written as text or the other way round; None where several match."""
        return self._loose.get(_alike(value))


def map_ids(given: Sequence[Any]) -> IdMap:
    """The map of ids in their order; of two equal ones the last counts, as in pycocotools."""
    keys = [_key(value) for value in given]
    plain = all(type(key) is int and -_PLAIN < key < _PLAIN for key in keys)
    exact: dict[Hashable, int] = {}
    own: dict[int, Any] = {}
    for key, value in zip(keys, given, strict=True):
        internal = key if plain and isinstance(key, int) else exact.get(key, len(exact) + 1)
        exact[key] = internal
        own[internal] = value
    loose: dict[Hashable, int | None] = {}
    for internal, value in own.items():
        alike = _alike(value)
        loose[alike] = None if alike in loose else internal
    return IdMap(own, exact, loose)


def _key(value: Any) -> Hashable:
    """A key that is equal for ids that are equal in JSON: 1 and 1.0, and objects with equal fields."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        if value != value:
            return ("not a number",)
        return int(value) if value.is_integer() else value
    if isinstance(value, dict | list):
        try:
            return ("json", json.dumps(value, sort_keys=True))
        except RecursionError:
            return ("nested beyond all measure",)
    return value if isinstance(value, int | str) or value is None else ("other", repr(value))


def _alike(value: Any) -> Hashable:
    key = _key(value)
    if isinstance(key, str):
        key = key.strip()
        if _DIGITS.fullmatch(key):
            return int(key.partition(".")[0])
    return key
