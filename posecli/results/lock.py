"""One writer at a time for a folder: a lock of the kernel, which ends with the process, also when it is killed."""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from posecli.errors import MachineError
from posecli.text import printed

LOG = logging.getLogger(__name__)

_BUSY = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})


@contextmanager
def locked(folder: Path, option: str, name: str = ".posecli-lock") -> Iterator[None]:
    """Lock the folder, which is created if needed. option: named in messages. name: the lock's file in the folder.

    Raises MachineError where another process holds the lock, or where the folder cannot be written. On a file system
    without locks a warning is logged, and the folder is used without one.
    """
    try:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        file = os.open(folder / name, flags, 0o666)
    except OSError as error:
        raise MachineError(f"{option} {printed(folder)}: cannot be written ({error.strerror})") from error
    try:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _BUSY:
                raise MachineError(
                    f"{option} {printed(folder)}: another posecli is writing there: wait for its end, or choose "
                    "another folder"
                ) from error
            LOG.warning(
                "%s %s: its file system has no locks (%s): start no second posecli there",
                option,
                printed(folder),
                error.strerror,
            )
        yield
    finally:
        os.close(file)  # and with it the lock


def _lock(file: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
