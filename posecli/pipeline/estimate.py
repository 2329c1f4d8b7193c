"""The predicting thread: detection and pose estimation, with frames of several inputs in one batch."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from posecli.errors import PosecliError
from posecli.pipeline.channel import PIPELINE_BYTES, Budget, FailedInputs
from posecli.pipeline.error_messages import error_message
from posecli.pipeline.events import Closed, Estimated, Flush, Job, Opened, Read
from posecli.predict import Predictor
from posecli.results.journal import Journal
from posecli.stages import stage
from posecli.tracking.propagate import BoxPropagator
from posecli.types import Poses

BATCH_FRAMES = 8
# Limit of a batch in pixels, which bounds memory for large photos.
BATCH_PIXELS = 24_000_000

Event: TypeAlias = Opened | Read | Closed


@dataclass(eq=False)
class _Clip:
    """State of a video. propagator: None where the detector runs on every frame. ahead: poses of the next frame."""

    journal: Journal | None
    propagator: BoxPropagator | None
    ahead: Poses | None = None


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

    def __call__(self, events: Iterable[Event | Flush]) -> Iterator[Opened | Estimated | Closed]:
        """Collect events until a batch is full, then process them."""
        waiting: list[Event] = []
        frames = pixels = 0
        try:
            for event in events:
                if not isinstance(event, Flush):
                    waiting.append(event)
                if isinstance(event, Read):
                    frames += 1
                    pixels += event.frame.width * event.frame.height
                # Frames of a live source are processed immediately.
                live = isinstance(event, Read) and event.job.input.live
                full = frames >= BATCH_FRAMES or pixels >= BATCH_PIXELS or len(waiting) >= 4 * BATCH_FRAMES
                if full or live or isinstance(event, Flush):
                    del event  # release the frame while waiting for the next one
                    yield from self._flush(waiting)
                    frames = pixels = 0
            yield from self._flush(waiting)
        finally:
            for clip in self._clips.values():
                if clip.journal is not None:
                    clip.journal.close()

    def _flush(self, waiting: list[Event]) -> Iterator[Opened | Estimated | Closed]:
        """The writer's events for the waiting ones, which are removed from the list."""
        for event in waiting:
            if isinstance(event, Opened) and event.source is not None:
                self._clips[event.job.number] = self._begin(event)
        poses = iter(self._poses([event for event in waiting if isinstance(event, Read)]))
        while waiting:
            event = waiting.pop(0)
            if isinstance(event, Read):
                found = next(poses)
                if found is None:
                    self._budget.release(event.frame.pixels.nbytes)
                    continue
                done = Estimated(event.job, event.frame, found)
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
                journal = Journal(event.job.journal, f"{event.content} {self._inference_key}")
            except OSError as error:
                self._fail(event.job, error)
        propagator = None if self._every == 1 else BoxPropagator(self._every, self._predictor.keypoints)
        return _Clip(journal, propagator)

    def _poses(self, reads: Sequence[Read]) -> list[Poses | None]:
        """Poses of each frame; None for those of an input that failed."""
        result: list[Poses | None] = [None] * len(reads)
        together: list[int] = []
        for place, read in enumerate(reads):
            if read.job.number in self._failed_inputs:
                continue
            clip = self._clips.get(read.job.number)
            known = clip.journal.lookup(read.frame.index) if clip is not None and clip.journal is not None else None
            if known is not None and clip is not None:
                clip.ahead = None
                result[place] = clip.propagator.update(read.frame, *known) if clip.propagator is not None else known[0]
            elif clip is not None and clip.propagator is not None:
                following = next((later for later in reads[place + 1 :] if later.job is read.job), None)
                result[place] = self._propagated(read, clip, clip.propagator, following)
            else:
                together.append(place)
        found = self._estimate([reads[place] for place in together])
        for place, poses in zip(together, found, strict=True):
            result[place] = poses
            clip = self._clips.get(reads[place].job.number)
            if poses is not None and clip is not None and clip.journal is not None:
                self._note(reads[place], clip.journal, poses)
        return result

    def _propagated(self, read: Read, clip: _Clip, propagator: BoxPropagator, following: Read | None) -> Poses | None:
        """Poses of one frame of a video with box propagation, which needs those of an earlier frame.

        following: the clip's next frame, estimated together with this one where it is the second of a pair.
        """
        frame, name = read.frame, str(read.job.input.path)
        with stage("tracking", 0):
            detected = propagator.needs_detection(frame)
        ahead, clip.ahead = clip.ahead, None
        try:
            if detected:
                poses = self._predictor.predict([frame], [name])[0]
            elif ahead is not None:
                poses = ahead
            else:
                frames = [frame]
                if following is not None and propagator.first_of_pair and not propagator.is_due(following.frame):
                    frames.append(following.frame)
                poses, *rest = self._predictor.estimate(frames, [propagator.boxes(each) for each in frames])
                clip.ahead = rest[0] if rest else None
        except PosecliError as error:
            self._fail(read.job, error)
            return None
        if clip.journal is not None:
            self._note(read, clip.journal, poses, detected)
        with stage("tracking", 0):
            return propagator.update(frame, poses, detected)

    def _estimate(self, reads: Sequence[Read]) -> list[Poses | None]:
        frames = [read.frame for read in reads]
        names = [str(read.job.input.path) for read in reads]
        if not frames:
            return []
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
