"""Networks in torch, on a CPU or a GPU."""

import threading
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posecli.runtime.device import is_gpu
from posecli.runtime.network import CompiledNetwork, FloatArrays, ModuleSpec

# Held by the thread that computes: torch uses all cores for one call, and the first calls of several threads at once
# can fail in a forked process ("Invalid thread pool").
COMPUTING = threading.Lock()


def compile_torch(spec: ModuleSpec, device: str, precision: str) -> CompiledNetwork:
    """The module, moved to the device; by autocast in another precision than float32.

    All batches have one size, the last is padded with black: another size may select another kernel with other rounding
    errors, and results would depend on the batch.
    """
    module = spec.build().eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    on_gpu = is_gpu(device)
    size = spec.batch(device)
    lower = torch.float16 if precision == "float16" else torch.bfloat16

    def run(pixels: NDArray[np.uint8]) -> FloatArrays:
        with COMPUTING:
            return computed(pixels)

    @torch.inference_mode()
    def computed(pixels: NDArray[np.uint8]) -> FloatArrays:
        parts: list[tuple[Tensor, ...]] = []
        for batch in _batches(pixels, size):
            tensor = torch.from_numpy(batch)
            if on_gpu:
                tensor = tensor.pin_memory().to(device, non_blocking=True)
            with torch.autocast("cuda" if on_gpu else "cpu", lower, enabled=precision != "float32"):
                outputs = module(tensor)
            parts.append(outputs if isinstance(outputs, tuple) else (outputs,))
        return tuple(torch.cat(output).float().cpu().numpy()[: len(pixels)] for output in zip(*parts, strict=True))

    return CompiledNetwork(run, "torch", device, precision)


def _batches(pixels: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    """Pixels (N, H, W, 3) in batches of one size, the last padded with black."""
    for first in range(0, len(pixels), size):
        batch = pixels[first : first + size]
        if len(batch) < size:
            batch = np.concatenate([batch, np.zeros((size - len(batch), *pixels.shape[1:]), np.uint8)])
        yield np.ascontiguousarray(batch)
