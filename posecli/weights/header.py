"""Checked access to the values of a weights file's header: types and limits, with one-line errors."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from posecli.errors import DataError


def shown(value: Any, letters: int = 60) -> str:
    """A value of a file for a one-line message: quoted, escaped, shortened."""
    text = repr(value) if not isinstance(value, dict | list) or len(value) < 20 else f"{len(value)} values"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= letters else text[: letters - 1] + "…"


@dataclass(frozen=True)
class Fields:
    """A JSON object whose values are read one by one, each with its type and limits.

    where: name of the object for messages. Every method raises DataError for a value that is missing (without a
    default) or invalid; bool is not a number, and numbers are finite.
    """

    values: Mapping[str, Any]
    where: str

    @classmethod
    def of(cls, value: Any, where: str) -> "Fields":
        """The fields of a JSON object."""
        if not isinstance(value, Mapping):
            raise DataError(f"{where} is {shown(value)}, not an object with values")
        return cls(value, where)

    def only(self, known: Iterable[str]) -> None:
        """Refuse unknown keys, which might change the model."""
        unknown = sorted(set(self.values) - set(known))
        if unknown:
            raise DataError(f"{self.where} has the unknown key {shown(unknown[0])}: a newer posecli may read it")

    def flag(self, key: str, default: bool | None = None) -> bool:
        """A boolean."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self._get(key)
        if not isinstance(value, str) or not value:
            raise self._wrong(key, value, "text")
        return value

    def whole(self, key: str, least: int, most: int) -> int:
        """An integer within limits, both included."""
        return self._whole(key, self._get(key), least, most)

    def number(self, key: str, least: float, most: float, default: float | None = None) -> float:
        """A finite number within limits, both included."""
        return self._number(key, self._get(key, default), least, most)

    def wholes(self, key: str, least: int, most: int, count: int | None = None, longest: int = 1000) -> tuple[int, ...]:
        """A list of integers; count: its length, if given."""
        return tuple(self._whole(key, value, least, most) for value in self._list(key, self._get(key), count, longest))

    def numbers(self, key: str, least: float, most: float, count: int) -> tuple[float, ...]:
        """A list of count finite numbers."""
        return tuple(self._number(key, value, least, most) for value in self._list(key, self._get(key), count, count))

    def texts(self, key: str, longest: int = 1000) -> tuple[str, ...]:
        """A list of at least one text, without duplicates."""
        values = self._list(key, self._get(key), None, longest)
        if not values or not all(isinstance(value, str) for value in values) or len(set(values)) < len(values):
            raise self._wrong(key, values, "a list of different texts")
        return tuple(values)

    def pairs(self, key: str, below: int, longest: int = 1000, *, alike: bool = False) -> tuple[tuple[int, int], ...]:
        """Pairs of indices from 0 to below - 1; equal ones in a pair only with alike."""
        found = []
        for value in self._list(key, self._get(key), None, longest):
            first, second = (self._whole(key, index, 0, below - 1) for index in self._list(key, value, 2, 2))
            if first == second and not alike:
                raise self._wrong(key, value, "a pair of two")
            found.append((first, second))
        return tuple(found)

    def part(self, key: str) -> "Fields":
        """An object within this one."""
        return Fields.of(self._get(key), f"{self.where}.{key}")

    def _get(self, key: str, default: Any = None) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise DataError(f"{self.where} has no {key}")
        return value

    def _list(self, key: str, value: Any, count: int | None, longest: int) -> list[Any]:
        if not isinstance(value, list) or len(value) > longest or (count is not None and len(value) != count):
            raise self._wrong(key, value, "a list" if count is None else f"a list of {count}")
        return value

    def _whole(self, key: str, value: Any, least: int, most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._wrong(key, value, f"a whole number from {least} to {most}")
        return value

    def _number(self, key: str, value: Any, least: float, most: float) -> float:
        # Compared before float(), which raises for integers of 400 digits.
        known = isinstance(value, int | float) and not isinstance(value, bool)
        if not known or not least <= value <= most or not math.isfinite(value):
            raise self._wrong(key, value, f"a number from {least:g} to {most:g}")
        return float(value)

    def _wrong(self, key: str, value: Any, wanted: str) -> DataError:
        return DataError(f"{self.where}: {key} is {shown(value)}, not {wanted}")
