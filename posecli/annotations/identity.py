"""Ids of COCO files: any JSON value, matched exactly, or else as number and text of the same digits."""

import json
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_DIGITS = re.compile(r"[+-]?[0-9]{1,300}(\.0*)?")
# Whole numbers up to here are the same in JSON readers everywhere, and in pycocotools' arrays.
_PLAIN = 2**53


@dataclass(frozen=True, eq=False)
class Identities:
    """The ids of a file's images or categories.

    own: the file's own ids by internal id, which is the same where all are plain whole numbers, and a number from
    1 on where not.
    """

    own: Mapping[int, Any]
    _exact: Mapping[Hashable, int] = field(repr=False)
    _loose: Mapping[Hashable, int | None] = field(repr=False)

    def find(self, value: Any) -> int | None:
        """The internal id of what is written like this, None where it is not there."""
        return self._exact.get(value if type(value) is int else _key(value))

    def find_alike(self, value: Any) -> int | None:
        """The same for a number written as text or the other way round, if only one is meant."""
        return self._loose.get(_alike(value))


def identify(given: Sequence[Any]) -> Identities:
    """Ids in their order; of the same one twice, the last is meant, as in pycocotools. See Identities."""
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
    return Identities(own, exact, loose)


def _key(value: Any) -> Hashable:
    """Equal for ids that are equal in JSON: 1 and 1.0, and objects of equal fields."""
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
