"""Finding of inputs: folders, globs, lists and files to a list of photos and videos."""

import glob
import hashlib
import logging
import os
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from posecli.errors import NoInputError
from posecli.media.headers import other_format
from posecli.media.identity import without_duplicates
from posecli.media.lists import is_disk, paths_of
from posecli.media.remote_inputs import find_remote
from posecli.media.sniff import has_media_suffix, sniff
from posecli.media.sources import source_of
from posecli.media.walk import STREAMS, is_folder, special_file_kind, walk
from posecli.remote import RemoteFile, is_remote, without_file_scheme
from posecli.text import printed

__all__ = ["Input", "content_key", "find_inputs", "printable", "sniff"]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Input:
    """One photo or video.

    name: path relative to the output folder, unique in a run, posix, with the source's suffix.
    kind: "photo", "video", or "unknown" for a file whose content is neither.
    error: why it cannot be read, if known before opening; else None.
    address: of a video that is not a file: "-", a URL, "webcam:0", numbered images. path is then for display only.
    remote: where the file is fetched from; path is that of its local copy once it has been fetched.
    """

    path: Path
    name: str
    kind: str
    error: str | None = None
    address: str | None = None
    remote: RemoteFile | None = None

    @property
    def source(self) -> Path | str:
        """The argument for VideoReader and content_key."""
        return self.path if self.address is None else self.address

    @property
    def lookup_name(self) -> str:
        """The path by which boxes from a file are found."""
        return str(self.path) if self.remote is None else self.remote.shown

    @property
    def live(self) -> bool:
        """Whether it is a live source, which can be read only once."""
        return self.address is not None and source_of(self.address).live

    @property
    def shown(self) -> str:
        """Its path or address for messages, without passwords."""
        if self.remote is not None:
            return self.remote.shown
        return str(self.path) if self.address is None else source_of(self.address).shown


def find_inputs(
    arguments: Sequence[str], *, exclude: Path | None = None, exclude_remote: str | None = None
) -> list[Input]:
    """All inputs of the arguments, in a fixed order, each file once.

    An argument is a file, a folder (searched with its subfolders), a glob pattern, @LIST (a file with one path on each
    line, or NUL-separated, see lists.paths_of) or @- (such a list on standard input); or a video that is not a file:
    - (standard input), a URL, webcam:0, /dev/video0, numbered images as frame_%05d.png; or an address that fsspec
    opens, of a file, folder or pattern, see remote_inputs. No network is accessed but for these. In folders, files that
    are neither photo nor video by content and suffix are skipped, and so are named pipes, sockets and devices, also
    those that match a pattern. An unreadable subfolder is an input with its error. exclude,
    exclude_remote: a folder to skip, the output folder, by its path or address.

    Raises MachineError and UsageError for an address that cannot be opened here, NoInputError
    where nothing at all is found, and for a list that cannot be read.
    """
    found: list[Input] = []
    for argument, listed in _expand(arguments):
        if is_remote(argument):
            found += _of_remote(argument, exclude_remote)
            continue
        path = Path(argument)
        if listed and special_file_kind(path) in STREAMS:
            found.append(_of_file(path))  # it may have no writer
        elif (stream := _of_stream(argument)) is not None:
            found.append(stream)
        elif listed and is_disk(path):
            found.append(Input(path, "disk", "unknown", "a whole disk in a list: name a folder of it"))
        elif is_folder(path):
            found += _of_folder(path, exclude)
        elif os.path.lexists(path) or not glob.has_magic(argument):
            found.append(_of_file(path))
        else:
            found += _of_pattern(argument, exclude)
    unique, again = without_duplicates(found)
    if again:
        item, same = again[0]
        more = f" ({len(again) - 1} more are another's likewise)" if len(again) > 1 else ""
        LOG.warning("%s is the same file as %s and done once%s", printed(item.shown), printed(same.shown), more)
    if not unique:
        raise NoInputError(f"no photo or video in {', '.join(arguments) or 'nothing'}")
    return _distinct_names(unique)


def _expand(arguments: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The arguments with lists expanded, and whether each is from a list."""
    for argument in arguments:
        if not argument.startswith("@") or os.path.lexists(argument):
            yield without_file_scheme(argument), False
            continue
        name = argument[1:]
        try:
            content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        except OSError as error:
            raise NoInputError(f"list {name}: {error.strerror}") from error
        for path in paths_of(content, name):
            yield without_file_scheme(path), True


def _of_remote(address: str, exclude: str | None) -> Iterator[Input]:
    for name, kind, error, file in find_remote(address, exclude):
        yield Input(Path(file.shown), name, kind, error, remote=file)


def _of_stream(argument: str) -> Input | None:
    """The input of a video that is not a file; None for a file."""
    source = source_of(argument)
    if source.kind == "file":
        return None
    missing = source.kind == "images" and not source.numbered_images()
    error = "no file matches this pattern" if missing else None
    return Input(Path(source.shown), source.name, "video", error, argument)


def _of_file(path: Path, *, in_folder: bool = False) -> Input:
    name = path.name or "input"
    if (words := special_file_kind(path)) is not None:
        return Input(path, name, "unknown", f"{words}, no file")
    try:
        kind = sniff(path, in_folder=in_folder)
    except OSError as error:
        return Input(path, name, "unknown", error.strerror or str(error))
    return Input(path, name, kind, None if kind != "unknown" else why_unknown(path))


def _of_pattern(pattern: str, exclude: Path | None) -> Iterator[Input]:
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute patterns too
    if not matches:
        yield Input(Path(pattern), Path(pattern).name, "unknown", "no file matches this pattern")
    for path in map(Path, matches):
        if is_folder(path):
            yield from _of_folder(path, exclude)
        elif special_file_kind(path) is None:
            yield _of_file(path)


def _of_folder(folder: Path, exclude: Path | None) -> Iterator[Input]:
    for path, problem in walk(folder, exclude):
        name = path.relative_to(folder).as_posix() if path != folder else folder.name or "input"
        if problem is not None:
            yield Input(path, name, "unknown", problem)
            continue
        item = replace(_of_file(path, in_folder=True), name=name)
        if item.kind != "unknown" or has_media_suffix(path):
            yield item


def why_unknown(path: Path) -> str:
    """Why a file is neither a photo nor a video."""
    if path.stat().st_size == 0:
        return "the file is empty"
    with path.open("rb") as file:
        return other_format(file.read(4096)) or "neither a photo nor a video by its content"


def printable(text: str) -> str:
    """The text with invalid UTF-8, which file names may have, replaced by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _distinct_names(inputs: Iterable[Input]) -> list[Input]:
    """Make names unique: a second a.jpg becomes a~2.jpg. Names include the suffix."""
    taken: set[str] = set()
    result = []
    for item in inputs:
        wanted = printable(item.name)
        pure = PurePosixPath(wanted)
        name, number = wanted, 1
        while name.casefold() in taken:
            number += 1
            name = str(pure.with_name(f"{pure.stem}~{number}{pure.suffix}"))
        taken.add(name.casefold())
        result.append(replace(item, name=name))
    return result


def content_key(source: Path | str) -> str:
    """A hash of the source's content in hex: of a file, or of all numbered images.

    For a stream, whose content is unknown before it is read, each call gives a new value, so that it is never skipped
    as finished. Raises OSError where a file cannot be read.
    """
    found = source_of(source)
    if found.kind not in ("file", "images"):
        return uuid.uuid4().hex
    if found.kind == "file":
        return _hash_of(Path(found.address))
    keys = []
    for place, file in found.numbered_images().items():
        try:
            keys.append(f"{place} {_hash_of(file)}\n")
        except OSError as error:  # counted as lost; the other images are read
            keys.append(f"{place} {error.errno}\n")
    return hashlib.blake2b("".join(keys).encode(), digest_size=16).hexdigest()


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
