"""Matching of annotations' file names with files on disk, also where the spelling differs."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import unquote

from posecli.annotations.document import quoted_name
from posecli.annotations.images import Image

T = TypeVar("T")


class NameIndex(Generic[T]):
    """Values by file name, found by other spellings of the name too.

    First differences in backslashes, URL quoting and Unicode form (NFC, NFD) are ignored, then those in letter case
    too. Of several files with one base name, the one with most folders in common is taken.
    """

    def __init__(self, entries: Iterable[tuple[str, T]]) -> None:
        self._levels: tuple[dict[str, list[tuple[tuple[str, ...], T]]], ...] = ({}, {})
        for name, value in entries:
            for folded, level in enumerate(self._levels):
                parts = _parts(name, bool(folded))
                level.setdefault(parts[-1], []).append((parts, value))

    def find(self, name: str, *, strict: bool = False) -> list[T]:
        """The matching values: none, one, or several where the name is ambiguous.

        strict: all folders of the name must match, except of absolute paths, which come from other machines.
        """
        anywhere = not strict or _is_rooted(name)
        for folded, level in enumerate(self._levels):
            parts = _parts(name, bool(folded))
            best: list[T] = []
            most = 0
            for known, value in level.get(parts[-1], ()):
                common = _common(known, parts)
                if common < most or not (anywhere or common == min(len(known), len(parts))):
                    continue
                best = [*best, value] if common == most else [value]
                most = common
            if best:
                return best
        return []


def _parts(name: str, folded: bool) -> tuple[str, ...]:
    if "://" in name:
        name = re.split(r"[?#]", name.partition("://")[2])[0]
    text = unicodedata.normalize("NFC", unquote(name).replace("\\", "/").strip())
    if folded:
        text = unicodedata.normalize("NFC", text.casefold())
    return tuple(part for part in text.split("/") if part not in ("", ".")) or ("",)


def _is_rooted(name: str) -> bool:
    return name.startswith(("/", "\\")) or "://" in name or re.match(r"[A-Za-z]:[\\/]", name) is not None


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Number of equal parts, counted from the end."""
    count = 0
    for a, b in zip(reversed(first), reversed(second), strict=False):
        if a != b:
            break
        count += 1
    return count


@dataclass(frozen=True)
class Files:
    """The image files of a COCO file: internal id → path, existing or missing. notes: names spelt differently."""

    there: dict[int, Path]
    missing: dict[int, Path]
    notes: tuple[str, ...]


def find_files(images: Sequence[Image], folder: Path) -> Files:
    """Look for images in a folder by their names, else by another spelling of them.

    The file of an image without file_name is the one whose stem is the image's id.
    """
    there: dict[int, Path] = {}
    absent: list[Image] = []
    for image in images:
        path = folder / image.file_name
        if image.file_name and is_there(path):
            there[image.id] = path
        else:
            absent.append(image)
    if not absent:
        return Files(there, {}, ())
    listing = list(_walk(folder))
    index = NameIndex((path, path) for path in listing)
    stems = NameIndex((re.sub(r"\.[^.]*$", "", Path(path).name), path) for path in listing)
    found: dict[int, str] = {}
    for image in absent:
        names = [image.file_name] if image.file_name else _names_of_id(image)
        meant = {m for name in names for m in (index if image.file_name else stems).find(name, strict=True)}
        if len(meant) == 1:
            found[image.id] = meant.pop()
    # Two images cannot be the same file: then neither matches.
    taken = Counter(found.values())
    found = {i: path for i, path in found.items() if taken[path] == 1}
    there |= {i: folder / path for i, path in found.items()}
    missing = {
        image.id: folder / (image.file_name or f"(image {image.own_id})") for image in absent if image.id not in found
    }
    order = [image.id for image in images]
    return Files({i: there[i] for i in order if i in there}, missing, _spelling_notes(absent, found))


def _spelling_notes(absent: Sequence[Image], found: dict[int, str]) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for image in absent:
        if image.id in found:
            kind = _difference(image.file_name, found[image.id])
            counts[kind] += 1
            first.setdefault(kind, f"{image.file_name!a} is {found[image.id]!a}")
    return tuple(
        f"{count} image{'s' if count > 1 else ''} found {kind} (first: {first[kind]})" for kind, count in counts.items()
    )


def _difference(name: str, found: str) -> str:
    if not name:
        return "by the image's id, without a file_name"
    if "\\" in name and "\\" not in found:
        return "by a name with backslashes"
    if (unquote(name) != name and unquote(found) == found) or unquote(found) != found:
        return "by a name with URL quoting"
    if name != found and unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", found):
        return "by a name in another Unicode form (NFC, NFD)"
    if _parts(name, False)[-1] == _parts(found, False)[-1]:
        return "in other folders than their names say"
    return "by a name in other letter case"


def _names_of_id(image: Image) -> list[str]:
    text = str(image.own_id)
    return [text, text.zfill(12)] if text.isascii() and text.isdigit() else [text]


def _walk(folder: Path) -> Iterable[str]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        relative = Path(place).relative_to(folder)
        for file in sorted(files):
            yield (relative / file).as_posix()


def is_there(path: Path) -> bool:
    """Whether this is a file; False for names that the file system does not allow."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def missing_line(missing: Iterable[Path], total: int, what: str) -> str:
    """A line with the number of missing images and the first of them, with escapes for look-alike letters."""
    paths = list(missing)
    return f"{len(paths)} of {total} {what} are missing, first {quoted_name(paths[0])}"
