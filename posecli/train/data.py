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
from posecli.errors import DataError
from posecli.evaluate.people import first_category
from posecli.keypoints import KeypointSet, from_category
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
    Boxes and keypoints are in pixels of the stored image (EXIF orientation not applied, as in COCO).
    weights: (N, K), 0 where a keypoint is not labelled, else its confidence times its source's weight.
    remarks: what was left out, as sentences for the user.
    """

    keypoint_set: KeypointSet
    images: tuple[Path, ...]
    ids: tuple[str, ...]
    boxes: Float
    keypoints: Float
    weights: Float
    remarks: tuple[str, ...] = ()

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
        )


def read_nobody(sources: Sequence[Source], keypoint_set: KeypointSet, *, missing_limit: float = 0.0) -> People:
    """Boxes without a person: all of the sources' files, whatever their categories. Their weights are 0.

    missing_limit: as in read_people. Raises DataError for files that are not COCO's, annotations without a box or
    image, and too many missing images.
    """
    images: list[Path] = []
    ids: list[str] = []
    boxes: list[Float] = []
    for source in sources:
        document = _read_json(source.annotations)
        files = {image["id"]: image["file_name"] for image in document["images"]}
        for annotation in document["annotations"]:
            where = f"{source.annotations.name}: annotation {annotation.get('id')}"
            if annotation.get("image_id") not in files:
                raise DataError(f"{where}: no image {annotation.get('image_id')} in the file")
            images.append(source.images / files[annotation["image_id"]])
            ids.append(f"{source.annotations.stem}:{annotation.get('id')}")
            boxes.append(_box(annotation, where))
    shape = len(boxes), len(keypoint_set)
    people = People(keypoint_set, tuple(images), tuple(ids), np.stack(boxes), np.zeros((*shape, 2)), np.zeros(shape))
    return _without_missing(people, missing_limit)


def trained_images(people: People, nobody: People | None) -> tuple[Path, ...]:
    """The images of both, one a person or box."""
    return people.images if nobody is None else (*people.images, *nobody.images)


# Above this share of keypoints outside their images the labels belong to other pictures.
OUTSIDE_LIMIT = 0.1


def read_people(sources: Sequence[Source], *, missing_limit: float = 0.0) -> People:
    """All people with at least one labelled keypoint, in the order of the sources and their files.

    Crowds are left out. "keypoint_weights" (0 to 1) scale the loss of single keypoints; keypoints outside
    their image have weight 0. People of missing images are left out where these are at most missing_limit
    (a share) of all. What was left out stands in the remarks.

    Raises DataError for files that are not COCO keypoints, keypoint lists of a wrong length, values that
    are not finite, people without a box, sources with different keypoint sets, more than a tenth of a
    source's keypoints outside their images, too many missing images, or nobody at all.
    """
    keypoint_set: KeypointSet | None = None
    images: list[Path] = []
    ids: list[str] = []
    boxes: list[Float] = []
    keypoints: list[Float] = []
    weights: list[Float] = []
    remarks: list[str] = []
    for source in sources:
        document = _read_json(source.annotations)
        category, annotations = first_category(document)
        found = from_category(category)
        if keypoint_set is not None and found.names != keypoint_set.names:
            raise DataError(f"{source.annotations}: its keypoints differ from those of the sources before it")
        keypoint_set = found
        records = {image["id"]: image for image in document["images"]}
        outside = labelled = 0
        for annotation in annotations:
            if annotation.get("iscrowd") or "keypoints" not in annotation:
                continue
            where = f"{source.annotations.name}: annotation {annotation.get('id')}"
            points, weight = _labels(annotation, len(found), where)
            if not (weight > 0).any():
                continue
            record = records.get(annotation.get("image_id"))
            if record is None:
                raise DataError(f"{where}: no image {annotation.get('image_id')} in the file")
            inside = _inside(points, record)
            labelled += int((weight > 0).sum())
            outside += int(((weight > 0) & ~inside).sum())
            if not ((weight > 0) & inside).any():
                continue
            images.append(source.images / record["file_name"])
            ids.append(f"{source.annotations.stem}:{annotation.get('id')}")
            boxes.append(_box(annotation, where))
            keypoints.append(points)
            weights.append(weight * inside * source.weight)
        if outside > OUTSIDE_LIMIT * labelled:
            raise DataError(f"{source.annotations}: {outside} of {labelled} keypoints lie outside their images")
        if outside:
            remarks.append(f"{source.annotations.name}: {outside} of {labelled} keypoints outside their images unused")
    if keypoint_set is None or not images:
        raise DataError("no person with a labelled keypoint in " + ", ".join(str(s.annotations) for s in sources))
    people = People(
        keypoint_set,
        tuple(images),
        tuple(ids),
        np.stack(boxes),
        np.stack(keypoints),
        np.stack(weights),
        tuple(remarks),
    )
    return _without_missing(people, missing_limit)


def _inside(points: Float, record: dict[str, Any]) -> NDArray[np.bool_]:
    """Which keypoints lie in their image; all, where the file does not say how large that is."""
    if "width" not in record or "height" not in record:
        return np.ones(len(points), bool)
    size = np.array([record["width"], record["height"]])
    return np.asarray(((points >= 0) & (points <= size)).all(axis=-1))


def _without_missing(people: People, limit: float) -> People:
    paths = set(people.images)
    missing = {path for path in paths if not path.is_file()}
    if not missing:
        return people
    told = f"{len(missing)} of {len(paths)} training images are missing, first {min(missing)}"
    if len(missing) > limit * len(paths):
        raise DataError(f"{told}; --missing-limit allows a share")
    kept = people.subset([i for i, path in enumerate(people.images) if path not in missing])
    return replace(kept, remarks=(*people.remarks, told))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such annotation file") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    missing = [key for key in ("images", "annotations", "categories") if not document.get(key)]
    if missing:
        raise DataError(f"{path}: not COCO keypoints, no {' and '.join(missing)}")
    return dict(document)


def _labels(annotation: dict[str, Any], count: int, where: str) -> tuple[Float, Float]:
    values = np.asarray(annotation["keypoints"], np.float64)
    if values.shape != (3 * count,):
        raise DataError(f"{where}: {values.size} keypoint values, not {3 * count}")
    points = values.reshape(count, 3)
    weight = np.where(points[:, 2] > 0, 1.0, 0.0)
    if "keypoint_weights" in annotation:
        given = np.asarray(annotation["keypoint_weights"], np.float64)
        if given.shape != (count,) or not ((given >= 0) & (given <= 1)).all():
            raise DataError(f"{where}: keypoint_weights must be {count} values from 0 to 1")
        weight = weight * given
    if not np.isfinite(points[weight > 0]).all():
        raise DataError(f"{where}: a keypoint is not finite")
    return points[:, :2], weight


def _box(annotation: dict[str, Any], where: str) -> Float:
    box = annotation.get("bbox")
    values = np.asarray(box if box is not None else (), np.float64)
    if values.shape != (4,) or not np.isfinite(values).all() or (values[2:] <= 0).any():
        raise DataError(f"{where}: bbox {box} is not x, y, width, height")
    return geometry.xywh_to_xyxy(values)


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


def pack_crops(people: People, folder: Path, height: int = 384, quality: int = 92, threads: int = 2) -> Crops:
    """Cut every person out of its image once and keep the crops in folder; a second call reads them back.

    height is that of the crop's frame (width 3/4 of it) at most: nobody is enlarged. The cache's name
    follows from everything it depends on, so a change of data makes a new one.

    Raises DataError where an image is unreadable.
    """
    key = hashlib.blake2b(digest_size=8)
    # Another picture under the same name is another crop.
    files = {path: path.stat() for path in dict.fromkeys(people.images)}
    for path, identity in zip(people.images, people.ids, strict=True):
        found = files[path]
        key.update(f"{path}\0{identity}\0{found.st_size} {found.st_mtime_ns}\0".encode("utf-8", "surrogatepass"))
    for array in (people.boxes, people.keypoints, people.weights):
        key.update(np.ascontiguousarray(array).tobytes())
    key.update(f"{height} {quality} {PACK_PADDING}".encode())
    base = folder / f"crops-{height}-{key.hexdigest()}"
    data_file, index_file = base.with_suffix(".jpegs"), base.with_suffix(".npz")
    if not index_file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write_crops(people, data_file, index_file, height, quality, threads)
    with np.load(index_file) as index:
        packed = replace(people, boxes=index["boxes"], keypoints=index["keypoints"])
        offsets = index["offsets"]
    return Crops(packed, np.memmap(data_file, np.uint8, mode="r"), offsets)


def _write_crops(people: People, data_file: Path, index_file: Path, height: int, quality: int, threads: int) -> None:
    by_image: dict[Path, list[int]] = {}
    for i, path in enumerate(people.images):
        by_image.setdefault(path, []).append(i)
    padded = geometry.padded_size(people.boxes, 3 / 4, PACK_PADDING)
    frame_heights = np.clip(np.round(padded[:, 1]), 32, height).astype(int)
    boxes, keypoints = np.empty_like(people.boxes), np.empty_like(people.keypoints)

    def cut(item: tuple[Path, list[int]]) -> list[tuple[int, bytes]]:
        path, rows = item
        image = cv2.imdecode(
            np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
        if image is None:
            raise DataError(f"{path}: not a readable image")
        result = []
        for i in rows:
            h = int(frame_heights[i])
            w = round(h * 3 / 4)
            matrix = geometry.crop_matrices(people.boxes[i], (h, w), PACK_PADDING)[0]
            crop = np.empty((h, w, 3), np.uint8)
            warp(np.asarray(image, np.uint8), matrix, crop)
            boxes[i] = geometry.transform(matrix, people.boxes[i].reshape(2, 2)).reshape(4)
            keypoints[i] = geometry.transform(matrix, people.keypoints[i])
            ok, encoded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if not ok:
                raise DataError(f"{path}: a crop could not be encoded")
            result.append((i, encoded.tobytes()))
        return result

    parts: list[bytes] = [b""] * len(people)
    with ThreadPoolExecutor(threads) as pool:
        for crops in pool.map(cut, by_image.items()):
            for i, encoded in crops:
                parts[i] = encoded
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    # Runs side by side may pack the same crops: each under a name of its own.
    temporary = data_file.with_suffix(f".{os.getpid()}.part")
    temporary.write_bytes(b"".join(parts))
    temporary.replace(data_file)
    temporary = index_file.with_suffix(f".{os.getpid()}.part.npz")
    np.savez(temporary, boxes=boxes, keypoints=keypoints, offsets=offsets)
    temporary.replace(index_file)  # last: its presence says that the pack is whole
