"""The driver of workers: hands out jobs, gathers what becomes of them, replaces workers that die."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from posecli import interrupt
from posecli.pipeline.error_messages import error_message
from posecli.pipeline.events import Job, Progress
from posecli.pipeline.models import ModelOptions
from posecli.pipeline.parts import split
from posecli.pipeline.pool import Handle, Pool
from posecli.pipeline.unit import Unit
from posecli.pipeline.worker import (
    Advanced,
    Begun,
    Broken,
    Common,
    Ended,
    Logged,
    Message,
    Order,
    Pause,
    Taken,
    Unbind,
    Unseen,
    Wanted,
)
from posecli.pipeline.write import discard, finished_of
from posecli.predict import Predictor
from posecli.results.manifest import Finished
from posecli.results.records import Summary
from posecli.text import printed

LOG = logging.getLogger(__name__)

# Deaths of workers with a job in hand after which the job fails.
_MOST_DEATHS = 2
# Frames by which a clip must get further than before, for a death of its worker not to count: more than are between the
# networks and the encoder, which are estimated again.
_FURTHER = 64
# Seconds after which the driver wakes, so that signals are handled on every system.
_WAKE = 0.5
# Seconds to wait for workers that have been told to end, and after a signal.
_END_TIMEOUT, _INTERRUPTED_TIMEOUT = 5.0, 1.0


@dataclass(eq=False)
class _Worker:
    """A worker. in_hand: jobs that were sent to it and did not end. taken: numbers of those that it received. wanting:
    it waits for a job. alone: its job may be one that kills workers, so that it gets no other."""

    handle: Handle
    in_hand: dict[int, Job] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    ready: bool = False
    wanting: bool = False
    paused: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Workers:
    """The models that the workers load, and a function that makes their pool.

    local: they share the cores of this process, which does a single job that cannot be split faster itself. count:
    their number, where that is known.
    """

    models: ModelOptions
    pool: Callable[[Common], Pool]
    local: bool = False
    count: int = 1


def process_in_workers(
    unit: Unit,
    jobs: Sequence[Job],
    workers: Workers,
    predictor: Predictor,
    ended: Callable[[Job, Finished], None],
    progress: Progress,
) -> None:
    """Process the jobs in workers, longest first; the same files as unit.process writes.

    predictor: the same models in this process; the workers' have its runtimes. An input whose worker dies is tried once
    more, after the others and alone in a worker, and then fails.

    Raises KeyboardInterrupt, the error of a worker that is not about one input, such as a full disk, and MachineError
    where workers cannot be started. All workers have ended then, and left no temporary files.
    """
    if not jobs:
        return
    pool = workers.pool(common_of(unit, workers.models, predictor))
    driver = _Driver(unit, longest_first(jobs), pool, ended, progress)
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
    if item.remote is not None:
        return item.remote.size or 0
    if item.address is not None:
        from posecli.media.sources import source_of

        return len(source_of(item.address).numbered_images())
    try:
        return item.path.stat().st_size
    except OSError:
        return 0


def common_of(unit: Unit, models: ModelOptions, predictor: Predictor) -> Common:
    """OpenVINO's results do not depend on its threads, torch's do: there a worker has as many as this process."""
    threads = None
    if "torch" in (predictor.estimator.runner.runtime, predictor.detector.runtime):
        import torch

        threads = torch.get_num_threads()
    return Common(unit, models.resolved(predictor), threads)


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
        pool: Pool,
        ended: Callable[[Job, Finished], None],
        progress: Progress,
    ) -> None:
        self._unit, self._pool = unit, pool
        self._ended, self._progress = ended, progress
        self._waiting, self._again = deque(jobs), deque[Job]()
        self._left = len(jobs)
        self._workers: dict[Hashable, _Worker] = {}
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
        while self._left:
            in_hand = sum(len(worker.in_hand) for worker in self._workers.values())
            for place in self._pool.places(len(self._waiting) + len(self._again) + in_hand):
                if place not in self._workers:
                    self._workers[place] = _Worker(self._pool.start(place))
            by_handle = {worker.handle: worker for worker in self._workers.values()}
            for handle in self._pool.wait([*by_handle], _WAKE):
                self._receive(by_handle[handle])
            self._hand_out()
        for worker in self._workers.values():
            worker.handle.send(None)
        self._join(_END_TIMEOUT)

    def _join(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        for worker in self._workers.values():
            worker.handle.join(max(0.0, until - time.monotonic()))

    def end(self) -> None:
        """End all workers immediately, and delete what they did not complete."""
        for worker in self._workers.values():
            worker.handle.kill()
        self._join(_END_TIMEOUT if interrupt.received_signal() is None else _INTERRUPTED_TIMEOUT)
        for worker in self._workers.values():
            with suppress(EOFError):
                while messages := worker.handle.receive():
                    for message in messages:
                        self._take(worker, message)
            for job in worker.in_hand.values():
                discard(job, self._unit.out)
        self._workers.clear()
        self._pool.close()

    def _receive(self, worker: _Worker) -> None:
        """Take messages, or replace a worker that died."""
        try:
            messages = worker.handle.receive()
        except EOFError:
            self._replace(worker)
            return
        for message in messages:
            self._take(worker, message)
            if isinstance(message, Broken):
                reason = self._pool.without(worker.handle, message.error)
                if reason is None:
                    raise message.error
                self._leave(worker, reason)
                return
            if isinstance(message, Unseen):
                self._unseen(worker, message)

    def _leave(self, worker: _Worker, reason: str) -> None:
        """Give what a worker has in hand to others, for a reason that is not the inputs'."""
        if ("", reason) not in self._logged:  # once for all workers of a machine
            self._logged.add(("", reason))
            LOG.warning("%s", reason)
        del self._workers[worker.handle.place]
        worker.handle.kill()
        worker.handle.join(_END_TIMEOUT)
        for job in worker.in_hand.values():
            discard(job, self._unit.out)
        self._waiting.extendleft(worker.in_hand.values())

    def _unseen(self, worker: _Worker, message: Unseen) -> None:
        """An input that a worker's machine does not have: it is deleted, or others have it."""
        job = worker.in_hand[message.job]
        try:
            job.input.path.lstat()
        except OSError as error:
            del worker.in_hand[message.job]
            self._finish(job, finished_of(job, Summary("failed", error=error_message(error, job.input.shown))))
            return
        unseen = FileNotFoundError(2, "not there", str(job.input.shown))
        self._leave(worker, self._pool.without(worker.handle, unseen) or str(unseen))

    def _take(self, worker: _Worker, message: Message) -> None:
        if isinstance(message, Wanted):
            worker.ready = True
            self._pool.ready(worker.handle)
            worker.wanting = not message.ready
            worker.paused = False
        elif isinstance(message, Taken):
            worker.taken.add(message.job)
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
                if job.number in self._parts and not self._waiting and (cores := self._pool.all_cores()) is not None:
                    self._send(worker, Unbind(cores))
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
        waiting, count = len(self._waiting) + 1, self._pool.count()
        if job.part is not None or job.number in self._parts or waiting >= count:
            return job
        parts = split(job, self._unit.options.span, -(-count // waiting), self._next_number)
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
        worker.handle.send(order)

    def _replace(self, worker: _Worker) -> None:
        """Try again what a dead worker had in hand, in another worker."""
        del self._workers[worker.handle.place]
        cause = worker.handle.cause()
        if not worker.ready:
            self._pool.ended_early(worker.handle, cause)
        for job in worker.in_hand.values():
            if job.number in worker.taken:
                discard(job, self._unit.out)
                self._try_again(job, cause)
            elif self._deaths[job.number]:  # sent to a worker that was dead already: not the job's fault
                self._again.appendleft(job)
            else:
                self._waiting.appendleft(job)
        if self._left:
            LOG.warning("a worker process ended (%s): replaced, its inputs are tried again", cause)

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
