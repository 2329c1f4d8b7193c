"""The predicting thread: detection and pose estimation, with frames of several inputs in one batch."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeAlias, TypeVar

from posecli.errors import PosecliError
from posecli.pipeline.channel import PIPELINE_BYTES, Budget, FailedInputs
from posecli.pipeline.error_messages import error_message
from posecli.pipeline.events import Closed, Estimated, Flush, Job, Opened, Read
from posecli.predict import Predictor
from posecli.results.journal import Journal, join_parts
from posecli.stages import stage
from posecli.tracking.propagate import BoxPropagator
from posecli.types import Detections, Expected, Frame, Poses

BATCH_FRAMES = 8
# Limit of a batch in pixels, which bounds memory for large photos.
BATCH_PIXELS = 24_000_000
# Batches whose networks run at the same time: while one is cut into crops or decoded, another keeps the processor busy.
AT_ONCE = 2

Event: TypeAlias = Opened | Read | Closed
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(eq=False)
class _Clip:
    """State of a video. propagator: None where the detector runs on every frame. ahead: work on the next frame."""

    journal: Journal | None
    propagator: BoxPropagator | None
    ahead: "_Ahead | None" = None


@dataclass(frozen=True, eq=False)
class _Ahead:
    """Poses of a frame that are estimated while the frame before it is. detected: with boxes of the detector."""

    poses: "Future[list[Poses]]"
    detected: bool


@dataclass(eq=False)
class _Batch:
    """Events whose frames are estimated together.

    found: poses by place in the list of events, None for those of an input that failed; frames with box propagation are
    missing until the batch is finished. together: places that are estimated by the work on estimated.
    """

    events: list[Event]
    found: dict[int, Poses | None] = field(default_factory=dict)
    together: list[int] = field(default_factory=list)
    estimated: "Future[list[Poses | None]] | None" = None


class PoseStep:
    """Maps the reader's events to the writer's, in their order.

    every: interval of detections in frames of a video; None where box propagation decides (tracking.propagate).
    inference_key: fingerprint of what the networks' outputs depend on, for the journals. budget: dropped frames are
    released from it. failed_inputs: inputs that failed in any thread; their frames are dropped.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        every: int | None,
        inference_key: str,
        budget: Budget | None = None,
        failed_inputs: FailedInputs | None = None,
    ) -> None:
        self._predictor, self._every, self._inference_key = predictor, every, inference_key
        self._clips: dict[int, _Clip] = {}
        self._budget = budget or Budget(PIPELINE_BYTES, threading.Event())
        self._failed_inputs = failed_inputs or FailedInputs()
        self._workers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="estimate")

    def __call__(self, events: Iterable[Event | Flush]) -> Iterator[Opened | Estimated | Closed]:
        """Collect events until a batch is full, then process them. To be called once."""
        waiting: list[Event] = []
        begun: deque[_Batch] = deque()
        frames = pixels = 0
        try:
            for event in events:
                if not isinstance(event, Flush):
                    waiting.append(event)
                if isinstance(event, Read):
                    frames += 1
                    pixels += event.frame.width * event.frame.height
                # Frames of a live source are processed immediately.
                at_once = isinstance(event, Flush) or (isinstance(event, Read) and event.job.input.live)
                full = frames >= BATCH_FRAMES or pixels >= BATCH_PIXELS or len(waiting) >= 4 * BATCH_FRAMES
                if full or at_once:
                    del event  # release the frame while waiting for the next one
                    begun.append(self._begin_batch(waiting))
                    waiting, frames, pixels = [], 0, 0
                # A batch with box propagation only has no work to wait for.
                while begun and (at_once or len(begun) > AT_ONCE or begun[0].estimated is None):
                    yield from self._finish(begun.popleft())
            begun.append(self._begin_batch(waiting))
            while begun:
                yield from self._finish(begun.popleft())
        finally:
            self._end(begun)

    def _end(self, begun: Iterable[_Batch]) -> None:
        """Note the poses of batches that were not finished, and close the journals."""
        self._workers.shutdown(cancel_futures=True)
        for batch in begun:
            work = batch.estimated
            if work is not None and not work.cancelled() and work.exception() is None:
                self._collect(batch)
        for clip in self._clips.values():
            if clip.journal is not None:
                clip.journal.close()

    def _begin_batch(self, events: list[Event]) -> _Batch:
        """Start the work on a batch's frames, except for those with box propagation."""
        batch = _Batch(events)
        for place, event in enumerate(events):
            if isinstance(event, Opened) and event.source is not None:
                self._clips[event.job.number] = self._begin(event)
            if not isinstance(event, Read):
                continue
            clip = self._clips.get(event.job.number)
            if event.job.number in self._failed_inputs:
                batch.found[place] = None
            elif clip is None or clip.propagator is None:
                known = self._known(event, clip)
                if known is None:
                    batch.together.append(place)
                else:
                    batch.found[place] = known[0]
        if batch.together:
            reads = [event for place in batch.together if isinstance(event := events[place], Read)]
            batch.estimated = self._submit(self._estimate, reads)
        return batch

    def _finish(self, batch: _Batch) -> Iterator[Opened | Estimated | Closed]:
        """The writer's events of a batch, which are removed from its list."""
        self._collect(batch)
        events = deque(batch.events)
        batch.events.clear()
        for place in range(len(events)):
            event = events.popleft()
            if isinstance(event, Read):
                poses = batch.found.pop(place) if place in batch.found else self._propagate(event, events)
                if poses is None:
                    self._budget.release(event.frame.pixels.nbytes)
                    continue
                done = Estimated(event.job, event.frame, poses)
                del event
                yield done
                del done
                continue
            if isinstance(event, Closed):
                clip = self._clips.pop(event.job.number, None)
                if clip is not None and clip.journal is not None:
                    # The writer deletes it once its own files are complete.
                    clip.journal.close()
                if event.error is None and (reason := self._failed_inputs.reason(event.job.number)) is not None:
                    event = replace(event, error=reason)
            yield event

    def _begin(self, event: Opened) -> _Clip:
        journal = None
        if event.content:
            try:
                key = f"{event.content} {self._inference_key}"
                if event.job.part is None:
                    join_parts(event.job.journal, key)
                journal = Journal(event.job.journal, key)
            except OSError as error:
                self._fail(event.job, error)
        propagator = None if self._every == 1 else BoxPropagator(self._every, self._predictor.keypoints)
        return _Clip(journal, propagator)

    def _known(self, read: Read, clip: _Clip | None) -> tuple[Poses, bool] | None:
        """Poses of a frame that an earlier run noted, and whether they are from a detection."""
        return clip.journal.lookup(read.frame.index) if clip is not None and clip.journal is not None else None

    def _collect(self, batch: _Batch) -> None:
        """Wait for the poses of frames that are estimated together."""
        if batch.estimated is None:
            return
        for place, poses in zip(batch.together, batch.estimated.result(), strict=True):
            batch.found[place] = poses
            read = batch.events[place]
            clip = self._clips.get(read.job.number)
            if poses is not None and isinstance(read, Read) and clip is not None and clip.journal is not None:
                self._note(read, clip.journal, poses)

    def _propagate(self, read: Read, later: Iterable[Event]) -> Poses | None:
        """Poses of a frame with box propagation, which need those of earlier frames. later: the events after it."""
        clip = self._clips.get(read.job.number)
        if read.job.number in self._failed_inputs or clip is None or clip.propagator is None:
            return None
        known = self._known(read, clip)
        if known is not None:
            clip.ahead = None
            return clip.propagator.update(read.frame, *known)
        following = next((event for event in later if isinstance(event, Read) and event.job is read.job), None)
        return self._propagated(read, clip, clip.propagator, following)

    def _propagated(self, read: Read, clip: _Clip, propagator: BoxPropagator, following: Read | None) -> Poses | None:
        """Poses of one frame of a video with box propagation. following: the clip's next frame, where it is known."""
        frame, name = read.frame, read.job.input.lookup_name
        with stage("tracking", 0):
            detected = propagator.needs_detection(frame)
        ahead, clip.ahead = clip.ahead, None
        try:
            if ahead is None or ahead.detected != detected:
                ahead = (
                    self._detect(frame, name, propagator.expected(frame))
                    if detected
                    else self._estimate_in(frame, propagator.boxes(frame))
                )
            if following is not None and (not detected or propagator.crowded):
                clip.ahead = self._follow(frame, following.frame, name, propagator, detected)
            poses = ahead.poses.result()[0]
        except PosecliError as error:
            self._fail(read.job, error)
            return None
        if clip.journal is not None:
            self._note(read, clip.journal, poses, detected)
        with stage("tracking", 0):
            return propagator.update(frame, poses, detected)

    def _follow(
        self, frame: Frame, following: Frame, name: str, propagator: BoxPropagator, detected: bool
    ) -> _Ahead | None:
        """Work on the frame after the one that is waited for, None where its boxes depend on that one.

        detected: whether the one that is waited for has a detection.
        """
        # While people overlap, they usually still do in the frame that is waited for.
        if propagator.crowded or propagator.is_due(following):
            return self._detect(following, name, propagator.expected_ahead(frame, following, detected))
        boxes = propagator.boxes_ahead(following)
        return None if boxes is None else self._estimate_in(following, boxes)

    def _detect(self, frame: Frame, name: str, expected: Expected) -> _Ahead:
        """Start the work on a frame for the detector. expected: see BoxPropagator."""
        return _Ahead(self._submit(self._predictor.predict, [frame], [name], [expected]), detected=True)

    def _estimate_in(self, frame: Frame, boxes: Detections) -> _Ahead:
        """Start the work on a frame with propagated boxes."""
        return _Ahead(self._submit(self._predictor.estimate, [frame], [boxes]), detected=False)

    def _submit(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> "Future[T]":
        """Start a function in one of the estimating threads."""

        def marked() -> T:
            with stage("other", 0):
                return work(*arguments, **named)

        return self._workers.submit(marked)

    def _estimate(self, reads: Sequence[Read]) -> list[Poses | None]:
        frames = [read.frame for read in reads]
        names = [read.job.input.lookup_name for read in reads]
        try:
            return list(self._predictor.predict(frames, names))
        except PosecliError:
            # The error may concern one input only: process each frame alone.
            found: list[Poses | None] = []
            for read, frame, name in zip(reads, frames, names, strict=True):
                if read.job.number in self._failed_inputs:
                    found.append(None)
                    continue
                try:
                    found.append(self._predictor.predict([frame], [name])[0])
                except PosecliError as error:
                    self._fail(read.job, error)
                    found.append(None)
            return found

    def _note(self, read: Read, journal: Journal, poses: Poses, detected: bool = True) -> None:
        try:
            with stage("JSON", 0):
                journal.append(read.frame.index, poses, detected)
        except OSError as error:
            self._fail(read.job, error)

    def _fail(self, job: Job, error: PosecliError | OSError) -> None:
        self._failed_inputs.add(job.number, error_message(error, job.input.shown))
