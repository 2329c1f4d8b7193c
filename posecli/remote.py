"""Files and folders at addresses that fsspec opens, such as s3://BUCKET/FOLDER or sftp://HOST/FOLDER."""

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from posecli.errors import MachineError, PosecliError, UsageError, is_full

# FFmpeg opens addresses of these itself, see media/sources.py.
FFMPEG_SCHEMES = frozenset(["rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "tcp", "srt", "http", "https"])
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_LOCAL = re.compile(r"(file|local)://", re.IGNORECASE)
_PASSWORD = re.compile(r"://([^/:]*):[^/]*@")
# What tells two contents of a file apart, the surest first; stores and servers give some of these.
_NAMES = "ETag etag e_tag md5Hash content_md5 checksum crc32c generation version_id"
_TIMES = "mtime LastModified last_modified modified modify updated created"
_VERSIONS = (*_NAMES.split(), *_TIMES.split())
# Bytes that are read to recognise a file whose name does not tell what it is.
_START = 1 << 20


class RemoteError(PosecliError):
    """Something at an address cannot be read or written. reason: the cause, without the address."""

    def __init__(self, shown: str, reason: str) -> None:
        super().__init__(f"{shown}: {reason}")
        self.reason = reason


def is_remote(text: str) -> bool:
    """Whether it is an address for fsspec: neither a path, nor file://, nor one that FFmpeg opens."""
    match = _ADDRESS.match(text)
    return match is not None and match[1].lower() not in FFMPEG_SCHEMES and _LOCAL.match(text) is None


def without_file_scheme(text: str) -> str:
    """The path of a file:// address; other texts as they are."""
    match = _LOCAL.match(text)
    return text if match is None else text[match.end() :]


def without_password(address: str) -> str:
    """The address as it is shown."""
    return _PASSWORD.sub(r"://\1@", address)


@contextmanager
def remote_errors(shown: str) -> Iterator[None]:
    """Any error of a file system in this block as a RemoteError, but for a full disk of this machine."""
    try:
        yield
    except PosecliError:
        raise
    except FileNotFoundError as error:
        raise RemoteError(shown, "no such file or folder") from error
    except PermissionError as error:
        raise RemoteError(shown, "permission denied") from error
    except Exception as error:  # each file system has errors of its own
        if is_full(error):
            raise
        text = " ".join(str(error).split())
        raise RemoteError(shown, text or type(error).__name__) from error


def open_address(address: str) -> tuple[Any, str]:
    """The file system of an address, of which fsspec keeps one for each thread, and the path in it.

    Raises MachineError where a package is missing, UsageError for an unknown protocol, and the file system's errors
    where it cannot be reached.
    """
    shown = without_password(address)
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise MachineError(f"{shown}: package fsspec is missing: `pip install 'posecli[remote]'`") from error
    try:
        fs, path = url_to_fs(address)
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise MachineError(f"{shown}: a package for this protocol is missing ({reason})") from error
    except ValueError as error:
        if "rotocol not known" not in str(error):
            raise
        raise UsageError(f"{shown}: unknown protocol, neither FFmpeg nor fsspec opens it") from error
    return fs, str(path)


def identity(address: str) -> tuple[str, str] | None:
    """A pair that is equal for two addresses of one file, and may be equal for files of two servers.

    None where the server cannot be reached. Raises as open_address.
    """
    try:
        with remote_errors(without_password(address)):
            fs, path = open_address(address)
    except RemoteError:
        return None
    return type(fs).__name__, path.strip("/")


def addresses_of(address: str, path: str) -> "Addresses":
    """How addresses of other paths in the same file system are made. path: that of the address."""
    head, chained, rest = address.partition("::")
    head, path = head.rstrip("/"), path.rstrip("/")
    start = head[: len(head) - len(path)] if path and head.endswith(path) else f"{head.partition('://')[0]}://"
    return Addresses(start, chained + rest)


@dataclass(frozen=True)
class Addresses:
    """What stands before and after the path in an address."""

    start: str
    end: str

    def of(self, path: str) -> str:
        """The address of a path."""
        return f"{self.start}{path}{self.end}"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at an address.

    size: bytes, None where unknown. version: another one for another content, None where unknown.
    """

    address: str
    size: int | None
    version: str | None

    @property
    def shown(self) -> str:
        """The address without a password."""
        return without_password(self.address)

    def fetch(self, target: Path) -> None:
        """Copy it into a local file. Raises RemoteError where that fails, OSError where the disk is full."""
        with remote_errors(self.shown):
            fs, path = open_address(self.address)
            fs.get_file(path, str(target))
        size = target.stat().st_size
        if self.size is not None and size != self.size:
            raise RemoteError(self.shown, f"{size} bytes of {self.size} were received, or it was changed meanwhile")

    def start(self) -> bytes:
        """Its first bytes. Raises RemoteError."""
        with remote_errors(self.shown):
            fs, path = open_address(self.address)
            content: bytes = fs.cat_file(path, start=0, end=_START)
            return content


def remote_file(address: str, info: Mapping[str, Any]) -> RemoteFile:
    """A file of a listing."""
    size = info.get("size")
    size = size if isinstance(size, int) else None
    key = next((key for key in _VERSIONS if info.get(key)), None)
    if key is None:
        return RemoteFile(address, size, None)
    text = f"{key.lower()} {str(info[key]).strip(chr(34))} {size}"
    return RemoteFile(address, size, hashlib.blake2b(text.encode(), digest_size=16).hexdigest())


def safe_parts(path: str) -> list[str]:
    """The parts of a path that a server named, none of which leads out of a local folder."""
    parts = [part.replace("\0", "_").replace("\\", "_") for part in path.split("/") if part]
    return [part if part not in (".", "..") else part.replace(".", "_") for part in parts]


def walk_files(fs: Any, folder: str) -> Iterator[tuple[str, Mapping[str, Any], Exception | None]]:
    """All files under a folder: path and info; a subfolder that cannot be listed comes with its error.

    Not by fs.find where that leaves out what it cannot list. Raises the file system's error for the folder itself.
    """
    from fsspec.asyn import AsyncFileSystem

    fs.invalidate_cache()
    if fs.async_impl and getattr(type(fs), "_find", None) is not AsyncFileSystem._find:
        yield from ((path, info, None) for path, info in fs.find(folder, detail=True).items())
        return
    waiting, visited = [folder], set()
    while waiting:
        here = waiting.pop()
        visited.add(here.rstrip("/"))
        try:
            entries = fs.ls(here, detail=True)
        except Exception as error:
            if here == folder:
                raise
            yield here, {}, error
            continue
        for info in entries:
            if info["type"] != "directory":
                yield info["name"], info, None
            elif info["name"].rstrip("/") not in visited:
                waiting.append(info["name"])


class RemoteFolder:
    """A folder at an address that is read and written. Names are relative to it; raises RemoteError."""

    def __init__(self, address: str) -> None:
        self.address, self.shown = address, without_password(address).rstrip("/")
        self._made: set[str] = set()
        self._making = threading.Lock()

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[Any, str]]:
        with remote_errors(f"{self.shown}/{name}"):
            fs, path = open_address(self.address)
            yield fs, f"{path.rstrip('/')}/{name}"

    def list(self) -> dict[str, int]:
        """Names and sizes of all files whose names a local folder can have too."""
        found = {}
        with self._opened("") as (fs, _), remote_errors(self.shown):
            root = open_address(self.address)[1].rstrip("/")
            fs.invalidate_cache()
            try:
                info = fs.info(root)
            except FileNotFoundError:
                return {}
            if info["type"] != "directory":
                raise RemoteError(self.shown, "it is a file")
            for path, info, error in walk_files(fs, root):
                if error is not None:
                    raise error
                name = str(path)[len(root) :].lstrip("/")
                if name and "/".join(safe_parts(name)) == name:
                    found[name] = int(info.get("size") or 0)
        return found

    def read(self, name: str) -> bytes | None:
        """The content of a small file, None where it does not exist."""
        with self._opened(name) as (fs, path):
            fs.invalidate_cache()
            try:
                content: bytes = fs.cat_file(path)
            except FileNotFoundError:
                return None
            return content

    def write(self, name: str, content: bytes) -> None:
        """Write a small file."""
        with self._opened(name) as (fs, path):
            self._make_parent(fs, path)
            fs.pipe_file(path, content)

    def get(self, name: str, target: Path) -> None:
        """Copy a file from there."""
        with self._opened(name) as (fs, path):
            fs.get_file(path, str(target))

    def put(self, source: Path, name: str) -> None:
        """Copy a file there."""
        with self._opened(name) as (fs, path):
            self._make_parent(fs, path)
            fs.put_file(str(source), path)

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""
        with self._opened(name) as (fs, path):
            try:
                fs.rm_file(path)
            except FileNotFoundError:
                return

    def _make_parent(self, fs: Any, path: str) -> None:
        """Object stores, which are those with asynchronous file systems, have no folders."""
        parent = str(PurePosixPath(path).parent)
        if fs.async_impl:
            return
        with self._making:  # other threads, with file systems of their own, make folders there too
            if parent not in self._made:
                fs.invalidate_cache()
                fs.makedirs(parent, exist_ok=True)
                self._made.add(parent)
