"""Prefetching in a thread or in worker processes, with results in order."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar

from posecli.errors import MachineError

Key = TypeVar("Key")
Made = TypeVar("Made")

_make: Callable[[Any], Any] | None = None


def prefetch(make: Callable[[Key], Made], keys: Iterable[Key], workers: int = 0) -> Iterator[Made]:
    """make(key) for each key, in order, prefetching two for each worker.

    workers: number of processes; 0: one thread of this process. make must be a pure function that can be pickled, so
    that the results do not depend on workers. Exceptions of make are raised here; MachineError where a process died.
    """
    pool = _processes(make, workers) if workers else ThreadPoolExecutor(1)
    call = _call if workers else make
    pending: deque[Future[Made]] = deque()
    try:
        for key in keys:
            with _blocked_interrupts(first=workers > 0 and not pending):
                pending.append(pool.submit(call, key))
            if len(pending) > 2 * max(1, workers):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise MachineError("a loader process was ended, perhaps for want of memory: try fewer --workers") from error
    finally:
        pool.shutdown(wait=not workers, cancel_futures=True)


def _processes(make: Callable[[Any], Any], workers: int) -> Executor:
    # Processes are spawned: threads of torch and OpenCV do not survive a fork.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(make,))


@contextmanager
def _blocked_interrupts(first: bool) -> Iterator[None]:
    """Processes started in this block ignore Ctrl-C, which a terminal sends to all processes."""
    if not first or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it unblocks signals itself
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(make: Callable[[Any], Any]) -> None:
    """Initialise a worker process."""
    global _make
    _make = make
    import cv2

    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(key: Any) -> Any:
    assert _make is not None
    return _make(key)
