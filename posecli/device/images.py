"""Images in the memory of a device: each is uploaded once."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posecli.types import Frame, PixelArray


@dataclass(frozen=True, eq=False)
class Place:
    """One image, or a part of it, in a buffer on a device.

    buffer: (pixels, 3) uint8 RGB, of one or several images. offset: its first pixel there. height, width: in pixels.
    stride: pixels from a row to the next. ready: event of the upload on a GPU, else None.
    """

    buffer: Tensor
    offset: int
    height: int
    width: int
    stride: int
    ready: "torch.cuda.Event | None" = None

    @property
    def pixels(self) -> Tensor:
        """(height, width, 3) uint8, a view."""
        strides = (3 * self.stride, 3, 1)
        return self.buffer.as_strided((self.height, self.width, 3), strides, 3 * self.offset)

    def part(self, left: int, top: int, right: int, bottom: int) -> "Place":
        """The rectangle up to right and bottom (exclusive), without a copy."""
        first = self.offset + top * self.stride + left
        return Place(self.buffer, first, bottom - top, right - left, self.stride, self.ready)


def upload(images: Sequence[PixelArray], device: torch.device) -> list[Place]:
    """Images (h, w, 3) uint8 in one buffer on the device; on a GPU by one asynchronous copy from pinned memory."""
    sizes = [image.shape[0] * image.shape[1] for image in images]
    if device.type == "cpu" and len(images) == 1:
        buffer = _readable(images[0]).view(-1, 3)
    else:
        staging = torch.empty((sum(sizes), 3), dtype=torch.uint8, pin_memory=device.type == "cuda")
        rows = staging.numpy()
        first = 0
        for image, size in zip(images, sizes, strict=True):
            rows[first : first + size] = image.reshape(-1, 3)
            first += size
        buffer = staging.to(device, non_blocking=True)
    ready = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None
    places, first = [], 0
    for image, size in zip(images, sizes, strict=True):
        places.append(Place(buffer, first, image.shape[0], image.shape[1], image.shape[1], ready))
        first += size
    return places


def _readable(image: PixelArray) -> Tensor:
    """The image as a tensor on the CPU, which only reads it; arrays that are not writable are copied."""
    return torch.from_numpy(image if image.flags.writeable and image.flags.c_contiguous else np.array(image))


def send(values: NDArray[Any], device: torch.device) -> Tensor:
    """A copy of an array on the device; asynchronous on a GPU."""
    tensor = torch.from_numpy(np.array(values))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class ImageStore:
    """The frames on a device, for as long as they exist: detector and pose model share one upload.

    Several threads may use it, on a GPU with a stream each.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._places: WeakKeyDictionary[Frame, Place] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def places(self, frames: Sequence[Frame]) -> list[Place]:
        """Each frame's place; those that are not there are uploaded together."""
        with self._lock:
            found = {frame: self._places.get(frame) for frame in frames}
        missing = [frame for frame, place in found.items() if place is None]
        if missing:
            new = dict(zip(missing, upload([frame.pixels for frame in missing], self.device), strict=True))
            found |= new
            with self._lock:
                self._places.update(new)
        return [self._usable(place) for frame in frames if (place := found[frame]) is not None]

    def _usable(self, place: Place) -> Place:
        """The place, after the current stream waits for its upload, and its memory for this stream."""
        if place.ready is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(place.ready)
            place.buffer.record_stream(stream)
        return place


@cache
def image_store(device: torch.device) -> ImageStore:
    """The store of a device."""
    return ImageStore(device)
