"""One id for each person through a clip."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from posecli.geometry import Float64Array, iou, oks
from posecli.keypoints import KeypointSet
from posecli.types import Frame, Poses

# Sigmas of a set that has none: about those of COCO's limbs.
_DEFAULT_SIGMA = 0.08


@dataclass(frozen=True)
class TrackOptions:
    """memory: seconds that somebody may be out of sight and keep the id.

    gate: lowest similarity at which a person of this frame is one of the frame before.
    appearance: weight of the colours of the clothes where boxes alone do not decide.
    """

    memory: float = 3.0
    gate: float = 0.15
    appearance: float = 1.0


@dataclass
class _Track:
    """Somebody known: where and how fast at the last sight. State is x, y of the centre, width, height."""

    id: int
    state: Float64Array
    velocity: Float64Array
    keypoints: Float64Array
    scores: Float64Array
    look: Float64Array
    seen: float
    hits: int = 1

    def predicted(self, time: float) -> Float64Array:
        """State at a time. Where nobody was seen for long, the speed is less and less believed."""
        gap = time - self.seen
        return self.state + self.velocity * (gap if gap < 0.25 else 0.25 + 0.5 * (1 - np.exp(-(gap - 0.25) / 0.5)))


class Tracker:
    """Gives ids to the people of one clip, frame by frame, in the order of time.

    Similarity of a known person to one of this frame is a mean of the IoU of the boxes, the known one moved
    on at constant velocity, and of the OKS of the keypoints, moved alike; the assignment of all to all is
    optimal (Kuhn, "The Hungarian Method", 1955, by scipy). Who is not found this way is looked for once more
    by distance, size and colours, as people who come out from behind somebody are. Ids count from 1 and are
    never given twice.
    """

    def __init__(self, keypoint_set: KeypointSet, options: TrackOptions | None = None) -> None:
        self._options = options or TrackOptions()
        sigmas = keypoint_set.sigmas
        self._sigmas = np.array(sigmas if sigmas else [_DEFAULT_SIGMA] * len(keypoint_set))
        self._tracks: list[_Track] = []
        self._next_id = 1
        self._last_time: float | None = None

    def __call__(self, frame: Frame, poses: Poses) -> Poses:
        """The poses with their track ids."""
        time = float(frame.time) if frame.time is not None else float(frame.index)
        self._tracks = [t for t in self._tracks if time - t.seen <= self._options.memory]
        boxes = poses.boxes.astype(np.float64)
        states = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
        looks = [appearance(frame, box) for box in boxes]
        # In a box that overlaps another, the colours may be somebody else's.
        overlaps = iou(boxes, boxes) - np.eye(len(boxes)) if len(boxes) else np.zeros((0, 0))
        clear = overlaps.max(axis=1, initial=0.0) < 0.2
        matched: dict[int, _Track] = {}
        # People of the frame before come first, then those who were out of sight.
        before = [t for t in self._tracks if t.seen == self._last_time]
        self._assign(before, self._near(before, time, states, boxes, poses, looks), matched, len(poses))
        rest = [t for t in self._tracks if t not in matched.values()]
        free = [row for row in range(len(poses)) if row not in matched]
        again: dict[int, _Track] = {}
        self._assign(rest, self._far(rest, time, states[free], [looks[row] for row in free]), again, len(free))
        matched |= {free[row]: track for row, track in again.items()}
        ids = np.zeros(len(poses), np.int64)
        for row in range(len(poses)):
            track = matched.get(row)
            if track is None:
                track = self._begin(states[row], poses, row, looks[row], time)
            else:
                self._follow(track, states[row], poses, row, looks[row] if clear[row] else track.look, time)
            ids[row] = track.id
        self._last_time = time
        return replace(poses, track_ids=ids)

    def _assign(self, tracks: list[_Track], similarity: Float64Array, matched: dict[int, _Track], count: int) -> None:
        if not tracks or not count:
            return
        for i, row in zip(*linear_sum_assignment(similarity, maximize=True), strict=True):
            if similarity[i, row] >= self._options.gate:
                matched[int(row)] = tracks[i]

    def _near(
        self,
        tracks: list[_Track],
        time: float,
        states: Float64Array,
        boxes: Float64Array,
        poses: Poses,
        looks: list[Float64Array],
    ) -> Float64Array:
        result = np.zeros((len(tracks), len(states)))
        for i, track in enumerate(tracks):
            if not len(states):
                break
            state = track.predicted(time)
            overlap = iou(_corners(state)[None], boxes)[0]
            moved = track.keypoints + (state - track.state)[:2]
            # Keypoints count as far as both sights are sure of them.
            sure = np.minimum(track.scores, poses.scores)
            alike = oks(moved[None], poses.keypoints, sure > 0.1, states[:, 2] * states[:, 3] * 0.53, self._sigmas)
            trust = 0.5 * np.clip(sure.mean(axis=1) / 0.5, 0, 1)
            result[i] = (1 - trust) * overlap + trust * alike
            result[i] *= overlap + alike > 0.05
            result[i] -= self._options.appearance * 0.3 * _unlike(track.look, looks) * (result[i] > 0)
        return result

    def _far(self, tracks: list[_Track], time: float, states: Float64Array, looks: list[Float64Array]) -> Float64Array:
        result = np.zeros((len(tracks), len(states)))
        for i, track in enumerate(tracks):
            if not len(states):
                break
            gap = time - track.seen
            state = track.predicted(time)
            size = np.maximum(track.state[3], 1.0)
            distance = np.linalg.norm(states[:, :2] - state[:2], axis=1) / size
            reach = min(0.35 + 1.2 * gap, 1.6)
            taller = states[:, 3] / size
            possible = (distance < reach) & (taller > 0.6) & (taller < 1.65)
            result[i] = possible * (1 - 0.5 * distance / reach - self._options.appearance * _unlike(track.look, looks))
        return result

    def _begin(self, state: Float64Array, poses: Poses, row: int, look: Float64Array, time: float) -> _Track:
        track = _Track(
            self._next_id,
            state,
            np.zeros(4),
            poses.keypoints[row].astype(np.float64),
            poses.scores[row].astype(np.float64),
            look,
            time,
        )
        self._next_id += 1
        self._tracks.append(track)
        return track

    def _follow(
        self, track: _Track, state: Float64Array, poses: Poses, row: int, look: Float64Array, time: float
    ) -> None:
        gap = max(time - track.seen, 1e-3)
        measured = (state - track.state) / gap
        # A mean over about the last third of a second; the first speeds count at once.
        share = max(1 / (track.hits + 1), 1 - np.exp(-gap / 0.3))
        track.velocity = track.velocity + share * (measured - track.velocity)
        track.state, track.seen = state, time
        track.keypoints = poses.keypoints[row].astype(np.float64)
        track.scores = poses.scores[row].astype(np.float64)
        track.look = track.look + min(0.2, 1 / (track.hits + 1)) * (look - track.look)
        track.hits += 1


def appearance(frame: Frame, box: Float64Array) -> Float64Array:
    """Mean colours (24,) in [0, 1] of a grid over the middle of a person's box: 2 columns, 4 rows, RGB."""
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    low = (int(max(0, x1 + 0.25 * width)), int(max(0, y1 + 0.1 * height)))
    high = (int(min(frame.width, x2 - 0.25 * width)), int(min(frame.height, y2 - 0.1 * height)))
    part = frame.pixels[low[1] : high[1], low[0] : high[0]]
    if part.size == 0:
        return np.full(24, 0.5)
    step = max(1, min(part.shape[:2]) // 32)
    grid = cv2.resize(np.ascontiguousarray(part[::step, ::step]), (2, 4), interpolation=cv2.INTER_AREA)
    return np.asarray(grid.reshape(-1) / 255, np.float64)


def _unlike(look: Float64Array, others: list[Float64Array]) -> Float64Array:
    """Difference of colours (N,), about 1 for clothes that nobody takes for the same."""
    if not others:
        return np.zeros(0)
    return np.asarray(np.minimum(np.abs(np.stack(others) - look).mean(axis=1) / 0.25, 1.0))


def _corners(state: Float64Array) -> Float64Array:
    half = np.maximum(state[2:], 1.0) / 2
    return np.concatenate([state[:2] - half, state[:2] + half])
