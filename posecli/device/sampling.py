"""Affine sampling of images on a device: the crops of pose/crops.py, within one level of 255.

Coordinates are relative to an integer pixel near the crop, so that float32 suffices in images of any size.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posecli import geometry
from posecli.device.images import Place, send
from posecli.device.resizing import halve
from posecli.geometry import Float64Array

Rows = NDArray[np.int64]
# Source pixels that are averaged at once, which bounds memory.
_AVERAGED_AT_ONCE = 16_000_000


def sample_crops(places: Sequence[Place], matrices: Float64Array, size: tuple[int, int]) -> Tensor:
    """Crops (N, H, W, 3) uint8 of images on one device, N ≥ 1.

    places: the image of each crop. matrices: (N, 3, 3) from source to crop pixels. size: (H, W). Outside of an image
    crops are black. Interpolation is bilinear; an image that is reduced to half or less is first halved by averaging,
    repeatedly if needed, as pose.crops.warp does.
    """
    crops = torch.empty((len(places), *size, 3), dtype=torch.uint8, device=places[0].buffer.device)
    times = geometry.halvings(matrices)
    for rows in _groups(places, times):
        chosen, times_halved = [places[row] for row in rows], int(times[rows[0]])
        if not times_halved:
            whole = len(rows) == len(places)
            sampled = _bilinear(chosen, matrices[rows], size)
            if whole:
                return sampled
            crops[send(rows, crops.device)] = sampled
            continue
        images = [(place.height, place.width) for place in chosen]
        windows = [*zip(*geometry.seen_windows(matrices[rows], size, images, 2**times_halved), strict=True)]
        for part, height, width in _parts(windows, times_halved):
            lows = np.array([windows[i][0] for i in part])
            halved = _halved([chosen[i] for i in part], lows, (height, width), times_halved)
            fewer = _in_halved(matrices[rows[part]], lows, times_halved)
            crops[send(rows[part], crops.device)] = _bilinear(halved, fewer, size)
    return crops


def _groups(places: Sequence[Place], times: Rows) -> Iterator[Rows]:
    """Rows of the crops of one buffer that are halved equally often."""
    keys: dict[tuple[int, int], list[int]] = {}
    for row, (place, halved) in enumerate(zip(places, times.tolist(), strict=True)):
        keys.setdefault((id(place.buffer), halved), []).append(row)
    for rows in keys.values():
        yield np.array(rows)


def _parts(windows: Sequence[tuple[Rows, Rows]], times: int) -> Iterator[tuple[Rows, int, int]]:
    """Numbers of the windows that are halved together, with the height and width of the result."""
    sizes = np.array([np.maximum(high - low, 1) for low, high in windows])
    halved = -(-sizes // 2**times)
    order = np.argsort(halved.prod(axis=1), kind="stable")
    first = 0
    while first < len(order):
        end = first + 1
        while end < len(order):
            width, height = halved[order[first : end + 1]].max(axis=0)
            if int(width) * int(height) * 4**times * (end + 1 - first) > _AVERAGED_AT_ONCE:
                break
            end += 1
        width, height = halved[order[first:end]].max(axis=0)
        yield order[first:end], int(height), int(width)
        first = end


def _in_halved(matrices: Float64Array, lows: Rows, times: int) -> Float64Array:
    """The matrices (N, 3, 3) from pixels of halved parts that begin at lows (N, 2) to crop pixels."""
    shrink = 2**times
    back = np.zeros((len(lows), 3, 3))
    back[:, 0, 0] = back[:, 1, 1] = shrink
    back[:, :2, 2] = lows + (shrink - 1) / 2  # middle of the first square
    back[:, 2, 2] = 1
    return np.asarray(matrices @ back)


def _halved(places: Sequence[Place], lows: Rows, size: tuple[int, int], times: int) -> list[Place]:
    """Means of squares of 2**times pixels from lows (N, 2) on, (height, width) of them; black outside the images."""
    device, (height, width) = places[0].buffer.device, size
    table = np.array([(place.offset, place.height, place.width, place.stride) for place in places], np.int64)
    offset, rows, columns, stride, left, top = _columns(np.concatenate([table, lows], axis=1), device)
    y = top[:, None] + torch.arange(height << times, device=device)
    x = left[:, None] + torch.arange(width << times, device=device)
    inside = ((y >= 0) & (y < rows[:, None]))[:, :, None] & ((x >= 0) & (x < columns[:, None]))[:, None]
    index = (offset[:, None] + y * stride[:, None])[:, :, None] + x[:, None]
    pixels = places[0].buffer[torch.where(inside, index, 0)] * inside[..., None]
    for _ in range(times):
        pixels = halve(pixels)
    buffer = pixels.reshape(-1, 3)
    return [Place(buffer, i * height * width, height, width, width) for i in range(len(places))]


def _bilinear(places: Sequence[Place], matrices: Float64Array, size: tuple[int, int]) -> Tensor:
    """Crops (N, H, W, 3) uint8 of images of one buffer, by bilinear interpolation."""
    device, (height, width) = places[0].buffer.device, size
    inverse = np.linalg.inv(matrices)
    origin = np.floor(inverse[:, :2, 2])
    inverse[:, :2, 2] -= origin
    table = np.array([(place.offset, place.height, place.width, place.stride) for place in places], np.int64)
    integers = np.concatenate([table, origin.astype(np.int64)], axis=1)
    offset, rows, columns, stride, left, top = (c[:, None, None] for c in _columns(integers, device))
    a, b, c, d, e, f = (v[:, None, None] for v in _columns(inverse[:, :2].reshape(-1, 6).astype(np.float32), device))
    u = torch.arange(width, device=device, dtype=torch.float32)
    v = torch.arange(height, device=device, dtype=torch.float32)[:, None]
    x, y = a * u + (b * v + c), d * u + (e * v + f)
    x_low, y_low = x.floor(), y.floor()
    x_part, y_part = x - x_low, y - y_low
    column, row = x_low.long() + left, y_low.long() + top
    buffer, total = places[0].buffer, torch.zeros((len(places), height, width, 3), device=device)
    for below, y_weight in ((0, 1 - y_part), (1, y_part)):
        for right, x_weight in ((0, 1 - x_part), (1, x_part)):
            there, line = column + right, row + below
            inside = (there >= 0) & (there < columns) & (line >= 0) & (line < rows)
            index = torch.where(inside, offset + line * stride + there, 0)
            total += buffer[index] * (x_weight * y_weight * inside)[..., None]
    return (total + 0.5).to(torch.uint8)


def _columns(table: NDArray[np.int64] | NDArray[np.float32], device: torch.device) -> tuple[Tensor, ...]:
    """The columns (N,) of a small table, copied to the device at once."""
    return tuple(send(table.T, device))
