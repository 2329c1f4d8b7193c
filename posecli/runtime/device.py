"""Choice of the device that networks run on."""

import torch

from posecli.errors import MachineError, UsageError


def resolve_device(name: str) -> torch.device:
    """'auto', 'cpu', 'cuda' or 'cuda:N' as an existing device.

    Raises MachineError where the requested GPU is missing, UsageError for other names.
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
