"""Augmentation on a torch device: the crops of augment.crop_of, within few levels of 255, for a whole batch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from posecli.device.images import Place, send
from posecli.device.resizing import blur_matrices, levels, product, resize
from posecli.device.sampling import sample_crops
from posecli.train.augment import PixelChanges, Plan, downscaled_size


def crops_on_device(
    places: Sequence[Place], beyond: Sequence[Place | None], plans: Sequence[Plan], size: tuple[int, int]
) -> Tensor:
    """The crops (N, H, W, 3) uint8 of N plans.

    places: the image of each. beyond: the images that hide parts of them (Plan.beyond).
    """
    hidden = _with_hidden_parts(places, beyond, plans)
    crops = sample_crops(hidden, np.stack([plan.matrix for plan in plans]), size)
    return _changed(crops, [plan.changes for plan in plans])


def _with_hidden_parts(places: Sequence[Place], beyond: Sequence[Place | None], plans: Sequence[Plan]) -> list[Place]:
    """The images, those with hidden parts as copies in one buffer."""
    result, copies = list(places), []
    rows = [row for row, plan in enumerate(plans) if plan.hidden]
    for row in rows:
        image, other = places[row].pixels.clone(), beyond[row]
        for top, bottom, left, right in plans[row].hidden:
            region = image[top:bottom, left:right]
            if other is None or not region.numel():
                region.zero_()
            else:
                region.copy_(resize(other.pixels, (bottom - top, right - left), "linear"))
        copies.append(image.view(-1, 3))
    if copies:
        buffer, first = torch.cat(copies), 0
        for row in rows:
            height, width = places[row].height, places[row].width
            result[row] = Place(buffer, first, height, width, width)
            first += height * width
    return result


def _changed(crops: Tensor, changes: Sequence[PixelChanges]) -> Tensor:
    """Crops (N, H, W, 3) uint8 with the changes of augment.apply_changes."""
    height, width = crops.shape[1:3]
    if any(change.colour is not None for change in changes):
        identity = np.eye(3, 4)
        maps = np.stack([identity if change.colour is None else change.colour for change in changes])
        colour = send(maps.astype(np.float32), crops.device)
        mapped = torch.einsum("nhwc,ndc->nhwd", crops.float(), colour[:, :, :3])
        crops = levels(mapped + colour[:, None, None, :, 3])
    for row, change in enumerate(changes):
        if change.downscale is not None:
            few = resize(crops[row], downscaled_size((height, width), change.downscale), "area")
            crops[row] = resize(few, (height, width), "linear")
    blurred = [row for row, change in enumerate(changes) if change.blur is not None]
    if blurred:
        sigmas = send(np.array([changes[row].blur for row in blurred], np.float32), crops.device)
        rows = send(np.array(blurred), crops.device)
        pixels = crops[rows].float()
        crops[rows] = levels(product(pixels, blur_matrices(height, sigmas), blur_matrices(width, sigmas)))
    colours = send(np.array([change.erased_colour for change in changes], np.uint8), crops.device)
    for row, change in enumerate(changes):
        if change.erased is not None:
            top, left, h, w = change.erased
            crops[row, top : top + h, left : left + w] = colours[row]
    return crops
