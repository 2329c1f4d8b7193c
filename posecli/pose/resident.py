"""Crops, network, flip test and decoding on a torch device, from frames that were uploaded once."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from posecli.device.images import image_store, send
from posecli.device.sampling import sample_crops
from posecli.geometry import Float64Array
from posecli.pose.codec_torch import AxisDecoder, merge_flipped
from posecli.pose.config import PoseConfig
from posecli.pose.located import Located
from posecli.pose.outputs import Outputs
from posecli.runtime.fixed_batch import FixedBatch
from posecli.runtime.lanes import working
from posecli.runtime.network import ModuleSpec
from posecli.runtime.prepare import Prepared, prepare
from posecli.stages import stage
from posecli.types import FloatArray, Frame, IntArray, PixelArray


@dataclass(frozen=True)
class Decoding:
    """How outputs are decoded. decoder: of codec.DECODERS. ratio: see codec.merge_flipped's split_ratio."""

    decoder: str
    ratio: float


class ResidentPose:
    """A pose network on a torch device: people of frames to keypoints in crop pixels.

    The results of a person do not depend on the others. Several threads may call it at once.
    """

    def __init__(self, spec: ModuleSpec, config: PoseConfig, device: str, precision: str) -> None:
        self._config, self._device = config, torch.device(device)
        self._size = spec.batch(device)
        self._network = prepare(spec.build(), self._device, precision)
        self._flip_indices = torch.tensor(config.keypoints.flip_indices, device=self._device)
        self._lock = threading.Lock()
        self._raw = FixedBatch(self._joined, self._size)
        self._batches: dict[tuple[Decoding, bool], FixedBatch] = {}

    def __call__(
        self,
        frames: Sequence[Frame],
        owners: IntArray,
        matrices: Float64Array,
        oks_sigma_bins: FloatArray | None,
        decoding: Decoding,
        *,
        flip: bool,
        needs_flip_test: Callable[[FloatArray], IntArray] | None,
    ) -> Located:
        """The people of crops, N ≥ 1.

        owners: (N,) the frame of each crop. matrices: (N, 3, 3) from source to crop pixels. oks_sigma_bins: (N, K) or
        None, see codec.oks_sigmas_in_bins. flip: average each with its mirror image; needs_flip_test: selects the rows
        where this is done otherwise, by the person log-odds (N,). Raises MachineError where the device fails.
        """
        count, points = len(matrices), len(self._config.keypoints)
        sigmas = np.zeros((count, points), np.float32) if oks_sigma_bins is None else oks_sigma_bins

        def run(rows: IntArray, mirrored: bool) -> FloatArray:
            with working(self._device) as lane:
                with stage("crops", 0):
                    places = image_store(self._device).places(frames)
                    sent = send(sigmas[rows], self._device)

                def inputs(first: int, last: int) -> tuple[Tensor, Tensor]:
                    part = rows[first:last]
                    with stage("crops", len(part)):
                        crops = sample_crops(
                            [places[owner] for owner in owners[part]], matrices[part], self._config.input_size
                        )
                    return crops, sent[first:last]

                with stage("network", len(rows)):
                    return self._batch(decoding, mirrored)(inputs, len(rows), lane)

        flip = flip and bool(self._config.keypoints.mirrors)
        values = run(np.arange(count), flip)
        if needs_flip_test is not None and not flip and self._config.person_score:
            odds = Located.unpacked(values, points).person_log_odds
            rows = np.zeros(0, np.int64) if odds is None else needs_flip_test(odds)
            if len(rows) and self._config.keypoints.mirrors:
                values = values.copy()
                values[rows] = run(rows, True)
        return Located.unpacked(values, points)

    def outputs(self, crops: PixelArray) -> Outputs:
        """The network's own outputs for crops (N, H, W, 3) uint8, N ≥ 1: a copy there, a copy back."""
        with working(self._device) as lane:
            values = self._raw(lambda first, last: (send(crops[first:last], self._device),), len(crops), lane)
        points, bins = len(self._config.keypoints), self._config.bins
        x, y, odds, sides = np.split(values, np.cumsum([points * bins[0], points * bins[1], 1]), axis=1)
        logits = x.reshape(-1, points, bins[0]), y.reshape(-1, points, bins[1])
        return Outputs(logits, odds[:, 0] if odds.shape[1] else None, sides if sides.shape[1] else None)

    def logits(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Logits over x and y for crops (N, H, W, 3) uint8 on the device, on the current stream, in one batch."""
        with torch.no_grad():
            x, y, *_ = self._network(crops)
        return x, y

    def _batch(self, decoding: Decoding, mirrored: bool) -> FixedBatch:
        key, indices = (decoding, mirrored), self._flip_indices if mirrored else None
        with self._lock:
            if key not in self._batches:
                step = _Step(self._network, self._config, decoding, indices, self._device)
                self._batches[key] = FixedBatch(step, self._size)
            return self._batches[key]

    def _joined(self, crops: Tensor) -> Tensor:
        """All outputs of each crop in a row, (N, values)."""
        return torch.cat([output.reshape(len(crops), -1) for output in self._network(crops)], dim=1)


class _Step:
    """Crops (N, H, W, 3) uint8 and OKS's σ in bins (N, K) → all values of each crop (N, P), see located.Located."""

    def __init__(
        self,
        network: Prepared,
        config: PoseConfig,
        decoding: Decoding,
        flip_indices: Tensor | None,
        device: torch.device,
    ) -> None:
        self._network, self._flip_indices, self._ratio = network, flip_indices, decoding.ratio
        self._split_ratio = config.split_ratio
        self._x, self._y = (
            AxisDecoder(bins, sigma, config.temperature, decoding.decoder).to(device)
            for bins, sigma in zip(config.bins, config.sigma, strict=True)
        )

    def __call__(self, crops: Tensor, sigmas: Tensor) -> Tensor:
        x, y, *others = self._network(crops)
        if self._flip_indices is not None:
            flipped_x, flipped_y, *flipped = self._network(crops.flip(2))
            x, y = merge_flipped((x, y), (flipped_x, flipped_y), self._flip_indices, self._ratio)
            others = [(own + other) / 2 for own, other in zip(others, _mirrored_back(flipped), strict=True)]
        finite = torch.stack([torch.isfinite(v).reshape(len(v), -1).all(dim=1) for v in (x, y, *others)]).all(dim=0)
        (x, x_std, x_score), (y, y_std, y_score) = self._x(x, sigmas), self._y(y, sigmas)
        keypoints, std = (torch.stack(pair, dim=-1) / self._split_ratio for pair in ((x, y), (x_std, y_std)))
        values = (keypoints, std, torch.minimum(x_score, y_score), finite, *others)
        return torch.cat(
            [value.float().flatten(1) if value.ndim > 1 else value.float()[:, None] for value in values], 1
        )


def _mirrored_back(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Log-odds and perhaps sides of mirrored crops, as those of the crops."""
    if len(outputs) < 2:
        return list(outputs)
    odds, sides = outputs
    left, top, right, bottom = sides.unbind(dim=1)
    return [odds, torch.stack([1 - right, top, 1 - left, bottom], dim=1)]
