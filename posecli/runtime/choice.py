"""Choice of the faster runtime on a CPU: measured once for a network and a machine, then cached."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from posecli import __version__
from posecli.atomic import AtomicFile
from posecli.runtime.cache import cache_folder
from posecli.runtime.network import CompiledNetwork, ModuleSpec
from posecli.runtime.openvino_runtime import machine_parts
from posecli.text import printed

LOG = logging.getLogger(__name__)

# The one that is used unless another is faster by more than the noise of the measurement: with it the choice, on which
# the last bits of results depend, is the same on every machine of a kind.
USUAL = "openvino"
LEAST_GAIN = 1.1
_ROUNDS = 5


def fastest(spec: ModuleSpec, precision: str, compilers: Mapping[str, Callable[[], CompiledNetwork]]) -> str:
    """The name of the runtime to use for a network on the CPU.

    compilers: make the network in each runtime; they are called only where no earlier measurement is cached, and USUAL
    is among them. A network without a key, or without a size to compare at, is not measured.
    """
    size = size_of(spec)
    if spec.key is None or size is None:
        return USUAL
    file = cache_folder() / f"runtime-{_digest(spec, precision)}.json"
    try:
        name = json.loads(file.read_bytes())["runtime"]
        if name in compilers:
            return str(name)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        LOG.info("%s: not used, measured again (%s)", printed(file), error)
    seconds = measure({name: compiler() for name, compiler in compilers.items()}, size, spec.cpu_batch)
    best = min(seconds, key=lambda name: seconds[name])
    chosen = best if seconds[best] * LEAST_GAIN < seconds[USUAL] else USUAL
    try:
        with AtomicFile(file) as opened:
            opened.write(json.dumps({"runtime": chosen, "seconds": seconds}).encode() + b"\n")
    except OSError as error:
        LOG.info("%s: not kept (%s)", printed(file), error)
    return chosen


def size_of(spec: ModuleSpec) -> tuple[int, int] | None:
    """The (height, width) at which runtimes are compared."""
    return spec.sizes[0] if spec.sizes else spec.compared_at


def measure(
    networks: Mapping[str, CompiledNetwork], size: tuple[int, int], items: int, rounds: int = _ROUNDS
) -> dict[str, float]:
    """Seconds for one item, the least of rounds in which the networks take turns; pixels are random.

    Other programs only add to the time: the least is nearest to what a network takes alone.
    """
    pixels: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (items, *size, 3), np.uint8)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(rounds + 1):
        for name, network in networks.items():
            start = time.perf_counter()
            network(pixels)
            if turn:  # the first one allocates
                seconds[name].append((time.perf_counter() - start) / items)
    return {name: min(found) for name, found in seconds.items()}


def _digest(spec: ModuleSpec, precision: str) -> str:
    parts = (__version__, spec.key, size_of(spec), precision, spec.threads, *machine_parts())
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:24]
