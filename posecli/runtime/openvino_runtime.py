"""Networks in OpenVINO, on the CPU."""

import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from posecli import __version__
from posecli.errors import MachineError, UsageError
from posecli.runtime.cache import cache_folder
from posecli.runtime.network import CompiledNetwork, FloatArrays, ModuleSpec
from posecli.runtime.signals import signal_stack_kept

LOG = logging.getLogger(__name__)
_FILE = "model.xml"


def compile_openvino(spec: ModuleSpec, device: torch.device) -> CompiledNetwork:
    """The module in float32, converted for each (height, width) of pixels on first use.

    One item a request, several requests in parallel: fast, and results do not depend on the batch. Raises UsageError
    for another device than the CPU.
    """
    if device.type != "cpu":
        raise UsageError(f"--runtime openvino runs on the CPU, not on {device}")

    @cache
    def queue_of(height: int, width: int) -> Any:
        return _compile(spec, (height, width))

    for size in spec.sizes:
        queue_of(*size)
    return CompiledNetwork(numpy_function(queue_of), "openvino", "cpu", "float32")


def numpy_function(queue_of: Callable[[int, int], Any]) -> Callable[[NDArray[np.uint8]], FloatArrays]:
    """A function of uint8 pixels (N, H, W, 3): queue_of gives the AsyncInferQueue of (1, H, W, 3), a row a request."""

    @signal_stack_kept()
    def run(pixels: NDArray[np.uint8]) -> FloatArrays:
        queue = queue_of(*pixels.shape[1:3])
        outputs = tuple(np.empty((len(pixels), *tensor.shape[1:]), np.float32) for tensor in queue[0].output_tensors)

        def keep(request: Any, row: int) -> None:
            for number, output in enumerate(outputs):
                output[row] = request.get_output_tensor(number).data[0]

        queue.set_callback(keep)
        for row in range(len(pixels)):
            queue.start_async({0: np.ascontiguousarray(pixels[row : row + 1])}, row)
        queue.wait_all()
        return outputs

    return run


@signal_stack_kept()
def _compile(spec: ModuleSpec, size: tuple[int, int]) -> Any:
    """An AsyncInferQueue for one item (1, height, width, 3)."""
    import openvino

    core = openvino.Core()
    model = None
    folder = None
    if spec.key is not None:
        version = openvino.__version__.split("-")[0]
        folder = cache_folder() / f"openvino-{version}-{__version__}-{spec.key[:24]}-{size[0]}x{size[1]}"
        model = _cached(core, folder)
    if model is None:
        model = _through_a_file(core, _convert(spec.module, size), folder)
    return compile_model(core, model, spec.threads)


def compile_model(core: Any, model: Any, threads: int | None) -> Any:
    """An AsyncInferQueue of a model that takes one item, in float32. threads: None for all cores."""
    import openvino

    # Without the hint OpenVINO computes in bfloat16 where the CPU can, and results differ by machine.
    settings: dict[str, str | int] = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return openvino.AsyncInferQueue(core.compile_model(model, "CPU", settings))


def _convert(module: nn.Module, size: tuple[int, int]) -> Any:
    import openvino

    shape = (1, *size, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations inside OpenVINO's tracing
        return openvino.convert_model(
            module.eval(), example_input=torch.zeros(shape, dtype=torch.uint8), input=list(shape)
        )


def _cached(core: Any, folder: Path) -> Any:
    """The cached model of a folder, None where it is missing or unreadable."""
    if not (folder / _FILE).is_file():
        return None
    try:
        return core.read_model(folder / _FILE)
    except RuntimeError as error:
        LOG.info("%s: damaged, converted anew (%s)", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _through_a_file(core: Any, model: Any, folder: Path | None) -> Any:
    """A converted model, written and read back from the cache, or from a temporary file where that fails.

    A model that was just converted differs in the last bits of its results from the model read from its file: without
    this, the first run would differ from later ones. Errors of the cache are ignored.
    """
    import openvino

    failure: Exception | None = None
    for place in (folder, None) if folder is not None else (None,):
        try:
            if place is not None:
                place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                dir=None if place is None else place.parent, ignore_cleanup_errors=True
            ) as temporary:
                openvino.save_model(model, Path(temporary) / _FILE, compress_to_fp16=False)
                if place is None:
                    return core.read_model(Path(temporary) / _FILE)
                Path(temporary).rename(place)
                Path(temporary).mkdir()  # TemporaryDirectory expects to remove it
                return core.read_model(place / _FILE)
        except (OSError, RuntimeError) as error:
            failure = error
            LOG.info("converted model not cached: %s", error)
    raise MachineError(f"no room for the files of a converted network ({' '.join(str(failure).split())[:150]})")
