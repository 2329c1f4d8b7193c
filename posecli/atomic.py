"""Atomic file writes: a temporary name beside the target, renamed when complete."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import BinaryIO

_BUFFER = 1 << 20


def temporary(path: Path) -> Path:
    """The temporary path for a file: in the same folder, with a short name of fixed length."""
    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    return path.with_name(f".posecli-{digest}.part")


def remove(path: Path) -> None:
    """Delete a file, a link (not its target) or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def create(part: Path) -> BinaryIO:
    """A new file at a temporary path, opened for writing; the folder is made where it is missing.

    A file, link or folder of this name, left by a killed run, is deleted first.
    """
    try:
        return part.open("xb", buffering=_BUFFER)
    except FileNotFoundError:
        part.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        remove(part)
    return part.open("xb", buffering=_BUFFER)


def new_temporary(path: Path) -> Path:
    """A new empty file at temporary(path). A file or link of this name, left by a killed run, is deleted first."""
    part = temporary(path)
    remove(part)
    part.touch(exist_ok=False)
    return part


class AtomicFile:
    """Context manager for writing a binary file atomically: renamed to path at the end, unless an error occurs.

    The folder is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, temporary(path)

    def __enter__(self) -> BinaryIO:
        self._file = create(self._part)
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._file.close()  # flushes, which fails on a full disk
            if kind is None:
                self._part.replace(self._path)
                return
        except BaseException:
            self._part.unlink(missing_ok=True)
            raise
        self._part.unlink(missing_ok=True)
