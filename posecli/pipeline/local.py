"""Workers that are processes of this machine."""

import multiprocessing
import os
from collections.abc import Collection, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from posecli.errors import MachineError
from posecli.pipeline.pool import Handle
from posecli.pipeline.worker import Common, Message, Order, Setup, main
from posecli.processes import cause_of, share_of, signals_held, usable_cores

# Workers that die one after another before their models are loaded: then no worker can be started.
_MOST_EARLY_DEATHS = 3


@dataclass(eq=False)
class Process:
    """A pool.Handle."""

    place: Hashable
    process: SpawnProcess
    connection: "Connection[Order, Message]"

    def send(self, order: Order) -> None:
        """Send an order through the pipe."""
        with suppress(OSError):
            self.connection.send(order)

    def receive(self) -> Sequence[Message]:
        """A message, if there is one."""
        try:
            return [self.connection.recv()] if self.connection.poll() else []
        except (EOFError, OSError) as error:
            self.connection.close()
            raise EOFError from error

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def join(self, seconds: float | None = None) -> None:
        """Wait for the process."""
        self.process.join(seconds)

    def cause(self) -> str:
        """Words for its exit code."""
        self.process.join()
        return cause_of(self.process.exitcode)


class Processes:
    """A pool.Pool of `count` processes."""

    def __init__(self, common: Common, count: int) -> None:
        self._common, self._count = common, count
        self._cores = usable_cores()
        self._context = multiprocessing.get_context("spawn")
        self._early_deaths = 0
        self._started = 0

    def places(self, most: int) -> Sequence[Hashable]:
        """Numbers from 0; never more than at the first call, by which the cores are shared out."""
        self._started = self._started or min(self._count, most)
        return range(min(self._started, most))

    def count(self) -> int:
        """All of them."""
        return self._count

    def all_cores(self) -> tuple[int, ...] | None:
        """None where workers are not bound to a share of them."""
        return self._cores if self._common.torch_threads is None else None

    def start(self, place: Hashable) -> Handle:
        """Start a process with a pipe to it."""
        assert isinstance(place, int)
        common = self._common
        cores = share_of(self._cores, place, self._started or self._count) if common.torch_threads is None else None
        ours, theirs = self._context.Pipe()
        setup = Setup(common, os.getpid(), cores)
        process = self._context.Process(target=main, args=(theirs, setup), name=f"posecli-worker-{place}", daemon=True)
        try:
            with signals_held():
                process.start()
        except OSError as error:
            raise MachineError(f"a worker process cannot be started ({error.strerror}): use --workers 1") from error
        theirs.close()  # so that the end of the worker is the end of the pipe
        return Process(place, process, ours)

    def wait(self, handles: Sequence[Handle], seconds: float) -> Collection[Handle]:
        """Wait for one of the pipes."""
        found = {handle.connection: handle for handle in handles if isinstance(handle, Process)}
        return [
            found[connection] for connection in wait([*found], timeout=seconds) if isinstance(connection, Connection)
        ]

    def ready(self, handle: Handle) -> None:
        """Workers can be started."""
        self._early_deaths = 0

    def ended_early(self, handle: Handle, cause: str) -> None:
        """Give up after some."""
        self._early_deaths += 1
        if self._early_deaths == _MOST_EARLY_DEATHS:
            raise MachineError(f"worker processes end while they start ({cause}): use --workers 1")

    def without(self, handle: Handle, error: BaseException) -> str | None:
        """There is no other machine."""
        return None

    def close(self) -> None:
        """Nothing is left."""
