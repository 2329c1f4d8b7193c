"""CVAT's tracks: shapes at frames, kept or interpolated between them, as people of frames."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from posecli.annotations.document import number, shown
from posecli.convert.cvat_labels import SkeletonLabel
from posecli.convert.dataset import Person, unlabelled
from posecli.convert.fields import track_of, without_own
from posecli.convert.shapes import Shape
from posecli.errors import DataError
from posecli.keypoints import KeypointSet

# Shapes that interpolation may add, and the largest number of a frame.
MOST_ADDED = 2_000_000
LAST_FRAME = 10**8


@dataclass(frozen=True)
class Span:
    """The frames of a task: numbers from start to stop (with it, None where unknown) in steps. size: their number."""

    start: int = 0
    stop: int | None = None
    step: int = 1
    size: int | None = None

    @property
    def last(self) -> int | None:
        """The number of the last frame, None where unknown."""
        if self.size is not None:
            return self.start + (self.size - 1) * self.step
        return self.stop

    @property
    def frames(self) -> int | None:
        """Number of frames, None where unknown."""
        return None if self.last is None else max(0, (self.last - self.start) // self.step + 1)

    def numbers(self, most: int, path: Path) -> Iterable[int]:
        """The numbers of all frames, none where they are unknown. Raises DataError for more than most."""
        if self.frames is None or self.last is None:
            return ()
        if self.frames > most:
            raise DataError(f"{path}: a task of {self.frames} frames, more than {most}")
        return range(self.start, self.last + 1, self.step)


@dataclass
class Track:
    """A track. place: its number in the file. shapes: by frame."""

    place: int
    attributes: Mapping[str, str]
    shapes: dict[int, Shape] = field(default_factory=dict)

    def add(self, shape: Shape, where: str) -> None:
        """Add a shape. Raises DataError for a frame that is no number."""
        given = shape.attributes.get("frame", "")
        frame = number(given)
        if frame is None or frame != int(frame) or not 0 <= frame <= LAST_FRAME:
            raise DataError(f"{where}: frame {shown(given)}, not a number of a frame")
        self.shapes[int(frame)] = shape

    @property
    def group(self) -> str:
        """The group's id, "" without one."""
        group = self.attributes.get("group_id", "")
        return "" if group == "0" else group


def _gaps(track: Track, span: Span) -> Iterator[tuple[int, range, int | None]]:
    """Frame of each visible shape, the frames after it without a shape of their own, and the next shape's frame."""
    frames = sorted(track.shapes)
    for place, frame in enumerate(frames):
        after = frames[place + 1] if place + 1 < len(frames) else None
        # The last shape stays to the end of the task.
        end = after if after is not None else frame if span.last is None else span.last + span.step
        if not track.shapes[frame].outside:
            yield frame, range(frame + span.step, end, span.step), after


def _visible(track: Track, span: Span) -> dict[int, Shape]:
    """The shapes of a track by frame, without those outside; between two shapes they are interpolated."""
    found: dict[int, Shape] = {}
    for frame, gap, after in _gaps(track, span):
        shape = found[frame] = track.shapes[frame]
        held = replace(shape, fields={})
        following = None if after is None or track.shapes[after].outside else track.shapes[after]
        for between in gap:
            if following is None or after is None:
                found[between] = held
            else:
                found[between] = shape.towards(following, (between - frame) / (after - frame))
    return found


def people_of_tracks(
    tracks: list[Track],
    label: SkeletonLabel,
    keypoint_set: KeypointSet,
    span: Span,
    left_out: Counter[str],
    path: Path,
) -> dict[int, list[Person]]:
    """The people by frame, in the order of the tracks: of skeletons with the box of their group, and of boxes alone."""
    skeletons, boxes = [], []
    for track in tracks:
        name, kinds = track.attributes.get("label", ""), {shape.box is None for shape in track.shapes.values()}
        if kinds == {True} and name == label.name:
            skeletons.append(track)
        elif kinds == {False}:
            boxes.append(track)
        elif kinds:
            left_out[f"tracks {shown(name)}"] += 1
    pairs: list[tuple[Track | None, Track | None]] = []
    free = {track.group: track for track in reversed(boxes) if track.group}
    pairs += [(track, free.pop(track.group, None) if track.group else None) for track in skeletons]
    used = {id(box) for _, box in pairs if box is not None}
    for track in boxes:
        if id(track) in used:
            continue
        if track.attributes.get("label", "") in (label.name, f"{label.name}_box"):
            pairs.append((None, track))
        else:
            left_out[f"boxes {shown(track.attributes.get('label', ''))}"] += 1
    used_tracks = [track for pair in pairs for track in pair if track is not None]
    if sum(len(gap) for track in used_tracks for _, gap, _ in _gaps(track, span)) > MOST_ADDED:
        raise DataError(f"{path}: tracks that go on for more than {MOST_ADDED} frames without a shape")
    found: dict[int, list[tuple[int, Person]]] = {}
    for pair, own in zip(pairs, _ids(pairs), strict=True):
        order = min(track.place for track in pair if track is not None)
        shapes, box_shapes = (_visible(track, span) if track is not None else {} for track in pair)
        for frame in sorted({*shapes, *box_shapes}):
            skeleton, box = shapes.get(frame), box_shapes.get(frame)
            shape = skeleton or box
            assert shape is not None
            keypoints = skeleton.keypoints(label.names, left_out) if skeleton else unlabelled(keypoint_set)
            person = Person(keypoints, box.box if box else None, own, extra=without_own(shape.fields))
            found.setdefault(frame, []).append((order, person))
    return {frame: [person for _, person in sorted(rows, key=lambda row: row[0])] for frame, rows in found.items()}


def _ids(pairs: list[tuple[Track | None, Track | None]]) -> list[int | None]:
    """The ids of the people: the attribute track_id where an earlier track does not have the same, else the track's.

    A track of one frame without that attribute is a shape, which has no id: CVAT writes shapes so.
    """
    wanted: list[int | None] = []
    taken: set[int] = set()
    alone: list[bool] = []
    for pair in pairs:
        tracks = [track for track in pair if track is not None]
        shapes = [shape for track in tracks for _, shape in sorted(track.shapes.items())]
        own = next((found for shape in shapes if (found := track_of(shape.fields.get("track_id"))) is not None), None)
        seen = {frame for track in tracks for frame, shape in track.shapes.items() if not shape.outside}
        alone.append(own is None and len(seen) <= 1)
        if own in taken:
            own = None
        if own is not None:
            taken.add(own)
        wanted.append(own)
    result: list[int | None] = []
    for pair, own, single in zip(pairs, wanted, alone, strict=True):
        if own is None and not single:
            track = pair[0] or pair[1]
            assert track is not None
            own = track_of(track.attributes.get("id"))
            if own is None or own in taken:
                own = max(taken, default=0) + 1
            taken.add(own)
        result.append(own)
    return result
