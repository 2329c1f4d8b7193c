"""Files that are whole or not there."""

from pathlib import Path
from typing import BinaryIO


class Whole:
    """A file written under a temporary name and renamed at the end; after an error the former one stands."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(path.name + ".part")

    def __enter__(self) -> BinaryIO:
        self._file = self._part.open("wb", buffering=1 << 20)
        return self._file

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)
