"""Whether two paths mean the same file: by device and inode, by real place, and whatever the letters' case."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posecli.media.inputs import Input

FileId = tuple[int, int]


def file_id(path: Path | str, *, follow: bool = True) -> FileId | None:
    """Device and inode of a path; None where it does not exist, or where the file system has no inodes."""
    try:
        found = os.stat(path, follow_symlinks=follow)  # noqa: PTH116 - text paths too
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if found.st_ino else None


def name_key(path: str) -> str:
    """The same for all spellings that some file system takes for one: letter case and Unicode composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def once(inputs: Iterable["Input"]) -> tuple[list["Input"], list[tuple["Input", "Input"]]]:
    """The inputs without those that are the same file as an earlier one, and those with the one they are.

    The same path given twice is dropped without a word; the same file under another path (a link, another spelling)
    is told.
    """
    paths: set[str] = set()
    files: dict[FileId | str, Input] = {}
    kept: list[Input] = []
    again: list[tuple[Input, Input]] = []
    for item in inputs:
        path = item.address if item.address is not None else str(item.path.absolute())
        if path in paths:
            continue
        paths.add(path)
        identity = file_id(item.path) if item.address is None else None
        if identity is None:
            kept.append(item)
        elif identity in files:
            again.append((item, files[identity]))
        else:
            files[identity] = item
            kept.append(item)
    return kept, again
