"""Frames and boxes to poses: crops, network, decoding and the mapping back to source pixels."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from posecli import geometry
from posecli.errors import DataError, UsageError
from posecli.pose import codec
from posecli.pose.config import PoseConfig, read_pose_config
from posecli.pose.crops import cut_crops
from posecli.pose.graphs import load_graph
from posecli.pose.located import Located
from posecli.pose.outputs import Outputs
from posecli.pose.pull import find_or_pull
from posecli.pose.runner import Runner, load_runner
from posecli.stages import stage
from posecli.types import Detections, FloatArray, Frame, IntArray, PixelArray, Poses
from posecli.weights.files import read_header, sha256
from posecli.weights.graphs import is_graph

if TYPE_CHECKING:
    from posecli.pose.network import SimCC

# As in MMPose and SimpleBaselines, keypoints below this score do not count for a person's score.
SCORE_FLOOR = 0.2


LOG = logging.getLogger(__name__)
NO_MIRROR = "%s: its keypoints have no left and right pairs: no mirror images are averaged in (--flip)"


@dataclass(frozen=True, eq=False)
class Estimate:
    """The pose model's outputs for the boxes of one frame, N people.

    poses: with the given boxes and box scores. person_log_odds: (N,) float32, to be added to the log-odds of the box
    scores; None without a person score. refined_boxes: (N, 4) float, x1 y1 x2 y2 in source pixels, predicted by the box
    head, may extend beyond the image; None without a box head.
    """

    poses: Poses
    person_log_odds: FloatArray | None = None
    refined_boxes: geometry.Float64Array | None = None


# Person log-odds (N,) of all people → rows (M,) of those whose flip test is needed.
NeedsFlipTest = Callable[[FloatArray], IntArray]


@dataclass(frozen=True)
class Estimator:
    """A pose model ready to run. Calling it maps frames and boxes to poses.

    decoder: of codec.DECODERS, or "auto"; see choose_decoder. flip: average with the mirror image.
    shift_flipped: align the mirrored bins exactly (codec.merge_flipped); False leaves an offset, as in many
    implementations, for comparison. resampled: whether the input size differs from that of training.
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
        """The decoder that is used, "auto" resolved."""
        return choose_decoder(self.decoder, self.config)

    def __call__(self, frames: Sequence[Frame], boxes: Sequence[Detections]) -> list[Poses]:
        """One Poses a frame, its people in the order of their boxes; people of all frames share batches."""
        return [estimate.poses for estimate in self.estimate(frames, boxes)]

    def estimate(
        self, frames: Sequence[Frame], boxes: Sequence[Detections], needs_flip_test: NeedsFlipTest | None = None
    ) -> list[Estimate]:
        """The same with all outputs of the model.

        needs_flip_test: selects people who get a flip test although flip is off. Raises DataError where the network's
        outputs are not finite.
        """
        config, corners = self.config, [people.boxes for people in boxes]
        if not any(map(len, corners)):
            return [Estimate(Poses.empty(len(config.keypoints))) for _ in frames]
        locate = self._on_cpu if self.runner.resident is None else self._on_device
        found, matrices = locate(frames, corners, needs_flip_test)
        # Damaged weights whose values are plausible one by one; their poses must not be written.
        if not found.finite:
            raise DataError("the pose network answers with values that are not finite: its weights are damaged")
        scores = found.scores
        keypoints = geometry.transform(np.linalg.inv(matrices), found.keypoints).astype(np.float32)
        pixel_size = 1 / np.stack([matrices[:, 0, 0], matrices[:, 1, 1]], axis=-1)[:, None]
        deviations = (found.std * pixel_size * config.std_scale).astype(np.float32)
        refined = None
        if found.box_sides is not None:
            refined = geometry.crop_to_source(found.box_sides, matrices, config.input_size)
        result, first = [], 0
        for people in boxes:
            rows = slice(first, first + len(people))
            first += len(people)
            poses = Poses(
                keypoints=keypoints[rows],
                std=deviations[rows],
                scores=scores[rows],
                boxes=people.boxes,
                box_scores=people.scores,
                person_scores=person_scores(people.scores, scores[rows]),
            )
            odds = None if found.person_log_odds is None else found.person_log_odds[rows]
            result.append(Estimate(poses, odds, None if refined is None else refined[rows]))
        return result

    def _on_cpu(
        self, frames: Sequence[Frame], corners: Sequence[FloatArray], needs_flip_test: NeedsFlipTest | None
    ) -> tuple[Located, geometry.Float64Array]:
        """The people of boxes (n, 4) of each frame, and the matrices (N, 3, 3) from source to crop pixels."""
        config = self.config
        with stage("crops", sum(map(len, corners))):
            crops, matrices = cut_crops(
                [frame.pixels for frame in frames], corners, config.input_size, config.preprocessing.padding
            )
        outputs = self._run(crops, needs_flip_test)
        every = (*outputs.logits, outputs.person_log_odds, outputs.box_sides)
        finite = all(np.isfinite(values).all() for values in every if values is not None)
        with stage("decoding", len(crops)):
            decoded = decode_logits(outputs.logits, config, np.concatenate(corners), matrices, self.decoder)
        return Located(*decoded, outputs.person_log_odds, outputs.box_sides, finite), matrices

    def _on_device(
        self, frames: Sequence[Frame], corners: Sequence[FloatArray], needs_flip_test: NeedsFlipTest | None
    ) -> tuple[Located, geometry.Float64Array]:
        """The same by the runner's resident form."""
        from posecli.pose.resident import Decoding  # imports torch

        config, every = self.config, np.concatenate(corners)
        assert self.runner.resident is not None
        matrices = geometry.crop_matrices(every, config.input_size, config.preprocessing.padding)
        found = self.runner.resident(
            frames,
            np.repeat(np.arange(len(frames)), [len(boxes) for boxes in corners]),
            matrices,
            oks_sigmas(config, every, matrices),
            Decoding(self.refinement, self._flip_ratio),
            flip=self.flip,
            needs_flip_test=needs_flip_test,
        )
        return found, matrices

    @property
    def _flip_ratio(self) -> float:
        """With a split ratio of 1 the mirrored bins are only reversed, without a shift."""
        return self.config.split_ratio if self.shift_flipped else 1.0

    def _run(self, crops: PixelArray, needs_flip_test: NeedsFlipTest | None) -> Outputs:
        """The network's outputs for the crops (N, H, W, 3), averaged with the mirrored ones in a flip test."""
        config = self.config
        with stage("network", len(crops)):
            outputs = self.runner(crops)
        rows = np.zeros(0, np.int64)
        if self.flip:
            rows = np.arange(len(crops))
        elif needs_flip_test is not None and outputs.person_log_odds is not None:
            rows = needs_flip_test(outputs.person_log_odds)
        # Without left and right pairs there is no flip test.
        if len(rows) and config.keypoints.mirrors:
            with stage("network", len(rows)):
                other = self.runner(np.ascontiguousarray(crops[rows][:, :, ::-1]))
            outputs = flip_average(outputs, other, rows, config.keypoints.flip_indices, self._flip_ratio)
        return outputs


def flip_average(
    outputs: Outputs, mirrored: Outputs, rows: IntArray, flip_indices: tuple[int, ...], split_ratio: float
) -> Outputs:
    """Outputs of N crops, those of the rows (M,) averaged with the outputs of these crops' mirror images."""
    x, y = (logits.copy() for logits in outputs.logits)
    x[rows], y[rows] = codec.merge_flipped((x[rows], y[rows]), mirrored.logits, flip_indices, split_ratio)
    sides = None if mirrored.box_sides is None else mirrored_sides(mirrored.box_sides)
    log_odds_of_person = _with_means(outputs.person_log_odds, rows, mirrored.person_log_odds)
    return Outputs((x, y), log_odds_of_person, _with_means(outputs.box_sides, rows, sides))


def _with_means(values: FloatArray | None, rows: IntArray, others: FloatArray | None) -> FloatArray | None:
    if values is None or others is None:
        return values
    result = values.copy()
    result[rows] = (values[rows] + others) / 2
    return result


def choose_decoder(decoder: str, config: PoseConfig) -> str:
    """The decoder of "auto": highest expected OKS, or the parabola without OKS sigmas."""
    if decoder != "auto":
        return decoder
    return "parabola" if config.keypoints.sigmas is None else "oks"


def decode_logits(
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
    wanted = oks_sigmas(config, boxes, matrices)
    x, y = (
        codec.decode(axis, sigma, choose_decoder(decoder, config), config.temperature, wanted)
        for axis, sigma in zip(logits, config.sigma, strict=True)
    )
    keypoints, std = (np.stack(pair, axis=-1) / config.split_ratio for pair in ((x.bins, y.bins), (x.std, y.std)))
    return keypoints, std, np.minimum(x.scores, y.scores)


def oks_sigmas(config: PoseConfig, boxes: ArrayLike, matrices: geometry.Float64Array) -> FloatArray | None:
    """Standard deviations (N, K) in bins of OKS's Gaussians, see codec.oks_sigmas_in_bins. Arguments: decode_logits."""
    square_bins = matrices[:, 0, 0] * matrices[:, 1, 1] * config.split_ratio**2
    return codec.oks_sigmas_in_bins(config.keypoints.sigmas, geometry.person_areas(boxes) * square_bins)


def person_scores(box_scores: FloatArray, scores: FloatArray) -> FloatArray:
    """Box score × mean of the keypoint scores above 0.2, 0 where there is none. (N,) and (N, K) → (N,)."""
    counted = scores > SCORE_FLOOR
    mean = (scores * counted).sum(axis=-1) / np.maximum(counted.sum(axis=-1), 1)
    return np.asarray(box_scores * mean, np.float32)


def mirrored_sides(sides: FloatArray) -> FloatArray:
    """Left, top, right, bottom (N, 4) relative to a crop's size, mirrored horizontally."""
    return np.asarray(np.stack([1 - sides[:, 2], sides[:, 1], 1 - sides[:, 0], sides[:, 3]], axis=1), np.float32)


def load_estimator(
    weights: str = "pose",
    *,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "fp32",
    decoder: str = "auto",
    flip: bool = False,
    shift_flipped: bool = True,
    input_size: tuple[int, int] | None = None,
    resident: bool | None = None,
    runner: Runner | None = None,
) -> Estimator:
    """The pose model of a weights file or an embedded name, ready to run.

    input_size: (height, width) other than the model's own; the classifiers are resampled to it without training.
    precision: see runtime.precision; float32 by default, so that figures are the same on every CPU. resident: see
    load_runner. runner: of these weights and arguments, where there is one already.
    Raises MachineError (no such weights or device), DataError (not a pose model's weights) or UsageError (a decoder
    that the keypoints do not support).
    """
    path = find_or_pull(weights)
    key = sha256(path)
    if is_graph(path):
        runner, config = load_graph(path, device, runtime, precision)
    else:
        config = read_pose_config(path, read_header(path))
    if decoder == "oks" and config.keypoints.sigmas is None:
        raise UsageError(f"--decode oks: the keypoints of {weights} have no OKS sigmas; choose parabola or dark")
    if flip and not config.keypoints.mirrors:
        LOG.warning(NO_MIRROR, weights)
    resampled = input_size is not None and input_size != config.input_size
    if input_size is not None and resampled:
        if is_graph(path):
            raise UsageError(f"{weights}: a graph, whose input size is fixed when it is imported")
        config = config.resized(input_size)

    def network() -> "SimCC":
        from posecli.pose.loading import load_network, resize_network  # imports torch

        own, trained = load_network(path)
        return resize_network(own, trained, config) if resampled else own

    if runner is None:
        runner = load_runner(
            network, config, device=device, runtime=runtime, precision=precision, key=key, resident=resident
        )
    return Estimator(config, runner, decoder, flip, shift_flipped, path, key, resampled)
