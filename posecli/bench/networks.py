"""Networks in each runtime and precision side by side, and the floating-point operations that they take."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from posecli.bench.machine import cores
from posecli.detect import embedded
from posecli.errors import MachineError, UsageError
from posecli.pose.config import read_pose_config
from posecli.pose.network import SimCC
from posecli.pose.pull import find_or_pull
from posecli.pose.runner import module_spec
from posecli.runtime import RUNTIMES, CompiledNetwork, ModuleSpec, compile_network, is_gpu
from posecli.runtime.choice import measure
from posecli.runtime.precision import PRECISIONS
from posecli.weights.files import read_header, sha256
from posecli.weights.graphs import is_graph

# (height, width) of a picture that stands for a usual video.
USUAL_PICTURE = (720, 1280)


@dataclass(frozen=True)
class Network:
    """A network to be measured. stage: "network" (pose) or "detector". size: (height, width) of its input."""

    stage: str
    weights: str
    spec: ModuleSpec
    size: tuple[int, int]


@dataclass(frozen=True)
class NetworkTime:
    """A network in one runtime and precision.

    seconds: for one item, many at once, least of the rounds. ratio: of seconds to those of the combination that `auto`
    chooses. auto: whether it is that one. gflops: achieved GFLOP/s. peak_share: of the GEMM peak of the precision, None
    where that was not measured.
    """

    runtime: str
    precision: str
    seconds: float
    ratio: float
    auto: bool
    gflops: float
    peak_share: float | None


@dataclass(frozen=True)
class Comparison:
    """A network in all runtimes and precisions of the device. flops: floating-point operations of one item.

    skipped: a line for each combination that the device does not support.
    """

    network: Network
    flops: int
    times: tuple[NetworkTime, ...]
    skipped: tuple[str, ...]


def pose_network(weights: str) -> Network | str:
    """The network of a pose model's name or file, or a line that says why it cannot be compared.

    Raises what pose.estimator.load_estimator raises.
    """
    path = find_or_pull(weights)
    if is_graph(path):
        return f"{weights}: a graph, which only OpenVINO runs: not compared"
    config = read_pose_config(path, read_header(path))

    def build() -> SimCC:
        from posecli.pose.loading import load_network

        return load_network(path)[0]

    return Network("network", weights, module_spec(build, config, key=sha256(path)), config.input_size)


def detector_network(name: str, picture: tuple[int, int] = USUAL_PICTURE) -> Network | str:
    """The embedded detector's network for pictures of (height, width), or a line that says why it is not compared."""
    if name != "person":
        return f"--detector {name}: not compared, it has no network that several runtimes run"
    spec, config = embedded.module_spec()
    return Network("detector", name, spec, embedded.canvas_shape(picture, config.input_size))


def count_flops(module: nn.Module, size: tuple[int, int]) -> int:
    """Floating-point operations of convolutions and matrix products for one item of uint8 pixels (height, width)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(torch.zeros((1, *size, 3), dtype=torch.uint8))
    return int(counter.get_total_flops())


def compare(network: Network, device: str, rounds: int, peaks: Mapping[str, float]) -> Comparison:
    """A network in all runtimes and precisions of a device, which take turns.

    device: torch's name. peaks: precision → GFLOP/s of GEMM.
    """
    spec = network.spec
    chosen = compile_network(spec, device=device, precision="auto")
    compiled: dict[tuple[str, str], CompiledNetwork] = {(chosen.runtime, chosen.precision): chosen}
    skipped = []
    for runtime in RUNTIMES:
        for name, precision in PRECISIONS.items():
            if (runtime, precision) in compiled:
                continue
            try:
                compiled[runtime, precision] = compile_network(spec, device=device, runtime=runtime, precision=name)
            except (MachineError, UsageError) as error:
                skipped.append(f"{network.stage} in {runtime}, {precision}: {error}")
    names = {f"{runtime} {precision}": found for (runtime, precision), found in compiled.items()}
    seconds = measure(names, network.size, batch_items(spec, device), rounds)
    reference = seconds[f"{chosen.runtime} {chosen.precision}"]
    flops = count_flops(spec.build(), network.size)
    times = []
    for name, found in sorted(names.items(), key=lambda pair: seconds[pair[0]]):
        gflops = flops / seconds[name] / 1e9
        peak = peaks.get(found.precision)
        share = gflops / peak if peak else None
        auto = found is chosen
        ratio = seconds[name] / reference
        times.append(NetworkTime(found.runtime, found.precision, seconds[name], ratio, auto, gflops, share))
    return Comparison(network, flops, tuple(times), tuple(skipped))


def batch_items(spec: ModuleSpec, device: str) -> int:
    """Number of items that keep all cores, or the GPU, busy in one call."""
    return 4 * spec.gpu_batch if is_gpu(device) else max(16, 4 * cores())
