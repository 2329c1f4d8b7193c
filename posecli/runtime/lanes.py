"""Work on a torch device: a stream for each of two threads, and a GPU's errors in one line."""

import logging
import queue
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from posecli.errors import MachineError
from posecli.runtime.torch_runtime import COMPUTING

LOG = logging.getLogger(__name__)

# While one batch is in the networks, another is uploaded, cropped or copied back.
_LANES_OF_A_GPU = 2
_GPU_ERROR = re.compile(r"cuda|cudnn|cublas|cufft|nvrtc|device-side", re.IGNORECASE)


class Lane:
    """A stream of a GPU, used by one thread at a time. number: below the device's number of lanes."""

    def __init__(self, number: int, device: torch.device) -> None:
        self.number, self.device = number, device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def synchronise(self) -> None:
        """Wait until the lane's work is done."""
        if self.stream is not None:
            self.stream.synchronize()


@cache
def _free_lanes(device: torch.device) -> "queue.SimpleQueue[Lane]":
    free: queue.SimpleQueue[Lane] = queue.SimpleQueue()
    for number in range(_LANES_OF_A_GPU if device.type == "cuda" else 1):
        free.put(Lane(number, device))
    return free


@contextmanager
def working(device: torch.device) -> Iterator[Lane]:
    """A lane of the device for a with statement, which waits for a free one; no gradients are computed.

    A GPU has two lanes, a CPU one. Raises MachineError where the GPU fails.
    """
    free = _free_lanes(device)
    lane = free.get()
    try:
        with gpu_errors(device), torch.inference_mode():
            if lane.stream is None:
                with COMPUTING:
                    yield lane
            else:
                with torch.cuda.device(device), torch.cuda.stream(lane.stream):
                    yield lane
    finally:
        free.put(lane)


@contextmanager
def gpu_errors(device: torch.device) -> Iterator[None]:
    """Raise MachineError, in one line, for errors of the device in a with statement: memory, a lost GPU."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MachineError(f"{device}: out of memory, also for the smallest batch; use --device cpu") from error
    except RuntimeError as error:
        if device.type == "cpu" or not _GPU_ERROR.search(f"{type(error).__name__} {error}"):
            raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise MachineError(f"{device} failed: {reason[:150]}; posecli doctor says whether it works") from error
