"""The alternate signal stack of a thread, restored after a library has changed it."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """stack_t of signal.h on Linux."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Restore the calling thread's alternate signal stack at the end of the block.

    OpenVINO installs its own stack on a thread that waits for it, and frees that memory with its models: a later Ctrl-C
    would end in a segmentation fault, since Python's handlers run on the alternate stack. Only on Linux; elsewhere this
    does nothing.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    library, before = ctypes.CDLL(None), _Stack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)
