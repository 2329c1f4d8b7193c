"""A SimCC network ready to run: crops to its outputs as arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC
from posecli.runtime import ModuleSpec, compile_network

Float = NDArray[np.float32]
Logits = tuple[Float, Float]


@dataclass(frozen=True, eq=False)
class Outputs:
    """The network's outputs for N crops.

    logits: x (N, K, W·k) and y (N, K, H·k). person_log_odds: log-odds of a person (N,), None without a person score.
    box_sides: sides of the person's box (N, 4), see network.BoxHead, or None.
    """

    logits: Logits
    person_log_odds: Float | None = None
    box_sides: Float | None = None

    @classmethod
    def of(cls, arrays: Sequence[Float]) -> "Outputs":
        """From the network's outputs in their order."""
        return cls((arrays[0], arrays[1]), *arrays[2:])


class PixelNetwork(nn.Module):
    """The network with normalisation inside: uint8 crops (N, H, W, 3) RGB → the outputs of SimCC."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: SimCC, config: PoseConfig) -> None:
        super().__init__()
        self.network = network
        preprocessing = config.preprocessing
        self.reverse_channels = preprocessing.channels == "BGR"
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Crops (N, H, W, 3) uint8 → logits (N, K, W·k), (N, K, H·k); perhaps log-odds (N,) and sides (N, 4)."""
        pixels = crops.permute(0, 3, 1, 2).to(self.mean.dtype)
        if self.reverse_channels:
            pixels = pixels.flip(1)
        outputs: tuple[Tensor, ...] = self.network((pixels - self.mean) / self.std)
        return outputs


@dataclass(frozen=True)
class Runner:
    """A network ready to run. run: uint8 crops (N, H, W, 3) → its outputs. The rest: see runtime.CompiledNetwork."""

    run: Callable[[NDArray[np.uint8]], Outputs]
    runtime: str
    device: str
    precision: str

    def __call__(self, crops: NDArray[np.uint8]) -> Outputs:
        """Crops (N, H, W, 3) uint8 RGB, N ≥ 1 → float32 outputs."""
        return self.run(crops)


def load_runner(
    network: SimCC,
    config: PoseConfig,
    *,
    device: str = "auto",
    runtime: str = "auto",
    key: str | None = None,
    threads: int | None = None,
) -> Runner:
    """Prepare a network for a device; see runtime.compile_network.

    key: the weights' SHA-256, under which a converted network may be cached. threads: of OpenVINO, None for all cores.
    """
    module, sizes = PixelNetwork(network, config), (config.input_size,)
    spec = ModuleSpec(module, key, cpu_batch=4, gpu_batch=32, sizes=sizes, threads=threads)
    compiled = compile_network(spec, device=device, runtime=runtime)

    def run(crops: NDArray[np.uint8]) -> Outputs:
        return Outputs.of(compiled(crops))

    return Runner(run, compiled.runtime, compiled.device, compiled.precision)
