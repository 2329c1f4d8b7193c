"""The journal of corrections, OUT/.posecli/corrections.jsonl: a line an edit, appended and flushed to the disk at once.

A process that is killed leaves at most one incomplete line, the last one, which the next writer cuts off.
"""

import os
import stat
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import orjson

from posecli.errors import DataError, MachineError
from posecli.text import printed

HEADER = b'{"corrections":1}\n'
_LONGEST_HEADER = 200


def journal_path(out: Path) -> Path:
    """The journal of an output folder."""
    return out / ".posecli" / "corrections.jsonl"


class CorrectionJournal:
    """The file, opened to read its lines and, with write, to append to it. close it at the end.

    Raises MachineError where it cannot be read or written, DataError where it is no journal of corrections.
    """

    def __init__(self, path: Path, *, write: bool) -> None:
        self._path, self._write = path, write
        self._file: FileIO | None = None
        try:
            if write:
                path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if write else os.O_RDONLY
            flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
            self._file = FileIO(os.open(path, flags, 0o666), "r+b" if write else "rb")
            found = os.fstat(self._file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise MachineError(f"{printed(path)} is a link: an edit could be written into another file")
            self._size = self._whole_lines(found.st_size)
            if write:
                self._prepare(found.st_size)
        except FileNotFoundError:
            self._size = 0
        except OSError as error:
            self.close()
            raise MachineError(f"{printed(path)}: cannot be opened ({error.strerror})") from error
        except BaseException:
            self.close()
            raise

    def _whole_lines(self, size: int) -> int:
        """The length of the file without an incomplete last line. Raises DataError for another kind of file."""
        assert self._file is not None
        first = self._read(0, _LONGEST_HEADER)
        if not first.startswith(HEADER) and not HEADER.startswith(first):
            raise DataError(f"{printed(self._path)}: not a journal of corrections of this version of posecli")
        end = size
        while end:
            start = max(0, end - (1 << 16))
            newline = self._read(start, end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0

    def _read(self, start: int, count: int) -> bytes:
        assert self._file is not None
        self._file.seek(start)
        return self._file.read(count)

    def _prepare(self, size: int) -> None:
        assert self._file is not None
        if self._size < size:
            self._file.truncate(self._size)
        if not self._size:
            self._append(HEADER)
            _flush_folder(self._path.parent)

    def lines(self) -> Iterator[tuple[int, Any]]:
        """(number of the line, its JSON) of each complete line after the header. Raises DataError, OSError."""
        if self._file is None or not self._size:
            return
        with self._path.open("rb") as file:
            number, rest = 1, self._size - len(file.readline())
            while rest > 0:
                line = file.readline()
                number, rest = number + 1, rest - len(line)
                try:
                    yield number, orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise damaged(self._path, number, "not JSON") from error

    def append(self, line: dict[str, Any]) -> None:
        """Write a line and wait until it is on the disk. Raises MachineError; the file is then as before."""
        try:
            self._append(orjson.dumps(line) + b"\n")
        except OSError as error:
            raise MachineError(f"{printed(self._path)}: cannot be written ({error.strerror})") from error

    def _append(self, data: bytes) -> None:
        assert self._file is not None and self._write
        try:
            written = 0
            while written < len(data):
                written += self._file.write(data[written:]) or 0
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._size)
            raise
        self._size += len(data)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def damaged(path: Path, number: int, reason: str) -> DataError:
    """The error for a complete line that is no edit: only posecli should write there."""
    return DataError(f"{printed(path)}: line {number} is damaged ({reason}): restore the file, or delete this line")


def _flush_folder(folder: Path) -> None:
    """Make a new file's name durable, where folders can be flushed."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
