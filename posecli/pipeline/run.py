"""A run: three threads with bounded queues between them.

A reader thread decodes, the caller's thread runs the networks, a writer thread tracks, draws and encodes. Frames of
several inputs share a batch, their order is kept, and the outputs of an input are written completely or not at all.
"""

import threading
import time
from collections.abc import Callable, Sequence
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
    key = options_key(options, predictor)
    finished: list[Finished] = []
    failures: list[BaseException] = []
    stop, enough = threading.Event(), threading.Event()
    budget, given_up = Budget(PIPELINE_BYTES, stop), GivenUp()
    answers = inference_key(options, predictor)
    step = PoseStep(predictor, every=options.tracking.detect_every, answers=answers, budget=budget, given_up=given_up)
    read: Channel[Opened | Read | Closed | Flush] = Channel(4, stop)
    estimated: Channel[Opened | Estimated | Closed] = Channel(8, stop)
    keypoint_set = predictor.keypoints

    def start(work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except Stopped:
                return
            except BaseException as error:
                failures.append(error)
                stop.set()

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    with interrupt.working():
        reader = start(
            lambda: read_all(
                jobs, out, key, options, read, overwrite=overwrite, enough=enough, budget=budget, given_up=given_up
            )
        )
        writer = start(
            lambda: write_all(out, key, keypoint_set, options, estimated, finished, progress, window, budget, given_up)
        )
        try:
            for item in step(read):
                estimated.put(item)
                del item  # release the frame while waiting for the next one
                if window is not None and window.refresh():
                    _stop_reading(jobs, enough)
            estimated.put(None)
            while writer.is_alive():
                writer.join(0.1)
        except Stopped:
            pass  # the other thread's error is raised below
        finally:
            stop.set()
            _wait_for(reader, writer)
            described = {
                "models": describe_models(predictor),
                "options": to_json(options),
                "seconds": round(time.monotonic() - started, 3),
                "unfinished": len(jobs) - len(finished),
            }
            records = {job.input.name: job.record for job in jobs}
            try:
                document = write_results(out, finished, records, keypoint_set, described, tables)
            except OSError as error:
                if is_full(error):
                    raise
                where = printed(error.filename or out)
                raise MachineError(f"--out: {where}: cannot be written ({error.strerror})") from error
    if failures:
        raise failures[0]
    return document


def _wait_for(reader: threading.Thread, writer: threading.Thread) -> None:
    """Wait until the threads end; the writer has files to complete or delete."""
    until = time.monotonic() + _END_TIMEOUT
    writer.join(_END_TIMEOUT if interrupt.received() is not None else None)
    reader.join(max(0.1, until - time.monotonic()))
    for thread in (reader, writer):
        if thread.is_alive():
            interrupt.abandon(thread)


def _stop_reading(jobs: Sequence[Job], enough: threading.Event) -> None:
    """The window was closed: a live source ends here; other inputs are interrupted and can be resumed."""
    if not all(job.input.live for job in jobs):
        raise KeyboardInterrupt
    enough.set()
