"""Finding of inputs at addresses that fsspec opens: files, folders and globs."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from posecli.media.sniff import PHOTO_SUFFIXES, VIDEO_SUFFIXES, sniff
from posecli.remote import (
    Addresses,
    RemoteError,
    RemoteFile,
    addresses_of,
    identity,
    open_address,
    remote_errors,
    remote_file,
    safe_parts,
    walk_files,
    without_password,
)

# Photos and animations have these suffixes; of a file that is named itself the content decides.
_EITHER = frozenset([".png", ".apng", ".webp", ".avif", ".heic", ".heif", ".jxl"])

# name, kind ("photo", "video", "unknown"), error, file.
Found = tuple[str, str, str | None, RemoteFile]


def find_remote(address: str, exclude: str | None) -> Iterator[Found]:
    """The inputs of an address, in the order of those of a local folder.

    What a file of a folder or glob is, its suffix tells: it is not opened. Hidden and unfinished (.part) names are
    skipped. exclude: address of a folder to skip, the output folder. What cannot be listed is an input with its error.

    Raises MachineError where a package is missing, UsageError for an unknown protocol.
    """
    shown = without_password(address)
    try:
        with remote_errors(shown):
            yield from _find(address, exclude)
    except RemoteError as error:
        yield _last(shown), "unknown", error.reason, RemoteFile(address, None, None)


def _find(address: str, exclude: str | None) -> Iterator[Found]:
    fs, path = open_address(address)
    fs.invalidate_cache()
    addresses = addresses_of(address, path)
    out = None if exclude is None else identity(exclude)
    skipped = out[1] if out is not None and out[0] == type(fs).__name__ else None
    try:
        matches = {path: fs.info(path)}
    except FileNotFoundError:
        if not set("*?[") & set(path):
            raise
        matches = fs.glob(path, detail=True)
        if not matches:
            raise RemoteError(without_password(address), "no file matches this pattern") from None
    alone = path in matches
    for match in sorted(matches):
        if matches[match]["type"] == "directory":
            yield from _of_folder(fs, match, addresses, skipped)
        elif alone:
            yield _of_file(remote_file(addresses.of(match), matches[match]), _last(match))
        elif not _is_hidden(_last(match)):
            found = _by_suffix(_last(match), addresses.of(match), matches[match])
            if found is not None:
                yield found


def _of_folder(fs: Any, folder: str, addresses: Addresses, skipped: str | None) -> Iterator[Found]:
    root = folder.rstrip("/")
    found: list[tuple[tuple[tuple[int, str], ...], Found]] = []
    for path, info, error in walk_files(fs, folder):
        if skipped is not None and (f"{path.strip('/')}/").startswith(f"{skipped}/"):
            continue
        parts = path[len(root) :].strip("/").split("/")
        if any(map(_is_hidden, parts)):
            continue
        address, name = addresses.of(path), "/".join(safe_parts("/".join(parts))) or _last(folder)
        order = (*((1, part) for part in parts[:-1]), (0, parts[-1]))
        if error is not None:
            problem = f"the folder cannot be read ({' '.join(str(error).split())})"
            found.append((order, (name, "unknown", problem, RemoteFile(address, None, None))))
        elif not path.endswith("/") and (item := _by_suffix(name, address, info)) is not None:
            found.append((order, item))
    # Files of a folder come before its subfolders.
    yield from (item for _, item in sorted(found, key=lambda pair: pair[0]))


def _by_suffix(name: str, address: str, info: Mapping[str, Any]) -> Found | None:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in PHOTO_SUFFIXES | VIDEO_SUFFIXES:
        return None
    return name, "photo" if suffix in PHOTO_SUFFIXES else "video", None, remote_file(address, info)


def _of_file(file: RemoteFile, name: str) -> Found:
    """A file that was named itself: where its suffix does not tell what it is, its first bytes do."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in (PHOTO_SUFFIXES | VIDEO_SUFFIXES) - _EITHER:
        return name, "photo" if suffix in PHOTO_SUFFIXES else "video", None, file
    try:
        start = file.start()
    except RemoteError as error:
        return name, "unknown", error.reason, file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "start"
        path.write_bytes(start)
        kind = sniff(path)
    return name, kind, None if kind != "unknown" else "neither a photo nor a video by its first bytes", file


def _is_hidden(name: str) -> bool:
    return (name.startswith(".") and name not in (".", "..")) or name.endswith(".part")


def _last(path: str) -> str:
    """The last part of a path as a file name."""
    return (safe_parts(path) or ["input"])[-1]
