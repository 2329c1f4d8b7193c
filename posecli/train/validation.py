"""Evaluation on a validation set during training, as in `posecli eval`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posecli.errors import DataError
from posecli.evaluate.ground_truth import GroundTruth, read_ground_truth
from posecli.evaluate.predictions import predict, true_boxes
from posecli.evaluate.scoring import score_keypoints
from posecli.keypoints import KeypointSet, same_keypoints
from posecli.pose.config import PoseConfig
from posecli.pose.estimator import Estimator
from posecli.pose.network import SimCC
from posecli.pose.runner import load_runner
from posecli.train.loop import Evaluate
from posecli.weights.fingerprints import overlap


def read_validation(
    annotations: Path,
    images: Path,
    keypoint_set: KeypointSet,
    trained: Mapping[str, Any] | None = None,
    *,
    missing_limit: float = 0.0,
    category: str | None = None,
) -> GroundTruth:
    """The validation set.

    trained: fingerprints of the training images (weights.fingerprints). Raises DataError where its keypoints differ
    from keypoint_set, or where it contains a training image (the same file name or the same bytes).
    """
    truth = read_ground_truth(
        annotations, images, missing_limit=missing_limit, category=category, option="--missing-limit"
    )
    if not same_keypoints(truth.keypoint_set, keypoint_set):
        raise DataError(f"{annotations}: its keypoints differ from those of the training set")
    if trained is not None:
        shared = overlap(trained, truth.files.values())
        if shared:
            raise DataError(
                f"{len(shared)} validation images are trained on, first {shared[0].name}: "
                "separate them, or --allow-overlap"
            )
    return truth


def evaluator(truth: GroundTruth) -> Evaluate:
    """A function that scores a network on the true boxes: AP, AP50, AP75 and AR, no flip test."""

    def evaluate(network: SimCC, config: PoseConfig) -> dict[str, float]:
        device = str(next(network.parameters()).device)
        estimator = Estimator(config, load_runner(lambda: network, config, device=device, runtime="torch"))
        found = predict(estimator, truth, true_boxes(truth))
        scores = score_keypoints(truth.dataset, found.results, truth.keypoint_set)
        return {name: round(scores.values[name], 4) for name in ("AP", "AP50", "AP75", "AR")}

    return evaluate
