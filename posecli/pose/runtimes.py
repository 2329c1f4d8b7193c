"""What computes the network: crops in, logits out.

Whatever the runtime, a person's logits do not depend on who else is in the batch, so that a run that was
interrupted and resumed gives the same bytes as an undisturbed one.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from posecli import __version__
from posecli.errors import MachineError, UsageError
from posecli.pose.config import PoseConfig
from posecli.pose.network import SimCC
from posecli.runtime.signals import signal_stack_kept

LOG = logging.getLogger(__name__)

Float = NDArray[np.float32]
Logits = tuple[Float, Float]


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the network says of N crops.

    logits: x (N, K, W·k) and y (N, K, H·k). presence: (N,) log-odds that there is a person, None where the network
    does not tell. extent: (N, 4) where the person's box ends, as network.Extent gives it, or None.
    """

    logits: Logits
    presence: Float | None = None
    extent: Float | None = None

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
        """Crops (N, H, W, 3) uint8 → logits (N, K, W·k), (N, K, H·k); perhaps presence (N,) and extent (N, 4)."""
        pixels = crops.permute(0, 3, 1, 2).to(self.mean.dtype)
        if self.reverse_channels:
            pixels = pixels.flip(1)
        outputs: tuple[Tensor, ...] = self.network((pixels - self.mean) / self.std)
        return outputs


@dataclass(frozen=True)
class Runner:
    """A network ready to run; calling it maps uint8 crops (N, H, W, 3) to its outputs."""

    run: Callable[[NDArray[np.uint8]], Outputs]
    runtime: str
    device: str
    precision: str

    def __call__(self, crops: NDArray[np.uint8]) -> Outputs:
        """Crops (N, H, W, 3) uint8 RGB, N ≥ 1 → float32 outputs."""
        return self.run(crops)


def resolve_device(name: str) -> torch.device:
    """'auto', 'cpu', 'cuda' or 'cuda:N' as a device that is there.

    Raises MachineError where the GPU asked for is missing, UsageError for other names.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise UsageError(f"--device {name}: auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise MachineError(f"--device {name}: no usable NVIDIA GPU (posecli doctor says more); use --device cpu")
    if int(number or 0) >= torch.cuda.device_count():
        raise MachineError(f"--device {name}: this machine has {torch.cuda.device_count()} GPU(s), numbered from 0")
    return torch.device(name)


def _torch_runner(network: PixelNetwork, config: PoseConfig, device: torch.device, key: str | None) -> Runner:
    network = network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    on_gpu = device.type == "cuda"
    # One size of batch: another size may pick another kernel, and with it other last bits.
    size = 32 if on_gpu else 4

    @torch.inference_mode()
    def run(crops: NDArray[np.uint8]) -> Outputs:
        parts: list[tuple[Tensor, ...]] = []
        for chunk in _chunks(crops, size):
            pixels = torch.from_numpy(chunk)
            if on_gpu:
                pixels = pixels.pin_memory().to(device, non_blocking=True)
            with torch.autocast(device.type, torch.float16, enabled=on_gpu):
                parts.append(network(pixels))
        return Outputs.of(
            [torch.cat(outputs).float().cpu().numpy()[: len(crops)] for outputs in zip(*parts, strict=True)]
        )

    return Runner(run, "torch", str(device), "float16" if on_gpu else "float32")


def _chunks(crops: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    """Crops in chunks of one size, the last filled up with black."""
    for first in range(0, len(crops), size):
        chunk = crops[first : first + size]
        if len(chunk) < size:
            chunk = np.concatenate([chunk, np.zeros((size - len(chunk), *crops.shape[1:]), np.uint8)])
        yield np.ascontiguousarray(chunk)


@signal_stack_kept()
def compile_openvino(network: nn.Module, shape: tuple[int, ...], key: str | None) -> Any:
    """An AsyncInferQueue of a module for one uint8 input of this shape, in float32 on the CPU.

    Conversion takes seconds; its result is kept in the cache folder under key, the weights' SHA-256.
    """
    import openvino

    core = openvino.Core()
    cached = None
    if key is not None:
        name = f"openvino-{openvino.__version__.split('-')[0]}-{__version__}-{key[:24]}-{shape[1]}x{shape[2]}"
        cached = cache_folder() / name
    if cached is not None and (cached / "model.xml").is_file():
        model = core.read_model(cached / "model.xml")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own deprecations inside OpenVINO's tracing
            model = openvino.convert_model(
                network.eval(), example_input=torch.zeros(shape, dtype=torch.uint8), input=list(shape)
            )
        if cached is not None:
            _keep(model, cached)
    # Without the hint OpenVINO computes in bfloat16 where the CPU can, and results differ by machine.
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.AsyncInferQueue(core.compile_model(model, "CPU", settings))


def cache_folder() -> Path:
    """Where converted models are kept: $POSECLI_CACHE, else the user's cache folder."""
    if folder := os.environ.get("POSECLI_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "posecli"


def _keep(model: Any, folder: Path) -> None:
    """Store a converted model, whole or not at all. A cache that cannot be written only costs time."""
    import openvino

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            openvino.save_model(model, Path(temporary) / "model.xml", compress_to_fp16=False)
            Path(temporary).rename(folder)
            Path(temporary).mkdir()  # what TemporaryDirectory will remove
    except OSError as error:
        LOG.info("converted model not cached: %s", error)


def _openvino_runner(network: PixelNetwork, config: PoseConfig, device: torch.device, key: str | None) -> Runner:
    if device.type != "cpu":
        raise UsageError(f"--runtime openvino runs on the CPU, not on {device}")
    height, width = config.input_size
    # One person a request, several requests at once: fast, and independent of the batch.
    queue = compile_openvino(network, (1, height, width, 3), key)

    @signal_stack_kept()
    def run(crops: NDArray[np.uint8]) -> Outputs:
        keypoints = len(config.keypoints)
        shapes: list[tuple[int, ...]] = [(keypoints, config.bins[0]), (keypoints, config.bins[1])]
        shapes += [()] * config.presence + [(4,)] * config.extent
        outputs = [np.empty((len(crops), *shape), np.float32) for shape in shapes]

        def keep(request: Any, row: int) -> None:
            for number, output in enumerate(outputs):
                output[row] = request.get_output_tensor(number).data[0]

        queue.set_callback(keep)
        for row in range(len(crops)):
            queue.start_async({0: np.ascontiguousarray(crops[row : row + 1])}, row)
        queue.wait_all()
        return Outputs.of(outputs)

    return Runner(run, "openvino", "cpu", "float32")


# One line adds a runtime.
RUNTIMES: dict[str, Callable[[PixelNetwork, PoseConfig, torch.device, str | None], Runner]] = {
    "torch": _torch_runner,
    "openvino": _openvino_runner,
}


def load_runner(
    network: SimCC,
    config: PoseConfig,
    *,
    device: str = "auto",
    runtime: str = "auto",
    key: str | None = None,
) -> Runner:
    """Prepare a network for a device; 'auto' takes OpenVINO on a CPU and torch on a GPU.

    key: the weights' SHA-256, under which a converted network may be cached.
    """
    where = resolve_device(device)
    if runtime == "auto":
        runtime = "openvino" if where.type == "cpu" else "torch"
    if runtime not in RUNTIMES:
        raise UsageError(f"--runtime {runtime}: auto, {', '.join(RUNTIMES)}")
    return RUNTIMES[runtime](PixelNetwork(network, config), config, where, key)
