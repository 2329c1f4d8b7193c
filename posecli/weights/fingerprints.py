"""Fingerprints of the images that a model was trained on, small enough for the header of its weights."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posecli.errors import DataError
from posecli.weights.header import shown

# Bytes per image. The probability that one of 5,000 new images matches one of 118,000 by chance is 1 in 2,000.
BYTES = 5


def fingerprint(images: Iterable[Path]) -> dict[str, Any]:
    """Hashes of the images' file names and of their bytes, each sorted, as base64 for JSON."""
    return fingerprint_of({path: content_hash(path) for path in images})


def fingerprint_of(contents: Mapping[Path, bytes | None]) -> dict[str, Any]:
    """The same for images whose bytes are hashed already (content_hash)."""
    names = _pack({_hash(_name(path)) for path in contents})
    return {"count": len(contents), "names": names, "contents": _pack({h for h in contents.values() if h is not None})}


def content_hash(path: Path) -> bytes | None:
    """A hash (BYTES) of an image's bytes; None where it is missing or unreadable, which is reported elsewhere."""
    content = _content(path)
    return None if content is None else _hash(content)


def overlap(known: Mapping[str, Any], images: Iterable[Path]) -> list[Path]:
    """The images whose file name or bytes are among the fingerprints, in their order.

    Raises DataError where the fingerprints are invalid.
    """
    names, contents = _unpack(known, "names"), _unpack(known, "contents")
    found = []
    for path in images:
        if _hash(_name(path)) in names or content_hash(path) in contents:
            found.append(path)
    return found


def _name(path: Path) -> bytes:
    return path.name.encode(errors="surrogatepass")


def _content(path: Path) -> bytes | None:
    """The bytes of an image; None where it is missing or unreadable, which is reported elsewhere."""
    try:
        return path.read_bytes()
    except (OSError, ValueError):
        return None


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=BYTES).digest()


def _pack(hashes: set[bytes]) -> str:
    return base64.b64encode(b"".join(sorted(hashes))).decode()


def _unpack(known: Mapping[str, Any], key: str) -> set[bytes]:
    text = known.get(key)
    try:
        if not isinstance(text, str):
            raise ValueError
        rows: NDArray[np.uint8] = np.frombuffer(base64.b64decode(text, validate=True), np.uint8).reshape(-1, BYTES)
    except ValueError as error:
        raise DataError(f"the fingerprints of the images trained on ({key}) cannot be read: {shown(text)}") from error
    return {row.tobytes() for row in rows}
