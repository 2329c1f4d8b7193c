"""Label Studio's tasks of videos: a track is a sequence of rectangles and one of vertices, interpolated between."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from posecli.convert.dataset import AnnotationSet, Person, Picture, Report
from posecli.convert.label_studio_values import BOX, VECTOR, VIDEO, Entry, percent, rectangle
from posecli.convert.losses import count_picture_fields
from posecli.convert.options import WriteOptions
from posecli.convert.pictures import clean_name, sized
from posecli.keypoints import KeypointSet

# Frames per second of a video that does not say; Label Studio asks for times.
DEFAULT_RATE = 25.0


def video_tasks(data: AnnotationSet, options: WriteOptions, report: Report) -> Iterator[tuple[Entry, list[Entry]]]:
    """The data and the regions of each video's task.

    Keypoints have no visibility there and people no other fields; what is left out is counted. Raises DataError where
    the size of a frame is unknown.
    """
    for place, video in enumerate(data.videos):
        pictures = sorted((p for p in data.pictures if p.video == place), key=lambda p: p.index)
        if not pictures:
            continue
        sizes = sized(data, pictures, "Label Studio")
        numbers = sorted({picture.index for picture in pictures})
        step = math.gcd(*(b - a for a, b in itertools.pairwise(numbers))) or 1
        count = max(video.frames or 0, numbers[-1] + 1)
        own: Entry = {VIDEO: options.image_root + quote(clean_name(video.name)), "file_name": video.name}
        own |= {"width": sizes[0][0], "height": sizes[0][1], "frame_start": numbers[0], "frame_step": step}
        own |= {"frame_stop": numbers[-1] + 1}
        own |= {"frame_rate": video.frame_rate, "frames": video.frames, "video_id": video.id}
        own = {key: value for key, value in own.items() if value is not None}
        count_picture_fields(data, pictures, report)
        report.left_out["frames per second"] -= video.frame_rate is not None  # it is in the task's data
        clip = _Clip(data.keypoint_set, data.label, count, video.frame_rate or DEFAULT_RATE, step, report)
        regions: list[Entry] = []
        for number, (track, people) in enumerate(_tracks(pictures, report), 1):
            regions += clip.regions(number, track, people)
        yield own, regions


def _tracks(
    pictures: list[Picture], report: Report
) -> list[tuple[int | None, dict[int, tuple[Person, tuple[int, int]]]]]:
    """Track ids with people and sizes of their pictures by frame; people without a track alone."""
    order: list[tuple[int | None, dict[int, tuple[Person, tuple[int, int]]]]] = []
    tracks: dict[int, dict[int, tuple[Person, tuple[int, int]]]] = {}
    for picture in pictures:
        assert picture.size is not None
        for person in picture.people:
            for key in person.extra:
                report.left_out[key] += 1
            if person.track is None or picture.index in tracks.get(person.track, ()):
                report.left_out["track ids that stand twice in a frame"] += person.track is not None
                order.append((None, {picture.index: (person, picture.size)}))
                continue
            if person.track not in tracks:
                tracks[person.track] = {}
                order.append((person.track, tracks[person.track]))
            tracks[person.track][picture.index] = (person, picture.size)
    return order


class _Clip:
    """Makes the regions of a video's people."""

    def __init__(
        self, keypoint_set: KeypointSet, label: str, count: int, rate: float, step: int, report: Report
    ) -> None:
        self._names, self._before = keypoint_set.names, _before(keypoint_set)
        self._label, self._count, self._rate, self._step, self._report = label, count, rate, step, report

    def regions(
        self, number: int, track: int | None, people: Mapping[int, tuple[Person, tuple[int, int]]]
    ) -> Iterator[Entry]:
        """The rectangle and the vector of a track."""
        boxes, poses = {}, {}
        for frame, (person, size) in people.items():
            box = None if person.box is None else rectangle(person.box, size, self._report)
            if box is not None:
                boxes[frame] = box | {"rotation": 0}
            vertices = self._vertices(person, size)
            if len(vertices) > 1:
                poses[frame] = {"vertices": vertices, "closed": False}
            elif vertices:
                self._report.left_out["single keypoints of a person"] += 1
        size = next(iter(people.values()))[1]
        base: Entry = {"to_name": VIDEO, "original_width": size[0], "original_height": size[1], "image_rotation": 0}
        base |= {} if track is None else {"meta": {"posecli": {"track_id": track}}}
        own = f"t{number}"
        if boxes:
            yield {**base, "id": own, "type": "videorectangle", "from_name": BOX, "value": self._value(boxes)}
        if poses:
            parent = {"parentID": own} if boxes else {}
            pose = {"id": f"{own}v", **parent, "type": "videovector", "from_name": VECTOR, "value": self._value(poses)}
            yield {**base, **pose}

    def _value(self, shapes: Mapping[int, Mapping[str, Any]]) -> Entry:
        """A sequence: frames count from 1; after one that is not enabled the shape is not there."""
        sequence = [
            {"frame": frame + 1, "time": frame / self._rate, "enabled": frame + self._step in shapes, **shape}
            for frame, shape in sorted(shapes.items())
        ]
        return {
            "framesCount": self._count,
            "duration": self._count / self._rate,
            "sequence": sequence,
            "labels": [self._label],
        }

    def _vertices(self, person: Person, size: tuple[int, int]) -> list[Entry]:
        vertices: list[Entry] = []
        there: set[str] = set()
        points = list(person.points)
        for place in self._before:
            x, y, v = points[place]
            inside = 0 <= x <= size[0] and 0 <= y <= size[1]
            self._report.left_out["keypoints outside of their picture"] += v > 0 and not inside
            self._report.left_out["hidden keypoints' visibility (v 1)"] += v == 1 and inside
            if not v or not inside:
                continue
            before = self._before[place]
            previous = None if before is None else self._names[before]
            there.add(self._names[place])
            vertices.append(
                {
                    "id": self._names[place],
                    "x": percent(x, size[0]),
                    "y": percent(y, size[1]),
                    "prevPointId": previous if previous in there else None,
                    "isBezier": False,
                }
            )
        return vertices


def _before(keypoint_set: KeypointSet) -> dict[int, int | None]:
    """For each keypoint the one to which it is drawn, None for the first of a tree; in an order that follows them."""
    neighbours: dict[int, list[int]] = {i: [] for i in range(len(keypoint_set))}
    for a, b in keypoint_set.skeleton:
        neighbours[a].append(b)
        neighbours[b].append(a)
    before: dict[int, int | None] = {}
    for root in neighbours:
        waiting: list[tuple[int, int | None]] = [(root, None)]
        while waiting:
            place, origin = waiting.pop()
            if place not in before:
                before[place] = origin
                waiting += [(other, place) for other in neighbours[place]]
    return before
