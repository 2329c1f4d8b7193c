"""Conversion of the names in older pose models' files."""

from collections.abc import Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")
# Keys of a header's "config".
_KEYS = {"presence": "person_score", "extent": "box_head"}
# Prefixes of tensors' names.
_PREFIXES = {"trunk.": "backbone.", "presence.": "person_score.", "extent.": "box_head."}


def current_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the current keys. An old key beside its new one is kept, to be refused as unknown."""
    return {key if _KEYS.get(key, key) in config else _KEYS.get(key, key): value for key, value in config.items()}


def current_tensors(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """A pose model's tensors under the current names."""
    return {_current(name): tensor for name, tensor in tensors.items()}


def _current(name: str) -> str:
    for old, new in _PREFIXES.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
