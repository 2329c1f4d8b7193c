"""The cache folder of converted networks."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$POSECLI_CACHE, else the user's cache folder."""
    if folder := os.environ.get("POSECLI_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "posecli"
