"""What the files of each input are called under the output folder, so that no two of them meet."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from posecli.media.identity import name_key

# Bytes of a file name that every common file system takes.
NAME_BYTES = 255


def fitted(name: str, suffix: str = "") -> str:
    """A file name that a file system takes: name and suffix as they are, or shortened and marked by a hash of all.

    Where suffix is empty, the name's own is kept.
    """
    whole = name + suffix
    if len(whole.encode()) <= NAME_BYTES:
        return whole
    if not suffix:
        pure = PurePosixPath(name)
        name, suffix = pure.stem, pure.suffix if len(pure.suffix.encode()) <= 16 else ""
    mark = f"~{hashlib.blake2b(whole.encode(), digest_size=6).hexdigest()}"
    room = NAME_BYTES - len((mark + suffix).encode())
    return name.encode()[:room].decode("utf-8", "ignore") + mark + suffix


def derived(place: str, suffix: str) -> str:
    """The file beside an input's place whose name has a further suffix."""
    folder, _, name = place.rpartition("/")
    return f"{folder}/{fitted(name, suffix)}" if folder else fitted(name, suffix)


class Places:
    """Gives inputs their places: the tree of their names, where two files, or a file and a folder, would not meet.

    reserved: names that no input gets. files_of: all files that an input of a place may have.
    """

    def __init__(self, reserved: Iterable[str], files_of: Callable[[str, str], Sequence[str]]) -> None:
        self._files = {name_key(name) for name in reserved}
        self._folders: set[str] = set()
        self._given: dict[str, str] = {}
        self._files_of = files_of

    def take(self, name: str, kind: str) -> str:
        """The place of an input of this name (posix) and kind, which it keeps."""
        parent, _, last = name.rpartition("/")
        folder = self._folder(parent)
        for candidate in _numbered(last):
            place = f"{folder}/{candidate}" if folder else candidate
            keys = [name_key(file) for file in self._files_of(place, kind)]
            if not any(key in self._files or key in self._folders for key in keys):
                break
        self._files.update(keys)
        return place

    def _folder(self, wanted: str) -> str:
        if not wanted or wanted in self._given:
            return self._given.get(wanted, "")
        parent, _, last = wanted.rpartition("/")
        above = self._folder(parent)
        for candidate in _numbered(fitted(last)):
            folder = f"{above}/{candidate}" if above else candidate
            if name_key(folder) not in self._files:
                break
        self._folders.add(name_key(folder))
        self._given[wanted] = folder
        return folder


def _numbered(name: str) -> Iterator[str]:
    """The name, then a~2.jpg, a~3.jpg and so on."""
    yield name
    pure = PurePosixPath(name)
    number = 1
    while True:
        number += 1
        yield f"{pure.stem}~{number}{pure.suffix}"
