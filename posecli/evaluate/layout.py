"""Search for annotations and images in the usual layouts of COCO."""

import os
from collections.abc import Sequence
from pathlib import Path

from posecli.errors import DataError


def data_folders(given: Path | None) -> list[Path]:
    """The folders that are searched: the given one, or $POSECLI_DATA, the current folder, and data/."""
    if given is not None:
        return [given]
    places = [os.environ.get("POSECLI_DATA"), ".", "data"]
    return [Path(place) for place in places if place]


def find_annotations(name: str, data: Path | None) -> Path:
    """A file, or for a split's name ("val2017") person_keypoints_NAME.json in one of the layouts.

    Raises DataError that lists the searched paths.
    """
    if Path(name).is_file():
        return Path(name)
    if name.endswith(".json"):
        raise DataError(f"{name}: no such annotation file")
    file = f"person_keypoints_{name}.json"
    inside = [Path("annotations") / file, Path("data/annotations") / file, Path(file)]
    return _first(
        [folder / path for folder in data_folders(data) for path in inside], f"annotations of {name!r}", "--data"
    )


def find_images(annotations: Path, name: str, data: Path | None, given: Path | None = None) -> Path:
    """The folder of a split's images, or the given one. The split of a file is the last part of its name.

    Raises DataError that lists the searched paths.
    """
    if given is not None:
        if not given.is_dir():
            raise DataError(f"--images {given}: no such folder")
        return given
    split = Path(name).stem.rpartition("_")[2]
    inside = [Path(split), Path("images") / split, Path("data") / split]
    near = [annotations.parent, annotations.parent.parent]
    folders = [*data_folders(data), *(near if Path(name).is_file() else [])]
    return _first([folder / path for folder in folders for path in inside], f"images of {name!r}", "--images")


def _first(places: Sequence[Path], what: str, option: str) -> Path:
    for place in places:
        if place.exists():
            return place
    looked = ", ".join(str(place) for place in dict.fromkeys(places))
    raise DataError(f"no {what}: none of {looked}; give {option}")
