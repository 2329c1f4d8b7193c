"""The thread of the networks: what is asked of them, and what is not asked twice."""

import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from posecli.detect import Detector
from posecli.errors import DataError
from posecli.keypoints import COCO17
from posecli.media.inputs import Input, find_inputs
from posecli.pipeline.estimate import PoseStep
from posecli.pipeline.events import Closed, Estimated, Job, Opened, Read
from posecli.predict import Predictor
from posecli.types import Detections, Frame, Poses
from tests.media_factory import write_photo, write_video


class Models:
    """A detector and an estimator that count what they are asked."""

    def __init__(self, bad: str = "", wild: bool = False) -> None:
        """bad: part of the names that no picture may have. wild: poses jump, in place of a drift."""
        self._wild = wild
        self.detected: list[int] = []
        self.estimated: list[int] = []
        self.batches: list[int] = []
        self._bad = bad
        self.config = types.SimpleNamespace(keypoints=COCO17, person_score=False)

    @property
    def predictor(self) -> Predictor:
        return Predictor(Detector(self.detector, "counting", 0.5, "none", "cpu"), self)  # type: ignore[arg-type]

    def detector(self, frames: list[Frame], names: list[str]) -> list[Detections]:
        if self._bad and any(self._bad in name for name in names):
            raise DataError("an unknown picture")
        self.detected += [frame.index for frame in frames]
        return [Detections(np.array([[10, 5, 40, 45]], np.float32), np.ones(1, np.float32)) for _ in frames]

    def __call__(self, frames: list[Frame], people: list[Detections]) -> list[Poses]:
        self.estimated += [frame.index for frame in frames]
        self.batches.append(len(frames))
        return [self._pose(frame, found) for frame, found in zip(frames, people, strict=True)]

    def _pose(self, frame: Frame, found: Detections) -> Poses:
        count = len(found)
        random = np.random.default_rng(frame.index if self._wild else 0)
        drift = 0.0 if self._wild else 0.02 * frame.index
        points = (random.uniform((10, 5), (40, 45), (count, 17, 2)) + drift).astype(np.float32)
        ones = np.ones((count, 17), np.float32)
        return Poses(points, ones[..., None].repeat(2, -1), ones, found.boxes, found.scores, found.scores)


def events(item: Input, out: Path, frames: int, content: str = "c") -> Iterator[Opened | Read | Closed]:
    job = Job(0, item, "a.mp4", out)
    source = types.SimpleNamespace(frame_count=frames) if item.kind == "video" else None
    yield Opened(job, content, source)  # type: ignore[arg-type]
    for index in range(frames):
        yield Read(job, Frame(np.zeros((48, 64, 3), np.uint8), index))
    yield Closed(job, content)


def frames_of(answers: Iterator[Opened | Estimated | Closed]) -> list[Poses]:
    return [event.poses for event in answers if isinstance(event, Estimated)]


@pytest.fixture
def clip(tmp_path: Path) -> Input:
    write_video(tmp_path / "in" / "a.mp4", 3)
    return find_inputs([str(tmp_path / "in")])[0]


@pytest.mark.parametrize("every", [1, 4])
def test_after_a_kill_the_networks_are_asked_only_for_the_rest(clip: Input, tmp_path: Path, every: int) -> None:
    undisturbed = Models()
    step = PoseStep(undisturbed.predictor, every=every, inference_key="k")
    whole = frames_of(step(events(clip, tmp_path / "one", 30)))
    first = Models()
    step = PoseStep(first.predictor, every=every, inference_key="k")
    stream = step(events(clip, tmp_path / "two", 30))
    for _ in range(18):
        next(stream)
    stream.close()  # the process ends here
    done = set(first.estimated)
    second = Models()
    step = PoseStep(second.predictor, every=every, inference_key="k")
    again = frames_of(step(events(clip, tmp_path / "two", 30)))
    assert not done & set(second.estimated) and done | set(second.estimated) == set(range(30))
    assert first.detected + second.detected == undisturbed.detected
    for a, b in zip(whole, again, strict=True):
        assert np.array_equal(a.keypoints, b.keypoints) and np.array_equal(a.boxes, b.boxes)
    third = Models()  # other models answer anew
    step = PoseStep(third.predictor, every=every, inference_key="other")
    assert len(frames_of(step(events(clip, tmp_path / "two", 30)))) == 30 and len(third.estimated) == 30


def test_only_a_frame_that_needs_a_detection_is_estimated_twice(clip: Input, tmp_path: Path) -> None:
    """Two frames are estimated at once; where the first one asks for a detection, the second is estimated anew."""
    models = Models(wild=True)
    step = PoseStep(models.predictor, every=4, inference_key="k")
    assert len(frames_of(step(events(clip, tmp_path, 30)))) == 30
    twice = [index for index in set(models.estimated) if models.estimated.count(index) > 1]
    assert twice and set(twice) <= set(models.detected) and len(models.estimated) == 30 + len(twice)


def test_a_live_source_keeps_no_journal(clip: Input, tmp_path: Path) -> None:
    models = Models()
    step = PoseStep(models.predictor, every=1, inference_key="k")
    assert len(frames_of(step(events(clip, tmp_path, 5, content="")))) == 5
    assert not list(tmp_path.rglob("journals"))


def test_frames_share_batches_and_every_one_is_searched(clip: Input, tmp_path: Path) -> None:
    models = Models()
    step = PoseStep(models.predictor, every=1, inference_key="k")
    assert len(frames_of(step(events(clip, tmp_path, 20)))) == 20
    assert models.detected == list(range(20)) and models.batches == [8, 8, 4]


def test_a_failing_photo_is_told_at_its_end_and_costs_the_others_nothing(tmp_path: Path) -> None:
    models = Models(bad="bad")
    items = [find_inputs([str(write_photo(tmp_path / f"{name}.jpg"))])[0] for name in ("a", "bad", "c")]
    stream = (event for item in items for event in events(item, tmp_path, 1))
    step = PoseStep(models.predictor, every=1, inference_key="k")
    numbered: list[Opened | Read | Closed] = []
    for number, event in enumerate(stream):
        job = Job(number // 3, event.job.input, event.job.output, event.job.record)
        numbered.append(type(event)(**{**vars(event), "job": job}))
    answers = list(step(numbered))
    errors = [event.error for event in answers if isinstance(event, Closed)]
    assert errors == [None, "an unknown picture", None]
    assert sum(isinstance(event, Estimated) for event in answers) == 2
