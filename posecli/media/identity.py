"""Whether two paths are the same file: by device and inode, or by resolved path ignoring letter case."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posecli.media.inputs import Input

FileId = tuple[int, int]


def file_id(path: Path | str, *, follow: bool = True) -> FileId | None:
    """Device and inode of a path; None where it does not exist or the file system has no inodes."""
    try:
        found = os.stat(path, follow_symlinks=follow)  # noqa: PTH116 - text paths too
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if found.st_ino else None


def name_key(path: str) -> str:
    """A key that is equal for spellings that some file system treats as equal: letter case, Unicode composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def without_duplicates(inputs: Iterable["Input"]) -> tuple[list["Input"], list[tuple["Input", "Input"]]]:
    """The inputs without duplicates of an earlier one, and pairs (duplicate, earlier one).

    An equal path given twice is not in the pairs; the same file under another path (a link, another spelling) is.
    """
    paths: set[str] = set()
    files: dict[FileId | str, Input] = {}
    kept: list[Input] = []
    again: list[tuple[Input, Input]] = []
    for item in inputs:
        path = item.address if item.address is not None else str(item.path.absolute())
        path = path if item.remote is None else item.remote.address
        if path in paths:
            continue
        paths.add(path)
        identity = file_id(item.path) if item.address is None and item.remote is None else None
        if identity is None:
            kept.append(item)
        elif identity in files:
            again.append((item, files[identity]))
        else:
            files[identity] = item
            kept.append(item)
    return kept, again
