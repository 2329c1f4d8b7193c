"""Scheduling of threads that an encoder changes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_THREADS = Path("/proc/self/task")


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """Undo what happens inside to the scheduling policy of this process's threads; new ones get the caller's. Linux.

    SVT-AV1 gives the thread that opens it and all of its own real-time priority (SCHED_FIFO, 99) where it may, that is
    to the user root, as in a container. What such a process starts later inherits it, and other processes stand still.
    """
    if not _THREADS.is_dir():
        yield
        return
    own, before = (os.sched_getscheduler(0), os.sched_getparam(0)), _policies()
    try:
        yield
    finally:
        for thread, (policy, _) in _policies().items():
            wanted, parameters = before.get(thread, own)
            if policy != wanted:
                with suppress(OSError):  # it has ended
                    os.sched_setscheduler(thread, wanted, parameters)


def _policies() -> dict[int, tuple[int, os.sched_param]]:
    """Policy and parameters of each thread, by its id."""
    policies = {}
    for path in _THREADS.iterdir():
        thread = int(path.name)
        with suppress(OSError):  # it has ended
            policies[thread] = os.sched_getscheduler(thread), os.sched_getparam(thread)
    return policies
