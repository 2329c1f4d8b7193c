"""Packed crops with their labels as files of a limited size, and any file in parts, for machines without the data."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from posecli.atomic import AtomicFile
from posecli.errors import DataError
from posecli.pose.config import PoseConfig
from posecli.train.data import People
from posecli.train.packing import Crops

_PEOPLE = ("boxes", "keypoints", "weights")
_PART = re.compile(r"(?P<name>.+)\.part-(?P<number>\d{3})-of-(?P<count>\d{3})\.(?P<sha256>[0-9a-f]{64})")


def save_crops(crops: Crops, folder: Path, largest: int) -> list[Path]:
    """Write crops into files crops-000.safetensors, …, of at most about largest bytes each; their paths."""
    written: list[Path] = []
    for rows in _chunks(crops, largest):
        path = folder / f"crops-{len(written):03d}.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        lengths = np.diff(crops.spans[rows], axis=1)[:, 0]
        ends = np.cumsum(lengths)
        people = crops.people.subset(rows)
        described = {
            "config": PoseConfig(keypoints=people.keypoint_set).to_json(),
            "images": [str(image) for image in people.images],
            "ids": list(people.ids),
        }
        arrays = {
            **{name: np.ascontiguousarray(getattr(people, name)) for name in _PEOPLE},
            "data": np.concatenate([crops.data[first:end] for first, end in crops.spans[rows]]),
            "spans": np.stack([ends - lengths, ends], axis=1),
            "hashes": np.ascontiguousarray(crops.hashes[rows]),
        }
        save_file(arrays, str(path), {"crops": json.dumps(described)})
        written.append(path)
    return written


def load_crops(paths: Sequence[Path]) -> Crops:
    """The crops of files that save_crops wrote, in their order. Raises DataError for other or damaged files."""
    parts = [_load(path) for path in paths]
    if not parts:
        raise DataError("no files of packed crops")
    sets = {crops.people.keypoint_set for crops in parts}
    if len(sets) > 1:
        raise DataError(f"{paths[0]}: the files' keypoints differ")
    people = [crops.people for crops in parts]
    firsts = np.cumsum([0, *(len(crops.data) for crops in parts[:-1])])
    boxes, keypoints, weights = (np.concatenate([getattr(each, name) for each in people]) for name in _PEOPLE)
    images, ids = (tuple(v for each in people for v in getattr(each, name)) for name in ("images", "ids"))
    joined = People(sets.pop(), images, ids, boxes, keypoints, weights)
    spans = np.concatenate([crops.spans + first for crops, first in zip(parts, firsts, strict=True)])
    data, hashes = (np.concatenate([getattr(crops, name) for crops in parts]) for name in ("data", "hashes"))
    return Crops(joined, data, spans, hashes)


def _chunks(crops: Crops, largest: int) -> Iterator[NDArray[np.int64]]:
    """Rows of each file."""
    # Labels and header take some hundreds of bytes a person.
    sizes = np.diff(crops.spans, axis=1)[:, 0] + 24 * len(crops.people.keypoint_set) + 400
    first = 0
    for row in range(len(crops)):
        if row > first and sizes[first : row + 1].sum() > largest:
            yield np.arange(first, row)
            first = row
    yield np.arange(first, len(crops))


def _load(path: Path) -> Crops:
    try:
        with safe_open(str(path), framework="numpy") as file:
            described = json.loads(file.metadata()["crops"])
            arrays = {name: file.get_tensor(name) for name in (*_PEOPLE, "data", "spans", "hashes")}
        keypoint_set = PoseConfig.from_json(described["config"]).keypoints
        images, ids = tuple(map(Path, described["images"])), tuple(map(str, described["ids"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{path}: not a file of packed crops ({reason})") from error
    boxes, keypoints, weights = (arrays[name] for name in _PEOPLE)
    people = People(keypoint_set, images, ids, boxes, keypoints, weights)
    return Crops(people, arrays["data"], arrays["spans"], arrays["hashes"])


def split_file(path: Path, folder: Path, largest: int) -> list[Path]:
    """Write a file into parts of at most largest bytes, NAME.part-000-of-003.SHA256 of the whole; their paths.

    Parts of an earlier version are removed.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        found = _PART.fullmatch(old.name)
        if found is not None and found["name"] == path.name and found["sha256"] != digest:
            old.unlink()
    count = max(1, -(-len(content) // largest))
    written = []
    for number in range(count):
        part = folder / f"{path.name}.part-{number:03d}-of-{count:03d}.{digest}"
        with AtomicFile(part) as file:
            file.write(content[number * largest : (number + 1) * largest])
        written.append(part)
    return written


def join_files(folder: Path, name: str, target: Path) -> bool:
    """Write the file whose parts are in folder to target; False where there are none.

    Of several versions the complete one is taken. Raises DataError where parts are missing or damaged.
    """
    versions: dict[str, dict[int, Path]] = {}
    counts: dict[str, int] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        found = _PART.fullmatch(path.name)
        if found is not None and found["name"] == name:
            versions.setdefault(found["sha256"], {})[int(found["number"])] = path
            counts[found["sha256"]] = int(found["count"])
    if not versions:
        return False
    for digest, parts in versions.items():
        if len(parts) == counts[digest]:
            content = b"".join(parts[number].read_bytes() for number in sorted(parts))
            if hashlib.sha256(content).hexdigest() != digest:
                raise DataError(f"{folder}/{name}: a part is damaged")
            with AtomicFile(target) as file:
                file.write(content)
            return True
    there = ", ".join(f"{len(parts)} of {counts[digest]}" for digest, parts in versions.items())
    raise DataError(f"{folder}/{name}: parts are missing (there are {there})")
