"""Files from the network: with progress, resumed where they broke off, checked by their SHA-256."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from posecli.errors import DataError, MachineError
from posecli.weights.files import sha256

if TYPE_CHECKING:
    from http.client import HTTPResponse

# Larger than any checkpoint that is listed.
LARGEST = 2_000_000_000
_TRIES, _TIMEOUT, _CHUNK = 3, 30.0, 1 << 18

# Called with the bytes so far and those of the whole file, 0 where the server does not say.
Progress = Callable[[int, int], None]


def offline() -> bool:
    """Whether $POSECLI_OFFLINE forbids downloads."""
    return os.environ.get("POSECLI_OFFLINE", "") not in ("", "0")


def download(url: str, path: Path, digest: str = "", progress: Progress = lambda done, whole: None) -> None:
    """Fetch a file, unless it is there. What a download left in `path`.part is continued.

    digest: what the file's SHA-256 begins with, in hex; "" where it is not published. Raises MachineError where it
    cannot be fetched, with the address and where to put the file; DataError where it is another file or too large.
    """
    # Imported where they are used: they take as long as a tenth of a photo's whole run.
    import urllib.error
    from http.client import HTTPException

    if path.is_file():
        return _check(path, url, digest)
    told = f"put {url} into {path.parent}"
    if offline():
        raise MachineError(f"POSECLI_OFFLINE forbids downloads: {told}")
    part = path.with_name(path.name + ".part")
    reason = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            try:
                if _fetch(url, part, progress):
                    break
                reason = "the connection broke off"
            except urllib.error.HTTPError as error:
                raise MachineError(f"{url}: the server answers {error.code} {error.reason}; {told}") from error
            except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
                reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        else:
            kept = f"; {part.stat().st_size} bytes of it are kept, try again" if part.is_file() else ""
            raise MachineError(f"{url}: cannot be fetched ({reason}){kept}, or {told}")
    except OSError as error:
        raise MachineError(f"{part}: cannot be written ({error.strerror})") from error
    _check(part, url, digest)
    part.replace(path)


def _check(path: Path, url: str, digest: str) -> None:
    if digest and not sha256(path).startswith(digest):
        path.unlink()
        raise DataError(f"{path.name}: its SHA-256 is not {digest}…, that of {url}; deleted, try again")


def _fetch(url: str, part: Path, progress: Progress) -> bool:
    """Fetch or continue once; whether the file is complete then."""
    import urllib.error
    import urllib.request

    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing is left to send, or the file is another one by now: its hash tells.
        length = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if length == str(have):
            return True
        part.unlink()
        return False
    with response:
        if response.status != 206 or not (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            have = 0
        length = response.headers.get("Content-Length") or ""
        whole = have + int(length) if length.isdecimal() else 0
        with part.open("ab" if have else "wb") as file:
            done = _copy(response, file, have, whole, url, progress)
    return done >= whole


def _copy(response: "HTTPResponse", file: BinaryIO, done: int, whole: int, url: str, progress: Progress) -> int:
    if whole > LARGEST:
        raise DataError(f"{url}: {whole} bytes, more than any model's {LARGEST}: not fetched")
    while block := response.read(_CHUNK):
        done += len(block)
        if done > LARGEST or (whole and done > whole):
            raise DataError(f"{url}: more than {whole or LARGEST} bytes: not fetched")
        file.write(block)
        progress(done, whole)
    return done
