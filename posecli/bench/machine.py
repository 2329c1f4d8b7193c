"""What a machine can compute: its cores, and the throughput of large matrix products in each precision."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from posecli.bench.costs import timed
from posecli.runtime import is_gpu
from posecli.runtime.openvino_package import openvino_package
from posecli.runtime.precision import has_bfloat16

# Side of the square matrices, large enough that the product is limited by arithmetic.
_CPU_SIDE, _GPU_SIDE = 2048, 8192
_LEAST_ROUNDS = 10


@dataclass(frozen=True)
class Machine:
    """cpu, gpu: names, gpu None on a CPU. cores: that this process may use. peaks: precision → GFLOP/s of GEMM.

    busy_cores: that other programs used before or after the measurements, None where it is unknown.
    """

    cpu: str
    cores: int
    device: str
    gpu: str | None
    peaks: dict[str, float]
    busy_cores: float | None = None


def cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def busy_cores(seconds: float = 0.5) -> float | None:
    """Number of cores that programs use while this process sleeps; None where the system does not tell (not Linux)."""
    before = _ticks()
    time.sleep(seconds)
    after = _ticks()
    if before is None or after is None or after == before:
        return None
    busy, whole = (late - early for early, late in zip(before, after, strict=True))
    return busy / max(whole, 1) * (os.cpu_count() or 1)


def _ticks() -> tuple[int, int] | None:
    """Clock ticks of all cores since the system started: busy, and all."""
    try:
        line = Path("/proc/stat").read_text().partition("\n")[0].split()
        ticks = [int(value) for value in line[1:9]]
    except (OSError, ValueError):
        return None
    # user, nice, system, idle, waiting for disks, interrupts of two kinds, stolen by other virtual machines
    return (sum(ticks) - ticks[3] - ticks[4], sum(ticks)) if len(ticks) == 8 else None


def measure_machine(device: str, rounds: int, side: int | None = None) -> Machine:
    """Names and GEMM peaks of a device (torch's name). side: of the matrices, None for the usual one."""
    cpu = str(openvino_package().Core().get_property("CPU", "FULL_DEVICE_NAME")).strip()
    gpu = torch.cuda.get_device_name(device) if is_gpu(device) else None
    return Machine(cpu, cores(), device, gpu, gemm_peaks(device, rounds, side))


def gemm_peaks(device: str, rounds: int, side: int | None = None) -> dict[str, float]:
    """Precision → GFLOP/s of torch's product of square matrices, the best of some rounds taken in turns.

    bfloat16 is left out on a CPU without instructions for it, where torch emulates it, and float16 on every CPU.
    """
    names = ["float32"]
    if is_gpu(device) or has_bfloat16():
        names.append("bfloat16")
    if is_gpu(device):
        names.append("float16")
    side = side or (_GPU_SIDE if is_gpu(device) else _CPU_SIDE)
    torch.manual_seed(0)
    matrices = {name: torch.randn(side, side, device=device).to(getattr(torch, name)) for name in names}
    best = dict.fromkeys(names, float("inf"))
    for turn in range(max(rounds, _LEAST_ROUNDS) + 1):
        for name, matrix in matrices.items():
            seconds = timed(lambda matrix=matrix: _product(matrix)).wall  # type: ignore[misc]
            if turn:  # the first one allocates
                best[name] = min(best[name], seconds)
    return {name: 2 * side**3 / seconds / 1e9 for name, seconds in best.items()}


def _product(matrix: torch.Tensor) -> None:
    torch.matmul(matrix, matrix)
    if matrix.is_cuda:
        torch.cuda.synchronize(matrix.device)
