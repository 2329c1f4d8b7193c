"""Frames and boxes to poses: crops, network, decoding and the way back to source pixels."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike

from posecli import geometry
from posecli.errors import DataError, UsageError
from posecli.pose import codec
from posecli.pose.config import PoseConfig
from posecli.pose.crops import cut_crops
from posecli.pose.network import SimCC, resample_classifiers
from posecli.pose.runner import Outputs, Runner, load_runner
from posecli.types import Detections, FloatArray, Frame, IntArray, Poses
from posecli.weights.files import find_weights, fitting, load_weights, read_config, sha256

# Of two proposals whose poses have an OKS above this, or whose boxes an IoU above that, one person is meant.
SAME_PERSON = 0.5
SAME_BOX = 0.6
# A proposal is looked at twice where the log-odds that it is a person are nearer to 0 than this.
DOUBT = 1.5
# COCO's custom, after MMPose and SimpleBaselines: keypoints below it do not count for a person's score.
SCORE_FLOOR = 0.2


LOG = logging.getLogger(__name__)
NO_MIRROR = "%s: its keypoints have no left and right pairs: no mirror images are averaged in (--flip)"


@dataclass(frozen=True)
class Estimator:
    """A pose model ready to run. Calling it maps frames and their people to poses.

    decoder: of codec.DECODERS, or "auto"; see choose_decoder. flip: average with the mirror image.
    shift_flipped: put the mirrored bins back exactly (codec.merge_flipped); False is what much code does, for
    comparison. resampled: whether the input size is not the one trained for.
    """

    config: PoseConfig
    runner: Runner
    decoder: str = "auto"
    flip: bool = False
    shift_flipped: bool = True
    weights: Path | None = None
    weights_sha256: str | None = None
    resampled: bool = False

    @property
    def refinement(self) -> str:
        """The decoder that is used: "auto" made plain."""
        return choose_decoder(self.decoder, self.config)

    def __call__(self, frames: Sequence[Frame], detections: Sequence[Detections]) -> list[Poses]:
        """One Poses a frame; people of all frames go through the network together.

        Of proposals (Detections.lowest) only those that the network confirms are left, with boxes that end where it
        sees the person end, if it tells. Where it is in doubt, their mirror images are averaged in.
        """
        boxes = [found.boxes for found in detections]
        config = self.config
        crops, matrices = cut_crops(
            [frame.pixels for frame in frames], boxes, config.input_size, config.preprocessing.padding
        )
        if not len(crops):
            return [Poses.empty(len(config.keypoints)) for _ in frames]
        outputs = self.runner(crops)
        # Without left and right pairs a mirror image tells nothing.
        flip = self.flip and config.keypoints.mirrors
        rows = np.arange(len(crops)) if flip else doubtful(outputs.presence, detections)
        rows = rows if config.keypoints.mirrors else rows[:0]
        if len(rows):
            other = self.runner(np.ascontiguousarray(crops[rows][:, :, ::-1]))
            # A split ratio of 1 needs no shift: with it the mirrored bins are only reversed.
            ratio = config.split_ratio if self.shift_flipped else 1.0
            outputs = averaged(outputs, other, rows, config.keypoints.flip_indices, ratio)
        logits, presence, extent = outputs.logits, outputs.presence, outputs.extent
        # Damaged weights, of which no value alone looks wrong; written as poses nobody would notice.
        if not all(np.isfinite(values).all() for values in (*logits, presence, extent) if values is not None):
            raise DataError("the pose network answers with values that are not finite: its weights are damaged")
        in_crop, std, scores = read_logits(logits, config, np.concatenate(boxes), matrices, self.decoder)
        keypoints = geometry.transform(np.linalg.inv(matrices), in_crop).astype(np.float32)
        pixel_size = 1 / np.stack([matrices[:, 0, 0], matrices[:, 1, 1]], axis=-1)[:, None]
        deviations = (std * pixel_size * config.std_scale).astype(np.float32)
        found = _split(keypoints, deviations, scores, detections)
        odds = np.zeros(len(crops), np.float32) if presence is None else presence
        seen = np.concatenate(boxes) if extent is None else geometry.crop_to_source(extent, matrices, config.input_size)
        ends = np.cumsum([len(poses) for poses in found])[:-1]
        return [
            poses
            if people.lowest is None
            else confirmed(refitted(poses, own, frame), part, people.lowest, config.keypoints.sigmas)
            for poses, own, part, people, frame in zip(
                found, np.split(seen, ends), np.split(odds, ends), detections, frames, strict=True
            )
        ]


def doubtful(presence: FloatArray | None, detections: Sequence[Detections]) -> IntArray:
    """Rows of the proposals of which it is not clear yet whether they are people: they are looked at in the mirror too.

    presence: (N,) log-odds of all people of the detections.
    """
    if presence is None:
        return np.zeros(0, np.int64)
    proposed = np.repeat([people.lowest is not None for people in detections], [len(people) for people in detections])
    odds = log_odds(np.concatenate([people.scores for people in detections])) + presence
    return np.flatnonzero(proposed & (np.abs(odds) < DOUBT))


def averaged(
    outputs: Outputs, mirrored: Outputs, rows: IntArray, flip_indices: tuple[int, ...], split_ratio: float
) -> Outputs:
    """Outputs of N crops, in the given rows their means with what the network says of those crops' mirror images."""
    x, y = (logits.copy() for logits in outputs.logits)
    x[rows], y[rows] = codec.merge_flipped((x[rows], y[rows]), mirrored.logits, flip_indices, split_ratio)
    sides = None if mirrored.extent is None else mirrored_sides(mirrored.extent)
    return Outputs(
        (x, y), _with_means(outputs.presence, rows, mirrored.presence), _with_means(outputs.extent, rows, sides)
    )


def _with_means(values: FloatArray | None, rows: IntArray, others: FloatArray | None) -> FloatArray | None:
    if values is None or others is None:
        return values
    result = values.copy()
    result[rows] = (values[rows] + others) / 2
    return result


def log_odds(scores: ArrayLike) -> geometry.Float64Array:
    """Of probabilities, kept finite at 0 and 1."""
    clipped = np.clip(np.asarray(scores, np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)))


def choose_decoder(decoder: str, config: PoseConfig) -> str:
    """The decoder that "auto" stands for: the highest expected OKS, without OKS sigmas the parabola."""
    if decoder != "auto":
        return decoder
    return "parabola" if config.keypoints.sigmas is None else "oks"


def read_logits(
    logits: tuple[FloatArray, FloatArray],
    config: PoseConfig,
    boxes: ArrayLike,
    matrices: geometry.Float64Array,
    decoder: str = "auto",
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Logits of N crops to keypoints (N, K, 2), their standard deviations (N, K, 2) and scores (N, K).

    In crop pixels; the deviations as predicted, without config.std_scale. boxes: (N, 4) xyxy in source pixels.
    matrices: (N, 3, 3) from source to crop pixels.
    """
    square_bins = matrices[:, 0, 0] * matrices[:, 1, 1] * config.split_ratio**2
    oks_sigma_bins = codec.oks_sigmas_in_bins(config.keypoints.sigmas, geometry.person_areas(boxes) * square_bins)
    x, y = (
        codec.decode(axis, sigma, choose_decoder(decoder, config), config.temperature, oks_sigma_bins)
        for axis, sigma in zip(logits, config.sigma, strict=True)
    )
    keypoints, std = (np.stack(pair, axis=-1) / config.split_ratio for pair in ((x.bins, y.bins), (x.std, y.std)))
    return keypoints, std, np.minimum(x.scores, y.scores)


def person_scores(box_scores: FloatArray, scores: FloatArray) -> FloatArray:
    """Box score × mean of the keypoint scores above 0.2, 0 where there is none. (N,) and (N, K) → (N,)."""
    counted = scores > SCORE_FLOOR
    mean = (scores * counted).sum(axis=-1) / np.maximum(counted.sum(axis=-1), 1)
    return np.asarray(box_scores * mean, np.float32)


def refitted(poses: Poses, boxes: ArrayLike, frame: Frame) -> Poses:
    """The same people with other boxes (N, 4), cut off where the picture ends; the old one where no pixel is left."""
    limits = np.array([frame.width, frame.height] * 2)
    cut = np.clip(np.asarray(boxes, np.float64), 0, limits)
    whole = (cut[:, 2:] - cut[:, :2] >= 1).all(axis=1, keepdims=True)
    return replace(poses, boxes=np.where(whole, cut, poses.boxes).astype(np.float32))


def confirmed(poses: Poses, presence: FloatArray, lowest: float, sigmas: Sequence[float] | None) -> Poses:
    """The proposals that are people, best first, each person once.

    presence: (N,) log-odds that are added to those of the box scores. lowest: score to be reached. sigmas: of OKS;
    without them only the boxes tell who is the same.
    """
    scores = (1 / (1 + np.exp(-log_odds(poses.box_scores) - presence))).astype(np.float32)
    poses = replace(poses, box_scores=scores, person_scores=person_scores(scores, poses.scores))
    order = np.argsort(-scores, kind="stable")
    poses = poses.rows(order[scores[order] >= lowest])
    same = geometry.iou(poses.boxes, poses.boxes) > SAME_BOX
    if sigmas is not None:
        areas, visible = geometry.person_areas(poses.boxes), np.ones(poses.scores.shape)
        alike = geometry.oks(poses.keypoints[:, None], poses.keypoints[None], visible, areas[:, None], sigmas)
        same |= alike > SAME_PERSON
    kept: list[int] = []
    for row in range(len(poses)):
        if not same[kept, row].any():
            kept.append(row)
    return poses.rows(np.array(kept, np.int64))


def mirrored_sides(sides: FloatArray) -> FloatArray:
    """Left, top, right, bottom (N, 4) in shares of a crop, seen in its mirror image."""
    return np.asarray(np.stack([1 - sides[:, 2], sides[:, 1], 1 - sides[:, 0], sides[:, 3]], axis=1), np.float32)


def load_estimator(
    weights: str = "pose",
    *,
    device: str = "auto",
    runtime: str = "auto",
    decoder: str = "auto",
    flip: bool = False,
    shift_flipped: bool = True,
    input_size: tuple[int, int] | None = None,
) -> Estimator:
    """The pose model of a weights file or an embedded name, ready to run.

    input_size: (height, width) other than the model's own; its classifiers are resampled, untrained for it.
    Raises MachineError (no such weights or device), DataError (not a pose model's weights) or UsageError (a decoder
    that the keypoints do not allow).
    """
    path = find_weights(weights)
    network, config = load_network(path)
    if decoder == "oks" and config.keypoints.sigmas is None:
        raise UsageError(f"--decode oks: the keypoints of {weights} have no OKS sigmas; choose parabola or dark")
    if flip and not config.keypoints.mirrors:
        LOG.warning(NO_MIRROR, weights)
    resampled = input_size is not None and input_size != config.input_size
    if input_size is not None and resampled:
        network, config = resize_network(network, config, input_size)
    key = sha256(path)
    runner = load_runner(network, config, device=device, runtime=runtime, key=key)
    return Estimator(config, runner, decoder, flip, shift_flipped, path, key, resampled)


def resize_network(network: SimCC, config: PoseConfig, size: tuple[int, int]) -> tuple[SimCC, PoseConfig]:
    """The network at another input size (height, width), its classifiers resampled, σ in proportion."""
    ratio = size[0] / config.input_size[0]
    resized = replace(config, input_size=size, sigma=(config.sigma[0] * ratio, config.sigma[1] * ratio))
    other = SimCC(resized)
    other.load_state_dict(resample_classifiers(network.state_dict(), config, resized))
    return other.eval(), resized


def load_network(path: Path) -> tuple[SimCC, PoseConfig]:
    """Network in float32 and configuration of a weights file.

    Raises DataError where the header is none, or the tensors do not fit it; MachineError where there is no file.
    """
    tensors, header = load_weights(path)
    values = read_config(path, header, "pose")
    try:
        config = PoseConfig.from_json(values)
        # Built without memory first: a header may ask for more than the machine has.
        with torch.device("meta"):
            expected = SimCC(config).state_dict()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    full = fitting(path, tensors, expected)
    network = SimCC(config)
    network.load_state_dict(full)
    return network.eval(), config


def _split(keypoints: FloatArray, std: FloatArray, scores: FloatArray, detections: Sequence[Detections]) -> list[Poses]:
    result, first = [], 0
    for found in detections:
        rows = slice(first, first + len(found))
        first += len(found)
        result.append(
            Poses(
                keypoints=keypoints[rows],
                std=std[rows],
                scores=scores[rows],
                boxes=found.boxes,
                box_scores=found.scores,
                person_scores=person_scores(found.scores, scores[rows]),
            )
        )
    return result
