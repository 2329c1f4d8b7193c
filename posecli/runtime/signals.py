"""The calling thread's own stack for signals, kept through a library that changes it."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """stack_t of signal.h on Linux."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Give the thread back the alternate signal stack that it had before.

    OpenVINO leaves one of its own on a thread that waits for it, and frees the memory with its models: the next
    Ctrl-C of a program that has dropped a model would then end in a segmentation fault, since Python's handlers run
    on the alternate stack. On other systems than Linux this does nothing.
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
