"""The thread that follows people over time, draws, encodes and records."""

import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from av.error import FFmpegError

from posecli.errors import PosecliError
from posecli.keypoints import KeypointSet
from posecli.media.inputs import printable
from posecli.media.video import VideoReader
from posecli.pipeline.channel import Budget, GivenUp
from posecli.pipeline.error_messages import error_message
from posecli.pipeline.events import Closed, Estimated, Job, Opened, Progress
from posecli.pipeline.options import RunOptions, look_of
from posecli.pipeline.window import Window
from posecli.results.input_writer import InputWriter
from posecli.results.journal import Journal, read_journal
from posecli.results.manifest import Finished
from posecli.results.records import Summary
from posecli.tracking.choose import person_choice
from posecli.tracking.offline import smooth_offline
from posecli.tracking.smoothing import SMOOTHERS
from posecli.tracking.tracker import Tracker
from posecli.types import Frame, Poses

# What goes wrong with one input's files; the others go on.
_INPUT_ERRORS = (PosecliError, FFmpegError, OSError, ValueError, MemoryError)


def write_all(
    out: Path,
    key: str,
    keypoint_set: KeypointSet,
    options: RunOptions,
    events: Iterable[Opened | Estimated | Closed],
    finished: list[Finished],
    progress: Progress,
    window: Window | None,
    budget: Budget,
    given_up: GivenUp,
) -> None:
    """Follow, draw, encode and record; every input that ends is appended to finished.

    budget: frames are counted out of it when they are done. given_up: is told of inputs that failed here.
    """
    writer: ClipWriter | None = None
    with ExitStack() as stack:
        stack.callback(lambda: writer.abort() if writer is not None else None)
        for event in events:
            if isinstance(event, Opened):
                progress.begin(event.job.input.name, 1 if event.source is None else event.source.frame_count)
                writer = ClipWriter(out, key, keypoint_set, options, event, window, given_up)
            elif isinstance(event, Estimated):
                if writer is not None:
                    writer.write(event.frame, event.poses)
                budget.give(event.frame.pixels.nbytes)
                progress.advance(event.job.input.name, 1)
            else:
                summary = event.ended or (writer.close(event) if writer is not None else _failure(event.error))
                writer = None
                item = event.job.input
                with suppress(OSError):  # what cannot be removed is not trusted later either
                    if summary.status == "failed":
                        event.job.record.unlink(missing_ok=True)
                    event.job.journal.unlink(missing_ok=True)
                skipped, place = event.ended is not None, event.job.place
                done = Finished(item.name, printable(item.shown), item.kind, summary, skipped, place)
                finished.append(done)
                progress.finish(done)
            del event  # a frame is not kept while the next one is waited for


class ClipWriter:
    """Writes the files of one input, frame by frame. Its own failures wait for close, which tells them."""

    def __init__(
        self,
        out: Path,
        key: str,
        keypoint_set: KeypointSet,
        options: RunOptions,
        opened: Opened,
        window: Window | None,
        given_up: GivenUp,
    ) -> None:
        self._given_up = given_up
        self._job, self._options, self._keypoint_set = opened.job, options, keypoint_set
        self._started = time.monotonic()
        self._problem: str | None = None
        self._writer: InputWriter | None = None
        self._choose = person_choice(options.person)
        self._follow = Follower(keypoint_set, options) if opened.source is not None and options.track else None
        self._draft: Journal | None = None
        item = opened.job.input
        header = {"name": item.name, "kind": item.kind, "content": opened.content, "options": key}
        look = look_of(keypoint_set, options)
        photo = item.path if opened.source is None else None
        shown = window.offer if window is not None else None
        try:
            self._writer = InputWriter(
                out, opened.job.output, opened.job.record, header, look, opened.source, shown, photo
            )
            if self._follow is not None and options.smooth == "offline":
                # A killed run's draft is of no use: ids are given anew from the first frame.
                _draft_path(opened.job).unlink(missing_ok=True)
                self._draft = Journal(_draft_path(opened.job), "draft")
        except _INPUT_ERRORS as error:
            self._fail(error)

    def write(self, frame: Frame, poses: Poses) -> None:
        """Take the next frame; where the whole clip is needed first, only note its people."""
        if self._writer is None:
            return
        try:
            if self._follow is not None:
                poses = self._follow(frame, poses)
            if self._draft is not None and self._follow is not None:
                self._draft.append(frame.index, self._follow.alike(frame, poses), time=frame.time)
            else:
                self._writer.write(frame, self._choose(poses))
        except _INPUT_ERRORS as error:
            self._fail(error)

    def close(self, event: Closed) -> Summary:
        """Make the files appear, or say why there are none."""
        if event.error is None and self._problem is None and self._draft is not None:
            try:
                self._draft.close()
                self._write_again()
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
        self._leave_draft()
        return summary

    def _write_again(self) -> None:
        """The second pass of offline smoothing: the clip is decoded once more for its smoothed people."""
        assert self._writer is not None and self._follow is not None
        path = _draft_path(self._job)
        noted = ((float(when), poses) for when, poses in read_journal(path))
        smoothed = smooth_offline(noted)
        with VideoReader(self._job.input.source, span=self._options.span) as reader:
            for frame, poses in zip(reader, smoothed, strict=True):
                self._writer.write(frame, self._choose(self._follow.own(frame, poses)))

    def abort(self) -> None:
        """Leave nothing of this input behind."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        self._leave_draft()

    def _leave_draft(self) -> None:
        if self._draft is not None:
            self._draft.remove()
            self._draft = None

    def _fail(self, error: BaseException) -> None:
        self._problem = error_message(error, self._job.input.shown)
        self._given_up.add(self._job.number, self._problem)
        self.abort()


class Follower:
    """People over the frames of one clip: ids, then the streaming smoother of the options.

    Where the picture's size changes, people are smoothed in pixels of the first frame: see `alike` and `own`.
    """

    def __init__(self, keypoint_set: KeypointSet, options: RunOptions) -> None:
        self._track = Tracker(keypoint_set)
        # Offline, the second pass smooths.
        self._smooth = SMOOTHERS["none" if options.smooth == "offline" else options.smooth](keypoint_set)
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: Frame, poses: Poses) -> Poses:
        """The poses with ids, smoothed."""
        self._size = self._size or (frame.width, frame.height)
        tracked = self.alike(frame, self._track(frame, poses))
        return self.own(frame, self._smooth(float(frame.time or 0), tracked))

    def alike(self, frame: Frame, poses: Poses) -> Poses:
        """People of a frame in pixels of the first one."""
        width, height = self._size or (frame.width, frame.height)
        return poses.scaled(width / frame.width, height / frame.height)

    def own(self, frame: Frame, poses: Poses) -> Poses:
        """The same back again."""
        width, height = self._size or (frame.width, frame.height)
        return poses.scaled(frame.width / width, frame.height / height)


def _draft_path(job: Job) -> Path:
    return job.journal.with_suffix(".draft")


def _failure(error: str | None) -> Summary:
    return Summary("failed", error=error)
