"""Standard streams that are closed, or whose reader is gone."""

import io
import os
import sys
from typing import Any


def open_streams() -> None:
    """Redirect closed standard streams to the null device, and ignore errors of writing to stderr.

    Otherwise the descriptor of a closed stream would be reused for the next opened file, and printed text end up in it.
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
    """Ignores errors of writing: a closed pipe, a lost terminal, a full disk."""

    def write(self, data: Any) -> int:
        """Write; returns the number of bytes, also of those that were lost."""
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError:
            return len(memoryview(data).cast("B"))
