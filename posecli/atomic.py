"""Files that are whole or not there."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import BinaryIO


def temporary(path: Path) -> Path:
    """Where a file is written before it gets its name: beside it, under a short name whatever its own is."""
    digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
    return path.with_name(f".posecli-{digest}.part")


def remove(path: Path) -> None:
    """Take away a file, a link (not what it leads to) or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def new_temporary(path: Path) -> Path:
    """An empty file at temporary(path), new: what a killed run, or a link of this name, left is not written to."""
    part = temporary(path)
    remove(part)
    part.touch(exist_ok=False)
    return part


class Whole:
    """A file written under a temporary name and renamed at the end; after an error the former one stands."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, temporary(path)

    def __enter__(self) -> BinaryIO:
        remove(self._part)
        self._file = self._part.open("xb", buffering=1 << 20)
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._file.close()  # writes what is left, for which the disk may be too full
            if kind is None:
                self._part.replace(self._path)
        finally:
            self._part.unlink(missing_ok=True)
