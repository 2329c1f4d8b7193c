"""coco.json and coco_results.json, made from the records of a run."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeAlias

import orjson

from posecli.atomic import AtomicFile
from posecli.keypoints import KeypointSet
from posecli.results.records import Summary, read_frames, read_summary

# Each frame's entry among the images, with its people.
Images: TypeAlias = Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]


@dataclass(frozen=True)
class Recorded:
    """A finished input with its record. kind: "photo" or "video". place: see names.OutputPlaces; "" for the name.

    summary: the record's, where it has been read.
    """

    name: str
    kind: str
    record: Path
    place: str = ""
    summary: Summary | None = None


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
    same records give the same bytes. Each record is read once; the annotations, which follow the images, are stored in
    a temporary file meanwhile.
    """
    images = coco_images(inputs, has_own_ids(inputs), lambda item: read_frames(item.record))
    with AtomicFile(out / "coco_results.json") as results_file:
        results = _List(results_file)

        def recorded() -> Images:
            for image, people in images:
                for person in people:
                    results.append(result_of(person, image["id"]))
                yield image, people

        write_coco_file(out / "coco.json", inputs, recorded(), keypoint_set)
        results.end()
        results_file.write(b"\n")


def write_coco_file(path: Path, inputs: Iterable[Recorded], images: Images, keypoint_set: KeypointSet) -> None:
    """Write a COCO data set of these images atomically, one at a time. inputs: for its list of videos."""
    folder = path.parent / ".posecli"
    folder.mkdir(parents=True, exist_ok=True)
    with AtomicFile(path) as file, tempfile.TemporaryFile(dir=folder) as annotations_file:
        file.write(b'{"info":' + orjson.dumps({"description": "posecli", "schema": 1}))
        file.write(b',\n"categories":' + orjson.dumps([coco_category(keypoint_set)]))
        videos = _List(file, b',\n"videos":')
        for number, item in enumerate((item for item in inputs if item.kind == "video"), 1):
            videos.append(_video(number, item))
        videos.end()
        listed = _List(file, b',\n"images":')
        annotations = _List(annotations_file, b',\n"annotations":')
        for image, people in images:
            listed.append(image)
            for person in people:
                annotations.append({**_annotation(annotations.count + 1, image), **person})
        for each in (listed, annotations):
            each.end()
        annotations_file.seek(0)
        shutil.copyfileobj(annotations_file, file, 1 << 20)
        file.write(b"}\n")


def coco_images(
    inputs: Iterable[Recorded], own_ids: bool, frames: Callable[[Recorded], Iterable[dict[str, Any]]]
) -> Images:
    """Every frame as a COCO image, with its people. own_ids: see has_own_ids. frames: those of an input's record."""
    image_id = video_id = 0
    for item in inputs:
        video_id += item.kind == "video"
        for frame in frames(item):
            image_id = _number(item) if own_ids else image_id + 1
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
    summary = _summary(item)
    if summary is not None:
        video |= {"width": summary.width, "height": summary.height, "frames": summary.frames}
        video |= {} if summary.frame_rate is None else {"frame_rate": summary.frame_rate}
    return video


def _summary(item: Recorded) -> Summary | None:
    return item.summary or read_summary(item.record)


def _annotation(number: int, image: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, "image_id": image["id"], "category_id": 1, "iscrowd": 0}


def has_own_ids(inputs: Iterable[Recorded]) -> bool:
    """Whether the photos' names are numbers that can be their ids: distinct, positive, of one page each."""
    numbers: set[int] = set()
    for item in inputs:
        stem = PurePosixPath(item.name).stem
        if item.kind != "photo" or not (stem.isascii() and stem.isdigit() and len(stem) >= 6):
            return False
        # JavaScript represents integers up to 2**53 exactly; orjson writes up to 64 bits.
        if not 0 < (number := _number(item)) < 2**53 or number in numbers:
            return False
        numbers.add(number)
        if (summary := _summary(item)) is not None and summary.frames > 1:
            return False  # each page needs its own id
    return bool(numbers)


def _number(item: Recorded) -> int:
    return int(PurePosixPath(item.name).stem)


class _List:
    """A JSON list that is written entry by entry. start: written before it."""

    def __init__(self, file: BinaryIO, start: bytes = b"") -> None:
        self._file, self.count = file, 0
        file.write(start)

    def append(self, item: dict[str, Any]) -> None:
        """Write the next entry."""
        self._file.write((b",\n" if self.count else b"[\n") + orjson.dumps(item))
        self.count += 1

    def end(self) -> None:
        """Write the end."""
        self._file.write(b"\n]" if self.count else b"[]")
