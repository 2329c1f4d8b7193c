"""Resizing on a device, within one level of 255: media.scaling's, and OpenCV's area and linear interpolation.

Area averages and blurs are products with a matrix for each axis. Linear interpolation repeats the integers of OpenCV,
since proposals near a threshold depend on single levels.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posecli.media.scaling import scaling_method

Matrix = NDArray[np.float64]


def area_matrix(before: int, after: int) -> Matrix:
    """(after, before): each new pixel is the mean of the old ones that it covers. before ≥ after."""
    scale = before / after
    new, old = np.arange(after)[:, None], np.arange(before)[None]
    common = np.minimum((new + 1) * scale, old + 1) - np.maximum(new * scale, old)
    return np.asarray(np.clip(common, 0, None) / scale)


def blur_matrices(size: int, sigmas: Tensor) -> Tensor:
    """(N, size, size): Gaussian blurs as OpenCV's for uint8, with images mirrored about their outermost pixels.

    sigmas: (N,) in pixels. size: above their reach, three times sigma.
    """
    reach = ((sigmas * 6 + 1).round() / 2).floor()[:, None, None]
    place = torch.arange(size, device=sigmas.device, dtype=torch.float32)
    apart = place[:, None] - place
    before, after = place[:, None] + place, 2 * (size - 1) - place[:, None] - place

    def kernel(distance: Tensor) -> Tensor:
        values = torch.exp(-(distance**2) / (2 * sigmas[:, None, None] ** 2))
        return values * (distance.abs() <= reach)

    # Pixels beyond the border are those at the same distance inside; the outermost ones have no image.
    mirrored = kernel(before) * (place > 0) + kernel(after) * (place < size - 1)
    matrices = kernel(apart) + mirrored
    return matrices / matrices.sum(dim=2, keepdim=True)


@lru_cache(maxsize=512)
def _on_device(matrix: Callable[..., Matrix], device: torch.device, *sizes: float) -> Tensor:
    # It is used for a long time, so that the copy may be a synchronous one.
    return torch.from_numpy(matrix(*sizes).astype(np.float32)).to(device)


def resize(image: Tensor, size: tuple[int, int], kind: str) -> Tensor:
    """An image (..., h, w, 3) uint8, or several of one size, as (..., height, width, 3) uint8.

    kind: "area", which only reduces, or "linear".
    """
    if kind == "linear":
        return _linear(image, size)
    height, width = image.shape[-3:-1]
    rows = _on_device(area_matrix, image.device, height, size[0])
    columns = _on_device(area_matrix, image.device, width, size[1])
    return levels(product(image.float(), rows, columns))


def scaled(image: Tensor, height: int, width: int) -> Tensor:
    """An image (h, w, 3) uint8 as (height, width, 3), as media.scaling does."""
    size = (height, width)
    return resize(image, size, scaling_method((image.shape[0], image.shape[1]), size))


def _linear(image: Tensor, size: tuple[int, int]) -> Tensor:
    """OpenCV's linear interpolation of uint8: weights of 11 bits, the row's one first."""
    below, beyond, weight, other = _taps(image.device, image.shape[-2], size[1])
    pixels = image.to(torch.int32)
    weights = weight[:, None], other[:, None]
    lines = pixels.index_select(-2, below) * weights[0] + pixels.index_select(-2, beyond) * weights[1]
    below, beyond, weight, other = _taps(image.device, image.shape[-3], size[0])
    upper = (lines.index_select(-3, below) >> 4) * weight[:, None, None] >> 16
    lower = (lines.index_select(-3, beyond) >> 4) * other[:, None, None] >> 16
    return ((upper + lower + 2) >> 2).to(torch.uint8)


@lru_cache(maxsize=512)
def _taps(device: torch.device, before: int, after: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each new pixel along an axis the two old ones, and their weights times 2048."""
    place = ((np.arange(after) + 0.5) * (before / after) - 0.5).astype(np.float32)
    low = np.floor(place).astype(np.int64)
    part = np.where((low < 0) | (low >= before - 1), np.float32(0), place - low.astype(np.float32))
    low = np.clip(low, 0, before - 1)
    weights = [np.rint(values * np.float32(2048)).astype(np.int32) for values in (1 - part, part)]
    arrays = (low, np.minimum(low + 1, before - 1), *weights)
    first, second, weight, other = (torch.from_numpy(values).to(device) for values in arrays)
    return first, second, weight, other


def halve(images: Tensor) -> Tensor:
    """Images (N, h, w, 3) uint8, h and w even, as means of 2x2 pixels."""
    n, h, w, _ = images.shape
    pairs = images.reshape(n, h // 2, 2, w // 2, 2, 3).to(torch.int16)
    pairs = pairs[:, :, 0] + pairs[:, :, 1]
    return ((pairs[:, :, :, 0] + pairs[:, :, :, 1] + 2) // 4).to(torch.uint8)


def product(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows (H, h) · pixels (..., h, w, 3) · columns (W, w) transposed: (..., H, W, 3) float32.

    rows (N, H, h) and columns (N, W, w) are those of each of N images.
    """
    *others, _, width, channels = pixels.shape
    lines = torch.matmul(rows, pixels.flatten(-2)).view(*others, rows.shape[-2], width, channels)
    return torch.matmul(columns if columns.ndim == 2 else columns[:, None], lines)


def levels(values: Tensor) -> Tensor:
    """Values rounded and clipped to uint8."""
    return (values + 0.5).clamp_(0, 255.5).to(torch.uint8)


def letterbox(images: Sequence[Tensor], sizes: Sequence[tuple[int, int]], canvas: tuple[int, int], grey: int) -> Tensor:
    """Images (h, w, 3) uint8 scaled to their (height, width), top left, the rest grey: (N, *canvas, 3) uint8."""
    result = torch.full((len(images), *canvas, 3), grey, dtype=torch.uint8, device=images[0].device)
    for place, image, (height, width) in zip(result, images, sizes, strict=True):
        place[:height, :width] = scaled(image, height, width)
    return result
