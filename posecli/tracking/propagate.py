"""Box propagation: boxes from the keypoints of the previous frame, so that not every frame needs the detector."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posecli.geometry import Float64Array, iou, oks
from posecli.keypoints import KeypointSet
from posecli.tracking.cuts import differs, thumbnail
from posecli.tracking.tracker import DEFAULT_SIGMA
from posecli.types import Detections, Expected, Frame, Poses

Mask = NDArray[np.bool_]

# Frames from one restart of the propagation to the next: at frame numbers that are multiples of it, the detector runs
# and all earlier frames are forgotten. So the results of the frames between two multiples depend on no other frame, and
# parts of a clip can be estimated by several processes. Large against an interval of detections: one more detection in
# 256 frames takes less than a thousandth of the time.
RESTART_EVERY = 256


@dataclass(frozen=True)
class PropagationOptions:
    """Parameters of box propagation.

    max_interval: seconds between two detections where no number of frames is given.
    keypoint_threshold: lowest score of a keypoint that counts. min_keypoints: a person with fewer is lost.
    min_score_ratio: mean keypoint score relative to that at the last detection, below which the detector runs again.
    duplicate_oks: OKS from which two propagated people are duplicates.
    max_step: movement from frame to frame, relative to the box's size, above which the detector runs again.
    max_overlap: IoU of two boxes above which the detector runs again: keypoints of who is hidden jump to the other one.
    ahead_people: largest number of people whose boxes are predicted two frames ahead; more keep a processor busy in one
    frame.
    """

    max_interval: float = 0.3
    keypoint_threshold: float = 0.3
    min_keypoints: int = 4
    min_score_ratio: float = 0.75
    duplicate_oks: float = 0.7
    max_step: float = 0.2
    max_overlap: float = 0.2
    ahead_people: int = 2


@dataclass(frozen=True, eq=False)
class _State:
    """N people of the last frame of a size (width, height).

    index: the frame's. last_detection: the same rows at the last detection. velocity (N, 2) in pixels a second.
    """

    index: int
    time: float
    size: tuple[int, int]
    thumbnail: Float64Array
    poses: Poses
    last_detection: Poses
    velocity: Float64Array
    crowded: bool


class BoxPropagator:
    """Decides which frames of a clip need the detector, and predicts boxes for the others.

    For each frame, in order: call `needs_detection`; take the detector's boxes, with `expected` as further proposals,
    or `boxes`; estimate the poses; pass them to `update` and use what it returns. Boxes of one or two people are
    predicted from the frame before the previous one (`boxes_ahead`), so that a frame can be estimated while the one
    before it is.

    every=1 detects in each frame and changes nothing. Otherwise two detections are at most `every` frames apart, or
    `options.max_interval` seconds with every=None. The detector runs earlier after a scene cut, and when a person's
    scores fell, a person was lost, reached the image border or moved far in one frame, or when two people became
    duplicates; with every=None also after a frame without people, since new people must be found, and while people
    overlap. It starts anew at the first frame from each multiple of RESTART_EVERY on.

    crowded: whether people of the last frame overlap, so that the next one needs the detector.
    """

    def __init__(self, every: int | None, keypoint_set: KeypointSet, options: PropagationOptions | None = None) -> None:
        self._every = every
        self._options = options or PropagationOptions()
        self._sigmas = np.array(keypoint_set.sigmas or [DEFAULT_SIGMA] * len(keypoint_set))
        self._last: _State | None = None
        # The state that the next frame's boxes are predicted from, where that is not the last one.
        self._earlier: _State | None = None
        # The state of the frame before the last one.
        self._previous: _State | None = None
        # Index and time of the last frame with a detection; time of the last one that looked for new people.
        self._detected: tuple[int, float] = (0, 0.0)
        self._searched = -np.inf
        self._unreliable = True
        self.crowded = False

    def needs_detection(self, frame: Frame) -> bool:
        """Whether this frame needs the detector."""
        if self._every == 1 or self._unreliable or self._last is None:
            return True
        return (
            self.is_due(frame)
            or self._last.size != (frame.width, frame.height)
            or differs(self._last.thumbnail, thumbnail(frame))
        )

    def is_due(self, frame: Frame) -> bool:
        """Whether the longest interval since the last detection is over at this frame, or the propagation restarts."""
        index, time = self._detected
        if self._restarts(frame):
            return True
        if self._every is None:
            return _time(frame) - time >= self._options.max_interval - 1e-6
        return frame.index - index >= self._every

    def _restarts(self, frame: Frame) -> bool:
        return frame.index // RESTART_EVERY != self._detected[0] // RESTART_EVERY

    def boxes(self, frame: Frame) -> Detections:
        """Boxes of the people of an earlier frame moved at constant velocity; scores are those of their detection."""
        return self._moved(self._last if self._earlier is None else self._earlier, frame)

    def boxes_ahead(self, following: Frame) -> Detections | None:
        """What `boxes` will be for the frame after the next one, if neither needs the detector; None for many people.

        To be called before the `update` with the next frame.
        """
        return self._moved(self._last, following) if self._few else None

    def expected(self, frame: Frame) -> Expected:
        """The people that are expected in a frame for the detector; see Predictor.predict.

        They are those of the frame before the previous one, so that the detector can begin while the previous one is
        estimated. New people are looked for unless people overlap there, so that the detector runs on every frame; then
        at the longest interval between two detections.
        """
        return self._expected(self._previous, frame, self._searched)

    def expected_ahead(self, frame: Frame, following: Frame, detected: bool) -> Expected:
        """What `expected` will be for the frame after the next one, before the `update` with the next one.

        detected: whether the next one has a detection.
        """
        searched = self._searched
        if detected and self._new_people(self._previous, frame, searched):
            searched = _time(frame)
        return self._expected(self._last, following, searched)

    def _expected(self, state: _State | None, frame: Frame, searched: float) -> Expected:
        boxes = np.zeros((0, 4), np.float32)
        if state is not None and self._same_shot(state, frame):
            boxes = self._moved(state, frame).boxes
            boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)]
        return Expected(boxes, self._new_people(state, frame, searched))

    def _new_people(self, state: _State | None, frame: Frame, searched: float) -> bool:
        if state is None or not state.crowded or not self._same_shot(state, frame):
            return True
        return _time(frame) - searched >= self._options.max_interval - 1e-6

    def _same_shot(self, state: _State, frame: Frame) -> bool:
        return (
            state.index // RESTART_EVERY == frame.index // RESTART_EVERY
            and state.size == (frame.width, frame.height)
            and not differs(state.thumbnail, thumbnail(frame))
        )

    @property
    def _few(self) -> bool:
        return self._last is not None and len(self._last.poses) <= self._options.ahead_people

    def _moved(self, last: _State | None, frame: Frame) -> Detections:
        if last is None:
            return Detections.empty()
        way = last.velocity * (_time(frame) - last.time)
        boxes = last.poses.boxes + np.concatenate([way, way], axis=1)
        limits = np.array([frame.width, frame.height, frame.width, frame.height])
        boxes = np.minimum(np.maximum(boxes, 0), limits)
        return Detections(boxes.astype(np.float32), last.poses.box_scores)

    def update(self, frame: Frame, poses: Poses, detected: bool) -> Poses:
        """Take the poses of a frame, from the detector's boxes (detected) or from `boxes`; returns those to use.

        After a detection these are all of them; otherwise lost people and duplicates are removed, and the boxes are
        fitted to the keypoints.
        """
        if self._every == 1:
            return poses
        time, image_size, small = _time(frame), (frame.width, frame.height), thumbnail(frame)
        if detected and self._new_people(self._previous, frame, self._searched):
            self._searched = time
        self._previous = self._last
        if self._restarts(frame):
            self._last = None
        if detected or self._last is None:
            self._earlier = None
            empty = self._every is None and not len(poses)
            self.crowded = self._overlap(poses)
            unsure = empty or self.crowded or bool(self._unsure(poses).any())
            self._unreliable, self._detected = unsure, (frame.index, time)
            if self._last is not None and self._last.size != image_size:
                self._last = None
            velocity = self._velocity_after_detection(poses, time)
            self._last = _State(frame.index, time, image_size, small, poses, poses, velocity, self.crowded)
            return poses
        self._earlier = self._last if self._few else None
        keep = ~(self._lost(poses) | self._duplicates(poses))
        kept, last_detection, before = (p.rows(keep) for p in (poses, self._last.last_detection, self._last.poses))
        kept = replace(kept, boxes=self._boxes_around(kept, last_detection).astype(np.float32))
        moved = self._moves(before, kept)
        size = np.sqrt(np.prod(kept.boxes[:, 2:] - kept.boxes[:, :2], axis=1).clip(1))
        self.crowded = self._overlap(kept)
        self._unreliable = bool(
            self.crowded
            or not keep.all()
            or self._unsure(kept).any()
            or (kept.scores.mean(axis=1) < self._options.min_score_ratio * last_detection.scores.mean(axis=1)).any()
            or (_at_border(kept, frame) & ~_at_border(last_detection, frame)).any()
            or (np.linalg.norm(moved, axis=1) > self._options.max_step * size).any()
        )
        velocity = moved / max(time - self._last.time, 1e-3)
        self._last = _State(frame.index, time, image_size, small, kept, last_detection, velocity, self.crowded)
        return kept

    def _velocity_after_detection(self, poses: Poses, time: float) -> Float64Array:
        """(N, 2) in pixels a second; 0 for people who were not in the previous frame."""
        velocity = np.zeros((len(poses), 2))
        if self._last is None or not len(poses) or not len(self._last.poses):
            return velocity
        overlap = iou(poses.boxes, self._last.poses.boxes)
        nearest = overlap.argmax(axis=1)
        same = (overlap.max(axis=1) > 0.5) & (overlap.argmax(axis=0)[nearest] == np.arange(len(poses)))
        moved = self._moves(self._last.poses.rows(nearest[same]), poses.rows(same))
        velocity[same] = moved / max(time - self._last.time, 1e-3)
        return velocity

    def _moves(self, before: Poses, now: Poses) -> Float64Array:
        """(N, 2) mean displacement in pixels of the keypoints that reach the threshold in both."""
        confident = ((np.minimum(before.scores, now.scores) >= self._options.keypoint_threshold) * 1.0)[..., None]
        way = ((now.keypoints - before.keypoints) * confident).sum(axis=1)
        return np.asarray(way / np.maximum(confident.sum(axis=1), 1))

    def _boxes_around(self, poses: Poses, last_detection: Poses) -> Float64Array:
        """Boxes (N, 4) around the keypoints with the margins of the last detection, scaled with the person.

        Only keypoints that reach the threshold now and at the detection count, so that an occluded one does not
        shrink the box.
        """
        confident = np.minimum(poses.scores, last_detection.scores) >= self._options.keypoint_threshold
        enough = confident.sum(axis=1) >= self._options.min_keypoints
        low, high = _enclosing(poses.keypoints, confident)
        detected_low, detected_high = _enclosing(last_detection.keypoints, confident)
        area = np.prod(np.maximum(high - low, 1), axis=1) / np.prod(np.maximum(detected_high - detected_low, 1), axis=1)
        growth = np.sqrt(np.clip(area, 0.64, 1.56))[:, None]
        around = np.concatenate(
            [
                low - (detected_low - last_detection.boxes[:, :2]) * growth,
                high + (last_detection.boxes[:, 2:] - detected_high) * growth,
            ],
            axis=1,
        )
        return np.where(enough[:, None], around, poses.boxes)

    def _lost(self, poses: Poses) -> Mask:
        """(N,) whether a person has too few keypoints above the threshold, but had enough at the detection."""
        assert self._last is not None
        unsure = self._unsure(poses)
        return unsure & ~self._unsure(self._last.last_detection) if unsure.any() else unsure

    def _overlap(self, poses: Poses) -> bool:
        """Whether two boxes overlap by more than the limit; False with a given number of frames."""
        if self._every is not None or len(poses) < 2:
            return False
        overlap = iou(poses.boxes, poses.boxes)
        np.fill_diagonal(overlap, 0.0)
        return bool((overlap > self._options.max_overlap).any())

    def _unsure(self, poses: Poses) -> Mask:
        """(N,) whether a person has too few keypoints above the threshold."""
        return np.asarray((poses.scores >= self._options.keypoint_threshold).sum(axis=1) < self._options.min_keypoints)

    def _duplicates(self, poses: Poses) -> Mask:
        """(N,) whether a person is a duplicate of one with a better score, and was not at the detection already."""
        assert self._last is not None
        collapsed = self._equal(poses)
        np.fill_diagonal(collapsed, False)
        if not collapsed.any():
            return np.zeros(len(poses), bool)
        collapsed &= ~self._equal(self._last.last_detection)
        score = poses.person_scores
        # Of equals the earlier row stays.
        better = (score[:, None] > score[None]) | (
            (score[:, None] == score[None]) & np.tri(len(score), k=-1).T.astype(bool)
        )
        return np.asarray((collapsed & better).any(axis=0))

    def _equal(self, poses: Poses) -> Mask:
        """(N, N) whether two people are duplicates, by the OKS over the keypoints that reach the threshold in both."""
        if len(poses) < 2:
            return np.ones((len(poses), len(poses)), bool)
        area = np.prod(poses.boxes[:, 2:] - poses.boxes[:, :2], axis=1)
        confident = np.minimum(poses.scores[:, None], poses.scores[None]) >= self._options.keypoint_threshold
        smaller = np.minimum(area[:, None], area[None])
        alike = oks(poses.keypoints[:, None], poses.keypoints[None], confident, smaller, self._sigmas)
        return np.asarray(alike > self._options.duplicate_oks)


def _time(frame: Frame) -> float:
    return float(frame.time) if frame.time is not None else frame.index / 25


def _enclosing(keypoints: NDArray[np.float32], confident: Mask) -> tuple[Float64Array, Float64Array]:
    """Low and high corners (N, 2) of the keypoints in the mask (N, K)."""
    low = np.where(confident[..., None], keypoints, np.inf).min(axis=1, initial=np.inf)
    high = np.where(confident[..., None], keypoints, -np.inf).max(axis=1, initial=-np.inf)
    none = ~confident.any(axis=1)
    low[none] = high[none] = 0.0
    return low.astype(np.float64), high.astype(np.float64)


def _at_border(poses: Poses, frame: Frame) -> Mask:
    """(N,) whether the box is within 1 % of the image's longer side of its border."""
    margin = 0.01 * max(frame.width, frame.height)
    low = poses.boxes[:, :2].min(axis=1, initial=np.inf) < margin
    high = (poses.boxes[:, 2:] > np.array([frame.width, frame.height]) - margin).any(axis=1)
    return np.asarray(low | high)
