"""One id for each person through a clip."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from posecli.geometry import AREA_OF_BOX, Float64Array, iou, oks
from posecli.keypoints import KeypointSet
from posecli.tracking import kalman
from posecli.tracking.cuts import differs, thumbnail
from posecli.tracking.kalman import Motion
from posecli.types import Frame, IntArray, Poses

# Sigmas of a set that has none: about those of COCO's limbs.
DEFAULT_SIGMA = 0.08


@dataclass(frozen=True)
class TrackOptions:
    """Lengths are in shares of a person's height, so that ids do not depend on the picture's size.

    memory: seconds that somebody may be out of sight and keep the id; brief_memory: the same for somebody seen
    fewer than `confirmed` times, who may be an error of the detector. steps: both last at least so many steps from
    frame to frame, of a clip of few frames a second or of every N-th frame of one.
    gate: lowest similarity at which a person of this frame is a known one.
    appearance: weight of the colours of the clothes; 0 leaves them out.
    box_noise: standard deviation of a detector's box.
    agility: root of the spectral density of the acceleration, 1/s^1.5; usual_speed: 1/s, of somebody new.
    """

    memory: float = 3.0
    brief_memory: float = 0.6
    steps: float = 2.5
    confirmed: int = 3
    gate: float = 0.15
    appearance: float = 1.0
    box_noise: float = 0.07
    agility: float = 0.5
    usual_speed: float = 1.0


@dataclass(frozen=True, eq=False)
class _Sights:
    """T people: what is known of each from the last sight.

    ids (T,); motion of (centre x, centre y, width, height) (T, 4); keypoints (T, K, 2); scores (T, K); looks
    (T, 24); seen (T,), the time of the last sight; hits (T,), how many sights there were.
    """

    ids: IntArray
    motion: Motion
    keypoints: Float64Array
    scores: Float64Array
    looks: Float64Array
    seen: Float64Array
    hits: IntArray

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: NDArray[np.bool_] | IntArray) -> "_Sights":
        if kalman.everybody(rows, len(self)):
            return self
        return _Sights(
            self.ids[rows],
            self.motion[rows],
            self.keypoints[rows],
            self.scores[rows],
            self.looks[rows],
            self.seen[rows],
            self.hits[rows],
        )

    def scaled(self, x: float, y: float) -> "_Sights":
        """The same people in a picture whose sides are so many times as long."""
        lengths = np.array([x, y, x, y])
        motion = Motion(
            *[part * lengths for part in self.motion.parts[:2]], *[part * lengths**2 for part in self.motion.parts[2:]]
        )
        return replace(self, motion=motion, keypoints=self.keypoints * lengths[:2])

    def join(self, other: "_Sights") -> "_Sights":
        if not len(self) or not len(other):
            return other if not len(self) else self
        return _Sights(
            np.concatenate([self.ids, other.ids]),
            Motion.join([self.motion, other.motion]),
            np.concatenate([self.keypoints, other.keypoints]),
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.looks, other.looks]),
            np.concatenate([self.seen, other.seen]),
            np.concatenate([self.hits, other.hits]),
        )


class Tracker:
    """Gives ids to the people of one clip, frame by frame, in the order of time.

    Similarity of a known person to one of this frame is a mean of the IoU of the boxes, the known one moved
    on by a Kalman filter, and of the OKS of the keypoints, moved alike, less the difference of the colours; the
    assignment of all to all is optimal (Kuhn, "The Hungarian Method", 1955, by scipy). Who is not found this way
    is looked for once more by distance, size and colours, as people who come out from behind somebody are:
    those just seen come first, as in Wojke et al., "Deep SORT" (2017), section 2.3. Nobody is followed over a
    scene cut; where the picture's size changes, places are scaled with it. Every person gets an id at once; ids
    count from 1 and are never given twice.
    """

    def __init__(self, keypoint_set: KeypointSet, options: TrackOptions | None = None) -> None:
        self._options = options or TrackOptions()
        self._sigmas = np.array(keypoint_set.sigmas or [DEFAULT_SIGMA] * len(keypoint_set))
        self._known: _Sights | None = None
        self._next_id = 1
        self._thumbnail: Float64Array | None = None
        self._size: tuple[int, int] | None = None
        self._time: float | None = None

    def __call__(self, frame: Frame, poses: Poses) -> Poses:
        """The poses with their track ids, rows in the same order."""
        time = float(frame.time) if frame.time is not None else frame.index / 25
        seen = self._sights(frame, poses, time)
        small = thumbnail(frame)
        if self._known is None or (self._thumbnail is not None and differs(self._thumbnail, small)):
            self._known = seen[np.zeros(0, np.int64)]
        self._thumbnail = small
        size = frame.width, frame.height
        if self._size is not None and self._size != size:
            self._known = self._known.scaled(size[0] / self._size[0], size[1] / self._size[1])
        self._size = size
        known = self._remembered(self._known, time)
        self._time = time
        predicted = self._predicted(known, time)
        matched = self._match(known, predicted, seen, time)
        new = matched < 0
        everyone_known = not new.any()
        ids = known.ids[matched] if everyone_known else self._ids(known, matched, seen)
        seen = replace(seen, ids=ids)
        old = matched if everyone_known else matched[~new]
        followed = _follow(known[old], predicted[old], seen if everyone_known else seen[~new])
        if len(old) < len(known):
            lost = np.ones(len(known), bool)
            lost[old] = False
            followed = known[lost].join(followed)
        self._known = followed if everyone_known else followed.join(seen[new])
        return replace(poses, track_ids=ids)

    def _ids(self, known: _Sights, matched: IntArray, seen: _Sights) -> IntArray:
        """(N,) the ids of those known and, where matched (N,) is -1, new ones."""
        new = matched < 0
        # Ids go from left to right, so that they do not depend on the detector's order.
        order = np.argsort(seen.motion.position[new, 0], kind="stable")
        fresh = np.empty(len(order), np.int64)
        fresh[order] = np.arange(self._next_id, self._next_id + len(order))
        self._next_id += len(order)
        ids = np.where(new, 0, known.ids[matched] if len(known) else 0)
        ids[new] = fresh
        return ids

    def _sights(self, frame: Frame, poses: Poses, time: float) -> _Sights:
        boxes = poses.boxes.astype(np.float64)
        size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
        states = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, size], axis=1)
        height = np.maximum(size[:, 1:], size[:, :1])
        options = self._options
        return _Sights(
            np.zeros(len(boxes), np.int64),
            kalman.start(states, (options.box_noise * height) ** 2, (options.usual_speed * height) ** 2),
            poses.keypoints.astype(np.float64),
            poses.scores.astype(np.float64),
            np.array([appearance(frame, box) for box in boxes]).reshape(len(boxes), 24),
            np.full(len(boxes), time),
            np.ones(len(boxes), np.int64),
        )

    def _remembered(self, known: _Sights, time: float) -> _Sights:
        options = self._options
        step = time - self._time if self._time is not None else 0.0
        if len(known) and time - known.seen.min() <= min(options.memory, options.brief_memory):
            return known
        memory = np.where(known.hits >= options.confirmed, options.memory, options.brief_memory)
        return known[time - known.seen <= np.maximum(memory, options.steps * step)]

    def _match(self, known: _Sights, predicted: Motion, seen: _Sights, time: float) -> IntArray:
        """(N,) row of known for each of seen, -1 for somebody new."""
        matched = np.full(len(seen), -1)
        if not len(known) or not len(seen):
            return matched
        just_seen = known.seen == known.seen.max()
        first, second = _alone(predicted, seen.motion, just_seen)
        matched[second] = first
        if len(second) == len(seen):
            return matched
        waiting, free = np.ones(len(known), bool), matched < 0
        waiting[first] = False
        for rows, similarity in ((just_seen, self._near), (~just_seen, self._near), (waiting, self._far)):
            rows = rows & waiting
            if not free.any() or not rows.any():
                continue
            left, new = np.flatnonzero(rows), np.flatnonzero(free)
            table = similarity(known[rows], predicted[left], seen[free], time)
            first, second = linear_sum_assignment(table, maximize=True)
            good = table[first, second] >= self._options.gate
            left, new = left[first[good]], new[second[good]]
            matched[new] = left
            waiting[left] = free[new] = False
        return matched

    def _predicted(self, known: _Sights, time: float) -> Motion:
        gap = np.maximum(time - known.seen, 1e-3)
        # Where somebody was not seen for long, the speed is less and less believed.
        long = gap.max(initial=0.0) >= 0.25
        trusted = np.where(gap < 0.25, gap, 0.25 + 0.5 * (1 - np.exp(-(gap - 0.25) / 0.5))) if long else gap
        height = known.motion.position[:, 2:].max(axis=1)
        return kalman.predict(known.motion, trusted[:, None], (self._options.agility * height[:, None]) ** 2)

    def _near(self, known: _Sights, predicted: Motion, seen: _Sights, time: float) -> Float64Array:
        states = seen.motion.position
        overlap = iou(_corners(predicted.position), _corners(states))
        moved = known.keypoints + (predicted.position - known.motion.position)[:, None, :2]
        # Keypoints count as far as both sights are sure of them.
        sure = np.minimum(known.scores[:, None], seen.scores[None])
        area = AREA_OF_BOX * states[:, 2] * states[:, 3]
        alike = oks(moved[:, None], seen.keypoints[None], sure > 0.1, area[None], self._sigmas)
        trust = 0.5 * np.minimum(sure.mean(axis=-1) / 0.5, 1.0)
        similarity = (1 - trust) * overlap + trust * alike
        similarity -= 0.3 * self._options.appearance * _unlike(known.looks, seen.looks)
        return np.where(overlap + alike > 0.05, similarity, 0.0)

    def _far(self, known: _Sights, predicted: Motion, seen: _Sights, time: float) -> Float64Array:
        gap = (time - known.seen)[:, None]
        size = known.motion.position[:, None, 3]
        states = seen.motion.position
        distance = np.linalg.norm(states[None, :, :2] - predicted.position[:, None, :2], axis=-1) / size
        reach = np.minimum(0.35 + 1.2 * gap, 1.6)
        taller = states[None, :, 3] / size
        possible = (distance < reach) & (taller > 0.6) & (taller < 1.65)
        unlike = self._options.appearance * _unlike(known.looks, seen.looks)
        return np.where(possible, 1 - 0.5 * distance / reach - unlike, 0.0)


def _alone(predicted: Motion, seen: Motion, just_seen: NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """Rows of those known and seen whose boxes overlap well, and nobody else's at all: there is nothing to weigh."""
    overlap = iou(_corners(predicted.position), _corners(seen.position))
    touching = overlap > 0.02
    single = (touching.sum(axis=1) == 1)[:, None] & (touching.sum(axis=0) == 1)
    pairs = np.argwhere(single & (overlap >= 0.6) & just_seen[:, None])
    return pairs[:, 0], pairs[:, 1]


def _follow(known: _Sights, predicted: Motion, seen: _Sights) -> _Sights:
    """The same people, known from before and predicted for now, with what is seen of them."""
    motion = kalman.update(predicted, seen.motion.position, seen.motion.position_var)
    # In a box that overlaps another, the colours may be somebody else's.
    hits = known.hits + 1
    share = np.minimum(0.2, 1 / hits)
    if len(seen) > 1:
        boxes = _corners(seen.motion.position)
        crowded = (iou(boxes, boxes) >= 0.2).sum(axis=1) > 1
        share = np.where(crowded, 0.0, share)
    looks = known.looks + share[:, None] * (seen.looks - known.looks)
    return _Sights(seen.ids, motion, seen.keypoints, seen.scores, looks, seen.seen, hits)


def appearance(frame: Frame, box: Float64Array) -> Float64Array:
    """Mean colours (24,) in [0, 1] of a grid over the middle of a person's box: 2 columns, 4 rows, RGB."""
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


def _unlike(looks: Float64Array, others: Float64Array) -> Float64Array:
    """Difference of colours (T, N), about 1 for clothes that nobody takes for the same."""
    return np.asarray(np.minimum(np.abs(looks[:, None] - others[None]).mean(axis=-1) / 0.25, 1.0))


def _corners(states: Float64Array) -> Float64Array:
    half = np.maximum(states[:, 2:], 1.0) / 2
    return np.concatenate([states[:, :2] - half, states[:, :2] + half], axis=1)
