"""Reader of Label Studio's tasks of videos: sequences of rectangles and of vertices, as people of frames."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posecli.annotations.document import number, shown
from posecli.convert.dataset import Box, Person
from posecli.convert.fields import track_of
from posecli.convert.label_studio_regions import DECIMALS
from posecli.convert.label_studio_values import Entry
from posecli.errors import DataError
from posecli.keypoints import KeypointSet

# Frames of a video, and shapes that interpolation may add to it.
MOST_FRAMES = 10_000_000
MOST_SHAPES = 2_000_000

Vertices = Mapping[str, tuple[float, float]]


@dataclass
class Frames:
    """The shapes of a region at its keyframes, frames counted from 0. enabled: whether it is there after one, too."""

    id: str
    parent: str
    track: int | None
    boxes: dict[int, Box] = field(default_factory=dict)
    vertices: dict[int, Vertices] = field(default_factory=dict)
    enabled: dict[int, bool] = field(default_factory=dict)


@dataclass
class Clip:
    """A video's task. frames: their number, None where unknown; start, stop, step: of those that are annotated."""

    regions: list[Frames]
    labels: Counter[str]
    frames: int | None
    size: tuple[int, int] | None
    start: int = 0
    stop: int | None = None
    step: int = 1


def read_clip(results: Sequence[Any], data: Entry, where: str, left_out: Counter[str]) -> Clip:
    """The regions of a video's task. Raises DataError for invalid ones."""
    clip = Clip([], Counter(), _count(data.get("frames")), _size(data.get("width"), data.get("height")))
    start, step = data.get("frame_start"), data.get("frame_step")
    clip.start = start if type(start) is int and 0 <= start < MOST_FRAMES else 0
    clip.stop = _count(data.get("frame_stop"))
    clip.step = step if type(step) is int and 0 < step < MOST_FRAMES else 1
    for result in results:
        if not isinstance(result, dict) or not isinstance(value := result.get("value", {}), dict):
            raise DataError(f"{where}: a result is {shown(result)}, not an object with a value")
        kind = str(result.get("type", ""))
        if kind not in ("videorectangle", "videovector", "videovectorlabels"):
            left_out[f"results of type {shown(kind)}"] += 1
            continue
        size = _size(result.get("original_width"), result.get("original_height")) or clip.size
        if size is None:
            raise DataError(f"{where}: original_width and original_height are needed, or data with width and height")
        clip.size = clip.size or size
        clip.frames = clip.frames or _count(value.get("framesCount"))
        labels: list[Any] = next(
            (value[key] for key in ("labels", "videovectorlabels") if isinstance(value.get(key), list)), []
        )
        clip.labels.update(label for label in labels[:1] if isinstance(label, str))
        clip.regions.append(_region(result, value, size, len(clip.regions), where))
    return clip


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 < value <= MOST_FRAMES else None


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    sides = number(width), number(height)
    if sides[0] is None or sides[1] is None or not all(side and 1 <= side < 2**31 for side in sides):
        return None
    return int(sides[0]), int(sides[1])


def _region(result: Entry, value: Entry, size: tuple[int, int], place: int, where: str) -> Frames:
    meta = result.get("meta")
    own = meta.get("posecli") if isinstance(meta, dict) else None
    track = track_of(own.get("track_id")) if isinstance(own, dict) else None
    region = Frames(str(result.get("id", f"#{place}")), str(result.get("parentID") or ""), track)
    sequence = value.get("sequence")
    if not isinstance(sequence, list):
        raise DataError(f"{where}: region {shown(region.id)} has no sequence")
    for entry in sequence:
        frame = number(entry.get("frame")) if isinstance(entry, dict) else None
        if frame is None or frame != int(frame) or not 1 <= frame <= MOST_FRAMES:
            raise DataError(f"{where}: region {shown(region.id)}: {shown(entry)} has no number of a frame from 1")
        index = int(frame) - 1
        region.enabled[index] = entry.get("enabled") is not False
        if "vertices" in entry:
            region.vertices[index] = _vertices(entry["vertices"], size, f"{where}: region {shown(region.id)}")
        else:
            sides = [number(entry.get(key)) for key in ("x", "y", "width", "height")]
            x, y, width, height = (_pixels(s, size[i % 2], where) for i, s in enumerate(sides))
            region.boxes[index] = (x, y, width, height)
    return region


def _pixels(value: float | None, side: int, where: str) -> float:
    if value is None:
        raise DataError(f"{where}: a shape without x, y, width and height")
    return round(value / 100 * side, DECIMALS)


def _vertices(given: Any, size: tuple[int, int], where: str) -> Vertices:
    found = {}
    for place, vertex in enumerate(given if isinstance(given, list) else []):
        if not isinstance(vertex, dict):
            raise DataError(f"{where}: a vertex is {shown(vertex)}")
        name = vertex.get("id")
        x, y = (_pixels(number(vertex.get(key)), size[i], where) for i, key in enumerate(("x", "y")))
        found[name if isinstance(name, str) else f"#{place}"] = (x, y)
    return found


def clip_names(clip: Clip) -> Iterator[str]:
    """The names of the vertices."""
    for region in clip.regions:
        for vertices in region.vertices.values():
            yield from vertices


def frames_of_clip(
    clip: Clip, keypoint_set: KeypointSet, left_out: Counter[str]
) -> Iterator[tuple[int, tuple[Person, ...]]]:
    """Number and people of each frame; a rectangle and the vector that is its child are one person."""
    parents = {region.id: region for region in clip.regions if region.boxes}
    groups: list[tuple[Frames | None, Frames | None]] = []
    used = set()
    for region in clip.regions:
        if region.vertices:
            box = parents.get(region.parent)
            box = None if box is None or box.id in used else box
            used.add(box.id if box else "")
            groups.append((region, box))
    groups += [(None, region) for region in clip.regions if region.boxes and region.id not in used]
    order = {id(region): place for place, region in enumerate(clip.regions)}
    groups.sort(key=lambda pair: min(order[id(region)] for region in pair if region is not None))
    gaps = (gap for r in clip.regions for shapes in (r.boxes, r.vertices) for _, gap, _ in _gaps(shapes, r, clip))
    if sum(map(len, gaps)) > MOST_SHAPES:
        raise DataError(f"tracks that go on for more than {MOST_SHAPES} frames without a shape")
    found: dict[int, list[Person]] = {}
    for (vector, box), track in zip(groups, _tracks(groups), strict=True):
        shapes = _interpolated(vector.vertices, vector, clip) if vector else {}
        boxes = _interpolated(box.boxes, box, clip) if box else {}
        for frame in sorted({*shapes, *boxes}):
            keypoints = _keypoints(shapes.get(frame, {}), keypoint_set, left_out)
            found.setdefault(frame, []).append(Person(keypoints, boxes.get(frame), track))
    listed = range(clip.start, clip.stop or clip.frames or 0, clip.step)
    for frame in sorted({*found, *listed}):
        yield frame, tuple(found.get(frame, ()))


def _tracks(groups: Sequence[tuple[Frames | None, Frames | None]]) -> list[int | None]:
    """Track ids: those in the meta where they are distinct, else free numbers; none for people of one frame."""
    own = [next((r.track for r in pair if r is not None and r.track is not None), None) for pair in groups]
    taken: set[int] = set()
    result: list[int | None] = []
    for pair, track in zip(groups, own, strict=True):
        frames = {frame for r in pair if r is not None for frame in r.enabled}
        lasting = len(frames) > 1 or any(r is not None and any(r.enabled.values()) for r in pair)
        if track is not None and track in taken:
            track, lasting = None, True
        if track is None and lasting:
            track = max((*taken, *(value for value in own if value is not None)), default=0) + 1
        if track is not None:
            taken.add(track)
        result.append(track)
    return result


def _gaps(shapes: Mapping[int, Any], region: Frames, clip: Clip) -> Iterator[tuple[int, range, int | None]]:
    """Frame of each shape, the frames after it without a shape of their own, and the next shape's frame."""
    frames = sorted(shapes)
    for place, frame in enumerate(frames):
        after = frames[place + 1] if place + 1 < len(frames) else None
        end = after if after is not None else clip.frames or 0
        yield frame, range(frame + clip.step, end if region.enabled[frame] else 0, clip.step), after


def _interpolated(shapes: Mapping[int, Any], region: Frames, clip: Clip) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for frame, gap, after in _gaps(shapes, region, clip):
        shape = found[frame] = shapes[frame]
        for between in gap:
            share = 0.0 if after is None else (between - frame) / (after - frame)
            found[between] = shape if after is None else _between(shape, shapes[after], share)
    return found


def _between(one: Any, other: Any, share: float) -> Any:
    if isinstance(one, dict):
        return {name: _between(place, other.get(name, place), share) for name, place in one.items()}
    return tuple(round(a + (b - a) * share, DECIMALS) for a, b in zip(one, other, strict=True))


def _keypoints(vertices: Vertices, keypoint_set: KeypointSet, left_out: Counter[str]) -> tuple[float, ...]:
    """Keypoints by the vertices' ids where these are names, else by their order where there are as many."""
    names = keypoint_set.names
    if vertices and not set(vertices) & set(names) and len(vertices) == len(names):
        vertices = dict(zip(names, vertices.values(), strict=True))
    for name in vertices:
        left_out[f"vertices {shown(name)}"] += name not in names
    return tuple(value for name in names for value in ((*vertices[name], 2) if name in vertices else (0, 0, 0)))
