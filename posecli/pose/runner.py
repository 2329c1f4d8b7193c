"""A SimCC network ready to run: crops to its outputs as arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from posecli.pose.config import PoseConfig, read_pose_config
from posecli.pose.outputs import Outputs
from posecli.runtime import ModuleSpec, compile_network, is_gpu, resolve_device
from posecli.runtime.precision import resolve_precision
from posecli.weights.files import read_header, sha256

if TYPE_CHECKING:
    from torch import nn

    from posecli.pose.network import SimCC
    from posecli.pose.resident import ResidentPose

# Backbones whose accuracy in bfloat16 was measured to be that in float32: results/precision.md.
BFLOAT16_MEASURED = ("lite_hrnet",)


@dataclass(frozen=True)
class Runner:
    """A network ready to run. run: uint8 crops (N, H, W, 3) → its outputs. The rest: see runtime.CompiledNetwork.

    resident: the network with crops and decoding on its device; None where these are done on the CPU.
    """

    run: Callable[[NDArray[np.uint8]], Outputs]
    runtime: str
    device: str
    precision: str
    resident: "ResidentPose | None" = None

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
        openvino_batch=4,
        bfloat16_measured=config.backbone in BFLOAT16_MEASURED,
    )


def load_runner_of(path: Path, *, device: str, runtime: str, precision: str) -> Runner:
    """The network of a weights file; see load_runner. Less is imported for it than for an estimator.

    Raises MachineError where the file or the device is missing, DataError where it is not a pose model's.
    """

    def network() -> "SimCC":
        from posecli.pose.loading import load_network  # imports torch

        return load_network(path)[0]

    config = read_pose_config(path, read_header(path))
    return load_runner(network, config, device=device, runtime=runtime, precision=precision, key=sha256(path))


def load_runner(
    network: "Callable[[], SimCC]",
    config: PoseConfig,
    *,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "fp32",
    key: str | None = None,
    threads: int | None = None,
    resident: bool | None = None,
) -> Runner:
    """Prepare a network for a device; see runtime.compile_network.

    network: makes the network; not called where a converted one is cached. key: the weights' SHA-256, under which a
    converted network may be cached. threads: of OpenVINO, None for all cores. resident: whether crops and decoding are
    done on the device too (pose.resident), None for on a GPU; a CPU's is for tests.
    """
    spec = module_spec(network, config, key=key, threads=threads)
    where = resolve_device(device)
    if resident is None:
        resident = is_gpu(where) and runtime in ("auto", "torch")
    if not resident:
        compiled = compile_network(spec, device=where, runtime=runtime, precision=precision)

        def run(crops: NDArray[np.uint8]) -> Outputs:
            return Outputs.of(compiled(crops))

        return Runner(run, compiled.runtime, compiled.device, compiled.precision)
    from posecli.pose.resident import ResidentPose  # imports torch

    computed = resolve_precision(precision, where, bfloat16_measured=spec.bfloat16_measured)
    with_crops = ResidentPose(spec, config, where, computed)
    return Runner(with_crops.outputs, "torch", where, computed, with_crops)
