"""The writer thread: tracking, drawing, encoding and recording."""

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from av.error import FFmpegError

from posecli.atomic import temporary
from posecli.errors import PosecliError
from posecli.keypoints import KeypointSet
from posecli.media.inputs import Input, printable
from posecli.media.video import VideoReader
from posecli.pipeline.channel import Budget, FailedInputs
from posecli.pipeline.error_messages import error_message
from posecli.pipeline.events import Closed, Estimated, Job, Opened, Progress
from posecli.pipeline.run_options import RunOptions
from posecli.pipeline.window import Window
from posecli.results.gallery import thumbnail_path
from posecli.results.input_writer import InputWriter
from posecli.results.journal import Journal, read_journal, remove_journals
from posecli.results.manifest import Finished
from posecli.results.records import Summary
from posecli.stages import stage
from posecli.text import printed
from posecli.tracking.choose import person_choice
from posecli.tracking.clip import ClipTracker
from posecli.tracking.gaps import GapFiller
from posecli.tracking.offline import smooth_offline
from posecli.tracking.smoothing import SmoothOptions
from posecli.types import Frame, Poses

# Errors that fail one input; the others continue.
_INPUT_ERRORS = (PosecliError, FFmpegError, OSError, ValueError, MemoryError)


def write_all(
    out: Path,
    key: str,
    keypoint_set: KeypointSet,
    options: RunOptions,
    events: Iterable[Opened | Estimated | Closed],
    ended: Callable[[Job, Finished], None],
    progress: Progress,
    window: Window | None,
    budget: Budget,
    failed_inputs: FailedInputs,
) -> None:
    """Track, draw, encode and record the frames of the events; each input that ends is passed to ended.

    key: options key of the records. budget: finished frames are released from it. failed_inputs: receives inputs that
    fail here.
    """
    writer: ClipWriter | None = None
    with ExitStack() as stack:
        stack.callback(lambda: writer.abort() if writer is not None else None)
        for event in events:
            if event.job.part is not None:  # the networks' outputs are in its journal
                if isinstance(event, Estimated):
                    budget.release(event.frame.pixels.nbytes)
                elif isinstance(event, Closed):
                    ended(
                        event.job,
                        finished_of(event.job, Summary("done") if event.error is None else _failure(event.error)),
                    )
            elif isinstance(event, Opened):
                progress.begin(event.job.input.name, 1 if event.source is None else event.source.frame_count)
                writer = ClipWriter(out, key, keypoint_set, options, event, window, failed_inputs, budget.limit // 2)
            elif isinstance(event, Estimated):
                released = event.frame.pixels.nbytes
                if writer is not None:
                    released += writer.held_bytes
                    writer.write(event.frame, event.poses)
                    released -= writer.held_bytes
                budget.release(released)
                progress.advance(event.job.input.name, 1)
            else:
                released = 0 if writer is None else writer.held_bytes
                summary = event.ended or (writer.close(event) if writer is not None else _failure(event.error))
                writer = None
                budget.release(released)
                with suppress(OSError):  # a later run ignores what cannot be removed
                    if summary.status == "failed":
                        event.job.record.unlink(missing_ok=True)
                    if event.job.input.kind == "video":
                        remove_journals(event.job.journal)
                done = finished_of(event.job, summary, skipped=event.ended is not None)
                ended(event.job, done)
                progress.finish(done)
            del event  # release the frame while waiting for the next one


def finished_of(job: Job, summary: Summary, *, skipped: bool = False) -> Finished:
    """The result of a job. skipped: an earlier run finished it."""
    if job.input.remote is not None and summary.error is not None:  # of its local copy
        shown = printed(job.input.shown)
        summary = replace(summary, error=summary.error.replace(printed(job.input.path), shown))
    return Finished(job.input.name, printable(job.input.shown), job.input.kind, summary, skipped, job.place)


class ClipWriter:
    """Writes the files of one input, frame by frame. Its own errors are kept and reported by close.

    most_held: limit of held_bytes.
    """

    def __init__(
        self,
        out: Path,
        key: str,
        keypoint_set: KeypointSet,
        options: RunOptions,
        opened: Opened,
        window: Window | None,
        failed_inputs: FailedInputs,
        most_held: int,
    ) -> None:
        self._failed_inputs = failed_inputs
        self._job, self._options = opened.job, options
        self._started = time.monotonic()
        self._problem: str | None = None
        self._writer: InputWriter | None = None
        tracking, item = options.tracking, opened.job.input
        self._select = person_choice(tracking.person)
        self._offline = tracking.smooth == "offline"
        self._tracker: ClipTracker | None = None
        if opened.source is not None and tracking.track:
            # With offline smoothing the second pass smooths.
            self._tracker = ClipTracker(keypoint_set, "none" if self._offline else tracking.smooth)
        self._gaps = GapFiller(tracking.gap(live=item.live), most_held)
        self._draft: Journal | None = None
        try:
            self._writer = InputWriter(
                out,
                opened.job.output,
                opened.job.record,
                {"name": item.name, "kind": item.kind, "content": opened.content, "options": key, **_version(item)},
                keypoint_set,
                opened.source,
                style=options.style,
                encoding=options.encoding if options.media else None,
                on_frame=window.offer if window is not None else None,
                photo=item.path if opened.source is None else None,
            )
            if self._tracker is not None and self._offline:
                # The draft of a killed run is not used: tracking starts again at the first frame.
                _draft_path(opened.job).unlink(missing_ok=True)
                self._draft = Journal(_draft_path(opened.job), "draft")
        except _INPUT_ERRORS as error:
            self._fail(error)

    @property
    def held_bytes(self) -> int:
        """Bytes of the pixels of the frames that wait to be written."""
        return self._gaps.held_bytes

    def write(self, frame: Frame, poses: Poses) -> None:
        """Take the next frame. With offline smoothing only its poses are noted in the draft."""
        if self._writer is None:
            return
        try:
            if self._tracker is None:
                self._writer.write(frame, self._select(poses))
                return
            with stage("tracking"):
                poses = self._tracker.to_first(frame, self._tracker(frame, poses))
                ready = [] if self._draft is not None else [*self._gaps.add(frame, poses)]
            if self._draft is not None:
                self._draft.append(frame.index, poses, time=frame.time)
            self._write_ready(ready)
        except _INPUT_ERRORS as error:
            self._fail(error)

    def _write_ready(self, ready: Iterable[tuple[Frame, Poses]]) -> None:
        """Write frames that wait no longer, with poses in pixels of the first frame."""
        for frame, poses in ready:
            if self._writer is not None and self._tracker is not None:
                self._writer.write(frame, self._select(self._tracker.from_first(frame, poses)))

    def close(self, event: Closed) -> Summary:
        """Complete the files, or delete them and return the error."""
        if event.error is None and self._problem is None:
            try:
                self._write_ready(self._gaps.end())
                if self._draft is not None:
                    self._draft.close()
                    self._second_pass()
            except _INPUT_ERRORS as error:
                self._fail(error)
        problem = event.error or self._problem
        if problem is not None or self._writer is None:
            self.abort()
            return _failure(problem)
        try:
            summary = self._writer.finish(
                seconds=time.monotonic() - self._started,
                lost=event.lost,
                warnings=event.warnings,
                damage=event.damage,
            )
        except _INPUT_ERRORS as error:
            self._fail(error)
            return _failure(self._problem)
        self._remove_draft()
        return summary

    def _second_pass(self) -> None:
        """The second pass of offline smoothing: the clip is decoded again and written with the smoothed poses."""
        assert self._writer is not None and self._tracker is not None
        path = _draft_path(self._job)
        noted = ((float(when), poses) for when, poses in read_journal(path))
        gap = self._options.tracking.gap(live=False)
        smoothed = smooth_offline(noted, SmoothOptions(max_gap=gap), lookahead=max(1.0, gap + 0.2))
        with VideoReader(self._job.input.source, span=self._options.span) as reader:
            for frame, poses in zip(reader, smoothed, strict=True):
                self._writer.write(frame, self._select(self._tracker.from_first(frame, poses)))

    def abort(self) -> None:
        """Delete the files of this input."""
        self._gaps.forget()
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        self._remove_draft()

    def _remove_draft(self) -> None:
        if self._draft is not None:
            self._draft.remove()
            self._draft = None

    def _fail(self, error: BaseException) -> None:
        self._problem = error_message(error, self._job.input.shown)
        self._failed_inputs.add(self._job.number, self._problem)
        self.abort()


def _version(item: Input) -> dict[str, str]:
    """Of an input at an address: by it a later run finds that it is finished without fetching it."""
    version = None if item.remote is None else item.remote.version
    return {} if version is None else {"version": version}


def _draft_path(job: Job) -> Path:
    return job.journal.with_suffix(".draft")


def _failure(error: str | None) -> Summary:
    return Summary("failed", error=error)


def discard(job: Job, out: Path, *, failed: bool = False) -> None:
    """Delete temporary files that a killed process left of an input, but not its journal, from which it goes on.

    failed: the input is not tried again, so delete its other files as well.
    """
    thumbnail, media = thumbnail_path(out, job.record), out / job.output
    paths = [*map(temporary, (media, job.record, thumbnail)), _draft_path(job)]
    if failed:
        with suppress(OSError):
            remove_journals(job.journal)
        paths += [job.record, thumbnail, *([media] if job.input.kind == "photo" else [])]
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)
