"""Boxes carried on by the keypoints, so that the detector need not look at every frame."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posecli.geometry import Float64Array, iou, oks
from posecli.keypoints import KeypointSet
from posecli.tracking.cuts import differs, thumbnail
from posecli.tracking.tracker import DEFAULT_SIGMA
from posecli.types import Detections, Frame, Poses

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class CarryOptions:
    """longest: seconds between two detections where no number of frames is given.

    sure: score from which a keypoint counts; fewest: so many must count, or the person is lost.
    weaker: share of the mean score at the last detection, below which the detector looks again.
    twice: OKS from which two carried people are one.
    step: largest way from one frame to the next, in shares of the box's size, before the detector looks again.
    """

    longest: float = 0.3
    sure: float = 0.3
    fewest: int = 4
    weaker: float = 0.75
    twice: float = 0.7
    step: float = 0.2


@dataclass(frozen=True, eq=False)
class _Carried:
    """N people of the last frame, which had a size (width, height).

    anchor: the same rows at the last detection. velocity (N, 2): pixels a second.
    """

    time: float
    size: tuple[int, int]
    thumbnail: Float64Array
    poses: Poses
    anchor: Poses
    velocity: Float64Array


class Carrier:
    """Decides which frames of a clip the detector must see, and gives boxes for those between.

    For each frame, in order: ask `wants_detection`; take the detector's boxes or `boxes`; estimate the poses;
    go on with what `saw` returns for them. every=1 always detects and changes nothing: the exact reference.
    Otherwise at most `every` frames lie between two detections, or `options.longest` seconds with every=None.
    The detector looks earlier after a scene cut, or when somebody's scores sank, somebody was lost, reached the
    border of the picture, or moved far in one frame, or when two people became one.
    """

    def __init__(self, every: int | None, keypoint_set: KeypointSet, options: CarryOptions | None = None) -> None:
        self._every = every
        self._options = options or CarryOptions()
        self._sigmas = np.array(keypoint_set.sigmas or [DEFAULT_SIGMA] * len(keypoint_set))
        self._last: _Carried | None = None
        self._detected: tuple[int, float] = (0, 0.0)
        self._doubt = True

    def wants_detection(self, frame: Frame) -> bool:
        """Whether the detector must see this frame."""
        if self._every == 1 or self._doubt or self._last is None:
            return True
        index, time = self._detected
        if self._every is None:
            due = _time(frame) - time >= self._options.longest - 1e-6
        else:
            due = frame.index - index >= self._every
        return due or self._last.size != (frame.width, frame.height) or differs(self._last.thumbnail, thumbnail(frame))

    def boxes(self, frame: Frame) -> Detections:
        """Where the people of the frame before are now, at constant velocity; scores are the detector's."""
        if self._last is None:
            return Detections.empty()
        last = self._last
        way = last.velocity * (_time(frame) - last.time)
        boxes = last.poses.boxes + np.tile(way, 2)
        limits = np.tile([frame.width, frame.height], 2)
        return Detections(np.clip(boxes, 0, limits).astype(np.float32), last.poses.box_scores)

    def saw(self, frame: Frame, poses: Poses, detected: bool) -> Poses:
        """Take note of a frame's poses, of the boxes of the detector or of `boxes`. Returns those to go on with.

        After a detection these are all of them; else without those lost, and with boxes that fit the keypoints.
        """
        if self._every == 1:
            return poses
        time, picture, small = _time(frame), (frame.width, frame.height), thumbnail(frame)
        if detected or self._last is None:
            self._doubt, self._detected = bool(self._weak(poses).any()), (frame.index, time)
            if self._last is not None and self._last.size != picture:
                self._last = None
            self._last = _Carried(time, picture, small, poses, poses, self._speeds_after_detection(poses, time))
            return poses
        keep = ~(self._lost(poses) | self._doubles(poses))
        kept, anchor, before = (_rows(p, keep) for p in (poses, self._last.anchor, self._last.poses))
        kept = replace(kept, boxes=self._boxes_around(kept, anchor).astype(np.float32))
        moved = self._moves(before, kept)
        size = np.sqrt(np.prod(kept.boxes[:, 2:] - kept.boxes[:, :2], axis=1).clip(1))
        self._doubt = bool(
            not keep.all()
            or self._weak(kept).any()
            or (kept.scores.mean(axis=1) < self._options.weaker * anchor.scores.mean(axis=1)).any()
            or (_at_border(kept, frame) & ~_at_border(anchor, frame)).any()
            or (np.linalg.norm(moved, axis=1) > self._options.step * size).any()
        )
        velocity = moved / max(time - self._last.time, 1e-3)
        self._last = _Carried(time, picture, small, kept, anchor, velocity)
        return kept

    def _speeds_after_detection(self, poses: Poses, time: float) -> Float64Array:
        """(N, 2), 0 for those who were not there in the frame before."""
        velocity = np.zeros((len(poses), 2))
        if self._last is None or not len(poses) or not len(self._last.poses):
            return velocity
        overlap = iou(poses.boxes, self._last.poses.boxes)
        nearest = overlap.argmax(axis=1)
        same = (overlap.max(axis=1) > 0.5) & (overlap.argmax(axis=0)[nearest] == np.arange(len(poses)))
        moved = self._moves(_rows(self._last.poses, nearest[same]), _rows(poses, same))
        velocity[same] = moved / max(time - self._last.time, 1e-3)
        return velocity

    def _moves(self, before: Poses, now: Poses) -> Float64Array:
        """(N, 2) mean way of the keypoints that are sure in both, in pixels."""
        sure = ((np.minimum(before.scores, now.scores) >= self._options.sure) * 1.0)[..., None]
        way = ((now.keypoints - before.keypoints) * sure).sum(axis=1)
        return np.asarray(way / np.maximum(sure.sum(axis=1), 1))

    def _boxes_around(self, poses: Poses, anchor: Poses) -> Float64Array:
        """(N, 4): around the keypoints with the room that the detector left, which grows with the person.

        Only keypoints that are sure now and at the detection count, so that one that is hidden takes nothing away.
        """
        sure = np.minimum(poses.scores, anchor.scores) >= self._options.sure
        enough = sure.sum(axis=1) >= self._options.fewest
        low, high = _enclosing(poses.keypoints, sure)
        anchor_low, anchor_high = _enclosing(anchor.keypoints, sure)
        area = np.prod(np.maximum(high - low, 1), axis=1) / np.prod(np.maximum(anchor_high - anchor_low, 1), axis=1)
        growth = np.sqrt(np.clip(area, 0.64, 1.56))[:, None]
        around = np.concatenate(
            [low - (anchor_low - anchor.boxes[:, :2]) * growth, high + (anchor.boxes[:, 2:] - anchor_high) * growth],
            axis=1,
        )
        return np.where(enough[:, None], around, poses.boxes)

    def _lost(self, poses: Poses) -> Mask:
        """(N,) who has too few sure keypoints, but had enough at the detection."""
        assert self._last is not None
        return self._weak(poses) & ~self._weak(self._last.anchor)

    def _weak(self, poses: Poses) -> Mask:
        """(N,) who has too few sure keypoints to be carried."""
        return np.asarray((poses.scores >= self._options.sure).sum(axis=1) < self._options.fewest)

    def _doubles(self, poses: Poses) -> Mask:
        """(N,) who is another, of a better score. Only if both were not so at the detection already."""
        assert self._last is not None
        alike, before = self._alike(poses), self._alike(self._last.anchor)
        collapsed = (alike > self._options.twice) & (before <= self._options.twice)
        score = poses.person_scores
        # Of equals the earlier row stays.
        better = (score[:, None] > score[None]) | (
            (score[:, None] == score[None]) & np.tri(len(score), k=-1).T.astype(bool)
        )
        return np.asarray((collapsed & better).any(axis=0))

    def _alike(self, poses: Poses) -> Float64Array:
        """OKS (N, N) of all with all, over what is sure."""
        area = np.prod(poses.boxes[:, 2:] - poses.boxes[:, :2], axis=1)
        sure = np.minimum(poses.scores[:, None], poses.scores[None]) >= self._options.sure
        smaller = np.minimum(area[:, None], area[None])
        return oks(poses.keypoints[:, None], poses.keypoints[None], sure, smaller, self._sigmas)


def _time(frame: Frame) -> float:
    return float(frame.time) if frame.time is not None else frame.index / 25


def _rows(poses: Poses, rows: object) -> Poses:
    return replace(poses, **{name: values[rows] for name, values in vars(poses).items() if values is not None})


def _enclosing(keypoints: NDArray[np.float32], sure: Mask) -> tuple[Float64Array, Float64Array]:
    """Low and high corners (N, 2) of the sure keypoints."""
    low = np.where(sure[..., None], keypoints, np.inf).min(axis=1, initial=np.inf)
    high = np.where(sure[..., None], keypoints, -np.inf).max(axis=1, initial=-np.inf)
    none = ~sure.any(axis=1)
    low[none] = high[none] = 0.0
    return low.astype(np.float64), high.astype(np.float64)


def _at_border(poses: Poses, frame: Frame) -> Mask:
    """(N,) whose box comes within 1 % of the picture to its border."""
    margin = 0.01 * max(frame.width, frame.height)
    low = poses.boxes[:, :2].min(axis=1, initial=np.inf) < margin
    high = (poses.boxes[:, 2:] > np.array([frame.width, frame.height]) - margin).any(axis=1)
    return np.asarray(low | high)
