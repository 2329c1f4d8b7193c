"""A file system of fsspec for tests: a folder of this machine as a server that can be told to fail."""

import errno
import os
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from fsspec import register_implementation
from fsspec.implementations.local import LocalFileSystem


class Shelf(LocalFileSystem):
    """disk://PATH: local files; calls are counted, and fail where `fails` says so for a method and path."""

    protocol = "disk"
    root_marker = ""
    calls: ClassVar[Counter[str]] = Counter()
    got: ClassVar[list[str]] = []
    broken: ClassVar[list[tuple[str, str, BaseException]]] = []

    @classmethod
    def reset(cls) -> None:
        cls.calls.clear()
        cls.got.clear()
        cls.broken.clear()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(item) for item in path]
        return os.fspath(path).removeprefix("disk://").rstrip("/")

    def _meet(self, method: str, path: str) -> None:
        self.calls[method] += 1
        for name, part, error in self.broken:
            if name == method and part in path:
                raise error

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        self._meet("ls", path)
        return super().ls(path, detail=detail, **kwargs)

    def info(self, path: str, **kwargs: Any) -> Any:
        self._meet("info", path)
        return super().info(path, **kwargs)

    def get_file(self, rpath: str, lpath: str, callback: Any = None, **kwargs: Any) -> None:
        self._meet("get", rpath)
        self.got.append(Path(rpath).name)
        Path(lpath).write_bytes(Path(rpath).read_bytes())

    def put_file(self, lpath: str, rpath: str, callback: Any = None, **kwargs: Any) -> None:
        self._meet("put", rpath)
        Path(rpath).write_bytes(Path(lpath).read_bytes())

    def rm_file(self, path: str) -> None:
        self._meet("rm", path)
        Path(path).unlink()


register_implementation("disk", Shelf, clobber=True)
LOST = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
