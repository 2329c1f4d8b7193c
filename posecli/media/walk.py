"""Recursive listing of folders, with the parts that cannot be listed. Only folders are opened."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

STREAMS = ("a named pipe", "a socket")
_SPECIAL = (
    (stat.S_ISFIFO, STREAMS[0]),
    (stat.S_ISSOCK, STREAMS[1]),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def special_file_kind(path: Path) -> str | None:
    """A description of a path that is neither a file nor a folder; None for others and where that is unknown.

    It is not opened: opening a named pipe could block.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return next((words for test, words in _SPECIAL if test(mode)), None)


def is_folder(path: Path) -> bool:
    """Whether it is a folder; False where that is unknown."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def walk(folder: Path, exclude: Path | None = None) -> Iterator[tuple[Path, str | None]]:
    """Pairs (path, None) of all files under a folder in a fixed order, and (path, reason) of unreadable folders.

    Files of a folder come before its subfolders. Hidden names, unfinished files (.part), named pipes, sockets and
    devices are skipped, and so is exclude. Links are followed, each folder is visited once. Broken links and files that
    were deleted meanwhile are listed as files: opening them reports the error.
    """
    excluded = None
    if exclude is not None:
        with contextlib.suppress(OSError, ValueError):
            excluded = _identity(exclude)
    visited: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            identity = _identity(here)
            if identity in visited or identity == excluded:
                continue  # a link to a visited folder, or the output folder
            visited.add(identity)
            with os.scandir(here) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            yield here, f"the folder cannot be read ({error.strerror or error})"
            continue
        folders = []
        for entry in found:
            if entry.name.startswith("."):
                continue
            path = here / entry.name
            try:
                inside = entry.is_dir()
            except PermissionError as error:
                yield path, error.strerror
                continue
            except OSError:  # a link to itself
                inside = False
            if inside:
                folders.append(path)
            elif not entry.name.endswith(".part") and special_file_kind(path) is None:
                yield path, None
        waiting += reversed(folders)


def _identity(path: Path) -> tuple[int, int]:
    """Device and inode. Raises OSError."""
    found = path.stat()
    return found.st_dev, found.st_ino
