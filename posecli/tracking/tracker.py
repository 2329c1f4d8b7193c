"""Multi-person tracking: one id for each person of a clip."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from posecli.geometry import AREA_OF_BOX, Float64Array, iou, oks
from posecli.keypoints import KeypointSet
from posecli.tracking import kalman
from posecli.tracking.assignment import assign
from posecli.tracking.cuts import differs, thumbnail
from posecli.tracking.kalman import KalmanState
from posecli.types import Frame, IntArray, Poses

# OKS sigma of keypoint sets that define none: about that of COCO's limbs.
DEFAULT_SIGMA = 0.08


@dataclass(frozen=True)
class TrackOptions:
    """Parameters of the tracker. Lengths are relative to the person's height, so that image size does not matter.

    max_age: seconds without a detection after which a track ends. tentative_max_age: the same for a track with fewer
    than min_hits detections, which may be a false positive. min_frames: both are at least so many frame intervals,
    for clips with few frames a second or a large --stride.
    min_similarity: lowest similarity of a detection to a track that it is assigned to.
    appearance_weight: weight of the colour distance; 0 ignores colours.
    box_noise: standard deviation of a detected box.
    acceleration_noise: root of the spectral density of the acceleration, 1/s^1.5.
    initial_speed_std: standard deviation of a new track's speed, 1/s.
    """

    max_age: float = 3.0
    tentative_max_age: float = 0.6
    min_frames: float = 2.5
    min_hits: int = 3
    min_similarity: float = 0.05
    appearance_weight: float = 1.0
    box_noise: float = 0.07
    acceleration_noise: float = 0.5
    initial_speed_std: float = 1.0


@dataclass(frozen=True, eq=False)
class Tracks:
    """T tracks with their last detections; detections of a frame that are not assigned yet have id 0.

    ids (T,); motion: Kalman state (T, 4) of the box's centre x, centre y, width and height; keypoints (T, K, 2);
    scores (T, K); appearance (T, 24), see box_colours; seen (T,): time of the last detection in seconds; hits (T,):
    number of detections.
    """

    ids: IntArray
    motion: KalmanState
    keypoints: Float64Array
    scores: Float64Array
    appearance: Float64Array
    seen: Float64Array
    hits: IntArray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: NDArray[np.bool_] | IntArray) -> "Tracks":
        if kalman.selects_all(rows, len(self)):
            return self
        return Tracks(
            self.ids[rows],
            self.motion[rows],
            self.keypoints[rows],
            self.scores[rows],
            self.appearance[rows],
            self.seen[rows],
            self.hits[rows],
        )

    def scaled(self, x: float, y: float) -> "Tracks":
        """The tracks in an image scaled by the factors x and y."""
        lengths = np.array([x, y, x, y])
        motion = KalmanState(
            *[part * lengths for part in self.motion.parts[:2]], *[part * lengths**2 for part in self.motion.parts[2:]]
        )
        return replace(self, motion=motion, keypoints=self.keypoints * lengths[:2])

    def concatenate(self, other: "Tracks") -> "Tracks":
        """These tracks and then the others."""
        if not len(self) or not len(other):
            return other if not len(self) else self
        return Tracks(
            np.concatenate([self.ids, other.ids]),
            KalmanState.concatenate([self.motion, other.motion]),
            np.concatenate([self.keypoints, other.keypoints]),
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.appearance, other.appearance]),
            np.concatenate([self.seen, other.seen]),
            np.concatenate([self.hits, other.hits]),
        )


class Tracker:
    """Assigns track ids to the people of one clip, frame by frame, in the order of time.

    The similarity of a track to a detection is a weighted mean of the IoU of the boxes (the track's predicted by a
    Kalman filter) and the OKS of the keypoints, minus the colour distance; the assignment is optimal (Kuhn, "The
    Hungarian Method", 1955, by scipy). Tracks that were detected in the frame before are matched first (matching
    cascade: Wojke et al., "Deep SORT", 2017, section 2.3). Tracks and detections that remain, such as people after an
    occlusion, are matched by distance, size and colours. A scene cut ends all tracks; where the image size changes,
    the tracks are scaled. Each detection gets an id in its first frame; ids count from 1 and are not reused.
    """

    def __init__(self, keypoint_set: KeypointSet, options: TrackOptions | None = None) -> None:
        self._options = options or TrackOptions()
        self._sigmas = np.array(keypoint_set.sigmas or [DEFAULT_SIGMA] * len(keypoint_set))
        self._tracks: Tracks | None = None
        self._next_id = 1
        self._thumbnail: Float64Array | None = None
        self._size: tuple[int, int] | None = None
        self._time: float | None = None

    def __call__(self, frame: Frame, poses: Poses) -> Poses:
        """The poses with their track ids (N,) int64, rows in the same order."""
        time = float(frame.time) if frame.time is not None else frame.index / 25
        seen = self._observations(frame, poses, time)
        small = thumbnail(frame)
        if self._tracks is None or (self._thumbnail is not None and differs(self._thumbnail, small)):
            self._tracks = seen[np.zeros(0, np.int64)]
        self._thumbnail = small
        size = frame.width, frame.height
        if self._size is not None and self._size != size:
            self._tracks = self._tracks.scaled(size[0] / self._size[0], size[1] / self._size[1])
        self._size = size
        known = self._alive(self._tracks, time)
        self._time = time
        predicted = self._predicted(known, time)
        matched = self._match(known, predicted, seen, time)
        new = matched < 0
        all_matched = not new.any()
        ids = known.ids[matched] if all_matched else self._assign_ids(known, matched, seen)
        seen = replace(seen, ids=ids)
        old = matched if all_matched else matched[~new]
        followed = _updated(known[old], predicted[old], seen if all_matched else seen[~new])
        if len(old) < len(known):
            lost = np.ones(len(known), bool)
            lost[old] = False
            followed = known[lost].concatenate(followed)
        self._tracks = followed if all_matched else followed.concatenate(seen[new])
        return replace(poses, track_ids=ids)

    def _assign_ids(self, known: Tracks, matched: IntArray, seen: Tracks) -> IntArray:
        """Ids (N,) of the matched tracks and, where matched (N,) is -1, new ones."""
        new = matched < 0
        # New ids go from left to right, so that they do not depend on the order of detections.
        order = np.argsort(seen.motion.position[new, 0], kind="stable")
        fresh = np.empty(len(order), np.int64)
        fresh[order] = np.arange(self._next_id, self._next_id + len(order))
        self._next_id += len(order)
        ids = np.where(new, 0, known.ids[matched] if len(known) else 0)
        ids[new] = fresh
        return ids

    def _observations(self, frame: Frame, poses: Poses, time: float) -> Tracks:
        boxes = poses.boxes.astype(np.float64)
        size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
        states = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, size], axis=1)
        height = np.maximum(size[:, 1:], size[:, :1])
        options = self._options
        return Tracks(
            np.zeros(len(boxes), np.int64),
            kalman.start(states, (options.box_noise * height) ** 2, (options.initial_speed_std * height) ** 2),
            poses.keypoints.astype(np.float64),
            poses.scores.astype(np.float64),
            np.array([box_colours(frame, box) for box in boxes]).reshape(len(boxes), 24),
            np.full(len(boxes), time),
            np.ones(len(boxes), np.int64),
        )

    def _alive(self, known: Tracks, time: float) -> Tracks:
        options = self._options
        step = time - self._time if self._time is not None else 0.0
        if len(known) and time - known.seen.min() <= min(options.max_age, options.tentative_max_age):
            return known
        max_age = np.where(known.hits >= options.min_hits, options.max_age, options.tentative_max_age)
        return known[time - known.seen <= np.maximum(max_age, options.min_frames * step)]

    def _match(self, known: Tracks, predicted: KalmanState, seen: Tracks, time: float) -> IntArray:
        """Row in known (N,) for each detection in seen, -1 for a new track."""
        matched = np.full(len(seen), -1)
        if not len(known) or not len(seen):
            return matched
        active = known.seen == known.seen.max()
        overlap = iou(_corners(predicted.position), _corners(seen.motion.position))
        first, second = _unambiguous(overlap, active)
        matched[second] = first
        if len(second) == len(seen):
            return matched
        waiting, free = np.ones(len(known), bool), matched < 0
        waiting[first] = False
        for rows, similarity in ((active, self._near), (~active, self._near), (waiting, self._far)):
            rows = rows & waiting
            if not free.any() or not rows.any():
                continue
            left, new = np.flatnonzero(rows), np.flatnonzero(free)
            table = similarity(known[rows], predicted[left], seen[free], overlap[np.ix_(left, new)], time)
            first, second = assign(table)
            good = table[first, second] >= self._options.min_similarity
            left, new = left[first[good]], new[second[good]]
            matched[new] = left
            waiting[left] = free[new] = False
        return matched

    def _predicted(self, known: Tracks, time: float) -> KalmanState:
        gap = np.maximum(time - known.seen, 1e-3)
        # The longer a track has no detection, the less its velocity is extrapolated.
        long = gap.max(initial=0.0) >= 0.25
        trusted = np.where(gap < 0.25, gap, 0.25 + 0.5 * (1 - np.exp(-(gap - 0.25) / 0.5))) if long else gap
        height = known.motion.position[:, 2:].max(axis=1)
        return kalman.predict(known.motion, trusted[:, None], (self._options.acceleration_noise * height[:, None]) ** 2)

    def _near(
        self, known: Tracks, predicted: KalmanState, seen: Tracks, overlap: Float64Array, time: float
    ) -> Float64Array:
        states = seen.motion.position
        moved = known.keypoints + (predicted.position - known.motion.position)[:, None, :2]
        # Keypoints are weighted by the lower of both scores.
        weight = np.minimum(known.scores[:, None], seen.scores[None])
        area = AREA_OF_BOX * states[:, 2] * states[:, 3]
        alike = oks(moved[:, None], seen.keypoints[None], weight > 0.1, area[None], self._sigmas)
        trust = 0.5 * np.minimum(weight.mean(axis=-1) / 0.5, 1.0)
        similarity = (1 - trust) * overlap + trust * alike
        similarity -= 0.3 * self._options.appearance_weight * _colour_distance(known.appearance, seen.appearance)
        return np.where(overlap + alike > 0.05, similarity, 0.0)

    def _far(
        self, known: Tracks, predicted: KalmanState, seen: Tracks, overlap: Float64Array, time: float
    ) -> Float64Array:
        gap = (time - known.seen)[:, None]
        size = known.motion.position[:, None, 3]
        states = seen.motion.position
        distance = np.linalg.norm(states[None, :, :2] - predicted.position[:, None, :2], axis=-1) / size
        reach = np.minimum(0.35 + 1.2 * gap, 1.6)
        taller = states[None, :, 3] / size
        possible = (distance < reach) & (taller > 0.6) & (taller < 1.65)
        unlike = self._options.appearance_weight * _colour_distance(known.appearance, seen.appearance)
        return np.where(possible, 1 - 0.5 * distance / reach - unlike, 0.0)


def _unambiguous(overlap: Float64Array, active: NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """Rows of tracks and detections whose boxes overlap well, and hardly any other box: no assignment is needed.

    overlap: IoU (T, N) of the predicted and the detected boxes. active: (T,).
    """
    touching = overlap > 0.2
    single = (touching.sum(axis=1) == 1)[:, None] & (touching.sum(axis=0) == 1)
    tracks, detections = np.nonzero(single & (overlap >= 0.6) & active[:, None])
    return np.asarray(tracks, np.int64), np.asarray(detections, np.int64)


def _updated(known: Tracks, predicted: KalmanState, seen: Tracks) -> Tracks:
    """The tracks after their detections in this frame: known before, predicted for it, seen in it."""
    motion = kalman.update(predicted, seen.motion.position, seen.motion.position_var)
    # In a box that overlaps another, the colours may be those of the other person.
    hits = known.hits + 1
    share = np.minimum(0.2, 1 / hits)
    if len(seen) > 1:
        boxes = _corners(seen.motion.position)
        crowded = (iou(boxes, boxes) >= 0.2).sum(axis=1) > 1
        share = np.where(crowded, 0.0, share)
    appearance = known.appearance + share[:, None] * (seen.appearance - known.appearance)
    return Tracks(seen.ids, motion, seen.keypoints, seen.scores, appearance, seen.seen, hits)


def box_colours(frame: Frame, box: Float64Array) -> Float64Array:
    """Mean colours (24,) in [0, 1] of a grid over the centre of a person's box: 2 columns, 4 rows, RGB."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    low = (int(max(0, x1 + 0.25 * width)), int(max(0, y1 + 0.1 * height)))
    high = (int(min(frame.width, x2 - 0.25 * width)), int(min(frame.height, y2 - 0.1 * height)))
    part = frame.pixels[max(low[1], 0) : max(high[1], 0), low[0] : max(high[0], 0)]
    if part.size == 0:
        return np.full(24, 0.5)
    step = max(1, min(part.shape[:2]) // 8)
    grid = cv2.resize(np.ascontiguousarray(part[::step, ::step]), (2, 4), interpolation=cv2.INTER_AREA)
    return np.asarray(grid.reshape(-1) / 255, np.float64)


def _colour_distance(appearance: Float64Array, others: Float64Array) -> Float64Array:
    """Colour distance (T, N) in [0, 1]; 1 from a mean difference of 0.25 of the range on."""
    return np.asarray(np.minimum(np.abs(appearance[:, None] - others[None]).mean(axis=-1) / 0.25, 1.0))


def _corners(states: Float64Array) -> Float64Array:
    half = np.maximum(states[:, 2:], 1.0) / 2
    return np.concatenate([states[:, :2] - half, states[:, :2] + half], axis=1)
