"""Where to look first: all people of a run, sorted by how unusual they are, with the reasons.

Four reasons, each measured for a person of a frame:

- deviation: the mean predicted standard deviation of the keypoints, relative to the root of the box's area.
- scores: 1 minus the mean score of the keypoints.
- swap: left and right seem exchanged. Either the pairs of keypoints agree better with the track's last frame when
  they are exchanged (by which length, relative to the root of the area), or eyes, shoulders and hips contradict each
  other in which side is which (the cosine between their lines, if it is negative).
- jump: the largest distance of a measured keypoint from the offline smoother's path, in its standard deviations, which
  count as at least 1 % of the person's size.

Each is divided by its 95th percentile over the run, or by its value in UNUSUAL where that is larger, so that a good run
has few needs: 1 means as unusual as the worst 5 %. A reason counts 3 at most; the score is the sum. Of a track's people
within `apart` seconds only the one of the highest score is listed, since its neighbours need the same correction.
"""

from array import array
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from posecli.corrections.corrections import Corrections
from posecli.corrections.merge import person_to_coco
from posecli.geometry import Float64Array
from posecli.keypoints import KeypointSet
from posecli.tracking.offline import smooth_offline
from posecli.types import Poses

# Reason → the least value that counts as 1.
UNUSUAL: Mapping[str, float] = {"deviation": 0.02, "scores": 0.3, "swap": 0.2, "jump": 4.0}
_MOST = 3.0
# Seconds of a track's frame before that it is compared with.
_MOST_GAP = 0.5
_LEAST_STD = 0.01
# Pairs whose order tells which side is which.
_TRUNK = ("eye", "shoulder", "hip")


@dataclass(frozen=True)
class Need:
    """A person who should be looked at. person: key in the frame. track: id, None without. reasons: name → value."""

    input: str
    frame: int
    person: str
    track: int | None
    score: float
    reasons: dict[str, float]


class Needs(Sequence[Need]):
    """The people by need, the highest first; each is made when it is asked for. 40 bytes a person of the run."""

    def __init__(self, names: Sequence[str], found: "_Found", values: NDArray[np.float32], order: NDArray[np.int64]):
        self._names, self._found, self._values, self._order = names, found, values, order

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Need: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Need]: ...

    def __getitem__(self, index: int | slice) -> Need | Sequence[Need]:
        if isinstance(index, slice):
            return Needs(self._names, self._found, self._values, self._order[index])
        row, found = int(self._order[index]), self._found
        key, track = found.keys[row], found.tracks[row]
        reasons = dict(zip(UNUSUAL, self._values[row].tolist(), strict=True))
        return Need(
            self._names[found.inputs[row]],
            found.frames[row],
            f"p{key}" if key >= 0 else f"a{-key}",
            None if track < 0 else track,
            sum(reasons.values()),
            reasons,
        )

    def by(self, reason: str) -> "Needs":
        """The same people sorted by one reason, those who have it. Raises KeyError for an unknown one."""
        column = self._values[self._order, list(UNUSUAL).index(reason)] if reason in UNUSUAL else None
        if column is None:
            raise KeyError(reason)
        order = np.argsort(-column, kind="stable")
        return Needs(self._names, self._found, self._values, self._order[order[column[order] > 0]])


class _Found:
    """All people of a run in arrays. keys: row of the record's people, or minus the edit that added the person."""

    def __init__(self) -> None:
        self.inputs, self.frames, self.keys, self.tracks = array("i"), array("i"), array("i"), array("q")
        self.times, self.values = array("d"), array("f")

    def add(self, where: int, frame: "_People", values: Float64Array) -> None:
        """Add the people of a frame who were not corrected or accepted; values (N, reasons)."""
        for row in np.flatnonzero(frame.open).tolist():
            self.inputs.append(where)
            self.frames.append(frame.index)
            self.keys.append(frame.keys[row])
            self.tracks.append(int(frame.tracks[row]))
            self.times.append(frame.time)
            self.values.extend(values[row].tolist())


@dataclass(frozen=True, eq=False)
class _People:
    """The N people of a frame. points (N, K, 2), labelled (N, K), std (N, K, 2), scores (N, K), boxes (N, 4) xyxy.

    measured: (N, K, 2), before smoothing. tracks: -1 without. open: neither corrected nor accepted.
    """

    index: int
    time: float
    keys: Sequence[int]
    points: Float64Array
    labelled: NDArray[np.bool_]
    measured: Float64Array
    std: Float64Array
    scores: Float64Array
    boxes: Float64Array
    tracks: NDArray[np.int64]
    open: NDArray[np.bool_]

    @cached_property
    def size(self) -> Float64Array:
        """Root of the boxes' areas (N,) in pixels, at least 1."""
        sides = np.maximum(self.boxes[:, 2:] - self.boxes[:, :2], 0.0)
        return np.asarray(np.sqrt(np.maximum(np.prod(sides, axis=1), 1.0)))


def needs(corrections: Corrections, *, apart: float = 0.5) -> Needs:
    """All people who were neither corrected, added nor accepted, by need. apart: see above. Raises DataError.

    Reads all records once, about a millisecond a frame of a clip; memory is 40 bytes a person, whatever their frames.
    """
    found = _Found()
    for place, info_name in enumerate(corrections.run_inputs.names):
        _measure(corrections, place, info_name, found)
    values = np.frombuffer(found.values, np.float32).reshape(-1, len(UNUSUAL))
    if not len(values):
        return Needs(corrections.run_inputs.names, found, values, np.zeros(0, np.int64))
    scale = np.maximum(np.quantile(values, 0.95, axis=0), np.array(list(UNUSUAL.values())))
    values = np.minimum(values / scale, _MOST).astype(np.float32)
    order = np.argsort(-values.sum(axis=1), kind="stable")
    return Needs(corrections.run_inputs.names, found, values, _apart(found, order, apart))


def _apart(found: _Found, order: NDArray[np.int64], seconds: float) -> NDArray[np.int64]:
    """The rows without those whose track has one of a higher score within so many seconds."""
    taken: dict[tuple[int, int], list[float]] = {}
    kept = []
    for row in order.tolist():
        if found.tracks[row] >= 0:
            times = taken.setdefault((found.inputs[row], found.tracks[row]), [])
            time = found.times[row]
            place = bisect_left(times, time)
            if any(abs(other - time) < seconds for other in times[max(0, place - 1) : place + 1]):
                continue
            insort(times, time)
        kept.append(row)
    return np.array(kept, np.int64)


def _measure(corrections: Corrections, place: int, name: str, found: _Found) -> None:
    """Add the people of an input. Frames wait until the smoother has passed them, nine seconds at most."""
    waiting: deque[tuple[_People, Float64Array]] = deque()

    def items() -> Iterator[tuple[float, Poses]]:
        before: dict[int, tuple[float, Float64Array]] = {}
        for frame in _frames(corrections, name):
            values = np.zeros((len(frame.keys), len(UNUSUAL)))
            if len(values):
                values[:, 0] = _deviation(frame)
                values[:, 1] = 1 - frame.scores.mean(axis=1)
                values[:, 2] = np.maximum(
                    _exchanged(frame, before, corrections.keypoint_set), _contradictory(frame, corrections.keypoint_set)
                )
            _remember(before, frame)
            waiting.append((frame, values))
            yield frame.time, _poses(frame)

    for smoothed in smooth_offline(items(), block=8.0):
        frame, values = waiting.popleft()
        if len(values):
            values[:, 3] = _jump(frame, smoothed)
        found.add(place, frame, values)


def _frames(corrections: Corrections, name: str) -> Iterator[_People]:
    count = len(corrections.keypoint_set)
    for index, line in enumerate(corrections.run_inputs.read_all(name)):
        people, keys, done = line["people"], list(range(len(line["people"]))), [False] * len(line["people"])
        if corrections.changes(name, index):
            state = corrections.state(name, index, line)
            people = [person_to_coco(person) for person in state.people]
            keys = [int(person.key[1:]) * (1 if person.key[0] == "p" else -1) for person in state.people]
            done = [bool(person.corrected) or person.accepted for person in state.people]
        yield _arrays(index, index if line["time_s"] is None else line["time_s"], people, keys, done, count)


def _arrays(
    index: int, time: float, people: Sequence[Mapping[str, Any]], keys: list[int], done: list[bool], count: int
) -> _People:
    def stacked(field: str, *shape: int) -> Float64Array:
        return np.array([person[field] for person in people], np.float64).reshape(len(people), *shape)

    keypoints, boxes = stacked("keypoints", count, 3), stacked("bbox", 4)
    boxes[:, 2:] += boxes[:, :2]
    measured = keypoints[..., :2].copy()
    for row, person in enumerate(people):
        if "keypoints_raw" in person and not done[row]:
            measured[row] = np.reshape(person["keypoints_raw"], (count, 2))
    return _People(
        index,
        time,
        keys,
        keypoints[..., :2],
        keypoints[..., 2] > 0,
        measured,
        stacked("keypoint_std", count, 2),
        stacked("keypoint_scores", count),
        boxes,
        np.array([person.get("track_id", -1) for person in people], np.int64),
        ~np.array(done, bool),
    )


def _deviation(frame: _People) -> Float64Array:
    counts = np.maximum(frame.labelled.sum(axis=1), 1)
    return np.asarray((frame.std.mean(axis=-1) * frame.labelled).sum(axis=1) / counts / frame.size)


def _remember(before: dict[int, tuple[float, Float64Array]], frame: _People) -> None:
    for track in [track for track, (time, _) in before.items() if frame.time - time > _MOST_GAP]:
        del before[track]
    for track, points in zip(frame.tracks.tolist(), frame.measured, strict=True):
        if track >= 0:
            before[track] = frame.time, points


def _exchanged(
    frame: _People, before: Mapping[int, tuple[float, Float64Array]], keypoint_set: KeypointSet
) -> Float64Array:
    """By how much (N,) the pairs fit the track's frame before better with left and right exchanged, over the size."""
    result = np.zeros(len(frame.keys))
    pairs = np.array(keypoint_set.flip_pairs)
    known = [row for row, track in enumerate(frame.tracks.tolist()) if track in before]
    if not len(pairs) or not known:
        return result
    now = frame.measured[known][:, pairs]
    then = np.stack([before[int(frame.tracks[row])][1] for row in known])[:, pairs]
    plain, turned = (np.linalg.norm(now - other, axis=-1).mean(axis=-1) for other in (then, then[:, :, ::-1]))
    result[known] = np.maximum(plain - turned, 0.0).max(axis=1) / frame.size[known]
    return result


def _contradictory(frame: _People, keypoint_set: KeypointSet) -> Float64Array:
    """How clearly (N,) eyes, shoulders and hips contradict each other in their sides, from 0 to 1."""
    pairs = _trunk(keypoint_set)
    result = np.zeros(len(frame.keys))
    if len(pairs) < 2:
        return result
    left, right = np.array(pairs).T
    across = frame.points[:, left] - frame.points[:, right]
    length = np.maximum(np.hypot(across[..., 0], across[..., 1]), 1e-6)
    deviation = (frame.std[:, left] + frame.std[:, right]).sum(axis=-1) / 4
    # A line that is not longer than its error says nothing.
    clear = np.clip(length / np.maximum(deviation, _LEAST_STD * frame.size[:, None]) / 3 - 1, 0.0, 1.0)
    clear *= frame.labelled[:, left] & frame.labelled[:, right]
    lines = across / length[..., None]
    against = np.maximum(-(lines[:, 1:] * lines[:, :-1]).sum(axis=-1), 0.0)
    return np.asarray((against * clear[:, 1:] * clear[:, :-1]).max(axis=1))


@lru_cache(maxsize=4)
def _trunk(keypoint_set: KeypointSet) -> tuple[tuple[int, int], ...]:
    """The pairs of _TRUNK that the keypoint set has."""
    found = (next((p for p in keypoint_set.flip_pairs if _is_part(keypoint_set, p, part)), None) for part in _TRUNK)
    return tuple(pair for pair in found if pair is not None)


def _is_part(keypoint_set: KeypointSet, pair: tuple[int, int], part: str) -> bool:
    return pair[0] != pair[1] and keypoint_set.names[pair[0]].casefold().endswith(part)


def _poses(frame: _People) -> Poses:
    """What the smoother needs. People without a track are not smoothed."""
    tracked = bool(len(frame.tracks)) and bool((frame.tracks >= 0).all())
    ones = np.ones(len(frame.keys), np.float32)
    return Poses(
        keypoints=frame.measured.astype(np.float32),
        std=frame.std.astype(np.float32),
        scores=frame.scores.astype(np.float32),
        boxes=frame.boxes.astype(np.float32),
        box_scores=ones,
        person_scores=ones,
        track_ids=frame.tracks if tracked else None,
    )


def _jump(frame: _People, smoothed: Poses) -> Float64Array:
    """The largest distance (N,) of a keypoint from the smoother's path, in standard deviations."""
    if smoothed.track_ids is None:
        return np.zeros(len(frame.keys))
    distance = np.linalg.norm(frame.measured - smoothed.keypoints[: len(frame.keys)], axis=-1)
    deviation = np.maximum(frame.std.mean(axis=-1), _LEAST_STD * frame.size[:, None])
    return np.asarray((distance / deviation * frame.labelled).max(axis=1))
