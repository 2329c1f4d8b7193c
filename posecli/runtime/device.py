"""Choice of the device that networks run on."""

import ctypes
import logging
import os
import sys
from functools import cache

from posecli.errors import MachineError, UsageError

LOG = logging.getLogger(__name__)


def resolve_device(name: str) -> str:
    """'auto', 'cpu', 'cuda' or 'cuda:N' as the name of a device that works, as torch.device takes it.

    torch is imported only where there may be a GPU. "auto" is a GPU that computes (gpu_problem), else the CPU. Raises
    MachineError where the requested GPU is missing or does not work, UsageError for other names.
    """
    if name == "cpu" or (name == "auto" and not has_nvidia_driver()):
        return "cpu"
    kind, _, number = name.partition(":")
    if name != "auto" and (kind != "cuda" or (number and not number.isdigit())):
        raise UsageError(f"--device {name}: auto, cpu, cuda or cuda:N")
    from posecli.runtime.probe import gpu_problem  # imports torch

    wanted = "cuda" if name == "auto" else name
    problem = gpu_problem(wanted)
    if problem is None:
        return wanted
    if name != "auto":
        raise MachineError(f"--device {name}: {problem} (posecli doctor says more); use --device cpu")
    _warn_once(f"the GPU is not used: {problem}; --device cpu avoids this warning")
    return "cpu"


@cache
def _warn_once(message: str) -> None:
    LOG.warning(message)


def is_gpu(device: str) -> bool:
    """Whether a device of resolve_device is a GPU."""
    return device.startswith("cuda")


def has_nvidia_driver() -> bool:
    """Whether NVIDIA's driver is there and no variable hides its GPUs: without it torch need not be asked."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
