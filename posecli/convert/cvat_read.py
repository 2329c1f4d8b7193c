"""Reader of CVAT's own XML (version 1.1), of images and of videos: skeletons, and the boxes grouped with them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from posecli.annotations.document import number, shown
from posecli.convert.cvat_labels import SkeletonLabel, read_labels
from posecli.convert.cvat_tracks import Span, Track, people_of_tracks
from posecli.convert.dataset import AnnotationSet, Box, Person, Picture, Video, frame_name, make_set, unlabelled
from posecli.convert.fields import track_of, without_own
from posecli.convert.options import ReadOptions
from posecli.convert.shapes import Shape
from posecli.convert.xml_items import Node, read_items
from posecli.errors import DataError, UsageError
from posecli.keypoints import KeypointSet

# Frames that are listed at most.
MOST_FRAMES = 10_000_000


@dataclass
class _Task:
    """What the meta of a file says about its task."""

    labels: dict[str, SkeletonLabel] = field(default_factory=dict)
    video: Video | None = None
    span: Span = field(default_factory=Span)


@dataclass
class _Image:
    attributes: Mapping[str, str]
    shapes: list[Shape] = field(default_factory=list)


def read(path: Path, options: ReadOptions) -> AnnotationSet:
    """Read a file of CVAT's, "for images" or "for video". Raises DataError where it is none or its values are invalid.

    A point that is outside has v 0, an occluded one v 1. A box in the group of a skeleton is the person's box.
    """
    task = _Task()
    images: list[_Image] = []
    tracks: list[Track] = []
    left_out: Counter[str] = Counter()
    image: _Image | None = None
    track: Track | None = None
    for item in read_items(path, "annotations", frozenset({"meta", "version"})):
        if item.node is not None and item.node.tag == "meta":
            task = _read_meta(item.node)
        elif item.container is not None and item.node is None:
            image = track = None
            if item.container.tag == "image":
                images.append(image := _Image(item.container.attributes))
            elif item.container.tag == "track":
                tracks.append(track := Track(len(tracks), item.container.attributes))
        elif item.node is not None and (image or track):
            shape = _read_shape(item.node, f"{path}: {_where(image, track)}", left_out)
            if shape is not None and image is not None:
                image.shapes.append(shape)
            elif shape is not None and track is not None:
                track.add(shape, f"{path}: {_where(image, track)}")
    label = _choose(task.labels, images, tracks, options.category, path)
    return _make(label, task, images, tracks, left_out, path)


def _where(image: _Image | None, track: Track | None) -> str:
    if image is not None:
        return f"image {shown(image.attributes.get('name', '?'))}"
    return f"track {shown(track.attributes.get('id', '?'))}" if track is not None else "?"


def _read_meta(meta: Node) -> _Task:
    task = next((found for kind in ("task", "job", "project") if (found := meta.find(kind))), meta)
    size = _whole(task.words("original_size", "width")), _whole(task.words("original_size", "height"))
    step = task.words("frame_filter").partition("step=")[2]
    span = Span(
        _whole(task.words("start_frame")) or 0,
        _whole(task.words("stop_frame")),
        max(1, _whole(step) or 1),
        _whole(task.words("size")),
    )
    name = task.words("source") or meta.words("source") or task.words("name") or "video"
    video = Video(name, (size[0], size[1]) if size[0] and size[1] else None)
    return _Task(read_labels(meta), video, span)


def _whole(text: str) -> int | None:
    value = number(text)
    return int(value) if value is not None and value == int(value) and 0 <= value < 2**31 else None


_KINDS = {"polygon": "polygons", "polyline": "polylines", "ellipse": "ellipses", "mask": "masks", "cuboid": "cuboids"}


def _read_shape(node: Node, where: str, left_out: Counter[str]) -> Shape | None:
    """A skeleton or a box; None for anything else, which is counted."""
    if node.tag == "skeleton":
        points = {}
        for point in node.children:
            if point.tag == "points":
                name = point.attributes.get("label", "")
                if name in points:
                    raise DataError(f"{where}: two points of a skeleton are {shown(name)}")
                points[name] = _read_point(point, where)
            elif point.tag != "attribute":
                left_out[f"{point.tag} in a skeleton"] += 1
        return Shape(node.attributes, _attributes(node), points=points)
    if node.tag == "box":
        corners = [number(node.attributes.get(key)) for key in ("xtl", "ytl", "xbr", "ybr")]
        left, top, right, bottom = (value if value is not None else float("nan") for value in corners)
        if not (right >= left and bottom >= top):
            raise DataError(f"{where}: a box from {left}, {top} to {right}, {bottom}")
        if number(node.attributes.get("rotation", 0)):
            left_out["rotation of a box"] += 1
        return Shape(
            node.attributes, _attributes(node), box=(left, top, round(right - left, 6), round(bottom - top, 6))
        )
    left_out[_KINDS.get(node.tag, f"{shown(node.tag)}")] += 1
    return None


def _attributes(node: Node) -> dict[str, str]:
    return {child.attributes.get("name", ""): child.text for child in node.children if child.tag == "attribute"}


def _read_point(node: Node, where: str) -> tuple[float, float, int]:
    text = node.attributes.get("points", "")
    values = [number(value) for value in text.split(",")]
    if len(values) != 2 or values[0] is None or values[1] is None:
        raise DataError(f"{where}: point {shown(node.attributes.get('label'))} is at {shown(text)}, not x,y")
    if node.attributes.get("outside") == "1":
        return values[0], values[1], 0
    return values[0], values[1], 1 if node.attributes.get("occluded") == "1" else 2


def _choose(
    labels: Mapping[str, SkeletonLabel],
    images: list[_Image],
    tracks: list[Track],
    wanted: str | None,
    path: Path,
) -> SkeletonLabel:
    """The label of the people: the wanted one, else "person", else that of most skeletons."""
    counts: Counter[str] = Counter()
    names: dict[str, dict[str, None]] = {}
    for name, shape in _skeletons(images, tracks):
        counts[name] += 1
        names.setdefault(name, {}).update(dict.fromkeys(shape.points or ()))
    known = dict.fromkeys([*labels, *counts])
    if not known:
        raise DataError(f"{path}: no skeletons, neither labels nor shapes")
    if wanted is not None:
        if wanted not in known:
            raise UsageError(f"--category {shown(wanted)}: {path} has skeletons {', '.join(map(shown, known))}")
        chosen = wanted
    else:
        people = [name for name in known if name.casefold() == "person"]
        chosen = max(people or known, key=lambda name: counts[name])
    label = labels.get(chosen)
    if label is not None and label.names:
        return label
    return SkeletonLabel(chosen, tuple(names.get(chosen, {})))


def _skeletons(images: list[_Image], tracks: list[Track]) -> Iterator[tuple[str, Shape]]:
    for image in images:
        for shape in image.shapes:
            if shape.points is not None:
                yield shape.attributes.get("label", ""), shape
    for track in tracks:
        for shape in track.shapes.values():
            if shape.points is not None:
                yield track.attributes.get("label", ""), shape


def _make(
    label: SkeletonLabel,
    task: _Task,
    images: list[_Image],
    tracks: list[Track],
    left_out: Counter[str],
    path: Path,
) -> AnnotationSet:
    keypoint_set = make_set(label.name, label.names, label.limbs)
    pictures = [_picture(image, label, keypoint_set, left_out) for image in images]
    videos: tuple[Video, ...] = ()
    if task.video is not None and (tracks or (not images and task.span.frames is not None)):
        videos = (_video(task),)
        frames = people_of_tracks(tracks, label, keypoint_set, task.span, left_out, path)
        pictures += _frames(videos[0], frames, task.span, path)
    things = ", ".join(f"{thing} ({count})" for thing, count in left_out.items())
    notes = (f"not read: {things}",) if things else ()
    return AnnotationSet(keypoint_set, tuple(pictures), videos, label.name, notes=notes)


def _video(task: _Task) -> Video:
    assert task.video is not None
    span = task.span
    return Video(task.video.name, task.video.size, span.frames if span.step == 1 and not span.start else None)


def _frames(video: Video, people: Mapping[int, list[Person]], span: Span, path: Path) -> Iterator[Picture]:
    numbers = sorted({*people, *span.numbers(MOST_FRAMES, path)})
    for index in numbers:
        yield Picture(frame_name(video.name, index), video.size, tuple(people.get(index, ())), 0, index)


def _picture(image: _Image, label: SkeletonLabel, keypoint_set: KeypointSet, left_out: Counter[str]) -> Picture:
    own = image.attributes
    width, height = _whole(own.get("width", "")), _whole(own.get("height", ""))
    extra = {k: v for k, v in own.items() if k not in ("id", "name", "width", "height")}
    people = tuple(_people(image.shapes, label, keypoint_set, left_out))
    return Picture(own.get("name", ""), (width, height) if width and height else None, people, extra=extra)


def _people(
    shapes: list[Shape], label: SkeletonLabel, keypoint_set: KeypointSet, left_out: Counter[str]
) -> Iterator[Person]:
    """The people of an image: skeletons with the boxes of their groups, and boxes alone."""
    boxes: dict[str, list[Shape]] = {}
    for shape in shapes:
        if shape.box is not None and shape.group:
            boxes.setdefault(shape.group, []).append(shape)
    used: set[int] = set()
    paired: dict[int, Shape] = {}
    for shape in shapes:
        if shape.points is not None and shape.attributes.get("label") == label.name and shape.group:
            free = [box for box in boxes.get(shape.group, ()) if id(box) not in used]
            if free:
                paired[id(shape)] = free[0]
                used.add(id(free[0]))
    for shape in shapes:
        name = shape.attributes.get("label", "")
        if shape.points is not None:
            if name != label.name:
                left_out[f"skeletons {shown(name)}"] += 1
                continue
            box = paired.get(id(shape))
            yield make_person(shape, box.box if box else None, label, keypoint_set, left_out)
        elif id(shape) not in used:
            if name in (label.name, f"{label.name}_box"):
                yield make_person(shape, shape.box, label, keypoint_set, left_out)
            else:
                left_out[f"boxes {shown(name)}"] += 1


def make_person(
    shape: Shape, box: Box | None, label: SkeletonLabel, keypoint_set: KeypointSet, left_out: Counter[str]
) -> Person:
    """A person of a skeleton, or of a box without one."""
    keypoints = shape.keypoints(label.names, left_out) if shape.points is not None else unlabelled(keypoint_set)
    return Person(keypoints, box, track_of(shape.fields.get("track_id")), extra=without_own(shape.fields))
