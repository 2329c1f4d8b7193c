"""Standard input and named pipes, which can be read only once and forwards."""

import io
import os
import select
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO, Protocol, cast

# Largest box of an MP4 that is read in search of its index; larger ones are data.
_LARGEST_BOX = 1 << 20


class Readable(Protocol):
    """A source of bytes for FFmpeg."""

    def read(self, size: int = -1, /) -> bytes:
        """At most size bytes; empty at the end."""


class _Prefixed:
    """Bytes that were already read, followed by the rest of their source."""

    def __init__(self, start: bytes, rest: Readable) -> None:
        self._start, self._rest = start, rest

    def read(self, size: int = -1) -> bytes:
        if not self._start:
            return self._rest.read(size)
        if size < 0:
            start, self._start = self._start, b""
            return start + self._rest.read(size)
        start, self._start = self._start[:size], self._start[size:]
        return start


def open_pipe(address: str) -> Readable:
    """The bytes of a named pipe, or of standard input ("-"), for av.open.

    An MP4 whose index follows its frames cannot be read as a stream: it is copied into a temporary file first.
    Raises OSError, and ValueError where there is no standard input.
    """
    source = _standard_input() if address == "-" else _open(Path(address))
    start, in_one_go = _look(source)
    whole = _Prefixed(start, source)
    if in_one_go:
        return whole
    copy = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115 - it lives as long as the container
    shutil.copyfileobj(cast(IO[bytes], whole), copy, 1 << 20)
    copy.seek(0)
    return copy


def open_forward_only(path: Path) -> Readable:
    """A file as a source that cannot seek. Raises OSError."""
    return _Prefixed(b"", io.FileIO(path))


def is_fragmented(path: Path) -> bool:
    """Whether it is a fragmented MP4, by its boxes up to the first fragment. Raises OSError."""
    with path.open("rb") as file:
        while len(header := file.read(16)) >= 8:
            size, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if kind == b"moof":
                return True
            if size == 1:
                size = int.from_bytes(header[8:], "big")
            if size < 8 or not kind.isalnum():
                return False
            file.seek(size - len(header), io.SEEK_CUR)
    return False


def _standard_input() -> io.FileIO:
    """Unbuffered: a buffered read would block until a live stream has filled the buffer."""
    if sys.stdin is None:
        raise ValueError("it is closed")
    return io.FileIO(sys.stdin.fileno(), closefd=False)


def _open(path: Path) -> io.FileIO:
    """Open for reading, unbuffered, without blocking in the kernel until there is a writer."""
    if os.name == "nt":
        return io.FileIO(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    while not poll.poll(100):
        pass
    os.set_blocking(descriptor, True)
    return io.FileIO(descriptor)


def _look(source: Readable) -> tuple[bytes, bool]:
    """The bytes read so far, and whether FFmpeg can read the source without seeking."""
    content = b""
    while True:
        header = _read(source, 8)
        content += header
        if len(header) < 8:
            return content, True
        size, kind = int.from_bytes(header[:4], "big"), header[4:]
        if kind in (b"mdat", b"meta"):
            return content, False
        if kind not in (b"ftyp", b"styp", b"free", b"skip", b"wide", b"uuid", b"pnot", b"sidx", b"junk"):
            return content, True  # the index, or not an MP4
        if not 8 <= size <= _LARGEST_BOX:
            return content, False
        content += _read(source, size - 8)


def _read(source: Readable, size: int) -> bytes:
    content = b""
    while len(content) < size and (part := source.read(size - len(content))):
        content += part
    return content
