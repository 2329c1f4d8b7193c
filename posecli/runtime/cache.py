"""The cache folder of converted and compiled networks."""

import os
import shutil
from pathlib import Path

# Bytes of all networks together; an embedded one takes 6 to 25 MB for each size of its input.
LARGEST = 1_000_000_000


def cache_folder() -> Path:
    """$POSECLI_CACHE, else the user's cache folder."""
    if folder := os.environ.get("POSECLI_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "posecli"


def cached_bytes() -> int:
    """Size of all networks in the cache folder."""
    return sum(file.stat().st_size for file in cache_folder().glob("openvino-*-*x*/*"))


def bound_cache(largest: int = LARGEST) -> None:
    """Remove the networks that were not used for the longest time, until the rest takes this many bytes at most.

    The newest always stays. Only folders that posecli names are touched. Raises OSError where the folder cannot be
    listed.
    """
    found = []
    for folder in cache_folder().glob("openvino-*-*x*"):
        try:
            size = sum(file.stat().st_size for file in folder.iterdir())
            found.append((folder.stat().st_mtime, size, folder))
        except OSError:  # removed by another process
            continue
    found.sort(reverse=True)
    whole = 0
    for number, (_, size, folder) in enumerate(found):
        whole += size
        if number and whole > largest:
            shutil.rmtree(folder, ignore_errors=True)
