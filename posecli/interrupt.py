"""Ctrl-C, SIGTERM and a lost terminal end the process within two seconds, whatever it waits for.

A signal raises KeyboardInterrupt in the main thread, which tidies up and ends. Where it cannot, since a library does
not return or swallows the exception, a second thread ends the process after GRACE seconds, or at the next signal.
That is safe at any moment: files are written under temporary names and renamed.
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

# Seconds that tidying up may take. Beside them, an import of torch holds Python's lock for up to 0.7 s.
GRACE = 1.5

# Signals that end a command, and what it says then.
_WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "the terminal is gone"}
_NUMBERS = {int(getattr(signal, name)): words for name, words in _WORDS.items() if hasattr(signal, name)}
_SHOW_CURSOR = "\x1b[?25h"


@dataclass
class _Command:
    """What happened to the command that is watched.

    number: of the first signal. handled: whether the main thread knows of it. works: whether there are results to be
    kept. code: set when all work is done.
    """

    number: int | None = None
    handled: bool = False
    works: bool = False
    code: int | None = None
    told: bool = False


_command: _Command | None = None
_abandoned: list[threading.Thread] = []


def abandon(thread: threading.Thread) -> None:
    """Nobody will wait for this thread: it is in a call that may never return."""
    _abandoned.append(thread)


def any_abandoned() -> bool:
    """Whether such a thread still runs. Python cannot end then: it would wait for what the thread holds."""
    return any(thread.is_alive() for thread in _abandoned)


def received() -> int | None:
    """The number of the first signal since the command began; None where none came, or nobody watches."""
    return None if _command is None else _command.number


def exit_code(number: int) -> int:
    """What a shell calls the end by a signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for a lost terminal."""
    return 128 + number


@contextmanager
def watching() -> Iterator[None]:
    """Handle the signals in this block. Only the main thread can; in another one, or nested, this does nothing.

    A signal that is ignored already, as nohup has it, stays ignored.
    """
    global _command
    if _command is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    mine = _command = _Command()
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    former_end = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    # None: a handler that was not set from Python, and cannot be put back.
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
        writing.close()  # which ends the thread


@contextmanager
def working() -> Iterator[None]:
    """There are results to be kept in this block: a signal in it always raises KeyboardInterrupt.

    Outside of it, a signal that comes while a module is imported ends the process at once.
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
    """All work is done: a signal now ends the process with this code, at once and without a word."""
    if _command is not None:
        _command.code = code


def _handle(number: int, frame: FrameType | None) -> None:
    """Runs in the main thread, as soon as that executes Python code."""
    assert _command is not None
    # The thread that watches may have seen it before.
    again, _command.handled = _command.handled, True
    _command.number = _command.number or number
    # Of an exception in a module half loaded, libraries in C make what they like.
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
    """Runs in a thread of its own: Python writes each signal's number into the socket, also while C code runs."""
    with reading:
        number = _next(reading)
        if number is None:
            return
        mine.number = mine.number or number
        reading.settimeout(GRACE)
        with suppress(TimeoutError):
            if mine.code is None and _next(reading) is None:
                return  # the block has ended: the signal was handled
        _leave(mine)


def _next(reading: socket.socket) -> int | None:
    """The next signal of those that end a command; None where the socket was closed."""
    while byte := reading.recv(1):
        if byte[0] in _NUMBERS:
            return byte[0]
    return None


def _without_interrupts(hook: Any) -> Any:
    """KeyboardInterrupt in a destructor or in a library's callback is nothing to print."""

    def told(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, KeyboardInterrupt) and received() is not None):
            hook(unraisable)

    return told


def _leave(mine: _Command) -> NoReturn:
    """End the process without waiting for anything."""
    if mine.code is not None:
        os._exit(mine.code)
    _tell(mine)
    assert mine.number is not None
    os._exit(exit_code(mine.number))


def tell() -> None:
    """One line to the user that the command was interrupted, once."""
    if _command is not None:
        _tell(_command)


def _tell(mine: _Command) -> None:
    """Without Python's streams, whose locks others may hold, and without waiting for a reader who does not read."""
    if mine.told or mine.number is None:
        return
    mine.told = True
    line = f"posecli: {_NUMBERS[mine.number]}; the same command goes on where it stopped\n"
    with suppress(OSError, ValueError):
        if os.isatty(2):
            line = f"{_SHOW_CURSOR}\r{line}"
        if sys.platform == "win32" or select.select([], [2], [], 0.1)[1]:
            os.write(2, line.encode())


@contextmanager
def deferred(kept: list[int] | None = None) -> Iterator[None]:
    """A signal inside waits until the end of the block, for as long as GRACE allows.

    kept: takes the signals' numbers instead; what they lead to is the caller's business then. Only the main thread
    hears of signals; in another one this does nothing.
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
