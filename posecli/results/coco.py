"""coco.json and coco_results.json, made from the records of a run."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import orjson

from posecli.atomic import AtomicFile
from posecli.keypoints import KeypointSet
from posecli.results.records import read_frames, read_summary


@dataclass(frozen=True)
class Recorded:
    """A finished input with its record. kind: "photo" or "video". place: see names.OutputPlaces; "" for the name."""

    name: str
    kind: str
    record: Path
    place: str = ""


def coco_category(keypoint_set: KeypointSet) -> dict[str, Any]:
    """The person category: keypoint names, 1-based skeleton, sigmas if known."""
    category: dict[str, Any] = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(keypoint_set.names),
        "skeleton": [[a + 1, b + 1] for a, b in keypoint_set.skeleton],
    }
    if keypoint_set.sigmas is not None:
        category["sigmas"] = list(keypoint_set.sigmas)
    return category


def result_of(person: dict[str, Any], image_id: int) -> dict[str, Any]:
    """An entry of a COCO results file for a person of a record."""
    keypoints = person["keypoints"]
    scored = [*keypoints]
    scored[2::3] = [1] * (len(keypoints) // 3)
    return {
        "image_id": image_id,
        "category_id": 1,
        "bbox": person["bbox"],
        "keypoints": scored,
        "score": person["score"],
    }


def write_coco(out: Path, inputs: Sequence[Recorded], keypoint_set: KeypointSet) -> None:
    """Write out/coco.json and out/coco_results.json from the records, in the order of the inputs.

    Ids count from 1 in that order. Where all inputs are photos named by distinct numbers, as COCO's are, these are the
    image ids, so that the results can be scored against COCO's annotations. Memory does not grow with the records; the
    same records give the same bytes.
    """
    ids = _numbers_of(inputs)
    with AtomicFile(out / "coco.json") as file:
        file.write(b'{"info":' + orjson.dumps({"description": "posecli", "schema": 1}))
        file.write(b',\n"categories":' + orjson.dumps([coco_category(keypoint_set)]))
        videos = (item for item in inputs if item.kind == "video")
        file.write(b',\n"videos":')
        _write_list(file, (_video(i, item) for i, item in enumerate(videos, 1)))
        file.write(b',\n"images":')
        _write_list(file, (image for image, _ in _images(inputs, ids)))
        file.write(b',\n"annotations":')
        _write_list(file, _annotations(inputs, ids))
        file.write(b"}\n")
    with AtomicFile(out / "coco_results.json") as file:
        results = (result_of(person, image["id"]) for image, people in _images(inputs, ids) for person in people)
        _write_list(file, results)
        file.write(b"\n")


def _images(
    inputs: Sequence[Recorded], ids: Sequence[int] | None
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every frame as a COCO image, with its people."""
    image_id = video_id = 0
    for number, item in enumerate(inputs):
        video_id += item.kind == "video"
        for frame in read_frames(item.record):
            image_id = ids[number] if ids else image_id + 1
            image: dict[str, Any] = {"id": image_id, "file_name": item.name}
            if item.kind == "video":
                image["file_name"] = f"{item.name}#{frame['index']:06d}"
                image |= {"video_id": video_id, "frame_index": frame["index"], "time_s": frame["time_s"]}
            elif frame["index"]:  # a further page
                image |= {"file_name": f"{item.name}#{frame['index']:06d}", "page": frame["index"]}
            yield image | {"width": frame["width"], "height": frame["height"]}, frame["people"]


def _video(number: int, item: Recorded) -> dict[str, Any]:
    """The entry of a video: size, number of frames and, if known, frames per second."""
    video: dict[str, Any] = {"id": number, "name": item.name}
    summary = read_summary(item.record)
    if summary is not None:
        video |= {"width": summary.width, "height": summary.height, "frames": summary.frames}
        video |= {} if summary.frame_rate is None else {"frame_rate": summary.frame_rate}
    return video


def _annotations(inputs: Sequence[Recorded], ids: Sequence[int] | None) -> Iterator[dict[str, Any]]:
    number = 0
    for image, people in _images(inputs, ids):
        for person in people:
            number += 1
            yield {"id": number, "image_id": image["id"], "category_id": 1, "iscrowd": 0, **person}


def _numbers_of(inputs: Sequence[Recorded]) -> list[int] | None:
    stems = [PurePosixPath(item.name).stem for item in inputs]
    if not stems or any(item.kind != "photo" for item in inputs):
        return None
    if not all(stem.isascii() and stem.isdigit() and len(stem) >= 6 for stem in stems):
        return None
    numbers = [int(stem) for stem in stems]
    # JavaScript represents integers up to 2**53 exactly; orjson writes up to 64 bits.
    distinct = len(set(numbers)) == len(numbers)
    if any((summary := read_summary(item.record)) is not None and summary.frames > 1 for item in inputs):
        return None  # each page needs its own id
    return numbers if distinct and min(numbers) > 0 and max(numbers) < 2**53 else None


def _write_list(file: BinaryIO, items: Iterable[dict[str, Any]]) -> None:
    separator = b"[\n"
    for item in items:
        file.write(separator + orjson.dumps(item))
        separator = b",\n"
    file.write(b"[]" if separator == b"[\n" else b"\n]")
