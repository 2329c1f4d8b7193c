"""Networks in OpenVINO, on the CPU."""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import warnings
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posecli import __version__
from posecli.atomic import AtomicFile
from posecli.errors import MachineError, UsageError
from posecli.runtime.cache import bound_cache, cache_folder
from posecli.runtime.device import is_gpu
from posecli.runtime.network import CompiledNetwork, ModuleSpec
from posecli.runtime.openvino_package import converter, openvino_package
from posecli.runtime.openvino_requests import BatchedRequests, PixelFunction, Requests, numpy_function
from posecli.runtime.signals import signal_stack_kept

if TYPE_CHECKING:
    from torch import nn

LOG = logging.getLogger(__name__)
_FILE = "model.xml"
# Part of the cache's keys, to be raised when networks are converted differently.
_CONVERSION = 3
# Length of the SHA-256 that a compiled network begins with.
_DIGEST = 32


def compile_openvino(spec: ModuleSpec, device: str, precision: str) -> CompiledNetwork:
    """The module, converted for each (height, width) of pixels on first use.

    One item a request, several requests in parallel: fast, and results do not depend on the batch. With
    spec.openvino_batch also several items a request, where they give the same bits. Raises UsageError for another
    device than the CPU.
    """
    if is_gpu(device):
        raise UsageError(f"--runtime openvino runs on the CPU, not on {device}")

    spec = replace(spec, build=cache(spec.build))
    made: dict[tuple[int, int], PixelFunction] = {}
    lock = threading.Lock()

    def requests_of(height: int, width: int) -> PixelFunction:
        with lock:
            if (height, width) not in made:
                made[height, width] = _compile(spec, (height, width), precision)
            return made[height, width]

    def prepare(height: int, width: int) -> None:
        with contextlib.suppress(Exception):  # raised again where the network is used
            requests_of(height, width)

    for size in spec.sizes:
        if spec.key is not None and is_prepared(spec.key, size):
            # Reading it takes up to half a second, in which the caller goes on.
            threading.Thread(target=prepare, args=size).start()
        else:
            requests_of(*size)
    return CompiledNetwork(numpy_function(requests_of), "openvino", "cpu", precision)


@signal_stack_kept()
def _compile(spec: ModuleSpec, size: tuple[int, int], precision: str) -> PixelFunction:
    """Requests to the network of items of one size (height, width)."""
    openvino = openvino_package()
    core, settings = openvino.Core(), _settings(spec.threads, precision)
    if spec.key is None:
        return Requests(core.compile_model(_through_a_file(core, _convert(spec.build(), size), None), "CPU", settings))
    folder = cache_folder() / _folder_name(openvino.__version__.split("-")[0], spec.key, size)
    file = folder / f"compiled-{_machine(core, settings)}.blob"
    compiled = _imported(core, file, settings)
    new = compiled is None
    if new:
        model = _cached(core, folder)
        if model is None:
            LOG.warning("a network of %dx%d pixels is prepared for this machine: once, some seconds", *size)
            model = _through_a_file(core, _convert(spec.build(), size), folder)
        compiled = core.compile_model(model, "CPU", settings)
        _export(compiled, file)
    single = Requests(compiled)
    if spec.openvino_batch == 1:
        return single
    batches = partial(_batches, folder, size, settings, spec.openvino_batch, single)
    requests = BatchedRequests(single, batches, spec.openvino_batch)
    if new:
        requests.prepare()
    return requests


@signal_stack_kept()
def _batches(
    folder: Path, size: tuple[int, int], settings: dict[str, str | int], items: int, single: Requests
) -> Requests | None:
    """Requests to a cached network of several items, None where they do not give the same bits as those of one item.

    Kernels are chosen by the shape, so that random pixels tell. Raises OpenVINO's RuntimeError.
    """
    core = openvino_package().Core()
    file = folder / f"batch{items}-{_machine(core, settings)}.blob"
    different = file.with_suffix(".different")
    if different.exists():
        return None
    compiled = _imported(core, file, settings)
    if compiled is not None:
        return Requests(compiled, items)
    model = _cached(core, folder)
    if model is None:
        return None
    model.reshape([items, *size, 3])
    compiled = core.compile_model(model, "CPU", settings)
    found = Requests(compiled, items)
    pixels = np.random.default_rng(0).integers(0, 256, (items, *size, 3), np.uint8)
    if all(np.array_equal(*pair) for pair in zip(found(pixels), single(pixels), strict=True)):
        _export(compiled, file)
        return found
    LOG.info("%s: a batch of %d gives other bits than single items, not used", folder.name, items)
    with contextlib.suppress(OSError):
        different.touch()
    return None


def _folder_name(version: str, key: str, size: tuple[int, int] | None) -> str:
    """A folder's name, or with size None a pattern of the names of all sizes."""
    shape = "*" if size is None else f"{size[0]}x{size[1]}"
    return f"openvino-{version}-{__version__}.{_CONVERSION}-{key[:24]}-{shape}"


def is_prepared(key: str, size: tuple[int, int] | None = None) -> bool:
    """Whether the network of these weights (SHA-256), at this or at any size, is likely to be found in the cache."""
    return any(cache_folder().glob(f"{_folder_name('*', key, size)}/compiled-*.blob"))


def compile_model(core: Any, model: Any, threads: int | None, precision: str = "float32") -> Requests:
    """Requests to a model that takes one item. threads: None for all cores."""
    return Requests(core.compile_model(model, "CPU", _settings(threads, precision)))


# Without the hint OpenVINO computes in bfloat16 wherever the CPU can.
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def _settings(threads: int | None, precision: str) -> dict[str, str | int]:
    settings: dict[str, str | int] = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings


def _machine(core: Any, settings: dict[str, str | int]) -> str:
    """Identifies what a compiled network depends on besides its model: OpenVINO's build, the CPU, the settings."""
    parts = (*machine_parts(core), str(sorted(settings.items())))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def machine_parts(core: Any = None) -> tuple[str, ...]:
    """OpenVINO's build, the CPU, and the number of its cores. core: OpenVINO's, where there is one already."""
    openvino = openvino_package()
    core = core or openvino.Core()
    cpu = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    return (openvino.__version__, *map(str, cpu), str(os.cpu_count()))


def _imported(core: Any, file: Path, settings: dict[str, str | int]) -> Any:
    """The compiled network of a file that _export wrote, in a quarter of the time; None where there is none."""
    try:
        data = file.read_bytes()
        if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
            raise ValueError("its checksum differs")
        compiled = core.import_model(data[_DIGEST:], "CPU", settings)
        os.utime(file.parent)  # for bound_cache
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RuntimeError) as error:
        LOG.info("%s: not used, compiled anew (%s)", file, " ".join(str(error).split())[:150])
        return None
    return compiled


def _export(compiled: Any, file: Path) -> None:
    """Keep a compiled network in the cache. Errors are ignored."""
    try:
        data = compiled.export_model().getvalue()
        with AtomicFile(file) as opened:
            opened.write(hashlib.sha256(data).digest() + data)
        bound_cache()
    except (OSError, RuntimeError) as error:
        LOG.info("compiled network not cached: %s", error)


def _convert(module: "nn.Module", size: tuple[int, int]) -> Any:
    import torch

    shape = (1, *size, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations inside OpenVINO's tracing
        return converter()(module.eval(), example_input=torch.zeros(shape, dtype=torch.uint8), input=list(shape))


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
    openvino = openvino_package()
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
    raise MachineError(f"no place for the files of a converted network ({' '.join(str(failure).split())[:150]})")
