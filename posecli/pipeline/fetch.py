"""Inputs at addresses: each is copied into a local folder shortly before it is read, and deleted when it has ended."""

import os
import queue
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from posecli.errors import MachineError
from posecli.media.inputs import Input, sniff, why_unknown
from posecli.pipeline.channel import Budget, Stopped
from posecli.pipeline.events import Job
from posecli.remote import RemoteError, RemoteFile
from posecli.results.lock import locked
from posecli.results.manifest import Finished
from posecli.runtime.cache import cache_folder

# Bytes of all fetched files of a run at once; a larger one is alone, of those of its process.
FETCHED_BYTES = 4_000_000_000
# Jobs that a process fetches ahead: of the plain run, of a worker, which would keep them from the others.
_AHEAD, _AHEAD_OF_WORKER = 8, 1
T = TypeVar("T")

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
# Seconds after which the folder of a run that does not lock it was left by a killed one.
_ABANDONED = 60.0


@dataclass(frozen=True)
class Fetch:
    """Where a process puts fetched files, how many bytes, how many jobs ahead. It can be pickled."""

    folder: Path
    limit: int = FETCHED_BYTES
    ahead: int = _AHEAD

    def of_worker(self, count: int) -> "Fetch":
        """The share of one of so many workers."""
        return Fetch(self.folder, self.limit // max(1, count), _AHEAD_OF_WORKER)


@contextmanager
def fetch_folder(inputs: Sequence[Input]) -> Iterator[Fetch | None]:
    """The folder of a run, deleted at its end; None where no input is at an address. Raises MachineError."""
    if not any(item.remote is not None and item.error is None for item in inputs):
        yield None
        return
    root = cache_folder() / "remote"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(root)
        folder = Path(tempfile.mkdtemp(prefix="in-", dir=root))
    except OSError as error:
        raise MachineError(f"{root}: cannot be written ({error.strerror}); $POSECLI_CACHE names another") from error
    try:
        with locked(folder, "cache folder", "lock"):
            yield Fetch(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob("in-*"):
        with suppress(OSError, MachineError):
            if time.time() - folder.stat().st_mtime > _ABANDONED:
                with locked(folder, "cache folder", "lock"):
                    shutil.rmtree(folder, ignore_errors=True)


Ended = Callable[[Job, Finished], None]


@contextmanager
def fetching(
    fetch: Fetch | None, jobs: Iterable[Job | None], ended: Ended
) -> Iterator[tuple[Iterable[Job | None], Ended]]:
    """The jobs, each with the local copy of its input, and a function to call at its end, which deletes the copy."""
    if fetch is None:
        yield jobs, ended
        return
    fetcher = _Fetcher(fetch, jobs)
    try:
        yield fetcher.jobs(), fetcher.deleting(ended)
    finally:
        fetcher.stop()


class _Fetcher:
    """Fetches ahead, in a thread for each file, as far as the bytes allow."""

    def __init__(self, fetch: Fetch, jobs: Iterable[Job | None]) -> None:
        self._fetch, self._given = fetch, jobs
        self._stop = threading.Event()
        self._budget = Budget(fetch.limit, self._stop)
        self._ready: queue.Queue[Future[Job | None] | None] = queue.Queue(fetch.ahead)
        self._lock = threading.Lock()
        # Number of a job → its file and bytes.
        self._held: dict[int, tuple[Path, int]] = {}
        threading.Thread(target=self._feed, name="fetch", daemon=True).start()

    def stop(self) -> None:
        """End the threads, and delete all files but those that are being received."""
        self._stop.set()
        with self._lock:
            held, self._held = self._held, {}
        for path, _ in held.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def jobs(self) -> Iterator[Job | None]:
        """The jobs in their order. None before one that is not there yet: what was read is processed, and deleted."""
        while True:
            if self._ready.empty():
                yield None
            future: Future[Job | None] | None = self._wait(self._ready.get)
            if future is None:
                return
            if not future.done():
                yield None
            job = self._wait(future.result)
            yield job

    def _wait(self, get: Callable[..., T]) -> T:
        while not self._stop.is_set():
            with suppress(queue.Empty, TimeoutError):
                return get(timeout=0.1)
        raise Stopped

    def deleting(self, ended: Ended) -> Ended:
        """The function, which then deletes the job's file."""

        def end(job: Job, item: Finished) -> None:
            self._delete(job.number)
            ended(job, item)

        return end

    def _delete(self, number: int) -> None:
        with self._lock:
            path, size = self._held.pop(number, (None, 0))
        if path is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            self._budget.release(size)

    def _feed(self) -> None:
        last: Future[Job | None] = Future()
        try:
            for job in self._given:
                future: Future[Job | None] = Future()
                file = None if job is None or job.input.error is not None else job.input.remote
                if job is None or file is None:
                    future.set_result(job)
                else:
                    self._begin(job, file, future)
                self._put(future)
            self._put(None)
        except Stopped:
            return
        except BaseException as error:
            last.set_exception(error)
            with suppress(Stopped):
                self._put(last)

    def _begin(self, job: Job, file: RemoteFile, future: "Future[Job | None]") -> None:
        size = self._fetch.limit if file.size is None else file.size
        self._budget.acquire(size)
        suffix = Path(job.input.name).suffix
        name = f"{os.getpid()}-{job.number}{suffix if _SUFFIX.fullmatch(suffix) else ''}"
        with self._lock:
            self._held[job.number] = (self._fetch.folder / name, size)
        threading.Thread(
            target=self._receive, args=(job, file, self._fetch.folder / name, future), name="fetch", daemon=True
        ).start()

    def _receive(self, job: Job, file: RemoteFile, path: Path, future: "Future[Job | None]") -> None:
        """Give the job with its local copy, or with the error of its input; the full disk's error ends the run."""
        try:
            error = _fetched(file, path, job.input)
        except BaseException as problem:
            future.set_exception(problem)
            return
        if error is not None:
            self._delete(job.number)
            future.set_result(replace(job, input=replace(job.input, error=error)))
        else:
            future.set_result(replace(job, input=replace(job.input, path=path)))
        if self._stop.is_set():
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _put(self, future: "Future[Job | None] | None") -> None:
        while not self._stop.is_set():
            with suppress(queue.Full):
                return self._ready.put(future, timeout=0.1)
        raise Stopped


def _fetched(file: RemoteFile, path: Path, item: Input) -> str | None:
    """Fetch an input; the reason where that fails, or where it is not what its name says."""
    try:
        file.fetch(path)
        kind = sniff(path)
        if kind == "unknown":
            return why_unknown(path)
        return None if kind == item.kind else f"a {kind} by its content, a {item.kind} by its name: rename it"
    except RemoteError as error:
        return error.reason
