"""Smoothing that looks ahead: forward and backward over a clip, in memory that does not grow with it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise

import numpy as np

from posecli.geometry import Float64Array
from posecli.tracking import kalman
from posecli.tracking.kalman import Motion
from posecli.tracking.smoothing import (
    SHORTEST,
    People,
    SmoothOptions,
    advance,
    begin,
    predict,
    sizes,
    smoothed,
    variances,
)
from posecli.types import FloatArray, IntArray, Poses

Item = tuple[float, Poses]
# A filled row's scores are interpolated and lowered by it, since nothing was seen.
_FILLED_SHARE = 0.5
# Frames in memory, however high the frame rate.
_MOST_FRAMES = 600


@dataclass(frozen=True, eq=False)
class _Past:
    """A track before the frames at hand: its state at the last of them, and the last sight, one row of Poses."""

    person: People
    time: float
    sight: Poses


@dataclass(frozen=True, eq=False)
class _Segment:
    """A track without a pause longer than the memory: frame → row, in order, and what was before them."""

    id: int
    past: _Past | None
    rows: dict[int, int] = field(default_factory=dict)


def smooth_offline(
    items: Iterable[Item], options: SmoothOptions | None = None, *, block: float = 1.0, lookahead: float = 1.0
) -> Iterator[Poses]:
    """Smoothed Poses for each (seconds, Poses with track ids), one for one and in order.

    The filter of `smoothing` runs forward, then a Rauch-Tung-Striebel smoother backward, so that what comes later
    counts too: nothing lags, and outliers weigh less. A track that pauses for no more than options.memory seconds
    is filled: rows with filled=True, keypoints where the smoother has them (the same as raw_keypoints), boxes and
    scores interpolated, the scores then halved. Frames are done `block` seconds at a time with `lookahead` seconds
    after them at hand, which should be longer than options.memory. Poses without track ids are left as they are.
    """
    options = options or SmoothOptions()
    waiting: list[Item] = []
    past: dict[int, _Past] = {}
    for item in items:
        waiting.append(item)
        if item[0] - waiting[0][0] >= block + lookahead or len(waiting) >= _MOST_FRAMES:
            count = max(1, sum(time - waiting[0][0] < block for time, _ in waiting[: _MOST_FRAMES // 2]))
            done, past = _window(waiting, count, past, options)
            yield from done
            del waiting[:count]
    yield from _window(waiting, len(waiting), past, options)[0] if waiting else ()


def _window(
    items: Sequence[Item], count: int, past: Mapping[int, _Past], options: SmoothOptions
) -> tuple[list[Poses], dict[int, _Past]]:
    """The first count frames smoothed with all items at hand, and what the next frames must know of them."""
    segments = _segments(items, past, options.memory)
    if not segments:
        return [poses for _, poses in items[:count]], {}
    predicted, filtered, agility = _forward(items, segments, options)
    motions = _backward(items, predicted, filtered)
    columns: list[dict[int, int]] = [{} for _ in items]
    for column, segment in enumerate(segments):
        for frame, row in segment.rows.items():
            columns[frame][row] = column
    fills = _fills(items, segments)
    result = []
    for frame, (_, poses) in enumerate(items[:count]):
        if poses.track_ids is None and len(poses):
            result.append(poses)
            continue
        seen = smoothed(poses, motions[frame][[columns[frame][row] for row in range(len(poses))]])
        seen = replace(seen, filled=np.zeros(len(poses), bool), track_ids=_ids(poses))
        filled = [_filled(row, motions[frame][[column]]) for column, row in fills.get(frame, [])]
        result.append(_join([seen, *filled]))
    return result, _remember(items, count, segments, filtered[count - 1], agility[count - 1], options)


def _segments(items: Sequence[Item], past: Mapping[int, _Past], memory: float) -> list[_Segment]:
    """Those seen in the items. A pause longer than the memory ends one and begins another."""
    current = {track: _Segment(track, before) for track, before in past.items()}
    last_seen = {track: before.time for track, before in past.items()}
    segments = list(current.values())
    for frame, (time, poses) in enumerate(items):
        for row, track in enumerate(_ids(poses).tolist()):
            if track not in current or time - last_seen[track] > memory:
                current[track] = _Segment(track, None)
                segments.append(current[track])
            current[track].rows[frame] = row
            last_seen[track] = time
    return [segment for segment in segments if segment.rows]


def _forward(
    items: Sequence[Item], segments: Sequence[_Segment], options: SmoothOptions
) -> tuple[list[Motion], list[Motion], list[Float64Array]]:
    """Motion of all segments predicted for and filtered at each frame, and their agility after it.

    Before its first sight a segment's state means nothing, and nobody looks at it.
    """
    people = People.join([_start(items, segment, options) for segment in segments])
    motion, agility, seen = people.motion, people.agility, people.seen
    predictions, filtered, agilities = [], [], []
    rows = np.array([[segment.rows.get(frame, -1) for segment in segments] for frame in range(len(items))])
    begins = np.array([0 if segment.past else min(segment.rows) for segment in segments])
    for frame, (time, poses) in enumerate(items):
        present = rows[frame] >= 0
        measured = motion.position.copy()
        variance = np.full(measured.shape, np.inf)
        size = people.sizes.copy()
        if present.any():
            row = rows[frame][present]
            measured[present], variance[present] = poses.keypoints[row], variances(poses, options)[row]
            size[present] = sizes(poses)[row]
        gap = np.maximum(time - seen, 0.0) if frame == 0 else np.full(len(segments), time - items[frame - 1][0])
        predicted = predict(motion, agility, size, gap)
        after, agility_after = advance(predicted, agility, gap, measured, variance, options)
        # Who begins here, or has not yet begun, keeps the state that the first sight gives.
        begun = (begins < frame) | np.array([frame == 0 and segment.past is not None for segment in segments])
        motion = after.where(begun, people.motion)
        agility = np.where(begun[:, None], agility_after, people.agility)
        predictions.append(predicted)
        filtered.append(motion)
        agilities.append(agility)
    return predictions, filtered, agilities


def _start(items: Sequence[Item], segment: _Segment, options: SmoothOptions) -> People:
    if segment.past is not None:
        return segment.past.person
    frame, row = next(iter(segment.rows.items()))
    poses = _row(items[frame][1], row)
    return begin(items[frame][0], poses, variances(poses, options), options)


def _backward(items: Sequence[Item], predicted: Sequence[Motion], filtered: Sequence[Motion]) -> list[Motion]:
    result = [filtered[-1]]
    for frame in range(len(items) - 2, -1, -1):
        gap = max(items[frame + 1][0] - items[frame][0], SHORTEST)
        result.append(kalman.smooth(filtered[frame], predicted[frame + 1], result[-1], gap))
    result.reverse()
    return result


def _fills(items: Sequence[Item], segments: Sequence[_Segment]) -> dict[int, list[tuple[int, Poses]]]:
    """Frame → (column, interpolated row) of those who are seen before and after it, but not in it."""
    result: dict[int, list[tuple[int, Poses]]] = {}
    for column, segment in enumerate(segments):
        sights = [] if segment.past is None else [(-1, segment.past.time, segment.past.sight)]
        sights += [(frame, items[frame][0], _row(items[frame][1], row)) for frame, row in segment.rows.items()]
        for (before, t0, a), (after, t1, b) in pairwise(sights):
            for frame in range(before + 1, after):
                share = (items[frame][0] - t0) / max(t1 - t0, SHORTEST)
                result.setdefault(frame, []).append((column, _between(a, b, share)))
    return result


def _between(a: Poses, b: Poses, share: float) -> Poses:
    """A row between two of one track; what was scored is halved."""

    def mix(first: FloatArray, second: FloatArray, factor: float = 1.0) -> FloatArray:
        return np.asarray(factor * ((1 - share) * first + share * second), np.float32)

    return replace(
        a,
        boxes=mix(a.boxes, b.boxes),
        scores=mix(a.scores, b.scores, _FILLED_SHARE),
        box_scores=mix(a.box_scores, b.box_scores, _FILLED_SHARE),
        person_scores=mix(a.person_scores, b.person_scores, _FILLED_SHARE),
    )


def _filled(row: Poses, motion: Motion) -> Poses:
    poses = smoothed(row, motion)
    return replace(poses, raw_keypoints=poses.keypoints, filled=np.ones(1, bool))


def _remember(
    items: Sequence[Item],
    count: int,
    segments: Sequence[_Segment],
    motion: Motion,
    agility: Float64Array,
    options: SmoothOptions,
) -> dict[int, _Past]:
    """Of tracks that may go on after the first count frames."""
    now = items[count - 1][0]
    result = {}
    for column, segment in enumerate(segments):
        frames = [frame for frame in segment.rows if frame < count]
        if frames:
            time, poses = items[frames[-1]]
            sight = _row(poses, segment.rows[frames[-1]])
        elif segment.past is not None:
            time, sight = segment.past.time, segment.past.sight
        else:
            continue
        if now - time <= options.memory:
            person = People(
                np.array([segment.id]), motion[[column]], agility[[column]], sizes(sight), np.full(1, float(now))
            )
            result[segment.id] = _Past(person, time, sight)
    return result


def _ids(poses: Poses) -> IntArray:
    return np.zeros(0, np.int64) if poses.track_ids is None else poses.track_ids


def _row(poses: Poses, row: int) -> Poses:
    return replace(poses, **{name: v[[row]] for name, v in vars(poses).items() if v is not None})


def _join(parts: Sequence[Poses]) -> Poses:
    if len(parts) == 1:
        return parts[0]
    return Poses(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Poses)))
