"""Verification of a detector's proposals by the pose model's person score, with box refinement."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from posecli import geometry
from posecli.pose.estimator import Estimate, Estimator, NeedsFlipTest, person_scores
from posecli.stages import stage
from posecli.types import Detections, Expected, FloatArray, Frame, IntArray, Poses

# Two proposals are one person where their poses have an OKS above this, or their boxes an IoU above that.
SAME_PERSON_OKS = 0.5
SAME_BOX_IOU = 0.6
# In videos a proposal gets a flip test where its log-odds differ from those of the threshold by less than this. In
# photos neither average precision nor who is found depends on it (results/detector.md).
FLIP_TEST_MARGIN = 0.5
# An expected person whose box has a lower IoU with every proposal was missed by the detector.
MISSED_IOU = 0.5
# Where no new people are looked for, a proposal of a lower score is verified only if it is the nearest to an expected
# person, by such an IoU or more.
WEAK_PROPOSAL, NEAR_IOU = 0.5, 0.3
# Share of the box head's box in the refined box; the rest is the proposal's. Chosen by box AP, see results/detector.md.
BOX_HEAD_SHARE = 0.67
# A pose is estimated again where the refined box and the one that was cropped have an IoU below this.
REESTIMATE_IOU = 0.7


def verify(
    estimator: Estimator,
    frames: Sequence[Frame],
    proposals: Sequence[Detections],
    threshold: float,
    *,
    reestimate: bool = False,
    flip_tests: Sequence[bool] | None = None,
) -> list[Poses]:
    """One Poses a frame: the proposals that are people, best first, without duplicates.

    Proposals are rescored by the estimator's person score, with a flip test where the decision is close, and must reach
    the threshold; their boxes are refined where the estimator has a box head. The pose is that of the proposal's crop;
    reestimate: of the refined box's crop where that box differs much. flip_tests: which frames may have flip tests,
    None for no frame.
    """
    estimates = estimator.estimate(frames, proposals, _close(proposals, threshold, flip_tests or ()))
    sigmas = estimator.config.keypoints.sigmas
    found, cropped = [], []
    with stage("selection", len(frames)):
        for estimate, frame in zip(estimates, frames, strict=True):
            poses = rescored_and_refined(estimate, frame)
            rows = select(poses, threshold, sigmas)
            found.append(poses.rows(rows))
            cropped.append(estimate.poses.boxes[rows])
    if not reestimate:
        return found
    again = estimate_again(estimator, frames, found, cropped)
    # Poses of refined boxes may be duplicates again.
    return [poses.rows(select(poses, 0.0, sigmas)) for poses in again]


def _close(proposals: Sequence[Detections], threshold: float, flip_tests: Sequence[bool]) -> NeedsFlipTest | None:
    """Selects the proposals that get a flip test; None where no frame has one."""
    if not any(flip_tests):
        return None
    scores = np.concatenate([people.scores for people in proposals])
    tested = np.repeat(np.array(flip_tests, bool), np.array([*map(len, proposals)], np.int64))

    def close(odds: FloatArray) -> IntArray:
        rows = needs_flip_test(scores, odds, threshold)
        return np.asarray(rows[tested[rows]], np.int64)

    return close


def with_expected(proposals: Detections, expected: Expected, score: float) -> Detections:
    """The proposals, and with this score the boxes of expected people whom the detector missed.

    A detector may find two people who overlap as one; who was seen before is so looked for at the place expected. Where
    no new people are looked for, weak proposals are left out unless they are the nearest to an expected person.
    """
    overlap = geometry.iou(expected.boxes, proposals.boxes)
    new = expected.boxes[overlap.max(axis=1, initial=0.0) <= MISSED_IOU]
    if not expected.new_people and overlap.size:
        chosen = proposals.scores >= WEAK_PROPOSAL
        chosen[overlap.argmax(axis=1)[overlap.max(axis=1) >= NEAR_IOU]] = True
        proposals = Detections(proposals.boxes[chosen], proposals.scores[chosen])
    return Detections(
        np.concatenate([proposals.boxes, new]),
        np.concatenate([proposals.scores, np.full(len(new), score, np.float32)]),
    )


def needs_flip_test(scores: FloatArray, person_log_odds: FloatArray, threshold: float) -> IntArray:
    """Rows of the proposals whose score is near the threshold after rescoring.

    scores (N,): of the proposals. person_log_odds (N,): of the pose model.
    """
    return np.flatnonzero(np.abs(log_odds(scores) + person_log_odds - log_odds(threshold)) < FLIP_TEST_MARGIN)


def rescore(poses: Poses, person_log_odds: FloatArray) -> Poses:
    """The same people with log-odds (N,) added to those of their box scores."""
    scores = (1 / (1 + np.exp(-log_odds(poses.box_scores) - person_log_odds))).astype(np.float32)
    return replace(poses, box_scores=scores, person_scores=person_scores(scores, poses.scores))


def refine_boxes(poses: Poses, boxes: ArrayLike, frame: Frame) -> Poses:
    """The same people with other boxes (N, 4), clipped to the image; the old one where less than a pixel is left."""
    limits = np.array([frame.width, frame.height] * 2)
    clipped = np.clip(np.asarray(boxes, np.float64), 0, limits)
    whole = (clipped[:, 2:] - clipped[:, :2] >= 1).all(axis=1, keepdims=True)
    return replace(poses, boxes=np.where(whole, clipped, poses.boxes).astype(np.float32))


def select(poses: Poses, threshold: float, sigmas: Sequence[float] | None) -> IntArray:
    """Rows of the people whose box score reaches the threshold, best first, without duplicates.

    sigmas: of OKS; without them duplicates are found by their boxes only.
    """
    order = np.argsort(-poses.box_scores, kind="stable")
    order = order[poses.box_scores[order] >= threshold]
    poses = poses.rows(order)
    same = geometry.iou(poses.boxes, poses.boxes) > SAME_BOX_IOU
    if sigmas is not None:
        areas, visible = geometry.person_areas(poses.boxes), np.ones(poses.scores.shape)
        alike = geometry.oks(poses.keypoints[:, None], poses.keypoints[None], visible, areas[:, None], sigmas)
        same |= alike > SAME_PERSON_OKS
    kept: list[int] = []
    for row in range(len(poses)):
        if not same[kept, row].any():
            kept.append(row)
    return order[np.array(kept, np.int64)]


def estimate_again(
    estimator: Estimator,
    frames: Sequence[Frame],
    people: Sequence[Poses],
    cropped: Sequence[FloatArray],
) -> list[Poses]:
    """People with new poses where their box and the one that was cropped (N, 4) have an IoU below REESTIMATE_IOU."""
    rows = [
        np.flatnonzero(np.diagonal(geometry.iou(poses.boxes, boxes)) < REESTIMATE_IOU)
        for poses, boxes in zip(people, cropped, strict=True)
    ]
    boxes = [Detections(p.boxes[chosen], p.box_scores[chosen]) for p, chosen in zip(people, rows, strict=True)]
    if not any(len(chosen) for chosen in rows):
        return list(people)
    estimates = estimator.estimate(frames, boxes)
    result = []
    for poses, chosen, estimate in zip(people, rows, estimates, strict=True):
        names = ("keypoints", "std", "scores", "person_scores")
        arrays = {name: getattr(poses, name).copy() for name in names}
        for name, values in arrays.items():
            values[chosen] = getattr(estimate.poses, name)
        result.append(replace(poses, **arrays))
    return result


def log_odds(scores: ArrayLike) -> geometry.Float64Array:
    """Log-odds of probabilities, finite also at 0 and 1."""
    clipped = np.clip(np.asarray(scores, np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)))


def rescored_and_refined(estimate: Estimate, frame: Frame) -> Poses:
    """All proposals of a frame with rescored and refined boxes.

    A refined box is the weighted mean of the proposal and the box head's box: their errors differ.
    """
    poses = estimate.poses
    if estimate.person_log_odds is not None:
        poses = rescore(poses, estimate.person_log_odds)
    if estimate.refined_boxes is None:
        return poses
    mean = (1 - BOX_HEAD_SHARE) * poses.boxes + BOX_HEAD_SHARE * estimate.refined_boxes
    return refine_boxes(poses, mean, frame)
