"""Normalisation of images at the beginning of a network."""

from torch import Tensor


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(levels - mean) / std: images (N, H, W, C) uint8 → (N, C, H, W) in the type of mean, which like std is (W·C,).

    mean, std: of each channel, repeated for each column. With rows of W·C values OpenVINO keeps the channels last, as
    its convolutions take them; with (N, C, H, W) it transposes the image twice.
    """
    height, width, channels = images.shape[1:]
    rows = (images.reshape(-1, height, width * channels).to(mean.dtype) - mean) / std
    return rows.reshape(-1, height, width, channels).permute(0, 3, 1, 2)
