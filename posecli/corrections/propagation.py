"""Propagation of corrected keypoints to the frames between them, by the offline smoother.

Corrected keypoints, and all those of accepted people, are certain measurements: anchors. In the frames between two
anchors there are two measurements:

- What the network measured, before any smoothing, less its error, which is known at the anchors and interpolated
  linearly over time. The more this error differs between the two anchors, the less the measurement counts. Where the
  positions of the mirrored keypoint agree better with both anchors, left and right were exchanged, and these are taken.
- The position relative to the keypoints next to it in the skeleton, interpolated between the anchors: the keypoint
  moves with the limb that it is part of. It counts the less, the more the position differs between the anchors.

The smoother weighs both by their variances. Beyond the first and the last anchor the error falls to 0 within max_age.
`benchmarks/corrections.py` measures it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from posecli.corrections.corrections import Corrections
from posecli.corrections.state import FrameState, PersonState
from posecli.errors import UsageError
from posecli.geometry import Float64Array
from posecli.keypoints import KeypointSet
from posecli.tracking.offline import smooth_track
from posecli.tracking.smoothing import SmoothOptions

# frame → key of a person → index of a keypoint → x, y.
Values = dict[int, dict[str, dict[int, tuple[float, float]]]]

# Standard deviation of the first measurement: parts of the difference of the errors at two anchors, and of the error.
STEP_SHARE, ERROR_SHARE = 1.0, 0.15
# Of the second one: part of the difference of the relative positions, at least a part of the person's size.
LIMB_SHARE, LIMB_STD = 0.5, 0.01
# Changes of less than this are left out, in pixels.
_LEAST_CHANGE = 0.5
# Seconds of the track before and after the frames that may change, from which the smoother learns the motion.
_MARGIN = 1.0


@dataclass(frozen=True, eq=False)
class Measured:
    """A person over F frames. times (F,) s; sizes (F,): longer side of the box; measured (F, K, 2); std (F, K, 2),
    infinite where nothing was measured; anchors (F, K): where `places` (F, K, 2) are known.
    """

    times: Float64Array
    sizes: Float64Array
    measured: Float64Array
    std: Float64Array
    anchors: NDArray[np.bool_]
    places: Float64Array


def propagate(corrections: Corrections, name: str, track: int, options: SmoothOptions | None = None) -> Values:
    """The positions that follow from the corrections of a track, where they change by more than half a pixel.

    frame → key of the person → keypoint → (x, y) in pixels. Only keypoints with a correction in this track, in frames
    between two of its anchors or within options.max_age of one. Corrected keypoints, and those of accepted people,
    never change. Nothing is written. Raises UsageError where no person has this id, DataError.
    """
    options = options or SmoothOptions()
    found = next((info for info in corrections.tracks(name) if info.track == track), None)
    if found is None:
        raise UsageError(f"track {track}: no person has this id")
    if not found.corrected:
        return {}
    rows = _rows_of(corrections, name, track, found.corrected, options.max_age)
    chosen = sorted({index for row in rows for index in row.chosen})
    if not chosen:
        return {}
    given = Measured(*(np.array([getattr(row, each.name) for row in rows]) for each in fields(Measured)))
    motion, reached = smooth_anchored(given, chosen, corrections.keypoint_set, options)
    result: Values = {}
    for number, row in enumerate(rows):
        for column, index in enumerate(chosen):
            place = np.round(np.clip(motion[number, column], -row.limit, 2 * row.limit), 2)
            change = np.abs(place - row.places[index]).max()
            if reached[number, column] and not row.anchors[index] and change > _LEAST_CHANGE:
                values = result.setdefault(row.frame, {}).setdefault(row.key, {})
                values[index] = (float(place[0]), float(place[1]))
    return result


@dataclass(frozen=True, eq=False)
class _Row:
    """One frame of a person: what Measured has of it. chosen: keypoints set by hand. limit: (width, height)."""

    frame: int
    key: str
    chosen: tuple[int, ...]
    limit: Float64Array
    times: float
    sizes: float
    measured: Float64Array
    std: Float64Array
    anchors: NDArray[np.bool_]
    places: Float64Array


def _rows_of(corrections: Corrections, name: str, track: int, corrected: Sequence[int], max_age: float) -> list[_Row]:
    """The frames of a track around its corrections, in order. Their states are not kept: a clip may be long."""
    first, last = (_time(corrections.frame(name, index)) for index in (corrected[0], corrected[-1]))
    reach, count = max_age + _MARGIN, corrections.run_inputs.frames(name)
    found = []
    for step, start, limit in ((-1, corrected[0] - 1, first - reach), (1, corrected[0], last + reach)):
        index = start
        while 0 <= index < count:
            state = corrections.frame(name, index)
            if (_time(state) - limit) * step > 0:
                break
            found += [_row(state, person) for person in state.people if person.track == track]
            index += step
    return sorted(found, key=lambda row: row.frame)


def _time(state: FrameState) -> float:
    return float(state.index) if state.time_s is None else state.time_s


def _row(state: FrameState, person: PersonState) -> _Row:
    measured, std = _prediction(person)
    known = np.full(len(measured), person.accepted)
    known[list(person.corrected)] = True
    labelled = person.keypoints[:, 2] > 0
    return _Row(
        state.index,
        person.key,
        tuple(index for index in person.corrected if labelled[index]),
        np.array([state.width, state.height], np.float64),
        _time(state),
        max(float((person.box[2:] - person.box[:2]).max()), 1.0),
        measured,
        std,
        known & labelled,
        person.keypoints[:, :2].copy(),
    )


def _prediction(person: PersonState) -> tuple[Float64Array, Float64Array]:
    """What the network measured, (K, 2) positions and standard deviations, infinite where there was no detection."""
    given = person.prediction
    count = len(person.keypoints)
    if given is None or given.get("filled"):
        return person.keypoints[:, :2].copy(), np.full((count, 2), np.inf)
    positions = given.get("keypoints_raw")
    points = np.array(given["keypoints"], np.float64).reshape(count, 3)[:, :2]
    raw = points if positions is None else np.array(positions, np.float64).reshape(count, 2)
    return raw, np.array(given["keypoint_std"], np.float64).reshape(count, 2)


def smooth_anchored(
    given: Measured, chosen: Sequence[int], keypoint_set: KeypointSet, options: SmoothOptions | None = None
) -> tuple[Float64Array, NDArray[np.bool_]]:
    """Positions (F, C, 2) of the chosen keypoints, and which (F, C) lie between anchors or within max_age of one."""
    options = options or SmoothOptions()
    columns = [_column(given, index, chosen, keypoint_set, options) for index in chosen]
    measured, variance, reached = (np.stack(parts, axis=1) for parts in zip(*columns, strict=True))
    certain = given.anchors[:, list(chosen)]
    return smooth_track(given.times, given.sizes, measured, variance, certain, options).position, reached


def _column(
    given: Measured, index: int, chosen: Sequence[int], keypoint_set: KeypointSet, options: SmoothOptions
) -> tuple[Float64Array, Float64Array, NDArray[np.bool_]]:
    """Of one keypoint the measurements (F, 2), their variances (F, 2), and which frames (F,) may change."""
    rows, times = np.flatnonzero(given.anchors[:, index]), given.times
    reached = (times >= times[rows[0]] - options.max_age) & (times <= times[rows[-1]] + options.max_age)
    mended, spread = _mended(given, index, keypoint_set.flip_indices[index], rows, options.max_age)
    floor = options.min_std * given.sizes[:, None]
    variance = np.maximum(options.noise_share * given.std[:, index], floor) ** 2 + spread[:, None] ** 2
    limb = _limb(given, index, chosen, keypoint_set)
    if limb is not None:
        offsets = given.places[rows, index] - limb[rows]
        beside = limb + _interpolated(times, times[rows], offsets)
        doubt = np.maximum(LIMB_STD * given.sizes, LIMB_SHARE * _steps(times, times[rows], offsets))
        second = np.where(reached, doubt, np.inf)[:, None] ** 2
        share = np.where(np.isinf(variance), 1.0, variance / (variance + second))
        share[~reached] = 0.0
        mended = mended + share * (beside - mended)
        variance = 1 / (1 / variance + 1 / second)
    known = given.anchors[:, index, None]
    measured = np.where(known, given.places[:, index], mended)
    return measured, np.where(known, floor**2, variance), reached


def _limb(given: Measured, index: int, chosen: Sequence[int], keypoint_set: KeypointSet) -> Float64Array | None:
    """The mean position (F, 2) of the keypoints next to this one; of all, where these are corrected, too."""
    near = {a if b == index else b for a, b in keypoint_set.skeleton if index in (a, b)} - {*chosen}
    others = sorted(near) or [other for other in range(given.measured.shape[1]) if other not in chosen]
    return given.measured[:, others].mean(axis=1) if others else None


def _mended(
    given: Measured, index: int, mirror: int, rows: NDArray[np.int64], max_age: float
) -> tuple[Float64Array, Float64Array]:
    """The measured positions (F, 2) of a keypoint without their error, and the standard deviation (F,) that remains.

    rows: frames of its anchors.
    """
    times, places = given.times, given.places[rows, index]
    own, mirrored = given.measured[rows, index] - places, given.measured[rows, mirror] - places
    edges = np.array([times[rows[0]] - max_age, *times[rows], times[rows[-1]] + max_age])
    known = np.concatenate([0 * own[:1], own, 0 * own[:1]])
    error = _interpolated(times, edges, known)
    mended, steps = given.measured[:, index] - error, _steps(times, edges, known)
    for place, (before, after) in enumerate(pairwise(rows.tolist())):
        both = slice(place, place + 2)
        # Left and right were exchanged only where both anchors say so.
        if _longest(mirrored[both]) < _longest(own[both]):
            part = slice(before, after + 1)
            error[part] = _interpolated(times[part], times[[before, after]], mirrored[both])
            mended[part] = given.measured[part, mirror] - error[part]
            steps[part] = np.hypot(*(mirrored[place + 1] - mirrored[place]))
    return mended, np.maximum(ERROR_SHARE * np.hypot(*error.T), STEP_SHARE * steps)


def _steps(times: Float64Array, known: Float64Array, values: Float64Array) -> Float64Array:
    """For each time (F,) the distance between the values (A, 2) known before and after it; 0 beyond them."""
    distances = np.concatenate([[0.0], np.hypot(*np.diff(values, axis=0).T), [0.0]])
    return np.asarray(distances[np.searchsorted(known, times)])


def _interpolated(times: Float64Array, known: Float64Array, values: Float64Array) -> Float64Array:
    return np.stack([np.interp(times, known, values[:, axis]) for axis in (0, 1)], axis=-1)


def _longest(errors: Float64Array) -> float:
    return float(np.hypot(*errors.T).max())
