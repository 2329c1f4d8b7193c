"""Choice of the device that networks run on."""

import ctypes
import os
import sys

from posecli.errors import MachineError, UsageError


def resolve_device(name: str) -> str:
    """'auto', 'cpu', 'cuda' or 'cuda:N' as the name of an existing device, as torch.device takes it.

    torch is imported only where there may be a GPU. Raises MachineError where the requested GPU is missing, UsageError
    for other names.
    """
    if name == "cpu" or (name == "auto" and not has_nvidia_driver()):
        return "cpu"
    if name == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise UsageError(f"--device {name}: auto, cpu, cuda or cuda:N")
    import torch

    if not torch.cuda.is_available():
        raise MachineError(f"--device {name}: no usable NVIDIA GPU (posecli doctor says more); use --device cpu")
    if int(number or 0) >= torch.cuda.device_count():
        raise MachineError(f"--device {name}: this machine has {torch.cuda.device_count()} GPU(s), numbered from 0")
    return name


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
