"""The teacher of a distillation."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from posecli.errors import DataError
from posecli.keypoints import KeypointSet
from posecli.pose.config import PoseConfig
from posecli.pose.loading import load_network
from posecli.pose.runner import Runner, load_runner
from posecli.runtime import is_gpu, resolve_device
from posecli.train.batches import Batch
from posecli.train.loss import matching_bins
from posecli.weights.files import sha256


@dataclass(frozen=True, eq=False)
class Teacher:
    """A frozen network in the fastest runtime of the device. sha256: of its weights file."""

    runner: Runner
    config: PoseConfig
    sha256: str

    def distributions(self, batch: Batch, where: torch.device) -> tuple[Tensor, Tensor]:
        """Logits over x (N, K, bins) and y (N, K, bins) for the batch's crops, float32 on the device where."""
        crops = batch.crops if batch.large is None else batch.large
        if self.runner.resident is not None:
            return self.runner.resident.logits(crops.to(where, non_blocking=True))
        x, y = self.runner(crops.cpu().numpy()).logits
        return torch.from_numpy(x).to(where), torch.from_numpy(y).to(where)

    def places(self, config: PoseConfig) -> tuple[Tensor, Tensor] | None:
        """Fractional bins of the teacher for a model's bins over x and y; None where they are equal."""
        own = self.config
        if (own.input_size, own.split_ratio) == (config.input_size, config.split_ratio):
            return None
        enlarged = own.input_size[0] / config.input_size[0]
        x, y = (matching_bins(bins, config.split_ratio, own.split_ratio, enlarged) for bins in config.bins)
        return x, y


def load_teacher(path: Path, keypoint_set: KeypointSet, device: str) -> Teacher:
    """The teacher from a weights file.

    Raises DataError for a file of another kind or with other keypoints, MachineError where there is no file.
    """
    network, config = load_network(path)
    if config.keypoints.names != keypoint_set.names:
        raise DataError(f"--teacher {path}: its keypoints differ from those of the training set")
    key = sha256(path)
    # On a CPU it shares the threads that torch was given (--threads).
    # In float32 there, so that a training gives the same weights on every CPU.
    precision = "auto" if is_gpu(resolve_device(device)) else "fp32"
    threads = torch.get_num_threads()
    runner = load_runner(lambda: network, config, device=device, precision=precision, key=key, threads=threads)
    return Teacher(runner, config, key)
