"""Pose networks from weights files."""

from pathlib import Path

import torch

from posecli.errors import DataError
from posecli.pose.config import PoseConfig, read_pose_config
from posecli.pose.network import SimCC, resample_classifiers
from posecli.weights.files import fitting, load_weights


def load_network(path: Path) -> tuple[SimCC, PoseConfig]:
    """Network in float32 and configuration of a weights file.

    Raises DataError where the header is invalid or the tensors do not fit it; MachineError where there is no file.
    """
    tensors, header = load_weights(path)
    config = read_pose_config(path, header)
    try:
        # On torch's meta device first: a header may ask for more memory than the machine has.
        with torch.device("meta"):
            expected = SimCC(config).state_dict()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    full = fitting(path, tensors, expected)
    network = SimCC(config)
    network.load_state_dict(full)
    return network.eval(), config


def resize_network(network: SimCC, config: PoseConfig, resized: PoseConfig) -> SimCC:
    """The network of a configuration at another input size (PoseConfig.resized), its classifiers resampled."""
    other = SimCC(resized)
    other.load_state_dict(resample_classifiers(network.state_dict(), config, resized))
    return other.eval()
