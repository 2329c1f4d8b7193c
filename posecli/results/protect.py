"""Protection of inputs: every file that a command will write is compared with all files that it reads."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from posecli.errors import UsageError
from posecli.media.identity import FileId, file_id, name_key
from posecli.text import printed

# Links that are followed before a loop is assumed, as in the kernel.
_LINKS = 40


class Protected:
    """The files that a command reads.

    A path is one of them if its resolved path is equal (ignoring letter case and Unicode composition), or its device
    and inode are (hard links, symbolic links, bind mounts). Links on the way to a source and its parent folders are
    protected too. Time and memory are linear in the number of files.
    """

    def __init__(self, sources: Iterable[Path]) -> None:
        self._real: dict[str, str] = {}
        self._places: dict[str, Path] = {}
        self._ids: dict[FileId, Path] = {}
        self._walked: set[str] = set()
        self._folders: dict[str, Path] = {}
        self._folder_ids: dict[FileId, Path] = {}
        for source in sources:
            self._add(source)

    def _add(self, source: Path) -> None:
        path = os.fspath(source.absolute())
        for _ in range(_LINKS):
            try:
                found = os.lstat(path)
            except (OSError, ValueError):
                return  # it does not exist
            self._places.setdefault(self._place(path), source)
            if found.st_ino:
                self._ids.setdefault((found.st_dev, found.st_ino), source)
            self._add_folders(path, source)
            if not stat.S_ISLNK(found.st_mode):
                return
            path = os.path.join(os.path.dirname(path), os.readlink(path))  # noqa: PTH115, PTH118, PTH120

    def _add_folders(self, path: str, source: Path) -> None:
        """The parent folders of a path, as written and resolved."""
        for written in (os.path.dirname(path), os.path.dirname(self._place_of(path))):  # noqa: PTH120
            folder = written
            while folder and folder not in self._walked:
                self._walked.add(folder)
                self._folders.setdefault(self._place(folder), source)
                for identity in (file_id(folder), file_id(folder, follow=False)):
                    if identity is not None:
                        self._folder_ids.setdefault(identity, source)
                folder = os.path.dirname(folder) if os.path.dirname(folder) != folder else ""  # noqa: PTH120

    def _place_of(self, path: str) -> str:
        """The path with the links of its folder resolved, but not itself."""
        # Not abspath: after a link, .. is the parent of its target.
        folder, name = os.path.split(os.path.join(os.getcwd(), path))  # noqa: PTH109, PTH118
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        return os.path.join(self._real[folder], name)  # noqa: PTH118

    def _place(self, path: str) -> str:
        return name_key(self._place_of(path))

    def source_replaced_by(self, target: Path) -> Path | None:
        """The source that writing this file, or replacing this folder, would overwrite; None where it is safe."""
        path = os.fspath(target)
        place = self._place(path)
        if (found := self._places.get(place) or self._folders.get(place)) is not None:
            return found
        for follow in (False, True):
            identity = file_id(path, follow=follow)
            if identity is None:
                return None  # it does not exist, or is a broken link
            if (found := self._ids.get(identity) or self._folder_ids.get(identity)) is not None:
                return found
        return None


def refuse_replacing(protected: Protected, targets: Iterable[Path], option: str) -> None:
    """Raise UsageError where a target is a file that the command reads. option: the one to change, for the message."""
    for target in targets:
        source = protected.source_replaced_by(target)
        if source is not None:
            raise UsageError(
                f"{option}: {printed(target)} would replace the input {printed(source)}: choose another folder"
            )
