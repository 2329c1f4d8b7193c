"""Names of each input's files in the output folder, without conflicts between inputs."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from posecli.media.identity import name_key

# Longest file name in bytes on common file systems.
NAME_BYTES = 255

# Inputs on a page of the gallery; more make a browser slow.
PAGE_CARDS = 500

_PAGE = re.compile(r"index-[0-9]+\.html", re.IGNORECASE)


def page_name(number: int) -> str:
    """The file name of a page of the gallery, from 1."""
    return "index.html" if number == 1 else f"index-{number}.html"


def page_count(inputs: int) -> int:
    """The number of pages of the gallery of so many inputs."""
    return max(1, -(-inputs // PAGE_CARDS))


def is_page_name(name: str) -> bool:
    """Whether a page of some gallery has this file name, but for the first."""
    return _PAGE.fullmatch(name) is not None


def shortened_name(name: str, suffix: str = "") -> str:
    """A file name of at most NAME_BYTES: name + suffix, or a shortened name with a hash of the full one.

    Without suffix the name's own one is kept.
    """
    whole = name + suffix
    if len(whole.encode()) <= NAME_BYTES:
        return whole
    if not suffix:
        pure = PurePosixPath(name)
        name, suffix = pure.stem, pure.suffix if len(pure.suffix.encode()) <= 16 else ""
    mark = f"~{hashlib.blake2b(whole.encode(), digest_size=6).hexdigest()}"
    length = NAME_BYTES - len((mark + suffix).encode())
    return name.encode()[:length].decode("utf-8", "ignore") + mark + suffix


def sibling_name(place: str, suffix: str) -> str:
    """The path of a place with a suffix appended to its file name."""
    folder, _, name = place.rpartition("/")
    return f"{folder}/{shortened_name(name, suffix)}" if folder else shortened_name(name, suffix)


class OutputPlaces:
    """Assigns each input a place: a path relative to the output folder, its name unless that conflicts with another.

    reserved: names that no input gets; pages of galleries are too, also of larger ones, so that places do not depend on
    the number of inputs. files_of: (place, kind) → all files that an input of this place may have.
    """

    def __init__(self, reserved: Iterable[str], files_of: Callable[[str, str], Sequence[str]]) -> None:
        self._files = {name_key(name) for name in reserved}
        self._folders: set[str] = set()
        self._given: dict[str, str] = {}
        self._files_of = files_of

    def assign(self, name: str, kind: str) -> str:
        """A free place for an input of this name (posix) and kind, which is taken from now on."""
        parent, _, last = name.rpartition("/")
        folder = self._folder(parent)
        for candidate in _numbered(last):
            place = f"{folder}/{candidate}" if folder else candidate
            keys = [name_key(file) for file in self._files_of(place, kind)]
            if not any(key in self._files or key in self._folders or is_page_name(key) for key in keys):
                break
        self._files.update(keys)
        return place

    def _folder(self, wanted: str) -> str:
        if not wanted or wanted in self._given:
            return self._given.get(wanted, "")
        parent, _, last = wanted.rpartition("/")
        above = self._folder(parent)
        for candidate in _numbered(shortened_name(last)):
            folder = f"{above}/{candidate}" if above else candidate
            if name_key(folder) not in self._files and not is_page_name(folder):
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
