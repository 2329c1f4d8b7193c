"""Reading of JSON files, and the record of what was repaired in them."""

import gc
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    import orjson
except ImportError:  # on a machine that only trains: the slower json reads the same
    orjson = None  # type: ignore[assignment]

from posecli.errors import DataError

# orjson turns integers of more than 64 bits into floats: such files are read by the slower json.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Pause garbage collection: a large file gives millions of objects, which each pass would visit."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_json(path: Path) -> Any:
    """The content of a JSON file, NaN and integers of any size included; UTF-8, UTF-16 or UTF-32, with or without BOM.

    Raises DataError where it cannot be read, is empty, is not JSON, or is nested too deeply.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not content.strip(b"\0 \t\r\n\xef\xbb\xbf"):
        raise DataError(f"{path}: not JSON (the file is empty)")
    try:
        if orjson is not None and not _LONG_NUMBER.search(content):
            # NaN, a BOM, another encoding, or not JSON: the slower json decides.
            with suppress(orjson.JSONDecodeError):
                return orjson.loads(content)
        return json.loads(content)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({shortened(str(error), 120)})") from error
    except RecursionError as error:
        raise DataError(f"{path}: not a COCO file: its lists are nested too deeply") from error


def shown(value: Any) -> str:
    """A value of a file for a message: as JSON in ASCII, shortened, so that look-alike letters differ."""
    if type(value) is int and -(2**63) < value < 2**63:
        return str(value)
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return shortened(text)


def shortened(text: str, length: int = 60) -> str:
    """The beginning of a text, in one line."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."


def quoted_name(path: Any) -> str:
    """A file name for a message; in quotes with escapes where it has invisible or look-alike letters."""
    text = str(path)
    return text if text.isascii() and text.isprintable() else ascii(text)


def number(value: Any) -> float | None:
    """A finite number, also one written as text; None for anything else."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        if len(value) > 40 or "_" in value:
            return None
        value = value.strip()
    elif not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


@dataclass
class Repairs:
    """What was repaired while a file was read: kind → count and first place. remarks: further sentences."""

    found: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, thing: str, what: str, where: str, count: int = 1) -> None:
        """Count a repair. thing: what was repaired, in the singular. what: the kind. where: the place."""
        entry = self.found.setdefault((thing, what), [0, where])
        entry[0] += count

    def lines(self) -> tuple[str, ...]:
        """A sentence for each kind, with its count and first place."""
        counted = (
            f"{count} {thing if count == 1 else plural(thing)} {what} (first: {where})"
            for (thing, what), (count, where) in self.found.items()
        )
        return (*self.remarks, *counted)


def plural(thing: str) -> str:
    """The plural of a noun."""
    return f"{thing[:-1]}ies" if thing.endswith("y") else f"{thing}es" if thing.endswith("x") else f"{thing}s"


def entries_of(given: Any, kind: str, path: Path, repairs: Repairs) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The entries of a list of a COCO file with their numbers from 1; kind: "image", "annotation" or "category".

    A mapping of entries is taken as a list, null entries are left out. Raises DataError for anything else.
    """
    for place, entry in enumerate(_as_list(given, kind, path, repairs), 1):
        if isinstance(entry, dict):
            yield place, entry
        elif entry is None:
            repairs.add(kind, "that is null: left out", f"number {place}")
        else:
            raise DataError(f"{path}: {kind} number {place} is {shown(entry)}, not an object with fields")


def _as_list(given: Any, kind: str, path: Path, repairs: Repairs) -> Sequence[Any]:
    if given is None:
        return ()
    if isinstance(given, list):
        return given
    if isinstance(given, dict):
        values = list(given.values())
        if values and all(isinstance(value, dict) for value in values):
            repairs.remarks.append(f"{plural(kind)} are a mapping, not a list: its {len(values)} values taken")
            return [{"id": key, **value} for key, value in given.items()]
        if "id" in given:
            return [given]
        if not given:
            return ()
    raise DataError(f"{path}: not a COCO file: {plural(kind)} is {shown(given)}, not a list")
