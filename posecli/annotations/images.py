"""The images that a COCO file lists."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from posecli.annotations.document import Repairs, entries_of, number, shown
from posecli.annotations.ids import IdMap, map_ids
from posecli.errors import DataError


@dataclass(frozen=True)
class Image:
    """An image of a COCO file.

    id: internal (IdMap); own_id: that of the file. file_name: that of the file, "" where there is none.
    size: (width, height) in pixels, None where unknown.
    """

    id: int
    own_id: Any
    file_name: str
    size: tuple[int, int] | None


def read_images(given: Any, path: Path, repairs: Repairs) -> tuple[tuple[Image, ...], IdMap]:
    """The images in their order; of several with one id the last, as in pycocotools. Raises DataError."""
    entries = list(entries_of(given, "image", path, repairs))
    for place, entry in entries:
        if "id" not in entry:
            raise DataError(f"{path}: image number {place} has no id")
    ids = map_ids([entry["id"] for _, entry in entries])
    images: dict[int, Image] = {}
    for _, entry in entries:
        internal = ids.find(entry["id"])
        assert internal is not None
        where = f"image {shown(entry['id'])}"
        if internal in images:
            repairs.add("image", "whose id an image before has too: the last one counts", where)
        name = _file_name(entry, where, repairs)
        images[internal] = Image(internal, entry["id"], name, _size(entry, where, repairs))
    return tuple(images.values()), ids


def _file_name(entry: Mapping[str, Any], where: str, repairs: Repairs) -> str:
    name = entry.get("file_name")
    if isinstance(name, str) and name.strip():
        return name
    if isinstance(name, int | float) and not isinstance(name, bool):
        repairs.add("image", "with a number as file_name", where)
        return shown(name)
    for key in ("filename", "path", "coco_url", "url", "flickr_url"):
        other = entry.get(key)
        if isinstance(other, str) and other.strip():
            if "url" in key:
                try:
                    other = unquote(PurePosixPath(urlsplit(other).path).name)
                except ValueError:
                    continue
            if other:
                repairs.add("image", f"without file_name: taken from {key}", where)
                return other
    return ""


def _size(entry: Mapping[str, Any], where: str, repairs: Repairs) -> tuple[int, int] | None:
    given = entry.get("width"), entry.get("height")
    if given == (None, None):
        return None
    if all(type(value) is int and 0 < value < 2**31 for value in given):
        return int(given[0]), int(given[1])  # type: ignore[arg-type]
    width, height = (number(value) for value in given)
    if width is None or height is None or not (1 <= width < 2**31 and 1 <= height < 2**31):
        repairs.add(
            "image", f"whose width and height are no size ({', '.join(map(shown, given))}): size unknown", where
        )
        return None
    if any(isinstance(value, str) for value in given):
        repairs.add("image", "with width and height as text: read as numbers", where)
    return round(width), round(height)
