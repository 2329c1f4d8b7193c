"""Packing of training people: cropped from their images once, as JPEG crops in one file."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posecli import geometry
from posecli.annotations.document import Repairs
from posecli.annotations.pixels import add_remark, read_pixels
from posecli.errors import DataError, MediaError
from posecli.media.headers import stored_size
from posecli.pose.crops import warp
from posecli.train.data import People
from posecli.train.distributed import Distributed
from posecli.weights.fingerprints import BYTES, content_hash, fingerprint_of

# Padding of a packed crop: that of inference, 1.25, times the largest enlargement by augmentation, 1.5.
PACK_PADDING = 1.25 * 1.5
# Part of the cache's name: files of another format are not read.
_FORMAT = 2
# The size stands within the first bytes of a crop's JPEG.
_HEADER_BYTES = 1024


@dataclass(frozen=True, eq=False)
class Crops:
    """People as JPEG crops in one file; boxes and keypoints in pixels of the crop.

    data: the file, memory-mapped. spans: (N, 2), first byte of each crop and the one after its last. hashes: (N, 5), of
    the bytes of each one's image (weights.fingerprints.content_hash). When it is sent to another process, that process
    maps the file again.
    """

    people: People
    data: NDArray[np.uint8]
    spans: NDArray[np.int64]
    hashes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.people)

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self.data, np.memmap) and self.data.filename is not None:
            return _mapped, (self.people, Path(self.data.filename), self.spans, self.hashes)
        return Crops, (self.people, self.data, self.spans, self.hashes)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """One crop, (h, w, 3) uint8 RGB."""
        first, end = self.spans[index]
        image = cv2.imdecode(self.data[first:end], cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise DataError(f"packed crop {index} is damaged: delete the cache and start again")
        return np.asarray(image, np.uint8)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of one crop, by its header."""
        first, end = self.spans[index]
        found = stored_size(self.data[first : min(end, first + _HEADER_BYTES)].tobytes())
        if found is None:
            raise DataError(f"packed crop {index} is damaged: delete the cache and start again")
        return found[1], found[0]

    @property
    def contents(self) -> dict[Path, bytes]:
        """Hashes of the images' bytes."""
        return {path: row.tobytes() for path, row in zip(self.people.images, self.hashes, strict=True)}


def _mapped(people: People, file: Path, spans: NDArray[np.int64], hashes: NDArray[np.uint8]) -> Crops:
    return Crops(people, np.memmap(file, np.uint8, mode="r"), spans, hashes)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Training data: people, negatives (crops without a person) and people without labels."""

    crops: Crops
    negatives: Crops | None = None
    unlabelled: Crops | None = None

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Fingerprints of all images, for the weights' header and the check against validation images."""
        contents = self.crops.contents
        for other in (self.negatives, self.unlabelled):
            contents |= {} if other is None else other.contents
        return fingerprint_of(contents)


def pack_data(
    people: People,
    negatives: People | None,
    folder: Path,
    missing_limit: float,
    distributed: Distributed,
    unlabelled: Callable[[], People] | None = None,
) -> TrainingData:
    """Pack all data in the main process; the other processes read the packs. Raises as pack_crops.

    unlabelled: finds people without labels; called in the other processes after the main one.
    """

    def packed() -> TrainingData:
        found = people, negatives, None if unlabelled is None else unlabelled()
        crops, *others = (None if p is None else pack_crops(p, folder, missing_limit=missing_limit) for p in found)
        assert crops is not None
        return TrainingData(crops, *others)

    data = packed() if distributed.is_main else None
    distributed.barrier()
    return packed() if data is None else data


def pack_crops(
    people: People,
    folder: Path,
    height: int = 384,
    quality: int = 92,
    threads: int = 2,
    *,
    missing_limit: float = 0.0,
) -> Crops:
    """Crop all people from their images and store the crops in folder; a second call reads them.

    height: largest height of a crop (its width is 3/4 of it); crops are not enlarged. Crops are written one by one, so
    that memory does not grow with their number. The cache's name is a hash of everything that it depends on. People of
    unreadable images are left out and reported in the remarks, if these and the missing images are at most
    missing_limit (a share) of all images.

    Raises DataError where more images are unreadable.
    """
    base = folder / f"crops-{height}-{_key(people, height, quality)}"
    data_file, index_file = base.with_suffix(".jpegs"), base.with_suffix(".npz")
    if not index_file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _Packer(people, height, quality, missing_limit).write(data_file, index_file, threads)
    with np.load(index_file) as index:
        unreadable, told = index["unreadable"].tolist(), json.loads(str(index["told"]))
        _check_unreadable(people, unreadable, told["unreadable"], missing_limit)
        people = people.subset(index["kept"])
        remarks = (*people.remarks, *([_unreadable_line(people, unreadable, told["unreadable"])] if unreadable else []))
        notes = (*people.notes, *told["notes"])
        packed = replace(people, boxes=index["boxes"], keypoints=index["keypoints"], remarks=remarks, notes=notes)
        return _mapped(packed, data_file, index["spans"], index["hashes"])


def _key(people: People, height: int, quality: int) -> str:
    """A hash of everything that the packed crops depend on."""
    key = hashlib.blake2b(digest_size=8)
    # With size and time of the files: an image may be replaced by another one of the same name.
    files = {path: _state(path) for path in dict.fromkeys(people.images)}
    for path, identity in zip(people.images, people.ids, strict=True):
        key.update(f"{path}\0{identity}\0{files[path]}\0".encode("utf-8", "surrogatepass"))
    for array in (people.boxes, people.keypoints, people.weights):
        key.update(np.ascontiguousarray(array).tobytes())
    key.update(f"{_FORMAT} {height} {quality} {PACK_PADDING} {people.sizes}".encode())
    return key.hexdigest()


def _state(path: Path) -> str:
    """Size and time of a file; "" where they are unavailable, which is reported when the file is read."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def _check_unreadable(people: People, unreadable: Sequence[int], why: str, limit: float) -> None:
    """Raise DataError where these images (the first row of each) are more than the limit allows."""
    listed = people.listed or len(set(people.images))
    if unreadable and people.absent + len(unreadable) > limit * listed:
        line = _unreadable_line(people, unreadable, why)
        raise DataError(f"{line}; --missing-limit allows a share that is left out")


def _unreadable_line(people: People, unreadable: Sequence[int], why: str) -> str:
    listed = people.listed or len(set(people.images))
    return f"{len(unreadable)} of {listed} training images cannot be read, first {why}"


@dataclass
class _Cut:
    """The result of an image: encoded crops by row, a remark, or the error of reading it."""

    crops: dict[int, bytes] = field(default_factory=dict)
    hash: bytes = b""
    remark: str = ""
    error: str = ""


class _Packer:
    """Crops people from their images, in threads, and writes the crops in the order of the images."""

    def __init__(self, people: People, height: int, quality: int, missing_limit: float) -> None:
        self.people, self.quality, self.limit = people, quality, missing_limit
        self.boxes, self.keypoints = np.empty_like(people.boxes), np.empty_like(people.keypoints)
        self.spans = np.zeros((len(people), 2), np.int64)
        self.hashes = np.zeros((len(people), BYTES), np.uint8)
        padded = geometry.padded_size(people.boxes, 3 / 4, PACK_PADDING)
        self._heights = np.clip(np.round(padded[:, 1]), 32, height).astype(int)

    def write(self, data_file: Path, index_file: Path, threads: int) -> None:
        """Write both files; the index last: where it exists, the pack is complete."""
        repairs, unreadable, why, end = Repairs(), list[int](), "", 0
        # Several runs may pack the same crops at the same time, each under another temporary name.
        temporary = data_file.with_suffix(f".{os.getpid()}.part")
        try:
            with temporary.open("wb") as file:
                for path, rows, cut in self._cuts(threads):
                    add_remark(repairs, cut.remark, path)
                    if cut.error:
                        unreadable.append(rows[0])
                        why = why or cut.error
                        # Stop at the first image beyond the limit.
                        _check_unreadable(self.people, unreadable, why, self.limit)
                    for row, encoded in cut.crops.items():
                        file.write(encoded)
                        self.spans[row] = end, end + len(encoded)
                        self.hashes[row] = np.frombuffer(cut.hash, np.uint8)
                        end += len(encoded)
            if not end:
                raise DataError(_unreadable_line(self.people, unreadable, why))
            temporary.replace(data_file)
        finally:
            temporary.unlink(missing_ok=True)
        told = json.dumps({"unreadable": why, "notes": repairs.lines()})
        self._write_index(index_file, np.array(unreadable, np.int64), told)

    def _write_index(self, index_file: Path, unreadable: NDArray[np.int64], told: str) -> None:
        kept = np.flatnonzero(self.spans[:, 1] > 0)
        temporary = index_file.with_suffix(f".{os.getpid()}.part.npz")
        np.savez(
            temporary,
            boxes=self.boxes[kept],
            keypoints=self.keypoints[kept],
            spans=self.spans[kept],
            hashes=self.hashes[kept],
            kept=kept,
            unreadable=unreadable,
            told=np.array(told),
        )
        temporary.replace(index_file)

    def _cuts(self, threads: int) -> Iterator[tuple[Path, list[int], _Cut]]:
        """All images in order with their rows and crops; a few are processed in parallel."""
        by_image: dict[Path, list[int]] = {}
        for row, path in enumerate(self.people.images):
            by_image.setdefault(path, []).append(row)
        pool = ThreadPoolExecutor(threads)
        working: deque[tuple[Path, list[int], Future[_Cut]]] = deque()
        try:
            for path, rows in by_image.items():
                working.append((path, rows, pool.submit(self._cut, path, rows)))
                if len(working) > 4 * threads:
                    path, rows, done = working.popleft()
                    yield path, rows, done.result()
            for path, rows, done in working:
                yield path, rows, done.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _cut(self, path: Path, rows: list[int]) -> _Cut:
        try:
            image, remark = read_pixels(path, self.people.sizes[rows[0]] if self.people.sizes else None)
        except MediaError as error:
            return _Cut(error=str(error))
        result = _Cut(hash=content_hash(path) or bytes(BYTES), remark=remark)
        for row in rows:
            height = int(self._heights[row])
            crop = np.empty((height, round(height * 3 / 4), 3), np.uint8)
            matrix = geometry.crop_matrices(self.people.boxes[row], crop.shape[:2], PACK_PADDING)[0]
            warp(image, matrix, crop)
            self.boxes[row] = geometry.transform(matrix, self.people.boxes[row].reshape(2, 2)).reshape(4)
            self.keypoints[row] = geometry.transform(matrix, self.people.keypoints[row])
            stored = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
            ok, encoded = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, self.quality])
            if not ok:
                raise DataError(f"{path}: a crop could not be encoded")
            result.crops[row] = encoded.tobytes()
        return result
