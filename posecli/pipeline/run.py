"""A run: the inputs are planned and processed, then the files about all inputs are written from their records."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from posecli import interrupt
from posecli.errors import MachineError, is_full
from posecli.media.inputs import Input
from posecli.pipeline.events import Job, Progress
from posecli.pipeline.fetch import fetch_folder
from posecli.pipeline.keys import describe_models, to_json
from posecli.pipeline.mirror import Mirror
from posecli.pipeline.parts import split
from posecli.pipeline.plan import plan, prepare_output, refuse_replacing_inputs
from posecli.pipeline.read import finished_job
from posecli.pipeline.run_options import RunOptions
from posecli.pipeline.unit import Unit, process, unit_of
from posecli.pipeline.window import Window
from posecli.pipeline.workers import Workers, process_in_workers
from posecli.pipeline.write import finished_of
from posecli.predict import Predictor
from posecli.results.journal import remove_journals
from posecli.results.manifest import Finished
from posecli.results.write import Results, write_results
from posecli.text import printed


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
    jobs: Sequence[Job] | None = None,
    workers: Workers | None = None,
    mirror: Mirror | None = None,
) -> Results:
    """Process all inputs; annotated media, coco.json, coco_results.json, run.json, index.html and tables go into out.

    jobs: the plan of the inputs, where it has been made and checked. workers: processes that share the work; None to
    do it in this one, as are live sources and what a window shows. mirror: out is that of an address. Returns what
    run.json says without its list of inputs. An input that fails is recorded there, and the run continues with the
    others.
    Raises UsageError where an output would replace an input, MachineError where out cannot be written, OSError where
    the disk is full, and KeyboardInterrupt; finished inputs are kept then, and are in the result files. The caller
    locks out against other runs, see plan.output_folder.
    """
    if jobs is None:
        jobs = plan(inputs, out)
        refuse_replacing_inputs(jobs, out, tables, media=options.media)
    prepare_output(out)
    started = time.monotonic()
    finished: dict[int, Finished] = {}

    def ended(job: Job, item: Finished) -> None:
        finished[job.number] = item

    with interrupt.interruptible(), fetch_folder(inputs) as fetch:
        unit = unit_of(out, options, predictor, overwrite=overwrite, fetch=fetch)
        try:
            if mirror is None:
                _process_all(unit, jobs, predictor, ended, progress, window, workers)
            else:
                with mirror.uploading(ended, progress) as (upload, told):
                    _process_all(unit, jobs, predictor, upload, told, window, workers)
        finally:
            described = {
                "models": describe_models(predictor),
                "options": to_json(options),
                "seconds": round(time.monotonic() - started, 3),
                "unfinished": len(jobs) - len(finished),
            }
            results = _write_results(out, jobs, finished, predictor, described, tables)
    return results


def _process_all(
    unit: Unit,
    jobs: Sequence[Job],
    predictor: Predictor,
    ended: Callable[[Job, Finished], None],
    progress: Progress,
    window: Window | None,
    workers: Workers | None,
) -> None:
    """Process the jobs in this process or in workers."""
    if workers is None:
        # Finished inputs at addresses are not fetched.
        rest = [job for job in jobs if job.input.remote is None or not _skipped(job, unit, ended, progress)]
        process(unit, rest, predictor, ended, progress, window)
        return
    rest = [job for job in jobs if not _skipped(job, unit, ended, progress)]
    if workers.local and len(rest) == 1 and not split(rest[0], unit.options.span, 2, len(jobs)):
        process(unit, rest, predictor, ended, progress)
        return
    if unit.fetch is not None:
        unit = replace(unit, fetch=unit.fetch.of_worker(workers.count))
    process_in_workers(unit, rest, workers, predictor, ended, progress)


def _skipped(job: Job, unit: Unit, ended: Callable[[Job, Finished], None], progress: Progress) -> bool:
    """Whether an earlier run finished the job, which has ended then."""
    summary = None if unit.overwrite else finished_job(job, unit.out, unit.key)
    if summary is None:
        return False
    if job.input.kind == "video":
        with suppress(OSError):
            remove_journals(job.journal)  # the earlier run ended before it did
    item = finished_of(job, summary, skipped=True)
    ended(job, item)
    progress.finish(item)
    return True


def _write_results(
    out: Path,
    jobs: Sequence[Job],
    finished: Mapping[int, Finished],
    predictor: Predictor,
    described: Mapping[str, Any],
    tables: Sequence[str],
) -> Results:
    """Write the files about all inputs, in the order of the jobs."""
    items = [finished[job.number] for job in jobs if job.number in finished]
    try:
        return write_results(out, items, predictor.keypoints, described, tables)
    except OSError as error:
        if is_full(error):
            raise
        where = printed(error.filename or out)
        raise MachineError(f"--out: {where}: cannot be written ({error.strerror})") from error
