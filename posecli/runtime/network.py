"""Input and output of a runtime: ModuleSpec and CompiledNetwork."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from posecli.runtime.device import is_gpu

if TYPE_CHECKING:
    from torch import nn

FloatArrays = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, eq=False)
class ModuleSpec:
    """A module and what runtimes need to know about it.

    build: makes the module; it is not called, and torch not imported, where the converted module is cached. module:
    uint8 pixels (N, H, W, 3) → a tuple of float tensors (N, ...), or one. key: identifies its weights (their SHA-256);
    under it the converted module may be cached, None where it may not. cpu_batch, gpu_batch: items that
    torch computes at once. sizes: (height, width) of the pixels where known in advance; these are compiled immediately.
    compared_at: a size at which runtimes are compared where none is known in advance. threads: CPU threads of OpenVINO,
    None for one a core; torch has its own setting. openvino_batch: items of one request to OpenVINO where a call has
    many and the bits stay the same; needs a key. bfloat16_measured: whether such networks are known to be as accurate
    in bfloat16 as in float32 (results/precision.md).
    """

    build: Callable[[], "nn.Module"]
    key: str | None
    cpu_batch: int
    gpu_batch: int
    sizes: tuple[tuple[int, int], ...] = ()
    compared_at: tuple[int, int] | None = None
    threads: int | None = None
    openvino_batch: int = 1
    bfloat16_measured: bool = False

    def batch(self, device: str) -> int:
        """Items that torch computes at once on a device."""
        return self.gpu_batch if is_gpu(device) else self.cpu_batch


@dataclass(frozen=True)
class CompiledNetwork:
    """A module ready to run on numpy arrays.

    run: uint8 pixels (N, H, W, 3), N ≥ 1 → float32 arrays (N, ...), one for each output of the module. runtime: its
    name in RUNTIMES. device: torch's name. precision: of the arithmetic, "float32", "bfloat16" or
    "float16".
    """

    run: Callable[[NDArray[np.uint8]], FloatArrays]
    runtime: str
    device: str
    precision: str

    def __call__(self, pixels: NDArray[np.uint8]) -> FloatArrays:
        """Pixels (N, H, W, 3) uint8, N ≥ 1 → the module's outputs (N, ...), float32."""
        return self.run(pixels)


# (module, device, precision) → the network.
Runtime = Callable[[ModuleSpec, str, str], CompiledNetwork]
