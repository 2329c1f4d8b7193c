"""Writer of CVAT's own XML (version 1.1): of images, and of videos with tracks."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import escape, quoteattr

from posecli.atomic import AtomicFile
from posecli.convert.coco import MOST_TEXT
from posecli.convert.cvat_labels import box_label, constructor, drawing
from posecli.convert.dataset import AnnotationSet, Box, Person, Picture, Report
from posecli.convert.fields import OWN, to_json, to_text
from posecli.convert.losses import count_picture_fields, count_set_fields
from posecli.convert.options import WriteOptions
from posecli.convert.pictures import clean_name, shown_name, sized
from posecli.convert.xml_items import clean, clean_names
from posecli.errors import UsageError


def files(data: AnnotationSet, out: Path, options: WriteOptions) -> list[Path]:
    """The files that write writes: one XML file or, in a folder, one of the photos and one of each video; the labels.

    Raises UsageError where one file does not do: a task of CVAT's is a video, or images.
    """
    photos, videos = _tasks(data)
    if out.suffix.lower() == ".xml":
        if bool(photos) + len(videos) > 1:
            raise UsageError(
                f"--out {out}: {len(photos)} photos and {len(videos)} videos are several tasks of CVAT: give a folder"
            )
        return [out, out.with_suffix(".labels.json")]
    names = [f"{clean_name(data.videos[place].name)}.xml" for place in videos]
    return [out / name for name in (["images.xml"] if photos or not videos else []) + [*names, "labels.json"]]


def _tasks(data: AnnotationSet) -> tuple[list[Picture], dict[int, list[Picture]]]:
    photos = [picture for picture in data.pictures if picture.video is None]
    videos: dict[int, list[Picture]] = {place: [] for place in range(len(data.videos))}
    for picture in data.pictures:
        if picture.video is not None:
            videos[picture.video].append(picture)
    return photos, {place: sorted(frames, key=lambda p: p.index) for place, frames in videos.items()}


def write(data: AnnotationSet, out: Path, options: WriteOptions, report: Report) -> None:
    """Write the files. A point with v 0 is outside, one with v 1 occluded; other fields are attributes, as text.

    Raises DataError where the size of an image is unknown, OSError.
    """
    photos, videos = _tasks(data)
    *tasks, labels = files(data, out, options)
    writer = _Writer(data, options, report)
    count_set_fields(data, report)
    count_picture_fields(data, data.pictures, report, held=("subset", "task_id"))
    if photos or not videos:
        writer.images(tasks.pop(0), photos)
    for path, (place, frames) in zip(tasks, videos.items(), strict=True):
        writer.video(path, place, frames)
    with AtomicFile(labels) as file:
        file.write(to_json(constructor(data, writer.attributes, writer.boxes)) + b"\n")
    if writer.replaced:
        report.notes.append(f"{writer.replaced} texts with characters that XML does not have: replaced by ?")


@dataclass(frozen=True)
class _Frames:
    """The frames of a task: from start to last in steps."""

    start: int
    last: int
    step: int

    @property
    def size(self) -> int:
        return (self.last - self.start) // self.step + 1


def _frames(frames: Sequence[Picture], count: int | None) -> _Frames:
    """count: number of the video's frames where it is known."""
    numbers = sorted({picture.index for picture in frames})
    if not numbers:
        return _Frames(0, max((count or 1) - 1, 0), 1)
    step = math.gcd(*(b - a for a, b in itertools.pairwise(numbers))) or 1
    last = numbers[-1]
    if step == 1 and numbers[0] == 0 and count is not None:
        last = max(last, count - 1)
    return _Frames(numbers[0], last, step)


class _Writer:
    """Writes tasks. boxes: whether there are any; attributes: names of those that were written; see Report."""

    def __init__(self, data: AnnotationSet, options: WriteOptions, report: Report) -> None:
        self._data, self._report = data, report
        self.boxes = options.boxes and any(person.box is not None for person in data.people)
        self._leave_boxes = not options.boxes
        self.replaced = 0
        self._names = [quoteattr(name) for name in clean_names(data.keypoint_set.names)]
        self._label, self._box_label = self._quoted(data.label), self._quoted(box_label(data))
        found = dict.fromkeys(key for person in data.people for key in person.extra)
        tracked = any(person.track is not None for person in data.people)
        self.attributes = [*(["track_id"] if tracked else []), *found]

    def images(self, path: Path, pictures: Sequence[Picture]) -> None:
        """Write a task of images."""
        sizes = sized(self._data, pictures, "CVAT's format")
        with AtomicFile(path) as file:
            self._start(file, path.stem, len(pictures), "annotation", "")
            group = 0
            for place, (picture, (width, height)) in enumerate(zip(pictures, sizes, strict=True)):
                extra = {k: v for k, v in picture.extra.items() if k in ("subset", "task_id")}
                more = "".join(f" {key}={self._quoted(to_text(value))}" for key, value in extra.items())
                name = self._quoted(shown_name(picture))
                _line(file, f'  <image id="{place}" name={name}{more} width="{width}" height="{height}">')
                for person in picture.people:
                    group += 1
                    self._shapes(file, person, group)
                _line(file, "  </image>")
            _line(file, "</annotations>")

    def video(self, path: Path, place: int, pictures: Sequence[Picture]) -> None:
        """Write a task of a video."""
        video = self._data.videos[place]
        size = video.size or next((picture.size for picture in pictures if picture.size), None)
        frames = _frames(pictures, video.frames)
        more = f"      <start_frame>{frames.start}</start_frame>\n      <stop_frame>{frames.last}</stop_frame>\n"
        if frames.step > 1:
            more += f"      <frame_filter>step={frames.step}</frame_filter>\n"
        if size is not None:
            width, height = size
            more += f"      <original_size><width>{width}</width><height>{height}</height></original_size>\n"
        more += f"      <source>{self._text(video.name)}</source>\n"
        with AtomicFile(path) as file:
            self._start(file, video.name, frames.size, "interpolation", more)
            number = 0
            for group, (own, track) in enumerate(self._tracks(pictures), 1):
                number = self._track(file, number, group, own, track, frames)
            _line(file, "</annotations>")

    def _tracks(self, pictures: Sequence[Picture]) -> Iterator[tuple[int | None, dict[int, Person]]]:
        """Track ids with people by frame, in the order in which they first appear; others alone, without an id."""
        order: list[tuple[int | None, dict[int, Person]]] = []
        tracks: dict[int, dict[int, Person]] = {}
        for picture in pictures:
            for person in picture.people:
                own = person.track
                if own is None or picture.index in tracks.get(own, ()):
                    self._report.left_out["track ids that stand twice in a frame"] += own is not None
                    order.append((None, {picture.index: person}))
                    continue
                if own not in tracks:
                    tracks[own] = {}
                    order.append((own, tracks[own]))
                tracks[own][picture.index] = person
        yield from order

    def _track(
        self, file: BinaryIO, number: int, group: int, own: int | None, people: Mapping[int, Person], frames: _Frames
    ) -> int:
        """Write a person's skeletons and boxes as tracks from this number on; returns the next one."""
        skeletons = {frame: person for frame, person in people.items() if _has_skeleton(person)}
        boxes = {frame: person for frame, person in people.items() if self._has_box(person)}
        both = f' group_id="{group}"' if skeletons and boxes else ""
        if skeletons:
            _line(file, f'  <track id="{number}" label={self._label} source="auto"{both}>')
            for frame, person, outside in _keyframes(skeletons, frames):
                start = f'    <skeleton frame="{frame}" keyframe="1" z_order="0">'
                points = (x if not outside else (x[0], x[1], 0) for x in person.points)
                attributes = self._attributes(person, own, "      ") if not outside else ""
                _line(file, start + self._points(points, ' keyframe="1"', "      ") + attributes + "\n    </skeleton>")
            _line(file, "  </track>")
            number += 1
        if boxes:
            _line(file, f'  <track id="{number}" label={self._box_label} source="auto"{both}>')
            for frame, person, outside in _keyframes(boxes, frames):
                assert person.box is not None
                start = f'    <box frame="{frame}" keyframe="1" outside="{int(outside)}" occluded="0"'
                alone = frame not in skeletons and not outside
                attributes = self._attributes(person, own, "      ") if alone else ""
                _line(file, f'{start} {_corners(person.box)} z_order="0">{attributes}</box>')
            _line(file, "  </track>")
            number += 1
        return number

    def _shapes(self, file: BinaryIO, person: Person, group: int) -> None:
        """Write a person of an image."""
        skeleton, box = _has_skeleton(person), self._has_box(person)
        both = f' group_id="{group}"' if skeleton and box else ""
        attributes = self._attributes(person, person.track, "      ")
        if box:
            assert person.box is not None
            start = f'    <box label={self._box_label} source="auto" occluded="0" {_corners(person.box)} z_order="0"'
            _line(file, f"{start}{both}>{'' if skeleton else attributes}</box>")
        if skeleton:
            start = f'    <skeleton label={self._label} source="auto" z_order="0"{both}>'
            points = self._points(person.points, ' source="auto"', "      ")
            _line(file, f"{start}{points}{attributes}\n    </skeleton>")

    def _has_box(self, person: Person) -> bool:
        if person.box is not None and self._leave_boxes:
            self._report.left_out["boxes (--no-boxes)"] += 1
            return False
        return person.box is not None

    def _points(self, points: Iterable[tuple[float, float, int]], more: str, indent: str) -> str:
        lines = []
        for name, (x, y, v) in zip(self._names, points, strict=True):
            state = f'outside="{int(v == 0)}" occluded="{int(v == 1)}"'
            place = f"{written(x)},{written(y)}"
            lines.append(f'\n{indent}<points label={name} {state}{more} points="{place}"></points>')
        return "".join(lines)

    def _attributes(self, person: Person, track: int | None, indent: str) -> str:
        fields = {**({"track_id": track} if track is not None else {}), **person.extra}
        lines = []
        for key, value in fields.items():
            text = to_text(value)
            if len(text) > MOST_TEXT or (key in OWN and key != "track_id"):
                self._report.left_out[key] += 1
                continue
            lines.append(f"\n{indent}<attribute name={self._quoted(key)}>{self._text(text)}</attribute>")
        return "".join(lines)

    def _start(self, file: BinaryIO, name: str, size: int, mode: str, more: str) -> None:
        _line(file, '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>')
        _line(file, f"  <meta>\n    <task>\n      <name>{self._text(name)}</name>\n      <size>{size}</size>")
        _line(file, f"      <mode>{mode}</mode>\n{more}      <labels>")
        attributes = "".join(
            f"\n          <attribute><name>{self._text(key)}</name><mutable>True</mutable><input_type>text</input_type>"
            "<default_value></default_value><values></values></attribute>"
            for key in self.attributes
        )
        _line(file, f"        <label><name>{self._text(self._data.label)}</name><type>skeleton</type>")
        _line(file, f"          <attributes>{attributes}</attributes>")
        _line(file, f"          <svg>{self._text(drawing(self._data))}</svg></label>")
        parent = f"<attributes></attributes><parent>{self._text(self._data.label)}</parent>"
        for point in self._data.keypoint_set.names:
            _line(file, f"        <label><name>{self._text(point)}</name><type>points</type>{parent}</label>")
        if self.boxes:
            _line(file, f"        <label><name>{self._text(box_label(self._data))}</name><type>rectangle</type>")
            _line(file, f"          <attributes>{attributes}</attributes></label>")
        _line(file, "      </labels>\n    </task>\n  </meta>")

    def _clean(self, text: str) -> str:
        found = clean(text)
        self.replaced += found != text
        return found

    def _text(self, text: str) -> str:
        return escape(self._clean(text), {"\r": "&#13;"})

    def _quoted(self, text: str) -> str:
        return quoteattr(self._clean(text))


def _keyframes(people: Mapping[int, Person], frames: _Frames) -> Iterator[tuple[int, Person, bool]]:
    """Frame, person and whether it is outside: every frame of the person, and the one after each gap's start."""
    for frame, person in sorted(people.items()):
        yield frame, person, False
        after = frame + frames.step
        if after not in people and after <= frames.last:
            yield after, person, True


def _has_skeleton(person: Person) -> bool:
    return any(person.keypoints) or person.box is None


def _corners(box: Box) -> str:
    x, y, width, height = box
    corners = {"xtl": x, "ytl": y, "xbr": x + width, "ybr": y + height}
    return " ".join(f'{key}="{written(value)}"' for key, value in corners.items())


def written(value: float) -> str:
    """A coordinate with six decimals at most."""
    rounded = round(float(value), 6)
    return str(int(rounded)) if rounded == int(rounded) else repr(rounded)


def _line(file: BinaryIO, text: str) -> None:
    file.write(text.encode() + b"\n")
