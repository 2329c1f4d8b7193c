"""Reader of Label Studio's JSON: tasks of pictures, and of videos."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from posecli.annotations.document import number, quoted_name, read_json, shown
from posecli.convert.dataset import AnnotationSet, Person, Picture, Video, frame_name
from posecli.convert.label_studio_clips import Clip, clip_names, frames_of_clip, read_clip
from posecli.convert.label_studio_interface import find_set, read_interface
from posecli.convert.label_studio_regions import Region, people_of, read_regions
from posecli.convert.label_studio_values import IMAGE, VIDEO, Entry, interface_path
from posecli.convert.options import ReadOptions
from posecli.errors import DataError, UsageError
from posecli.keypoints import KeypointSet


@dataclass(frozen=True)
class _Task:
    """A task. data: its fields. regions: of a picture; clip: of a video."""

    data: Mapping[str, Any]
    regions: Sequence[Region] = ()
    size: tuple[int, int] | None = None
    clip: Clip | None = None


def read(path: Path, options: ReadOptions) -> AnnotationSet:
    """Read an export of Label Studio's (JSON), or tasks for its import: the last annotation, else the last prediction.

    The names of the keypoints are those of --keypoints, of the labelling interface beside the file, COCO's or of
    the smallest known set with all labels, or else the labels in their order. Raises DataError for other files.
    """
    document = read_json(path)
    rows = [document] if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise DataError(f"{quoted_name(path)}: {shown(document)}, not the tasks of Label Studio")
    left_out: Counter[str] = Counter()
    tasks = [_read_task(row, f"{quoted_name(path)}: task {place}", left_out) for place, row in enumerate(rows, 1)]
    labels = dict.fromkeys(region.label for task in tasks for region in task.regions if region.point)
    labels |= dict.fromkeys(name for task in tasks if task.clip for name in clip_names(task.clip))
    interface = read_interface(interface_path(path))
    notes: list[str] = []
    label = _choose(tasks, interface.label if interface else "", options.category, path)
    keypoint_set = find_set(label, list(labels), interface, options.keypoints, path, notes)
    videos: list[Video] = []
    pictures: list[Picture] = []
    for task in tasks:
        if task.clip is not None:
            pictures += _frames(task, keypoint_set, videos, left_out)
        else:
            people = people_of(task.regions, label, keypoint_set, left_out)
            pictures.append(_picture(task, people, videos, path))
    things = ", ".join(f"{thing} ({count})" for thing, count in left_out.items() if count)
    notes += [f"not read: {things}"] if things else []
    return AnnotationSet(
        keypoint_set, tuple(pictures), tuple(videos), label, notes=tuple(notes), sources=(interface_path(path),)
    )


def _read_task(row: Any, where: str, left_out: Counter[str]) -> _Task:
    if not isinstance(row, dict):
        raise DataError(f"{where} is {shown(row)}, not an object with data")
    data = row.get("data")
    if not isinstance(data, dict):
        raise DataError(f"{where} has no data: export tasks as JSON, not JSON-MIN")
    results = _results(row, where, left_out)
    if _is_video(data, results):
        return _Task(data, clip=read_clip(results, data, where, left_out))
    width, height = data.get("width"), data.get("height")
    size = (width, height) if type(width) is int and type(height) is int and width > 0 and height > 0 else None
    regions, size = read_regions(results, size, where, left_out)
    return _Task(data, regions, size)


def _results(row: Entry, where: str, left_out: Counter[str]) -> list[Any]:
    """The results of the last annotation that was not cancelled, else of the last prediction."""
    for key in ("annotations", "completions", "predictions"):
        given = row.get(key)
        found = [entry for entry in given if isinstance(entry, dict)] if isinstance(given, list) else []
        done = [entry for entry in found if not entry.get("was_cancelled")]
        if not done:
            continue
        left_out[f"earlier {key} of a task"] += len(done) - 1
        results = done[-1].get("result")
        if not isinstance(results, list):
            raise DataError(f"{where}: the result is {shown(results)}, not a list")
        return results
    return []


def _is_video(data: Entry, results: Sequence[Any]) -> bool:
    if any(isinstance(r, dict) and str(r.get("type", "")).startswith("video") for r in results):
        return True
    return isinstance(data.get(VIDEO), str) and not isinstance(data.get(IMAGE), str) and "frame_index" not in data


def _choose(tasks: Sequence[_Task], known: str, wanted: str | None, path: Path) -> str:
    """The label of the people's rectangles: the wanted one, "person", the interface's, or the most frequent."""
    counts = Counter(region.label for task in tasks for region in task.regions if region.box and region.label)
    counts.update(label for task in tasks if task.clip for label in task.clip.labels)
    if wanted is not None:
        if wanted not in counts and wanted != known:
            raise UsageError(f"--category {shown(wanted)}: {path} has {', '.join(map(shown, counts)) or 'none'}")
        return wanted
    people = [label for label in counts if label.casefold() == "person"]
    return next(iter(people), "") or known or next((label for label, _ in counts.most_common(1)), "person")


def _picture(task: _Task, people: tuple[Person, ...], videos: list[Video], path: Path) -> Picture:
    data = task.data
    extra = data.get("fields") if isinstance(data.get("fields"), dict) else {}
    assert extra is not None
    video, index = data.get(VIDEO), data.get("frame_index")
    if isinstance(video, str) and type(index) is int and index >= 0:
        place = _video(video, data.get("video_fields"), task.size, videos)
        time = number(data.get("time_s"))
        name = frame_name(video, index)
        return Picture(name, task.size, people, place, index, time, data.get("image_id"), extra)
    return Picture(_name(data, path), task.size, people, id=data.get("image_id"), extra=extra)


def _video(name: str, fields: Any, size: tuple[int, int] | None, videos: list[Video]) -> int:
    for place, video in enumerate(videos):
        if video.name == name:
            return place
    given = dict(fields) if isinstance(fields, dict) else {}
    own, frames, rate = given.pop("video_id", None), given.pop("frames", None), number(given.pop("frame_rate", None))
    sides = given.pop("size", None)
    if isinstance(sides, list) and len(sides) == 2 and all(type(side) is int and side > 0 for side in sides):
        size = (sides[0], sides[1])
    elif fields is not None:
        size = None
    videos.append(Video(name, size, frames if type(frames) is int else None, rate, own, given))
    return len(videos) - 1


def _frames(task: _Task, keypoint_set: KeypointSet, videos: list[Video], left_out: Counter[str]) -> Iterator[Picture]:
    assert task.clip is not None
    data, clip = task.data, task.clip
    name = data.get("file_name")
    video = name if isinstance(name, str) and name else _file_of(data.get(VIDEO)) or "video"
    fields = {key: data.get(key) for key in ("video_id", "frame_rate") if data.get(key) is not None}
    fields |= {"frames": data.get("frames", clip.frames)}
    place = _video(video, {**fields, "size": list(clip.size) if clip.size else None}, clip.size, videos)
    for index, people in frames_of_clip(clip, keypoint_set, left_out):
        yield Picture(frame_name(video, index), clip.size, people, place, index)


def _name(data: Mapping[str, Any], path: Path) -> str:
    """The file name of a task's picture: of its data, or of its address."""
    given = data.get("file_name")
    if isinstance(given, str) and given:
        return given
    addresses = [data.get(IMAGE), *data.values()]
    name = next((name for address in addresses if (name := _file_of(address))), "")
    if not name:
        raise DataError(f"{quoted_name(path)}: a task whose data names no picture: {shown(dict(data))}")
    return name


def _file_of(address: Any) -> str:
    """The file that an address means: of local storage the path, of an upload the name before it, "" for no address."""
    if not isinstance(address, str) or not address.strip() or address.startswith("data:"):
        return ""
    try:
        parts = urlsplit(address)
        query = parse_qs(parts.query)
    except ValueError:
        return ""
    local = query.get("d", [])
    if "local-files" in parts.path and local:
        return local[0].lstrip("/")
    path = unquote(parts.path)
    if "/upload/" in path:
        return re.sub(r"^[0-9a-f]{8}-", "", PurePosixPath(path).name)
    return PurePosixPath(path).name if parts.scheme else path.lstrip("/")
