"""A SimCC network ready to run: crops to its outputs as arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from posecli.pose.config import PoseConfig
from posecli.runtime import ModuleSpec, compile_network

if TYPE_CHECKING:
    from torch import nn

    from posecli.pose.network import SimCC

Float = NDArray[np.float32]
Logits = tuple[Float, Float]

# Backbones whose accuracy in bfloat16 was measured to be that in float32: results/precision.md.
BFLOAT16_MEASURED = ("lite_hrnet",)


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


def module_spec(
    network: "Callable[[], SimCC]", config: PoseConfig, *, key: str | None = None, threads: int | None = None
) -> ModuleSpec:
    """What runtimes need to know about a pose network. Arguments: see load_runner."""

    def build() -> "nn.Module":
        from posecli.pose.network import PixelNetwork, for_inference  # imports torch

        return PixelNetwork(for_inference(network()), config)

    return ModuleSpec(
        build,
        key,
        cpu_batch=4,
        gpu_batch=32,
        sizes=(config.input_size,),
        threads=threads,
        bfloat16_measured=config.backbone in BFLOAT16_MEASURED,
    )


def load_runner(
    network: "Callable[[], SimCC]",
    config: PoseConfig,
    *,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "fp32",
    key: str | None = None,
    threads: int | None = None,
) -> Runner:
    """Prepare a network for a device; see runtime.compile_network.

    network: makes the network; not called where a converted one is cached. key: the weights' SHA-256, under which a
    converted network may be cached. threads: of OpenVINO, None for all cores.
    """

    spec = module_spec(network, config, key=key, threads=threads)
    compiled = compile_network(spec, device=device, runtime=runtime, precision=precision)

    def run(crops: NDArray[np.uint8]) -> Outputs:
        return Outputs.of(compiled(crops))

    return Runner(run, compiled.runtime, compiled.device, compiled.precision)
