"""Standard streams that are closed, or that nobody reads any more."""

import io
import os
import sys
from typing import Any


def open_streams() -> None:
    """Let closed ones lead nowhere, and let no message to stderr fail.

    The number of a closed stream goes to the next file that is opened: what a library prints then stands in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - no path
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        raw = io.BufferedWriter(_Unfailing(sys.stderr.fileno(), "wb", closefd=False), 1 << 16)
        sys.stderr = io.TextIOWrapper(raw, sys.stderr.encoding, "backslashreplace", line_buffering=True)


class _Unfailing(io.FileIO):
    """Drops what cannot be written: the reader has left, the terminal is gone, its disk is full."""

    def write(self, data: Any) -> int:
        """The number of bytes taken."""
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError:
            return len(memoryview(data).cast("B"))
