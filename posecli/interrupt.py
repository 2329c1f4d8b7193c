"""Signal handling: Ctrl-C, SIGTERM and SIGHUP end the process within two seconds.

A signal raises KeyboardInterrupt in the main thread, which cleans up and ends. Where it cannot, because a library does
not return or swallows the exception, a second thread ends the process after GRACE seconds, or at the next signal. That
is safe at any time: files are written under temporary names and renamed.
"""

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

# Seconds for cleaning up. In addition, an import of torch holds the GIL for up to 0.7 s.
GRACE = 1.5

# Signals that end a command, and their messages.
_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "the terminal is gone"}
_NUMBERS = {int(getattr(signal, name)): words for name, words in _WORDS.items() if hasattr(signal, name)}
_SHOW_CURSOR = "\x1b[?25h"


@dataclass
class _Command:
    """State of the running command.

    number: of the first signal. handled: whether the main thread has handled it. works: inside of interruptible. code:
    exit code, set when all work is done. printed: whether the message was printed.
    """

    number: int | None = None
    handled: bool = False
    works: bool = False
    code: int | None = None
    printed: bool = False


_command: _Command | None = None
_blocked_threads: list[threading.Thread] = []


def mark_blocked(thread: threading.Thread) -> None:
    """Record a thread that is blocked in a call that may never return, and is not joined."""
    _blocked_threads.append(thread)


def any_blocked() -> bool:
    """Whether such a thread still runs. Python's normal exit could then wait for resources that it holds."""
    return any(thread.is_alive() for thread in _blocked_threads)


def received_signal() -> int | None:
    """The number of the first signal since handle_signals; None without one, or outside of handle_signals."""
    return None if _command is None else _command.number


def exit_code(number: int) -> int:
    """The exit code after a signal, as in shells: 130 for Ctrl-C, 143 for SIGTERM, 129 for a lost terminal."""
    return 128 + number


@contextmanager
def handle_signals() -> Iterator[None]:
    """Handle signals in this block. In another thread than the main one, or nested, this does nothing.

    Signals that are already ignored, as by nohup, stay ignored.
    """
    global _command
    if _command is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    mine = _command = _Command()
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    former_end = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    # None: a handler that was not set from Python, and cannot be restored.
    handled = [number for number in _NUMBERS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    former = {number: signal.signal(number, _handle) for number in handled}
    hook, sys.unraisablehook = sys.unraisablehook, _without_interrupts(sys.unraisablehook)
    threading.Thread(target=_watch, args=(reading, mine), name="signals", daemon=True).start()
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former_end)
        _command = None
        writing.close()  # ends the thread


@contextmanager
def interruptible() -> Iterator[None]:
    """A signal in this block always raises KeyboardInterrupt, so that results can be saved.

    Outside of it, a signal during an import ends the process immediately.
    """
    mine = _command
    if mine is None:
        yield
        return
    before, mine.works = mine.works, True
    try:
        yield
    finally:
        mine.works = before


def finished(code: int) -> None:
    """All work is done: from now on a signal ends the process with this code immediately, without a message."""
    if _command is not None:
        _command.code = code


def _handle(number: int, frame: FrameType | None) -> None:
    """The signal handler: runs in the main thread, as soon as that executes Python code."""
    assert _command is not None
    # The second thread may have recorded it before.
    again, _command.handled = _command.handled, True
    _command.number = _command.number or number
    # C libraries may handle an exception during an import in any way.
    if again or _command.code is not None or (not _command.works and _imports(frame)):
        _leave(_command)
    raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _watch(reading: socket.socket, mine: _Command) -> None:
    """The second thread: Python writes each signal's number into the socket, also while C code runs."""
    with reading:
        number = _next(reading)
        if number is None:
            return
        mine.number = mine.number or number
        reading.settimeout(GRACE)
        with suppress(TimeoutError):
            if mine.code is None and _next(reading) is None:
                return  # the block of handle_signals has ended
        _leave(mine)


def _next(reading: socket.socket) -> int | None:
    """The next signal that ends a command; None after the socket was closed."""
    while byte := reading.recv(1):
        if byte[0] in _NUMBERS:
            return byte[0]
    return None


def _without_interrupts(hook: Any) -> Any:
    """An unraisablehook that does not print KeyboardInterrupt in destructors and callbacks of libraries."""

    def report(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, KeyboardInterrupt) and received_signal() is not None):
            hook(unraisable)

    return report


def _leave(mine: _Command) -> NoReturn:
    """End the process without waiting for anything."""
    if mine.code is not None:
        os._exit(mine.code)
    _print_interrupted(mine)
    assert mine.number is not None
    os._exit(exit_code(mine.number))


def print_interrupted() -> None:
    """Print once that the command was interrupted."""
    if _command is not None:
        _print_interrupted(_command)


def _print_interrupted(mine: _Command) -> None:
    """Print without Python's streams, whose locks other threads may hold, and without blocking."""
    if mine.printed or mine.number is None:
        return
    mine.printed = True
    line = f"posecli: {_NUMBERS[mine.number]}; the same command goes on where it stopped\n"
    with suppress(OSError, ValueError):
        if os.isatty(2):
            line = f"{_SHOW_CURSOR}\r{line}"
        if sys.platform == "win32" or select.select([], [2], [], 0.1)[1]:
            os.write(2, line.encode())


@contextmanager
def deferred(kept: list[int] | None = None) -> Iterator[None]:
    """Defer signals to the end of the block, within GRACE seconds.

    kept: receives the signals' numbers instead; the caller handles them. In another thread than the main one this does
    nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = [] if kept is None else kept
    former: dict[int, Any] = {}
    for number in _NUMBERS:
        if callable(handler := signal.getsignal(number)):
            former[number] = handler
            signal.signal(number, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if pressed and kept is None:
        former[pressed[0]](pressed[0], None)
