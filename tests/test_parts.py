"""Parts of a video, estimated apart, give what the whole video gives, to the byte."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from posecli.detect import load_detector
from posecli.media.inputs import find_inputs
from posecli.media.span import Span
from posecli.pipeline import keys, parts
from posecli.pipeline.events import Job
from posecli.pipeline.plan import plan
from posecli.pipeline.run_options import RunOptions, TrackingOptions
from posecli.pipeline.unit import Unit, process, unit_of
from posecli.pose.estimator import load_estimator
from posecli.predict import Predictor
from posecli.results.manifest import Finished
from posecli.tracking import propagate
from posecli.types import Detections, Frame, Poses
from tests.media_factory import write_video
from tests.test_estimate import Models
from tests.test_pipeline_bounds import Still
from tests.test_workers import files_of

RESTART = 16


class Moving(Models):
    """Poses that depend on the picture and on the box, so that an error of one frame's box is in all that follow."""

    def _pose(self, frame: Frame, found: Detections) -> Poses:
        poses = super()._pose(frame, found)
        shift = float(frame.pixels.mean()) / 1000 + found.boxes[:, None, :2] / 200
        return replace(poses, keypoints=(poses.keypoints + shift).astype(np.float32))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A variable frame rate, B-frames, and a picture that changes from frame to frame."""
    steps = np.random.default_rng(0).choice([17, 33, 34, 50], 79)
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    return write_video(path, 80, times=[0, *np.cumsum(steps).tolist()], sound="aac", options={"g": "12", "bf": "2"})


@pytest.fixture(autouse=True)
def frequent_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (propagate, parts):
        monkeypatch.setattr(module, "RESTART_EVERY", RESTART)


def work(unit: Unit, *jobs: Job) -> Moving:
    """Process jobs, all of which succeed; gives the models."""
    ended: list[Finished] = []
    models = Moving()
    process(unit, jobs, models.predictor, lambda job, item: ended.append(item), Still())
    assert [item.summary.status for item in ended] == ["done"] * len(jobs)
    return models


def planned(clip: Path, out: Path) -> Job:
    return plan(find_inputs([str(clip)]), out)[0]


OPTIONS = {
    "auto": RunOptions(tracking=TrackingOptions(detect_every=None, smooth="kalman")),
    "every third": RunOptions(tracking=TrackingOptions(detect_every=3, smooth="offline")),
    "each": RunOptions(tracking=TrackingOptions(detect_every=1)),
    "stride": RunOptions(span=Span(stride=3), tracking=TrackingOptions(detect_every=None)),
    "a piece": RunOptions(span=Span(start=Fraction(1, 2), end=70), tracking=TrackingOptions(detect_every=None)),
    "from a frame on": RunOptions(span=Span(start=20, duration=50), tracking=TrackingOptions(detect_every=None)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_parts_in_any_order_are_the_whole(name: str, clip: Path, tmp_path: Path) -> None:
    options = OPTIONS[name]
    whole = Unit(tmp_path / "whole", options, "key", "inference")
    models = work(whole, planned(clip, whole.out))
    frames = len(set(models.estimated))
    if name not in ("each", "stride"):  # else the picture changes too much for propagation
        assert 3 < len(set(models.detected)) < frames
    unit = replace(whole, out=tmp_path / "parts")
    job = planned(clip, unit.out)
    pieces = parts.split(job, options.span, 3, 5)
    assert [piece.number for piece in pieces] == [5, 6, 7]
    assert all(piece.part is not None and piece.part[0] % RESTART == 0 for piece in pieces)
    estimated = [work(unit, piece).estimated for piece in reversed(pieces)]  # each as in a process of its own
    assert set().union(*estimated) == set(models.estimated)
    assert sum(len(set(found)) for found in estimated) == frames
    assert not work(unit, job).estimated
    assert files_of(whole.out) == files_of(unit.out)


@pytest.mark.slow
def test_parts_of_a_video_with_an_edit_list(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable frame rate, and frames before the first one that is shown."""
    for module in (propagate, parts):
        monkeypatch.setattr(module, "RESTART_EVERY", 64)
    clip, options = shared / "videos" / "yoga_vfr_aac.mp4", OPTIONS["auto"]
    whole = Unit(tmp_path / "whole", options, "key", "inference")
    work(whole, planned(clip, whole.out))
    unit = replace(whole, out=tmp_path / "parts")
    job = planned(clip, unit.out)
    pieces = parts.split(job, options.span, 3, 1)
    assert len(pieces) == 3
    for piece in pieces:
        work(unit, piece)
    assert not work(unit, job).estimated
    assert files_of(whole.out) == files_of(unit.out)


def test_what_a_part_lacks_is_computed(clip: Path, tmp_path: Path) -> None:
    options = OPTIONS["auto"]
    whole = Unit(tmp_path / "whole", options, "key", "inference")
    work(whole, planned(clip, whole.out))
    unit = replace(whole, out=tmp_path / "parts")
    job = planned(clip, unit.out)
    pieces = parts.split(job, options.span, 5, 1)
    work(unit, pieces[0], *pieces[2:])
    cut = pieces[3].journal.read_bytes()
    pieces[3].journal.write_bytes(cut[: len(cut) // 2])  # its process was killed
    assert min(work(unit, job).estimated) == RESTART
    assert files_of(whole.out) == files_of(unit.out)
    assert not list(unit.out.rglob("journals/*"))


def test_what_is_not_split(clip: Path, tmp_path: Path) -> None:
    job = planned(clip, tmp_path)
    assert len(parts.split(job, Span(), 9, 1)) == 5
    assert parts.split(job, Span(), 1, 1) == []
    assert parts.split(job, Span(end=2 * RESTART), 2, 1) == []
    assert parts.split(replace(job, input=replace(job.input, kind="photo")), Span(), 2, 1) == []
    broken = clip.with_name("broken.mp4")
    broken.write_bytes(clip.read_bytes()[:200])
    assert parts.split(replace(job, input=replace(job.input, path=broken)), Span(), 2, 1) == []
    job.journal.parent.mkdir(parents=True)
    job.journal.touch()  # an interrupted run goes on alone
    assert parts.split(job, Span(), 2, 1) == []


def test_the_key_says_where_propagation_restarts(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(load_detector("whole"), load_estimator(str(tiny_weights), device="cpu", runtime="openvino"))
    before = unit_of(Path(), OPTIONS["auto"], predictor)
    monkeypatch.setattr(keys, "RESTART_EVERY", 512)
    after = unit_of(Path(), OPTIONS["auto"], predictor)
    assert before.key != after.key and before.inference_key != after.inference_key
