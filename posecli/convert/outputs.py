"""Files of a conversion: nothing is replaced that posecli did not write, and none of an earlier data set stays."""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import orjson

from posecli.annotations.document import quoted_name
from posecli.atomic import AtomicFile
from posecli.errors import UsageError

# What an earlier data set may leave behind and Ultralytics would read.
_READ = ("labels", "images")


def _list(folder: Path) -> Path:
    return folder / ".posecli" / "converted.json"


def read_list(folder: Path) -> frozenset[str]:
    """The files, relative to the folder, that earlier conversions wrote into it."""
    try:
        names = orjson.loads(_list(folder).read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()
    plain = (name for name in names if isinstance(name, str)) if isinstance(names, list) else ()
    return frozenset(name for name in plain if not name.startswith("/") and ".." not in PurePosixPath(name).parts)


def write_list(folder: Path, names: Iterable[str]) -> None:
    """Write the list atomically. Raises OSError."""
    with AtomicFile(_list(folder)) as file:
        file.write(orjson.dumps({"schema": 1, "files": sorted(names)}))


def refuse_existing(files: Sequence[Path], folder: Path | None) -> None:
    """Raise UsageError where a file exists that no earlier conversion wrote. folder: see read_list; None for a file."""
    owned = read_list(folder) if folder is not None else frozenset()
    for file in files:
        if folder is not None and file.relative_to(folder).as_posix() in owned:
            continue
        if file.is_symlink() or file.exists():
            raise UsageError(f"{quoted_name(file)} exists: --overwrite replaces it")


def remove_stale(folder: Path, names: frozenset[str], before: frozenset[str]) -> None:
    """Remove labels and pictures of an earlier data set that are not in the new one's names. Raises OSError."""
    for name in sorted(before - names):
        if PurePosixPath(name).parts[0] in _READ:
            (folder / name).unlink(missing_ok=True)
