"""A run: three threads connected by bounded queues.

The reading thread decodes, the caller's thread runs the networks, the writing thread tracks, draws and encodes. Frames
of several inputs share a batch, their order is kept, and the outputs of an input are written completely or not at all.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posecli import interrupt
from posecli.errors import MachineError, is_full
from posecli.media.inputs import Input
from posecli.pipeline.channel import PIPELINE_BYTES, Budget, Channel, FailedInputs, Stopped
from posecli.pipeline.estimate import PoseStep
from posecli.pipeline.events import Closed, Estimated, Flush, Job, Opened, Progress, Read
from posecli.pipeline.keys import describe_models, inference_key, options_key, to_json
from posecli.pipeline.plan import plan, prepare_output, refuse_replacing_inputs
from posecli.pipeline.read import read_all
from posecli.pipeline.run_options import RunOptions
from posecli.pipeline.window import Window
from posecli.pipeline.write import write_all
from posecli.predict import Predictor
from posecli.results.manifest import Finished
from posecli.results.write import write_results
from posecli.text import printed

# Seconds to wait for the reading thread; it cannot be stopped while it waits for data of a live stream.
_END_TIMEOUT = 0.5


def run(
    inputs: Sequence[Input],
    out: Path,
    predictor: Predictor,
    options: RunOptions,
    progress: Progress,
    *,
    overwrite: bool = False,
    tables: Sequence[str] = (),
    window: Window | None = None,
) -> dict[str, Any]:
    """Process all inputs; annotated media, coco.json, coco_results.json, run.json, index.html and tables go into out.

    Returns the document of run.json. An input that fails is recorded there, and the run continues with the others.
    Raises UsageError where an output would replace an input, MachineError where out cannot be written, OSError where
    the disk is full, and KeyboardInterrupt; finished inputs are kept then, and are in the result files. The caller
    locks out against other runs, see plan.output_folder.
    """
    jobs = plan(inputs, out)
    refuse_replacing_inputs(jobs, out, tables, media=options.media)
    prepare_output(out)
    started = time.monotonic()
    work = _Work(jobs, out, predictor, options, options_key(options, predictor), progress, overwrite, window)
    threads = _Threads()
    with interrupt.interruptible():
        try:
            work.process(threads)
        except Stopped:
            pass  # the other thread's error is raised below
        finally:
            threads.end()
            document = work.write_results(time.monotonic() - started, tables)
    if threads.errors:
        raise threads.errors[0]
    return document


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


@dataclass(frozen=True)
class _Work:
    """The work of a run, see run. key: of the options. finished: inputs that have ended, filled by the writer."""

    jobs: Sequence[Job]
    out: Path
    predictor: Predictor
    options: RunOptions
    key: str
    progress: Progress
    overwrite: bool
    window: Window | None
    finished: list[Finished] = field(default_factory=list)

    def process(self, threads: _Threads) -> None:
        """Read, predict and write all inputs. Raises Stopped where another thread failed."""
        out, key, options, predictor = self.out, self.key, self.options, self.predictor
        read: Channel[Opened | Read | Closed | Flush] = Channel(4, threads.stop)
        estimated: Channel[Opened | Estimated | Closed] = Channel(8, threads.stop)
        stop_live, budget, failed_inputs = threading.Event(), Budget(PIPELINE_BYTES, threads.stop), FailedInputs()
        every, journal_key = options.tracking.detect_every, inference_key(options, predictor)
        step = PoseStep(predictor, every=every, inference_key=journal_key, budget=budget, failed_inputs=failed_inputs)
        jobs, overwrite, keypoint_set, window = self.jobs, self.overwrite, predictor.keypoints, self.window
        threads.start(
            lambda: read_all(
                jobs,
                out,
                key,
                options,
                read,
                overwrite=overwrite,
                stop_live=stop_live,
                budget=budget,
                failed_inputs=failed_inputs,
            )
        )
        writer = threads.start(
            lambda: write_all(
                out, key, keypoint_set, options, estimated, self.finished, self.progress, window, budget, failed_inputs
            )
        )
        for item in step(read):
            estimated.put(item)
            del item  # release the frame while waiting for the next one
            if window is not None and window.refresh():
                _stop_reading(jobs, stop_live)
        estimated.put(None)
        while writer.is_alive():
            writer.join(0.1)

    def write_results(self, seconds: float, tables: Sequence[str]) -> dict[str, Any]:
        """Write the files about all inputs; the document of run.json."""
        described = {
            "models": describe_models(self.predictor),
            "options": to_json(self.options),
            "seconds": round(seconds, 3),
            "unfinished": len(self.jobs) - len(self.finished),
        }
        records = {job.input.name: job.record for job in self.jobs}
        try:
            return write_results(self.out, self.finished, records, self.predictor.keypoints, described, tables)
        except OSError as error:
            if is_full(error):
                raise
            where = printed(error.filename or self.out)
            raise MachineError(f"--out: {where}: cannot be written ({error.strerror})") from error


def _stop_reading(jobs: Sequence[Job], stop_live: threading.Event) -> None:
    """End a live source after the window was closed; other inputs are interrupted and can be resumed."""
    if not all(job.input.live for job in jobs):
        raise KeyboardInterrupt
    stop_live.set()
