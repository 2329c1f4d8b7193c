"""The driver of worker processes: hands out jobs, gathers what becomes of them, replaces workers that die."""

import logging
import multiprocessing
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from posecli.errors import MachineError
from posecli.pipeline.events import Job, Progress
from posecli.pipeline.models import ModelOptions
from posecli.pipeline.parts import split
from posecli.pipeline.unit import Unit
from posecli.pipeline.worker import (
    Advanced,
    Begun,
    Broken,
    Ended,
    Logged,
    Message,
    Order,
    Pause,
    Setup,
    Unbind,
    Wanted,
    main,
)
from posecli.pipeline.write import discard, finished_of
from posecli.predict import Predictor
from posecli.processes import cause_of, share_of, signals_held, usable_cores
from posecli.results.manifest import Finished
from posecli.results.records import Summary
from posecli.text import printed

LOG = logging.getLogger(__name__)

# Workers that die one after another before their models are loaded: then no worker can be started.
_MOST_EARLY_DEATHS = 3
# Deaths of workers with a job in hand after which the job fails.
_MOST_DEATHS = 2
# Frames by which a clip must get further than before, for a death of its worker not to count: more than are between the
# networks and the encoder, which are estimated again.
_FURTHER = 64
# Seconds after which the driver wakes, so that signals are handled on every system.
_WAKE = 0.5
# Seconds to wait for a worker that has been told to end.
_END_TIMEOUT = 5.0


@dataclass(eq=False)
class _Worker:
    """A process. in_hand: jobs that it has and did not end. wanting: it waits for a job. alone: its job may be one that
    kills workers, so that it gets no other."""

    process: SpawnProcess
    connection: "Connection[Order, Message]"
    place: int
    in_hand: dict[int, Job] = field(default_factory=dict)
    ready: bool = False
    wanting: bool = False
    paused: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Workers:
    """The number of worker processes, and the models that they load."""

    count: int
    models: ModelOptions


def process_in_workers(
    unit: Unit,
    jobs: Sequence[Job],
    workers: Workers,
    predictor: Predictor,
    ended: Callable[[Job, Finished], None],
    progress: Progress,
) -> None:
    """Process the jobs in worker processes, longest first; the same files as unit.process writes.

    predictor: the same models in this process; the workers' have its runtimes. An input whose worker dies is tried once
    more, after the others and alone in a worker, and then fails.

    Raises KeyboardInterrupt, the error of a worker that is not about one input, such as a full disk, and MachineError
    where workers cannot be started. All workers have ended then, and left no temporary files.
    """
    if not jobs:
        return
    common = _setup_of(unit, workers.models, predictor)
    driver = _Driver(unit, longest_first(jobs), common, workers.count, ended, progress)
    try:
        driver.run()
    finally:
        driver.end()


def longest_first(jobs: Sequence[Job]) -> list[Job]:
    """The jobs in the order in which they are handed out: videos before photos, large files before small ones."""

    def order(job: Job) -> tuple[bool, int, int]:
        return job.input.kind == "photo", -_size(job), job.number

    return sorted(jobs, key=order)


def _size(job: Job) -> int:
    """Bytes of an input; for numbered images their number. 0 where unknown."""
    item = job.input
    if item.address is not None:
        from posecli.media.sources import source_of

        return len(source_of(item.address).numbered_images())
    try:
        return item.path.stat().st_size
    except OSError:
        return 0


@dataclass(frozen=True)
class _Common:
    """Setup of all workers, but for the cores. torch_threads: None where torch is not used.

    Each worker is bound to its share of the cores, unless torch is used: its threads would wait for each other.
    """

    unit: Unit
    models: ModelOptions
    torch_threads: int | None


def _setup_of(unit: Unit, models: ModelOptions, predictor: Predictor) -> _Common:
    """OpenVINO's results do not depend on its threads, torch's do: there a worker has as many as this process."""
    threads = None
    if "torch" in (predictor.estimator.runner.runtime, predictor.detector.runtime):
        import torch

        threads = torch.get_num_threads()
    return _Common(unit, models.resolved(predictor), threads)


@dataclass(frozen=True)
class _Parts:
    """A video that was split. left: numbers of the parts that have not ended."""

    job: Job
    left: set[int]


class _Driver:
    """State of a run in workers, see process_in_workers."""

    def __init__(
        self,
        unit: Unit,
        jobs: Sequence[Job],
        common: _Common,
        count: int,
        ended: Callable[[Job, Finished], None],
        progress: Progress,
    ) -> None:
        self._unit, self._common, self._count = unit, common, count
        self._ended, self._progress = ended, progress
        self._waiting, self._again = deque(jobs), deque[Job]()
        self._left = len(jobs)
        self._workers: dict[int, _Worker] = {}
        self._cores = usable_cores()
        self._context = multiprocessing.get_context("spawn")
        self._early_deaths = 0
        self._deaths: Counter[int] = Counter()
        self._written: Counter[str] = Counter()
        self._furthest: Counter[str] = Counter()
        self._logged: set[tuple[str, str]] = set()
        self._next_number = max((job.number for job in jobs), default=0) + 1
        # Videos that were split, by their numbers; numbers of parts → of the video.
        self._parts: dict[int, _Parts] = {}
        self._whole: dict[int, int] = {}

    def run(self) -> None:
        """Until all jobs have ended."""
        self._waiting.appendleft(self._split(self._waiting.popleft()))
        for place in range(min(self._count, len(self._waiting))):
            self._start(place)
        while self._left:
            workers = [*self._workers.values()]
            spoke = wait([worker.connection for worker in workers], timeout=_WAKE)
            for worker in workers:
                if worker.connection in spoke:
                    self._receive(worker)
            self._hand_out()
        for worker in self._workers.values():
            with suppress(OSError):
                worker.connection.send(None)
        until = time.monotonic() + _END_TIMEOUT
        for worker in self._workers.values():
            worker.process.join(max(0.0, until - time.monotonic()))

    def end(self) -> None:
        """End all workers immediately, and delete what they did not complete."""
        for worker in self._workers.values():
            worker.process.kill()
        for worker in self._workers.values():
            worker.process.join()
            with suppress(EOFError, OSError):
                while worker.connection.poll():
                    self._take(worker, worker.connection.recv())
            worker.connection.close()
            for job in worker.in_hand.values():
                discard(job, self._unit.out)
        self._workers.clear()

    def _start(self, place: int) -> None:
        common = self._common
        cores = share_of(self._cores, place, self._count) if common.torch_threads is None else None
        ours, theirs = self._context.Pipe()
        setup = Setup(common.unit, common.models, os.getpid(), cores, common.torch_threads)
        process = self._context.Process(target=main, args=(theirs, setup), name=f"posecli-worker-{place}", daemon=True)
        try:
            with signals_held():
                process.start()
                self._workers[place] = _Worker(process, ours, place)
        except OSError as error:
            raise MachineError(f"a worker process cannot be started ({error.strerror}): use --workers 1") from error
        theirs.close()  # so that the end of the worker is the end of the pipe

    def _receive(self, worker: _Worker) -> None:
        """Take one message, or replace a worker that died."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return
        self._take(worker, message)
        if isinstance(message, Broken):
            raise message.error

    def _take(self, worker: _Worker, message: Message) -> None:
        if isinstance(message, Wanted):
            worker.ready = True
            worker.wanting = not message.ready
            worker.paused = False
            self._early_deaths = 0
        elif isinstance(message, Begun):
            self._written[message.name] = 0
            self._progress.begin(message.name, message.frames)
        elif isinstance(message, Advanced):
            self._written[message.name] += message.frames
            self._progress.advance(message.name, message.frames)
        elif isinstance(message, Ended):
            job = worker.in_hand.pop(message.job)
            worker.alone = False
            # The driver hands out what is not finished: it was finished by a worker that died before it said so.
            self._finish(job, replace(message.finished, skipped=False))
        elif isinstance(message, Logged) and (message.logger, message.text) not in self._logged:
            self._logged.add((message.logger, message.text))
            logging.getLogger(message.logger).log(message.level, "%s", message.text)

    def _finish(self, job: Job, item: Finished) -> None:
        if job.part is not None:
            self._end_part(job)
            return
        self._left -= 1
        self._ended(job, item)
        self._progress.finish(item)

    def _hand_out(self) -> None:
        """Give a job to each worker that wants one."""
        for worker in self._workers.values():
            if not worker.wanting:
                continue
            job = self._next(worker)
            if job is not None:
                if job.number in self._parts and not self._waiting and self._common.torch_threads is None:
                    self._send(worker, Unbind(self._cores))
                worker.in_hand[job.number] = job
                worker.wanting = worker.paused = False
                self._send(worker, job)
            elif not worker.paused:
                worker.paused = True
                self._send(worker, Pause())

    def _next(self, worker: _Worker) -> Job | None:
        if worker.alone:
            return None
        if self._waiting:
            return self._split(self._waiting.popleft())
        if self._again and not worker.in_hand:
            worker.alone = True
            return self._again.popleft()
        return None

    def _split(self, job: Job) -> Job:
        """The job, or the first of its parts, where there are fewer jobs than workers."""
        waiting = len(self._waiting) + 1
        if job.part is not None or job.number in self._parts or waiting >= self._count:
            return job
        parts = split(job, self._unit.options.span, -(-self._count // waiting), self._next_number)
        if not parts:
            return job
        self._next_number += len(parts)
        self._parts[job.number] = _Parts(job, {part.number for part in parts})
        self._whole.update({part.number: job.number for part in parts})
        self._waiting.extendleft(reversed(parts[1:]))
        return parts[0]

    def _end_part(self, part: Job) -> None:
        """After the last part of a video, the video itself; what is missing of a part that failed is computed then."""
        parts = self._parts[self._whole[part.number]]
        parts.left.discard(part.number)
        if not parts.left:
            self._waiting.appendleft(parts.job)

    def _send(self, worker: _Worker, order: Order) -> None:
        with suppress(OSError):  # it died, which is noticed when its end of the pipe is read
            worker.connection.send(order)

    def _replace(self, worker: _Worker) -> None:
        """Try again what a dead worker had in hand, in another worker."""
        del self._workers[worker.place]
        worker.connection.close()
        worker.process.join()
        cause = cause_of(worker.process.exitcode)
        if not worker.ready:
            self._early_deaths += 1
            if self._early_deaths == _MOST_EARLY_DEATHS:
                raise MachineError(f"worker processes end while they start ({cause}): use --workers 1")
        for job in worker.in_hand.values():
            discard(job, self._unit.out)
            self._try_again(job, cause)
        if self._left:
            LOG.warning("a worker process ended (%s): replaced, its inputs are tried again", cause)
            self._start(worker.place)

    def _try_again(self, job: Job, cause: str) -> None:
        name = job.input.name
        further = self._deaths[job.number] > 0 and self._written[name] >= self._furthest[name] + _FURTHER
        self._furthest[name] = max(self._furthest[name], self._written.pop(name, 0))
        self._deaths[job.number] += not further
        if self._deaths[job.number] < _MOST_DEATHS:
            self._again.append(job)
            return
        if job.part is None:
            discard(job, self._unit.out, failed=True)
        error = f"{printed(job.input.shown)}: its worker process ended twice ({cause})"
        self._finish(job, finished_of(job, Summary("failed", error=error)))
