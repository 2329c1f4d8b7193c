"""Ctrl-C between steps, never inside one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def whole_step() -> Iterator[None]:
    """Ctrl-C inside waits until the end, so that weights, optimiser and samples seen are saved in step.

    Only the main thread hears of signals; in another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        _put_back(before)
    if pressed:
        raise KeyboardInterrupt


def _put_back(handler: Any) -> None:
    # None: a handler that was not set from Python cannot be put back.
    signal.signal(signal.SIGINT, signal.default_int_handler if handler is None else handler)
