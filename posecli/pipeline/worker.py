"""A worker process: takes jobs from the driver (workers.py) through a pipe and reports what becomes of them.

It ends when the driver does: the other end of the pipe is closed then. Signals are the driver's to handle.
"""

import logging
import os
import pickle
import queue
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeAlias

from posecli.errors import MachineError
from posecli.pipeline.events import Job
from posecli.pipeline.models import ModelOptions
from posecli.pipeline.unit import Unit, process, unit_of
from posecli.processes import bind, follow
from posecli.results.manifest import Finished

# Seconds between two messages about written frames.
_ADVANCE_EVERY = 0.1


@dataclass(frozen=True)
class Common:
    """What all workers of a run begin with. torch_threads: None where torch is not used.

    Each worker is bound to its share of the cores, unless torch is used: its threads would wait for each other.
    """

    unit: Unit
    models: ModelOptions
    torch_threads: int | None


@dataclass(frozen=True)
class Setup:
    """What one process begins with. driver: the process that started it. cores: those it runs on, None for all."""

    common: Common
    driver: int
    cores: tuple[int, ...] | None


@dataclass(frozen=True)
class Wanted:
    """The worker can read another job. ready: sent once, when the models are loaded, before jobs are wanted."""

    ready: bool = False


@dataclass(frozen=True)
class Taken:
    """The worker has received a job, by its number, and begins with it after this message."""

    job: int


@dataclass(frozen=True)
class Begun:
    """Start of an input, as Progress.begin."""

    name: str
    frames: int


@dataclass(frozen=True)
class Advanced:
    """Frames of an input were written, as Progress.advance."""

    name: str
    frames: int


@dataclass(frozen=True)
class Ended:
    """The result of a job, by its number."""

    job: int
    finished: Finished


@dataclass(frozen=True)
class Logged:
    """A message of the worker's log."""

    logger: str
    level: int
    text: str


@dataclass(frozen=True)
class Broken:
    """An error that ends the whole run, such as a full disk."""

    error: BaseException


@dataclass(frozen=True)
class Unseen:
    """A job, by its number, whose input is not there on the worker's machine."""

    job: int


Message: TypeAlias = Wanted | Taken | Begun | Advanced | Ended | Logged | Broken | Unseen


@dataclass(frozen=True)
class Pause:
    """The driver's answer while there is no job, but may be one later."""


@dataclass(frozen=True)
class Unbind:
    """The worker may use these cores from now on: there is no work for the others."""

    cores: tuple[int, ...]


# From the driver: a job, Pause, Unbind, or None when there will be no more jobs.
Order: TypeAlias = Job | Pause | Unbind | None


class Link(Protocol):
    """The worker's end of a connection to the driver. Without a driver, send raises OSError, recv too or EOFError."""

    def send(self, message: Message, /) -> None:
        """Send a message."""

    def recv(self) -> Order:
        """Wait for an order."""


def main(connection: Link, setup: Setup) -> NoReturn:
    """Process the driver's jobs until there are no more."""
    follow(setup.driver)
    serve(connection, setup.common, setup.cores)
    os._exit(0)  # nothing is left to do; libraries' threads need not be waited for


def serve(link: Link, common: Common, cores: tuple[int, ...] | None) -> None:
    """Load the models and process the driver's jobs until there are no more; errors are reported to it."""
    port = _Port(link)
    try:
        if cores is not None:
            # Before any library counts the cores: all of them start as many threads as this process may use.
            bind(cores)
        logging.getLogger().addHandler(logging.NullHandler())  # the driver has logged what loading says
        predictor = common.models.load()
        if common.torch_threads is not None:
            import torch

            torch.set_num_threads(common.torch_threads)
        unit = common.unit
        if unit_of(unit.out, unit.options, predictor).key != unit.key:
            raise MachineError("a worker process loaded other models than this one; use --workers 1")
        logging.getLogger().addHandler(_Forward(port))
        port.send(Wanted(ready=True))
        process(unit, port.jobs(), predictor, port.ended, port)
    except BaseException as error:
        port.send(Broken(portable(error)))


def portable(error: BaseException) -> BaseException:
    """The error with its traceback as a note, as one that can be pickled."""
    trace = "".join(traceback.format_exception(error))
    copied: BaseException
    try:
        copied = pickle.loads(pickle.dumps(error))
    except Exception:
        copied = RuntimeError(f"{type(error).__name__}: {error}")
    copied.add_note(trace)
    return copied


class _Port:
    """The worker's end of the pipe: gives jobs, takes reports (it is a Progress). For several threads."""

    def __init__(self, connection: Link) -> None:
        self._connection = connection
        self._orders: queue.SimpleQueue[Job | Pause | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._written, self._told = 0, time.monotonic()
        threading.Thread(target=self._receive, name="orders", daemon=True).start()

    def _receive(self) -> None:
        while True:
            try:
                order = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # the driver is gone
            if isinstance(order, Unbind):
                bind(order.cores)
            else:
                self._orders.put(order)

    def send(self, message: Message) -> None:
        """Send a message to the driver."""
        with self._lock:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(1)

    def jobs(self) -> Iterator[Job | None]:
        """The driver's jobs, for `process`; None before a pause."""
        while True:
            self.send(Wanted())
            while isinstance(order := self._orders.get(), Pause):
                yield None
            if order is None:
                return
            self.send(Taken(order.number))
            yield order

    def ended(self, job: Job, item: Finished) -> None:
        """Report the end of a job."""
        self._tell(item.name)
        self.send(Ended(job.number, item))

    def begin(self, name: str, frames: int) -> None:
        """Report the start of an input."""
        self.send(Begun(name, frames))

    def advance(self, name: str, frames: int) -> None:
        """Count frames, and report them from time to time."""
        self._written += frames
        if time.monotonic() - self._told >= _ADVANCE_EVERY:
            self._tell(name)

    def _tell(self, name: str) -> None:
        if self._written:
            self.send(Advanced(name, self._written))
        self._written, self._told = 0, time.monotonic()

    def finish(self, item: Finished) -> None:
        """The driver shows the end of an input when it receives Ended."""


class _Forward(logging.Handler):
    """Sends log messages to the driver, which shows them."""

    def __init__(self, port: _Port) -> None:
        super().__init__()
        self._port = port

    def emit(self, record: logging.LogRecord) -> None:
        """Send a message."""
        self._port.send(Logged(record.name, record.levelno, record.getMessage()))
