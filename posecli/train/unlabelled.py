"""Photos without labels for distillation: people are detected once by the embedded detector and the teacher."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posecli.annotations.pixels import read_pixels
from posecli.errors import DataError, MediaError, NoInputError, UsageError
from posecli.keypoints import KeypointSet
from posecli.media.sniff import sniff
from posecli.media.walk import is_folder, walk
from posecli.predict import Predictor
from posecli.train.data import People
from posecli.types import Frame, Poses

# Lowest score of a keypoint that counts, and lowest number of them for a person.
_SEEN, _LEAST_SEEN = 0.3, 3
# Photos that are predicted together.
_CHUNK = 4
_SECONDS_A_LINE = 30.0
_FORMAT = 1


@dataclass(frozen=True)
class PhotoFolder:
    """A folder of photos without labels; weight scales the loss of its people."""

    folder: Path
    photos: tuple[Path, ...]
    weight: float = 1.0


def list_photos(folder: Path, weight: float = 1.0) -> PhotoFolder:
    """All photos in a folder and its subfolders, recognised by their content.

    Raises UsageError where there is no such folder, NoInputError where it has no photo.
    """
    if not is_folder(folder):
        raise UsageError(f"--unlabelled {folder}: no such folder")
    photos = tuple(path for path, problem in walk(folder) if problem is None and _is_photo(path))
    if not photos:
        raise NoInputError(f"--unlabelled {folder}: no photo in it")
    return PhotoFolder(folder, photos, weight)


def find_people(
    folders: Sequence[PhotoFolder],
    keypoint_set: KeypointSet,
    cache: Path,
    models: Sequence[str],
    load: Callable[[], Predictor],
    say: Callable[[str], None] = lambda line: None,
) -> People:
    """The people in photos, with the teacher's keypoints, which are used by the augmentation only.

    cache: folder of a file with a line for each photo, so that only new photos are processed; the file depends on
    models, the SHA-256 of detector and teacher. load: gives the predictor of both, called where there are new photos.
    The weight of a keypoint is the folder's where its score is high enough, else 0. Unreadable photos are reported in
    the remarks.

    Raises DataError where no person is found, or the teacher has other keypoints.
    """
    key = hashlib.blake2b(json.dumps([_FORMAT, *models]).encode(), digest_size=8).hexdigest()
    file = cache / f"unlabelled-{key}.jsonl"
    known = _read(file)
    new = [path for each in folders for path in each.photos if _place(path) not in known]
    if new:
        cache.mkdir(parents=True, exist_ok=True)
        known |= _search(list(dict.fromkeys(new)), file, load, keypoint_set, say)
    return _people(folders, known, keypoint_set)


def _is_photo(path: Path) -> bool:
    with suppress(OSError):
        return sniff(path, in_folder=True) == "photo"
    return False


def _place(path: Path) -> str:
    """A photo's path, size and time: a replaced photo is processed again."""
    with suppress(OSError):
        found = path.stat()
        return f"{path.resolve()} {found.st_size} {found.st_mtime_ns}"
    return f"{path} ?"


def _read(file: Path) -> dict[str, Any]:
    """The lines of a cache by their photos. Incomplete lines of a killed process are skipped."""
    found: dict[str, Any] = {}
    if file.is_file():
        for line in file.read_bytes().splitlines():
            with suppress(ValueError, KeyError, TypeError):
                row = json.loads(line)
                found[row["photo"]] = row
    return found


def _search(
    photos: Sequence[Path],
    file: Path,
    load: Callable[[], Predictor],
    keypoint_set: KeypointSet,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Find the people in the photos and add a line for each to the cache."""
    say(f"finding people in {len(photos)} photos without labels")
    predictor, found, told = load(), dict[str, Any](), time.monotonic()
    if predictor.keypoints.names != keypoint_set.names:
        raise DataError("--teacher: its keypoints differ from those of the training set")
    with file.open("ab") as lines:
        lines.write(b"\n")  # ends a line that was cut off
        for first in range(0, len(photos), _CHUNK):
            for row in _rows(photos[first : first + _CHUNK], predictor):
                lines.write(json.dumps(row).encode() + b"\n")
                found[row["photo"]] = row
            lines.flush()
            if time.monotonic() - told > _SECONDS_A_LINE:
                say(f"{len(found)} of {len(photos)} photos searched")
                told = time.monotonic()
    return found


def _rows(photos: Sequence[Path], predictor: Predictor) -> Iterator[dict[str, Any]]:
    """The cache's line for each photo."""
    frames: dict[Path, Frame] = {}
    for path in photos:
        try:
            frames[path] = Frame(read_pixels(path, None)[0])
        except MediaError as error:
            yield {"photo": _place(path), "error": str(error), "people": []}
    poses = predictor.predict(list(frames.values()), [str(path) for path in frames]) if frames else []
    for path, found in zip(frames, poses, strict=True):
        yield {"photo": _place(path), "people": list(_seen_people(found))}


def _seen_people(poses: Poses) -> Iterator[dict[str, Any]]:
    """The people with enough keypoints above the threshold, as JSON, rounded to 0.1 pixels."""
    for box, points, scores in zip(poses.boxes, poses.keypoints, poses.scores, strict=True):
        seen = scores >= _SEEN
        if np.count_nonzero(seen) >= min(_LEAST_SEEN, len(seen)):
            numbers = {"box": box, "keypoints": points}
            rounded = {name: np.round(values.astype(np.float64), 1).tolist() for name, values in numbers.items()}
            yield {**rounded, "seen": seen.astype(int).tolist()}


def _people(folders: Iterable[PhotoFolder], known: dict[str, Any], keypoint_set: KeypointSet) -> People:
    images: list[Path] = []
    ids, boxes, keypoints, weights, remarks = [], [], [], [], []
    photos = 0
    for each in folders:
        errors = []
        for path in each.photos:
            row = known[_place(path)]
            errors += [row["error"]] if "error" in row else []
            for number, person in enumerate(row["people"]):
                images.append(path)
                ids.append(f"{each.folder.name}/{path.relative_to(each.folder).as_posix()}:{number}")
                boxes.append(person["box"])
                keypoints.append(person["keypoints"])
                weights.append(np.array(person["seen"], np.float64) * each.weight)
        photos += len(each.photos)
        if errors:
            remarks.append(f"{len(errors)} of {len(each.photos)} photos in {each.folder} cannot be read: {errors[0]}")
    if not boxes:
        raise DataError(f"--unlabelled: no person found in {photos} photos")
    corners, points, seen = (np.array(values, np.float64) for values in (boxes, keypoints, weights))
    told = tuple(remarks)
    return People(keypoint_set, tuple(images), tuple(ids), corners, points, seen, remarks=told, listed=photos)
