"""Training people: COCO-format keypoints from several sources, packed once into crops."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from posecli import geometry
from posecli.annotations.boxes import read_all_boxes
from posecli.annotations.document import Repairs, number, shown
from posecli.annotations.gate import read_annotations
from posecli.annotations.images import Image
from posecli.annotations.names import find_files, missing_line
from posecli.annotations.pixels import read_pixels, tell
from posecli.errors import DataError, MediaError
from posecli.keypoints import KeypointSet, same_keypoints
from posecli.pose.crops import warp

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """One COCO file and the folder its images lie in; weight scales the loss of its people."""

    annotations: Path
    images: Path
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class People:
    """N labelled people of K keypoints, with where their pixels are.

    images: N paths. ids: N texts, source and annotation id. boxes: (N, 4) xyxy. keypoints: (N, K, 2).
    Boxes and keypoints are in the pixels that sizes show, (width, height) of each one's image, None where unknown; see
    annotations.pixels.
    weights: (N, K), 0 where a keypoint is not labelled, else its confidence times its source's weight.
    remarks: what was left out, as sentences for the user; notes: what was repaired. listed: how many images there are
    in all, absent: how many of them were left out so far.
    """

    keypoint_set: KeypointSet
    images: tuple[Path, ...]
    ids: tuple[str, ...]
    boxes: Float
    keypoints: Float
    weights: Float
    remarks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int] | None, ...] = ()
    listed: int = 0
    absent: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> "People":
        """The people at these positions."""
        rows = [int(i) for i in indices]
        return replace(
            self,
            images=tuple(self.images[i] for i in rows),
            ids=tuple(self.ids[i] for i in rows),
            boxes=self.boxes[rows],
            keypoints=self.keypoints[rows],
            weights=self.weights[rows],
            sizes=tuple(self.sizes[i] for i in rows) if self.sizes else (),
        )


def read_nobody(sources: Sequence[Source], keypoint_set: KeypointSet, *, missing_limit: float = 0.0) -> People:
    """Boxes without a person: all of the sources' files, whatever their categories. Their weights are 0.

    missing_limit: as in read_people. Raises DataError for files that are not COCO's, annotations without a box or
    image, and too many missing images.
    """
    found = _Found()
    for source in sources:
        given = read_all_boxes(source.annotations)
        assert given.images is not None
        found.look(source, given.images, given.notes)
        for box in given.boxes:
            nothing = np.zeros((len(keypoint_set), 2))
            found.add(source, box.image, box.own_id, box.box, nothing, nothing[:, 0])
    if not found.boxes:
        raise DataError("no box in " + ", ".join(str(s.annotations) for s in sources))
    return _without_missing(found.people(keypoint_set), found.missing, missing_limit)


def trained_images(people: People, nobody: People | None) -> tuple[Path, ...]:
    """The images of both, one a person or box."""
    return people.images if nobody is None else (*people.images, *nobody.images)


# Above this share of keypoints outside their images the labels belong to other pictures.
OUTSIDE_LIMIT = 0.1


def read_people(sources: Sequence[Source], *, missing_limit: float = 0.0, category: str | None = None) -> People:
    """All people with at least one labelled keypoint, in the order of the sources and their files.

    category: name or id of whose people, see annotations.gate. Crowds are left out. "keypoint_weights" (0 to 1) scale
    the loss of single keypoints; keypoints outside their image have weight 0. People of missing images are left out
    where these are at most missing_limit (a share) of all. What was left out stands in the remarks, what was repaired
    in the notes.

    Raises DataError for files that are not COCO keypoints, keypoint lists of a wrong length, values that
    are not finite, sources with different keypoint sets, more than a tenth of a source's keypoints outside
    their images, too many missing images, or nobody at all.
    """
    keypoint_set: KeypointSet | None = None
    found = _Found()
    remarks: list[str] = []
    for source in sources:
        given = read_annotations(source.annotations, category)
        if keypoint_set is not None and not same_keypoints(given.keypoint_set, keypoint_set):
            raise DataError(f"{source.annotations}: its keypoints differ from those of the sources before it")
        keypoint_set = keypoint_set or given.keypoint_set
        found.look(source, given.images, given.notes)
        sizes = {image.id: image.size for image in given.images}
        outside = labelled = 0
        for person in given.people:
            if person["iscrowd"] or not person["num_keypoints"]:
                continue
            points, weight = _labels(person, f"{source.annotations.name}: annotation {shown(person['id'])}")
            if not (weight > 0).any():
                continue
            inside = _inside(points, sizes[person["image_id"]])
            labelled += int((weight > 0).sum())
            outside += int(((weight > 0) & ~inside).sum())
            if not ((weight > 0) & inside).any():
                continue
            weight = weight * inside * source.weight
            found.add(source, person["image_id"], person["id"], person["bbox"], points, weight)
        if outside > OUTSIDE_LIMIT * labelled:
            raise DataError(f"{source.annotations}: {outside} of {labelled} keypoints lie outside their images")
        if outside:
            remarks.append(f"{source.annotations.name}: {outside} of {labelled} keypoints outside their images unused")
    if keypoint_set is None or not found.boxes:
        raise DataError("no person with a labelled keypoint in " + ", ".join(str(s.annotations) for s in sources))
    people = replace(found.people(keypoint_set), remarks=tuple(remarks))
    return _without_missing(people, found.missing, missing_limit)


class _Found:
    """People as they are read, one file after the other."""

    def __init__(self) -> None:
        self.missing: set[Path] = set()
        self.boxes: list[Float] = []
        self._places: dict[int, Path] = {}
        self._sizes: dict[int, tuple[int, int] | None] = {}
        self._rows: list[tuple[Path, str, tuple[int, int] | None, Float, Float]] = []
        self._notes: list[str] = []

    def look(self, source: Source, images: Sequence[Image], notes: Sequence[str]) -> None:
        """Find a file's images."""
        files = find_files(images, source.images)
        self._places = {**files.there, **files.missing}
        self.missing |= set(files.missing.values())
        self._sizes = {image.id: image.size for image in images}
        self._notes += [f"{source.annotations.name}: {note}" for note in (*notes, *files.notes)]

    def add(self, source: Source, image: int, own_id: Any, box: Sequence[float], points: Float, weight: Float) -> None:
        """A person or box of the file that was looked at last."""
        self.boxes.append(geometry.xywh_to_xyxy(np.array(box, np.float64)))
        identity = f"{source.annotations.stem}:{own_id}"
        self._rows.append((self._places[image], identity, self._sizes[image], points, weight))

    def people(self, keypoint_set: KeypointSet) -> People:
        """All of them."""
        images, ids, sizes, points, weights = zip(*self._rows, strict=True)
        boxes = np.stack(self.boxes)
        notes = tuple(self._notes)
        return People(keypoint_set, images, ids, boxes, np.stack(points), np.stack(weights), notes=notes, sizes=sizes)


def _inside(points: Float, size: tuple[int, int] | None) -> NDArray[np.bool_]:
    """Which keypoints lie in their image; all, where the file does not say how large that is."""
    if size is None:
        return np.ones(len(points), bool)
    return np.asarray(((points >= 0) & (points <= np.array(size))).all(axis=-1))


def _without_missing(people: People, absent: set[Path], limit: float) -> People:
    paths = set(people.images)
    missing = paths & absent
    people = replace(people, listed=len(paths), absent=len(missing))
    if not missing:
        return people
    told = missing_line(sorted(missing), len(paths), "training images")
    if len(missing) > limit * len(paths):
        raise DataError(f"{told}; --missing-limit allows a share")
    if len(missing) == len(paths):
        raise DataError(f"{told}: none is left to train on")
    kept = people.subset([i for i, path in enumerate(people.images) if path not in missing])
    return replace(kept, remarks=(*people.remarks, told))


def _labels(person: dict[str, Any], where: str) -> tuple[Float, Float]:
    points = np.array(person["keypoints"], np.float64).reshape(-1, 3)
    weight = np.where(points[:, 2] > 0, 1.0, 0.0)
    given = person.get("keypoint_weights")
    if given is not None:
        values = [number(value) for value in given] if isinstance(given, list) else []
        if len(values) != len(points) or not all(value is not None and 0 <= value <= 1 for value in values):
            raise DataError(f"{where}: keypoint_weights must be {len(points)} values from 0 to 1")
        weight = weight * np.array(values, np.float64)
    return points[:, :2], weight


# ---- packed crops -------------------------------------------------------------------------------------

# Room around a person in a packed crop: the padding of 1.25 times the largest enlargement of 1.5.
PACK_PADDING = 1.25 * 1.5


@dataclass(frozen=True, eq=False)
class Crops:
    """People as JPEG crops in one file; boxes and keypoints in pixels of the crop.

    data: the file's bytes, mapped. offsets: (N + 1,).
    """

    people: People
    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.people)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """One crop, (h, w, 3) uint8 RGB."""
        encoded = self.data[self.offsets[index] : self.offsets[index + 1]]
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise DataError(f"packed crop {index} is damaged: delete the cache and start again")
        return np.asarray(image, np.uint8)


def pack_crops(
    people: People,
    folder: Path,
    height: int = 384,
    quality: int = 92,
    threads: int = 2,
    *,
    missing_limit: float = 0.0,
) -> Crops:
    """Cut every person out of its image once and keep the crops in folder; a second call reads them back.

    height is that of the crop's frame (width 3/4 of it) at most: nobody is enlarged. The cache's name
    follows from everything it depends on, so a change of data makes a new one. People of unreadable images are left
    out, and told in the remarks, where these and the missing ones are at most missing_limit (a share) of all images.

    Raises DataError where more images are unreadable.
    """
    key = hashlib.blake2b(digest_size=8)
    # Another picture under the same name is another crop.
    files = {path: _state(path) for path in dict.fromkeys(people.images)}
    for path, identity in zip(people.images, people.ids, strict=True):
        key.update(f"{path}\0{identity}\0{files[path]}\0".encode("utf-8", "surrogatepass"))
    for array in (people.boxes, people.keypoints, people.weights):
        key.update(np.ascontiguousarray(array).tobytes())
    key.update(f"{height} {quality} {PACK_PADDING} {people.sizes}".encode())
    base = folder / f"crops-{height}-{key.hexdigest()}"
    data_file, index_file = base.with_suffix(".jpegs"), base.with_suffix(".npz")
    if not index_file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write_crops(people, data_file, index_file, height, quality, threads, missing_limit)
    with np.load(index_file) as index:
        unreadable, told = index["unreadable"].tolist(), json.loads(str(index["told"]))
        _check_unreadable(people, unreadable, told["unreadable"], missing_limit)
        people = people.subset(index["kept"])
        remarks = (*people.remarks, *([_unreadable_line(people, unreadable, told["unreadable"])] if unreadable else []))
        notes = (*people.notes, *told["notes"])
        packed = replace(people, boxes=index["boxes"], keypoints=index["keypoints"], remarks=remarks, notes=notes)
        offsets = index["offsets"]
    return Crops(packed, np.memmap(data_file, np.uint8, mode="r"), offsets)


def _state(path: Path) -> str:
    """Size and time of a file; nothing where they cannot be asked for, which reading it will tell."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def _check_unreadable(people: People, unreadable: Sequence[int], why: str, limit: float) -> None:
    """Raise DataError where these images (the first row of each) are more than may be left out."""
    listed = people.listed or len(set(people.images))
    if unreadable and people.absent + len(unreadable) > limit * listed:
        line = _unreadable_line(people, unreadable, why)
        raise DataError(f"{line}; --missing-limit allows a share that is left out")


def _unreadable_line(people: People, unreadable: Sequence[int], why: str) -> str:
    listed = people.listed or len(set(people.images))
    return f"{len(unreadable)} of {listed} training images cannot be read, first {why}"


def _write_crops(
    people: People, data_file: Path, index_file: Path, height: int, quality: int, threads: int, missing_limit: float
) -> None:
    by_image: dict[Path, list[int]] = {}
    for i, path in enumerate(people.images):
        by_image.setdefault(path, []).append(i)
    padded = geometry.padded_size(people.boxes, 3 / 4, PACK_PADDING)
    frame_heights = np.clip(np.round(padded[:, 1]), 32, height).astype(int)
    boxes, keypoints = np.empty_like(people.boxes), np.empty_like(people.keypoints)
    repairs = Repairs()
    unreadable: list[int] = []
    why = ""

    def cut(item: tuple[Path, list[int]]) -> tuple[list[tuple[int, bytes]], str, str]:
        """Encoded crops by row, what is to be told of the picture, and why it cannot be read."""
        path, rows = item
        try:
            image, remark = read_pixels(path, people.sizes[rows[0]] if people.sizes else None)
        except MediaError as error:
            return [], "", str(error)
        result = []
        for i in rows:
            h = int(frame_heights[i])
            w = round(h * 3 / 4)
            matrix = geometry.crop_matrices(people.boxes[i], (h, w), PACK_PADDING)[0]
            crop = np.empty((h, w, 3), np.uint8)
            warp(image, matrix, crop)
            boxes[i] = geometry.transform(matrix, people.boxes[i].reshape(2, 2)).reshape(4)
            keypoints[i] = geometry.transform(matrix, people.keypoints[i])
            stored = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
            ok, encoded = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if not ok:
                raise DataError(f"{path}: a crop could not be encoded")
            result.append((i, encoded.tobytes()))
        return result, remark, ""

    parts: dict[int, bytes] = {}
    pool = ThreadPoolExecutor(threads)
    try:
        for (path, rows), (crops, remark, error) in zip(by_image.items(), pool.map(cut, by_image.items()), strict=True):
            parts |= dict(crops)
            tell(repairs, remark, path)
            if error:
                unreadable.append(rows[0])
                why = why or error
                # More are not looked for than what ends the run.
                _check_unreadable(people, unreadable, why, missing_limit)
    finally:
        pool.shutdown(cancel_futures=True)
    kept = sorted(parts)
    if not kept:
        raise DataError(_unreadable_line(people, unreadable, why))
    offsets = np.concatenate([[0], np.cumsum([len(parts[i]) for i in kept])]).astype(np.int64)
    # Runs side by side may pack the same crops: each under a name of its own.
    temporary = data_file.with_suffix(f".{os.getpid()}.part")
    temporary.write_bytes(b"".join(parts[i] for i in kept))
    temporary.replace(data_file)
    temporary = index_file.with_suffix(f".{os.getpid()}.part.npz")
    told = json.dumps({"unreadable": why, "notes": repairs.lines()})
    np.savez(
        temporary,
        boxes=boxes[kept],
        keypoints=keypoints[kept],
        offsets=offsets,
        kept=np.array(kept),
        unreadable=np.array(unreadable, np.int64),
        told=np.array(told),
    )
    temporary.replace(index_file)  # last: its presence says that the pack is whole
