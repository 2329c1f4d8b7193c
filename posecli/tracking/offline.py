"""Non-causal smoothing: a forward filter and a backward smoother over a clip, in bounded memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from posecli.geometry import Float64Array
from posecli.tracking import kalman
from posecli.tracking.gaps import interpolated, joined
from posecli.tracking.kalman import KalmanState
from posecli.tracking.smoothing import (
    SHORTEST,
    SmoothedTracks,
    SmoothOptions,
    advance,
    begin,
    predict,
    sizes,
    smoothed,
    variances,
)
from posecli.types import IntArray, Poses

Item = tuple[float, Poses]
# Limit of the frames in memory at any frame rate.
_MOST_FRAMES = 600


@dataclass(frozen=True, eq=False)
class _Past:
    """A track before the current window: its state, and the time and Poses (one row) of its last detection."""

    state: SmoothedTracks
    time: float
    detection: Poses


@dataclass(frozen=True, eq=False)
class _Segment:
    """A track without a gap longer than max_gap: frame → row of that frame's Poses, in order, and its past."""

    id: int
    past: _Past | None
    rows: dict[int, int] = field(default_factory=dict)


def smooth_offline(
    items: Iterable[Item], options: SmoothOptions | None = None, *, block: float = 1.0, lookahead: float = 1.0
) -> Iterator[Poses]:
    """Smoothed Poses for each (seconds, Poses with track ids), one for one and in order.

    The filter of `smoothing` runs forward, then a Rauch-Tung-Striebel smoother backward, so that the result has no
    lag and outliers weigh less. Gaps of a track of at most options.max_gap seconds are filled: rows with filled=True,
    keypoints from the smoother (also as raw_keypoints), boxes and scores interpolated, the scores then halved.
    `block` seconds are smoothed at a time with `lookahead` seconds after them, which should be longer than
    options.max_gap. Poses without track ids are returned unchanged.
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


def smooth_track(
    times: Float64Array,
    sizes: Float64Array,
    measured: Float64Array,
    variance: Float64Array,
    certain: NDArray[np.bool_],
    options: SmoothOptions | None = None,
) -> KalmanState:
    """Smoothed states (F, K, 2) of one person at F times, from measurements with variances of their own.

    times (F,) in seconds, ascending; sizes (F,) in pixels. measured, variance: (F, K, 2), the variance infinite where
    nothing was measured, which is interpolated. certain: (F, K), see smoothing.advance. Memory grows with F.
    """
    options = options or SmoothOptions()
    speed = (options.initial_speed_std * sizes[0]) ** 2
    # A keypoint that is not measured at first starts anywhere within the person's size.
    finite = np.isfinite(variance[0])
    motion = kalman.start(measured[:1], np.where(finite, variance[0], sizes[0] ** 2)[None], speed)
    noise = np.full((1, measured.shape[1]), options.acceleration_noise)
    predictions, filtered = [motion], [motion]
    for frame in range(1, len(times)):
        gap = times[frame : frame + 1] - times[frame - 1]
        predicted = predict(motion, noise, sizes[frame : frame + 1], gap)
        now = slice(frame, frame + 1)
        motion, noise = advance(predicted, noise, gap, measured[now], variance[now], options, certain[now])
        predictions.append(predicted)
        filtered.append(motion)
    return KalmanState.concatenate(_backward(times.tolist(), predictions, filtered))


def _window(
    items: Sequence[Item], count: int, past: Mapping[int, _Past], options: SmoothOptions
) -> tuple[list[Poses], dict[int, _Past]]:
    """The first count frames smoothed with all items, and the tracks' past for the next window."""
    segments = _segments(items, past, options.max_gap)
    if not segments:
        return [poses for _, poses in items[:count]], {}
    predicted, filtered, acceleration_noise = _forward(items, segments, options)
    motions = _backward([time for time, _ in items], predicted, filtered)
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
        result.append(joined(seen, filled))
    return result, _pasts(items, count, segments, filtered[count - 1], acceleration_noise[count - 1], options)


def _segments(items: Sequence[Item], past: Mapping[int, _Past], max_gap: float) -> list[_Segment]:
    """The tracks in the items; a gap longer than max_gap (seconds) ends a segment and begins another."""
    current = {track: _Segment(track, before) for track, before in past.items()}
    last_seen = {track: before.time for track, before in past.items()}
    segments = list(current.values())
    for frame, (time, poses) in enumerate(items):
        for row, track in enumerate(_ids(poses).tolist()):
            if track not in current or time - last_seen[track] > max_gap:
                current[track] = _Segment(track, None)
                segments.append(current[track])
            current[track].rows[frame] = row
            last_seen[track] = time
    return [segment for segment in segments if segment.rows]


def _forward(
    items: Sequence[Item], segments: Sequence[_Segment], options: SmoothOptions
) -> tuple[list[KalmanState], list[KalmanState], list[Float64Array]]:
    """For each frame the predicted and the filtered states of all segments, and their acceleration noise after it.

    The state of a segment before its first detection is undefined and not used.
    """
    start = SmoothedTracks.concatenate([_start(items, segment, options) for segment in segments])
    motion, acceleration_noise, seen = start.motion, start.acceleration_noise, start.seen
    predictions, filtered, noises = [], [], []
    rows = np.array([[segment.rows.get(frame, -1) for segment in segments] for frame in range(len(items))])
    begins = np.array([0 if segment.past else min(segment.rows) for segment in segments])
    for frame, (time, poses) in enumerate(items):
        present = rows[frame] >= 0
        measured = motion.position.copy()
        variance = np.full(measured.shape, np.inf)
        size = start.sizes.copy()
        if present.any():
            row = rows[frame][present]
            measured[present], variance[present] = poses.keypoints[row], variances(poses, options)[row]
            size[present] = sizes(poses)[row]
        gap = np.maximum(time - seen, 0.0) if frame == 0 else np.full(len(segments), time - items[frame - 1][0])
        predicted = predict(motion, acceleration_noise, size, gap)
        after, noise_after = advance(predicted, acceleration_noise, gap, measured, variance, options)
        # A segment that begins here or later keeps the state of its first measurement.
        begun = (begins < frame) | np.array([frame == 0 and segment.past is not None for segment in segments])
        motion = after.where(begun, start.motion)
        acceleration_noise = np.where(begun[:, None], noise_after, start.acceleration_noise)
        predictions.append(predicted)
        filtered.append(motion)
        noises.append(acceleration_noise)
    return predictions, filtered, noises


def _start(items: Sequence[Item], segment: _Segment, options: SmoothOptions) -> SmoothedTracks:
    if segment.past is not None:
        return segment.past.state
    frame, row = next(iter(segment.rows.items()))
    poses = _row(items[frame][1], row)
    return begin(items[frame][0], poses, variances(poses, options), options)


def _backward(
    times: Sequence[float], predicted: Sequence[KalmanState], filtered: Sequence[KalmanState]
) -> list[KalmanState]:
    result = [filtered[-1]]
    for frame in range(len(times) - 2, -1, -1):
        gap = max(times[frame + 1] - times[frame], SHORTEST)
        result.append(kalman.smooth(filtered[frame], predicted[frame + 1], result[-1], gap))
    result.reverse()
    return result


def _fills(items: Sequence[Item], segments: Sequence[_Segment]) -> dict[int, list[tuple[int, Poses]]]:
    """Frame → (column, interpolated row) of the segments with detections before and after it, but not in it."""
    result: dict[int, list[tuple[int, Poses]]] = {}
    for column, segment in enumerate(segments):
        detections = [] if segment.past is None else [(-1, segment.past.time, segment.past.detection)]
        detections += [(frame, items[frame][0], _row(items[frame][1], row)) for frame, row in segment.rows.items()]
        for (before, t0, a), (after, t1, b) in pairwise(detections):
            for frame in range(before + 1, after):
                row = interpolated(a, b, t0, t1, np.array([items[frame][0]]))
                result.setdefault(frame, []).append((column, row))
    return result


def _filled(row: Poses, motion: KalmanState) -> Poses:
    poses = smoothed(row, motion)
    return replace(poses, raw_keypoints=poses.keypoints)


def _pasts(
    items: Sequence[Item],
    count: int,
    segments: Sequence[_Segment],
    motion: KalmanState,
    acceleration_noise: Float64Array,
    options: SmoothOptions,
) -> dict[int, _Past]:
    """The past of the tracks that may continue after the first count frames."""
    now = items[count - 1][0]
    result = {}
    for column, segment in enumerate(segments):
        frames = [frame for frame in segment.rows if frame < count]
        if frames:
            time, poses = items[frames[-1]]
            detection = _row(poses, segment.rows[frames[-1]])
        elif segment.past is not None:
            time, detection = segment.past.time, segment.past.detection
        else:
            continue
        if now - time <= options.max_gap:
            state = SmoothedTracks(
                np.array([segment.id]),
                motion[[column]],
                acceleration_noise[[column]],
                sizes(detection),
                np.full(1, float(now)),
            )
            result[segment.id] = _Past(state, time, detection)
    return result


def _ids(poses: Poses) -> IntArray:
    return np.zeros(0, np.int64) if poses.track_ids is None else poses.track_ids


def _row(poses: Poses, row: int) -> Poses:
    return poses.rows(np.array([row]))
