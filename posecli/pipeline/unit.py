"""The unit of work: one process takes jobs of a run, in three threads connected by bounded queues.

The reading thread decodes, the caller's thread runs the networks, the writing thread tracks, draws and encodes. Frames
of several inputs share a batch, their order is kept, and the outputs of an input are written completely or not at all.
The plain run and every worker process call `process`; what it writes for a job does not depend on the other jobs.
"""

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from posecli import interrupt
from posecli.pipeline.channel import PIPELINE_BYTES, Budget, Channel, FailedInputs, Stopped
from posecli.pipeline.estimate import PoseStep
from posecli.pipeline.events import Closed, Estimated, Flush, Job, Opened, Progress, Read
from posecli.pipeline.fetch import Fetch, fetching
from posecli.pipeline.keys import inference_key, options_key
from posecli.pipeline.read import read_all
from posecli.pipeline.run_options import RunOptions
from posecli.pipeline.window import Window
from posecli.pipeline.write import write_all
from posecli.predict import Predictor
from posecli.results.manifest import Finished
from posecli.stages import stage

# Seconds to wait for the reading thread; it cannot be stopped while it waits for data of a live stream.
_END_TIMEOUT = 0.5


@dataclass(frozen=True)
class Unit:
    """What all jobs of a run have in common; it can be pickled.

    out: output folder. key, inference_key: fingerprints of options and models, see keys. overwrite: process finished
    inputs again. fetch: how inputs at addresses are fetched, None where there are none.
    """

    out: Path
    options: RunOptions
    key: str
    inference_key: str
    overwrite: bool = False
    fetch: Fetch | None = None


def unit_of(
    out: Path, options: RunOptions, predictor: Predictor, *, overwrite: bool = False, fetch: Fetch | None = None
) -> Unit:
    """The unit of a run with these options and models."""
    return Unit(out, options, options_key(options, predictor), inference_key(options, predictor), overwrite, fetch)


def process(
    unit: Unit,
    jobs: Iterable[Job | None],
    predictor: Predictor,
    ended: Callable[[Job, Finished], None],
    progress: Progress,
    window: Window | None = None,
) -> None:
    """Process the jobs in their order; each is passed to `ended` with its result, in the writing thread.

    jobs: taken one at a time by the reading thread when it has read the one before; None says that the next one may
    take long, so that the frames read so far are processed now. window: shows the frames; a live source ends when it is
    closed.

    Raises KeyboardInterrupt, also when the window is closed while another input than a live source is read, and the
    error of any of the threads that is not about one input, such as a full disk. Jobs that ended are complete then.
    """
    threads = _Threads()
    with fetching(unit.fetch, jobs, ended) as (ready, end):
        try:
            with suppress(Stopped):  # the other thread's error is raised below
                _process(unit, ready, predictor, end, progress, window, threads)
        finally:
            threads.end()
    if threads.errors:
        raise threads.errors[0]


def _process(
    unit: Unit,
    jobs: Iterable[Job | None],
    predictor: Predictor,
    ended: Callable[[Job, Finished], None],
    progress: Progress,
    window: Window | None,
    threads: "_Threads",
) -> None:
    """Raises Stopped where another thread failed."""
    read: Channel[Opened | Read | Closed | Flush] = Channel(4, threads.stop)
    estimated: Channel[Opened | Estimated | Closed] = Channel(8, threads.stop)
    stop_live, budget, failed_inputs = threading.Event(), Budget(PIPELINE_BYTES, threads.stop), FailedInputs()
    every = unit.options.tracking.detect_every
    step = PoseStep(
        predictor, every=every, inference_key=unit.inference_key, budget=budget, failed_inputs=failed_inputs
    )
    threads.start(
        lambda: read_all(
            jobs,
            unit.out,
            unit.key,
            unit.options,
            read,
            overwrite=unit.overwrite,
            stop_live=stop_live,
            budget=budget,
            failed_inputs=failed_inputs,
        )
    )
    writer = threads.start(
        lambda: write_all(
            unit.out,
            unit.key,
            predictor.keypoints,
            unit.options,
            estimated,
            ended,
            progress,
            window,
            budget,
            failed_inputs,
        )
    )
    for item in step(read):
        live = item.job.input.live
        estimated.put(item)
        del item  # release the frame while waiting for the next one
        if window is not None and window.refresh():
            if not live:
                raise KeyboardInterrupt
            stop_live.set()
    estimated.put(None)
    while writer.is_alive():
        writer.join(0.1)


class _Threads:
    """The threads beside the caller's. An error in one of them stops all, see channel.Stopped."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self._started: list[threading.Thread] = []

    def start(self, work: Callable[[], None]) -> threading.Thread:
        """Run a function in a new thread."""

        def guarded() -> None:
            try:
                with stage("other", 0):
                    work()
            except Stopped:
                return
            except BaseException as error:
                self.errors.append(error)
                self.stop.set()

        thread = threading.Thread(target=guarded, daemon=True)
        self._started.append(thread)
        thread.start()
        return thread

    def end(self) -> None:
        """Stop all threads and wait for them; for the last one, the writer, until its files are complete or deleted."""
        self.stop.set()
        until = time.monotonic() + _END_TIMEOUT
        for thread in self._started[-1:]:
            thread.join(_END_TIMEOUT if interrupt.received_signal() is not None else None)
        for thread in self._started[:-1]:
            thread.join(max(0.1, until - time.monotonic()))
        for thread in self._started:
            if thread.is_alive():
                interrupt.mark_blocked(thread)
