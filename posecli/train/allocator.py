"""Memory of a training step on the CPU: kept for the next one instead of being given back."""

import ctypes
import sys

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let freed memory stay with the process; whether this platform's C library could be told so.

    Each step takes and frees the same large tensors. By default glibc maps each of them anew and the kernel clears
    every page again: a third of a step's processor time at 256×192. The price is a higher peak of memory, since
    what lies between is not given back.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 1 << 28))
    return all(mallopt(name, value) == 1 for name, value in settings)
