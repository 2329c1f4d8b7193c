"""A run: three threads with bounded queues between them.

A reader thread decodes, the caller's thread runs the networks, a writer thread tracks, draws and encodes. Frames of
several inputs share a batch, their order is kept, and the outputs of an input are written completely or not at all.
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
from posecli.pipeline.channel import PIPELINE_BYTES, Budget, Channel, GivenUp, Stopped
from posecli.pipeline.estimate import PoseStep
from posecli.pipeline.events import Closed, Estimated, Flush, Job, Opened, Progress, Read
from posecli.pipeline.keys import describe_models, inference_key, options_key, to_json
from posecli.pipeline.plan import plan, prepare_output, refuse_harm_to_inputs
from posecli.pipeline.read import read_all
from posecli.pipeline.run_options import RunOptions
from posecli.pipeline.window import Window
from posecli.pipeline.write import write_all
from posecli.predict import Predictor
from posecli.results.manifest import Finished
from posecli.results.write import write_results
from posecli.text import printed

# Seconds that the reader gets to end; one that waits for data of a live stream cannot be stopped.
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

    Returns the document of run.json. An input that fails is recorded there and the others go on. Raises
    UsageError where an output would harm an input, MachineError where out cannot be written, OSError where the disk
    is full, and passes KeyboardInterrupt on; finished inputs are kept then, and the result files hold them.
    The caller locks out against other runs, see plan.output_folder.
    """
    jobs = plan(inputs, out)
    refuse_harm_to_inputs(jobs, out, tables, media=options.media)
    prepare_output(out)
    started = time.monotonic()
    work = _Work(jobs, out, predictor, options, options_key(options, predictor), progress, overwrite, window)
    threads = _Threads()
    with interrupt.working():
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
        """Run a function in a thread of its own."""

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
        """Stop all, and wait for them; for the last one, the writer, until its files are completed or deleted."""
        self.stop.set()
        until = time.monotonic() + _END_TIMEOUT
        for thread in self._started[-1:]:
            thread.join(_END_TIMEOUT if interrupt.received() is not None else None)
        for thread in self._started[:-1]:
            thread.join(max(0.1, until - time.monotonic()))
        for thread in self._started:
            if thread.is_alive():
                interrupt.abandon(thread)


@dataclass(frozen=True)
class _Work:
    """What a run does, see run. key: of the options. finished: inputs that have ended, filled by the writer."""

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
        enough, budget, given_up = threading.Event(), Budget(PIPELINE_BYTES, threads.stop), GivenUp()
        every, answers = options.tracking.detect_every, inference_key(options, predictor)
        step = PoseStep(predictor, every=every, answers=answers, budget=budget, given_up=given_up)
        jobs, overwrite, keypoint_set, window = self.jobs, self.overwrite, predictor.keypoints, self.window
        threads.start(
            lambda: read_all(
                jobs, out, key, options, read, overwrite=overwrite, enough=enough, budget=budget, given_up=given_up
            )
        )
        writer = threads.start(
            lambda: write_all(
                out, key, keypoint_set, options, estimated, self.finished, self.progress, window, budget, given_up
            )
        )
        for item in step(read):
            estimated.put(item)
            del item  # release the frame while waiting for the next one
            if window is not None and window.refresh():
                _stop_reading(jobs, enough)
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


def _stop_reading(jobs: Sequence[Job], enough: threading.Event) -> None:
    """The window was closed: a live source ends here; other inputs are interrupted and can be resumed."""
    if not all(job.input.live for job in jobs):
        raise KeyboardInterrupt
    enough.set()
