"""Choice of the floating-point format that networks are computed in."""

import sys
from functools import cache
from pathlib import Path

from posecli.errors import MachineError, UsageError
from posecli.runtime.device import is_gpu

# Name of --precision → name of the format, as run.json states it. "auto" depends on device and network.
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}


def resolve_precision(name: str, device: str, *, bfloat16_measured: bool) -> str:
    """The format of "auto", "fp32" or "bf16" on a device: "float32", "bfloat16" or "float16".

    "auto" is float16 on a GPU. On a CPU it is bfloat16 where the CPU has instructions for it and the network's accuracy
    in it was measured (ModuleSpec.bfloat16_measured), else float32.

    Raises UsageError for another name, MachineError for bf16 on a CPU without such instructions.
    """
    if name == "auto":
        if is_gpu(device):
            return "float16"
        return "bfloat16" if bfloat16_measured and has_bfloat16() else "float32"
    if name not in PRECISIONS:
        raise UsageError(f"--precision {name}: auto, {', '.join(PRECISIONS)}")
    if name == "bf16" and not is_gpu(device) and not has_bfloat16():
        raise MachineError("--precision bf16: no bfloat16 instructions of this CPU are known (Linux only); use fp32")
    return PRECISIONS[name]


@cache
def has_bfloat16() -> bool:
    """Whether the CPU has dot or matrix products of bfloat16 (AVX-512 BF16, AMX).

    OpenVINO is not asked: it emulates them on CPUs with AVX-512 only. Only Linux says what the CPU has.
    """
    if sys.platform != "linux":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(errors="replace").partition("\nflags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"}.intersection(flags))
