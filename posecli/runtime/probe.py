"""Whether a GPU can be used: by a small computation, as drivers, libraries and memory can each be the reason."""

import warnings
from functools import cache

import torch

# Memory that the embedded networks take with their batches.
_NEEDED_BYTES = 512 * 2**20


@cache
def gpu_problem(device: str = "cuda") -> str | None:
    """Why a GPU ("cuda" or "cuda:N") cannot be used, as a part of a sentence; None where it works."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if not available:
        if torch.version.cuda is None:
            return "this torch is built without CUDA"
        # A driver that is too old for this torch is a warning of torch.
        return f"no usable NVIDIA GPU ({_first_line(told[0].message)})" if told else "no usable NVIDIA GPU"
    number = torch.device(device).index or 0
    if number >= torch.cuda.device_count():
        return f"this machine has {torch.cuda.device_count()} GPU(s), numbered from 0"
    try:
        return None if _computes(torch.device(device)) else "it computes wrong values"
    except torch.OutOfMemoryError:
        return "its memory is full, other programs use it"
    except RuntimeError as error:
        return _first_line(error)


def _computes(device: torch.device) -> bool:
    """Whether a product of matrices and a convolution, in float16, have the right values on a device."""
    memory = torch.empty(_NEEDED_BYTES, dtype=torch.uint8, device=device)
    memory[-1] = 1
    ones = torch.ones((64, 64), dtype=torch.float16, device=device)
    product = ones @ ones
    kernel = torch.ones((8, 8, 3, 3), dtype=torch.float16, device=device)
    convolved = torch.nn.functional.conv2d(ones.view(1, 8, 16, 32), kernel)
    return bool((product == 64).all()) and bool((convolved == 72).all()) and int(memory[-1]) == 1


def _first_line(error: BaseException | str | Warning) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:200].rstrip(".")
