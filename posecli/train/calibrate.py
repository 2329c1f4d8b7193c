"""Fitting the scale of the predicted standard deviations on training people."""

from collections.abc import Callable

import numpy as np

from posecli.evaluate.error_types import calibrate_std
from posecli.geometry import crop_matrices
from posecli.pose.config import PoseConfig
from posecli.pose.estimator import decode_logits
from posecli.pose.network import SimCC
from posecli.pose.runner import load_runner
from posecli.train.augment import NONE, augment_sample
from posecli.train.packing import Crops

Calibrate = Callable[[SimCC, PoseConfig], float]


def std_fitter(crops: Crops, count: int = 400, seed: int = 0) -> Calibrate:
    """A function that gives the std_scale of a network: the factor with which 68.3 % of the residuals are within 1σ.

    It uses count training people, cropped as in inference. Since the network was trained on them, the scale is a lower
    bound; `posecli eval` reports it for other people.
    """
    rows = np.random.default_rng(seed).permutation(len(crops))[:count]

    def fit(network: SimCC, config: PoseConfig) -> float:
        people, random = crops.people, np.random.default_rng(seed)
        samples = [
            augment_sample(
                crops.pixels(row),
                people.boxes[row],
                people.keypoints[row],
                people.weights[row],
                people.keypoint_set,
                config.input_size,
                NONE,
                random,
                config.preprocessing.padding,
            )[:3]
            for row in rows.tolist()
        ]
        pixels, points, weights = (np.stack(part) for part in zip(*samples, strict=True))
        device = str(next(network.parameters()).device)
        logits = load_runner(lambda: network, config, device=device, runtime="torch")(pixels).logits
        boxes = people.boxes[rows]
        matrices = crop_matrices(boxes, config.input_size, config.preprocessing.padding)
        found, std, _ = decode_logits(logits, config, boxes, matrices)
        return calibrate_std(people.keypoint_set.names, points - found, std.astype(np.float64), weights > 0).scale

    return fit
