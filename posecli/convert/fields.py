"""Fields of a person as the attributes of tools that know text only, and back."""

import json
from collections.abc import Mapping
from typing import Any

import orjson

from posecli.annotations.document import number
from posecli.errors import DataError

# Attributes that tools set themselves.
OWN = frozenset({"track_id", "keyframe", "occluded", "outside", "is_crowd"})


def to_json(value: Any) -> bytes:
    """A value of a file as JSON, also with integers of any size and invalid Unicode. Raises DataError."""
    try:
        return orjson.dumps(value)
    except TypeError:
        pass
    try:
        return json.dumps(value).encode()
    except (RecursionError, ValueError, TypeError) as error:
        raise DataError(f"a field of the file cannot be written as JSON ({type(error).__name__})") from error


def to_text(value: Any) -> str:
    """A value as text: JSON, but plain for a text that cannot be read as JSON."""
    if isinstance(value, str) and isinstance(from_text(value), str):
        return value
    return to_json(value).decode()


def from_text(text: str) -> Any:
    """The value of a text: of JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def track_of(value: Any) -> int | None:
    """A track id: a whole number, also one written as text; None for anything else."""
    found = None if isinstance(value, bool) else number(value)
    return int(found) if found is not None and found == int(found) and abs(found) < 2**53 else None


def without_own(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that are fields of a person, their texts as values."""
    return {
        key: from_text(value) if isinstance(value, str) else value
        for key, value in attributes.items()
        if key not in OWN
    }
