"""What is in memory at once, and what is no longer worked on."""

import importlib
import json
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.detect import Detector
from posecli.draw.annotate import Annotator
from posecli.draw.faces import Area, pixelate
from posecli.draw.style import DrawStyle
from posecli.errors import DataError, MediaError
from posecli.geometry import crop_matrices
from posecli.keypoints import COCO17
from posecli.media.colour import colour_of, rgb
from posecli.media.images import read_image
from posecli.media.inputs import find_inputs
from posecli.media.video import VideoReader
from posecli.media.write_images import write_image
from posecli.media.write_video import VideoWriter
from posecli.pipeline.channel import Budget, Channel, Stopped
from posecli.pipeline.read import photo_bytes
from posecli.pipeline.run import run
from posecli.pipeline.run_options import RunOptions, TrackingOptions
from posecli.pose import crops
from posecli.pose.estimator import load_estimator
from posecli.predict import Predictor
from posecli.results import input_writer as sink
from posecli.results.manifest import Finished
from posecli.tracking.propagate import BoxPropagator, PropagationOptions
from posecli.types import Detections, Frame, Poses
from tests.media_factory import picture, write_photo, write_video

running = importlib.import_module("posecli.pipeline.unit")


class Still:
    """A progress that is not shown."""

    def begin(self, name: str, frames: int) -> None: ...

    def advance(self, name: str, frames: int) -> None: ...

    def finish(self, item: Finished) -> None: ...


def whole(seen: list[str], bad: str = "no input has this name", after: int = 0) -> Detector:
    """Finds one person, and notes the names of the inputs; fails from the given frame of a bad one on."""

    def find(frames: Sequence[Frame], names: Sequence[str]) -> list[Detections]:
        seen.extend(names)
        if any(bad in name and frame.index >= after for frame, name in zip(frames, names, strict=True)):
            raise DataError(f"{bad}: it is not known")
        return [
            Detections(np.array([[0, 0, frame.width, frame.height]], np.float32), np.ones(1, np.float32))
            for frame in frames
        ]

    return Detector(find, "whole", 0.5, "none", "cpu")


@pytest.fixture
def read_frames(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the inputs whose frames were decoded, one a frame."""
    read: list[str] = []
    real = VideoReader.__iter__

    def counted(reader: VideoReader) -> Iterator[Frame]:
        for frame in real(reader):
            read.append(reader.source.name)
            yield frame

    monkeypatch.setattr(VideoReader, "__iter__", counted)
    return read


def do(root: Path, out: Path, weights: Path, detector: Detector, **options: Any) -> dict[str, Any]:
    estimator = load_estimator(str(weights), device="cpu", runtime="torch")
    run(
        find_inputs([str(root)]),
        out,
        Predictor(detector, estimator),
        RunOptions(tracking=TrackingOptions(**options)),
        Still(),
    )
    document: dict[str, Any] = json.loads((out / "run.json").read_bytes())
    return document


# ---- failed clips are left ------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 4])
def test_frames_of_a_clip_that_no_network_takes_are_not_asked_for(
    tmp_path: Path, tiny_weights: Path, read_frames: list[str], every: int
) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "in" / name, 300)
    seen: list[str] = []
    detector = whole(seen, "a.mp4", after=9)
    document = do(tmp_path / "in", tmp_path / "out", tiny_weights, detector, detect_every=every)
    assert [item["status"] for item in document["inputs"]] == ["failed", "done"]
    assert "it is not known" in document["inputs"][0]["error"]
    assert read_frames.count("a.mp4") < 60 and read_frames.count("b.mp4") == 300
    assert sum(name.endswith("a.mp4") for name in seen) < 60
    assert not list((tmp_path / "out" / ".posecli" / "journals").iterdir())


@pytest.mark.parametrize("where", ["write", "__init__"])
def test_frames_of_a_clip_that_cannot_be_written_are_not_decoded(
    tmp_path: Path, tiny_weights: Path, read_frames: list[str], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "in" / name, 300)
    real = getattr(VideoWriter, where)

    def fails(writer: VideoWriter, *arguments: Any, **options: Any) -> None:
        if any(isinstance(a, Path) and a.name == "a.mp4" for a in arguments) or (
            where == "write" and writer.path.name == "a.mp4"
        ):
            raise MediaError("a.mp4: no encoder takes it")
        real(writer, *arguments, **options)

    monkeypatch.setattr(VideoWriter, where, fails)
    seen: list[str] = []
    document = do(tmp_path / "in", tmp_path / "out", tiny_weights, whole(seen))
    assert [item["status"] for item in document["inputs"]] == ["failed", "done"]
    assert document["inputs"][0]["error"] == "a.mp4: no encoder takes it"
    assert read_frames.count("a.mp4") < 60 and read_frames.count("b.mp4") == 300
    assert sum(name.endswith("a.mp4") for name in seen) < 60


# ---- memory -----------------------------------------------------------------------------------------------


def alive(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of frames alive, noted as each new one is made."""
    frames: weakref.WeakSet[Frame] = weakref.WeakSet()
    sums: list[int] = []

    def made(*arguments: Any) -> Frame:
        frame = Frame(*arguments)
        frames.add(frame)
        sums.append(sum(each.pixels.nbytes for each in frames))
        return frame

    monkeypatch.setattr("posecli.media.photos.Frame", made)
    monkeypatch.setattr("posecli.media.video.Frame", made)
    return sums


@pytest.mark.parametrize("slow", ["detect", "write"])
def test_frames_in_the_pipeline_are_bounded_by_bytes(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """Also where one stage waits for another: what is counted out is gone, a photo above the budget is alone."""
    sizes = [(64, 48), (200, 100), (30, 20), (64, 48), (300, 300), (80, 60), (80, 60), (40, 30)] * 2
    for number, (width, height) in enumerate(sizes):
        write_photo(tmp_path / "in" / f"{number:02}.bmp", picture(width, height))
    write_video(tmp_path / "in" / "clip.mp4", 40, 96, 64)
    sums, limit = alive(monkeypatch), 100_000
    budgets: list[Budget] = []

    def budget(size: int, stop: threading.Event) -> Budget:
        budgets.append(Budget(limit, stop))
        return budgets[0]

    monkeypatch.setattr(running, "Budget", budget)
    detector = whole([])
    if slow == "write":
        real = sink.InputWriter.write
        monkeypatch.setattr(sink.InputWriter, "write", lambda *a: (time.sleep(0.005), real(*a))[1])
    else:
        find = detector.find
        detector = Detector(lambda *a: (time.sleep(0.01), find(*a))[1], "whole", 0.5, "none", "cpu")
    document = do(tmp_path / "in", tmp_path / "out", tiny_weights, detector)
    assert document["totals"]["status"] == {"done": 17} and document["totals"]["frames"] == 16 + 40
    assert sorted(set(sums))[-1] == 300 * 300 * 3
    assert max(total for total in sums if total != 300 * 300 * 3) <= limit
    assert budgets[0].used == 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 120), max_size=30))
def test_a_budget_never_stalls_and_never_overflows(sizes: list[int]) -> None:
    stop = threading.Event()
    budget, taken = Budget(100, stop), Channel[int](100, stop)

    def give() -> None:
        for size in taken:
            budget.release(size)

    giver = threading.Thread(target=give)
    giver.start()
    for size in sizes:
        budget.acquire(size)
        assert budget.used <= 100 or budget.used == size
        taken.put(size)
    taken.put(None)
    giver.join(5)
    assert not giver.is_alive() and budget.used == 0


def test_a_stopped_budget_lets_no_thread_wait() -> None:
    stop = threading.Event()
    budget = Budget(10, stop)
    budget.acquire(50)  # alone
    assert not budget.fits(1)
    stop.set()
    with pytest.raises(Stopped):
        budget.acquire(1)


def test_what_a_photo_takes_is_known_before_it_is_decoded(tmp_path: Path) -> None:
    for suffix in ("jpg", "png", "bmp", "tiff", "webp"):
        path = write_photo(tmp_path / f"a.{suffix}", picture(120, 90))
        assert photo_bytes(path, 10**9) == path.stat().st_size + 3 * 120 * 90
        assert photo_bytes(path, 100) == path.stat().st_size + 300
    unknown = tmp_path / "a.pgm"
    unknown.write_bytes(b"P5 3 2 255 aaaaaa")
    assert photo_bytes(unknown, 1000) == unknown.stat().st_size + 3000


@pytest.mark.parametrize("look", [{}, {"black": True}, {"blur_faces": True}, {"side_by_side": True}])
def test_a_photo_drawn_on_itself_looks_the_same(
    tmp_path: Path, look: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = picture(150, 130)
    rng = np.random.default_rng(2)
    points = rng.uniform(10, 120, (2, 17, 2)).astype(np.float32)
    ones = np.ones((2, 17), np.float32)
    boxes = np.array([[5, 5, 120, 120], [20, 20, 90, 110]], np.float32)
    poses = Poses(points, ones[..., None].repeat(2, -1), ones, boxes, ones[:, 0], ones[:, 0])
    drawn = []
    for last in (False, True):
        frame = Frame(pixels.copy())
        annotator = Annotator(DrawStyle(**look), COCO17)
        annotator.update(frame, poses)
        drawn.append(annotator.draw(frame, poses, last=last))
        assert (drawn[-1] is frame.pixels) == (last and "side_by_side" not in look)
        if not last:
            assert np.array_equal(frame.pixels, pixels)
    assert np.array_equal(drawn[0], drawn[1])
    before = drawn[0].copy()
    for large in (10**9, 1):
        monkeypatch.setattr("posecli.media.write_images._LARGE", large)
        write_image(tmp_path / f"{large}.png", before)
        assert np.array_equal(before, drawn[0])
    assert (tmp_path / f"{10**9}.png").read_bytes() == (tmp_path / "1.png").read_bytes()
    assert np.array_equal(read_image(tmp_path / "1.png"), before)


def test_strips_are_as_good_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    for width, height, box in ((301, 467, (3, 5, 290, 460)), (640, 333, (-50, -20, 700, 360))):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        matrix = crop_matrices(np.array([box], np.float32), (32, 24), 1.25)[0]
        found = []
        for limit in (10**9, 5000):
            monkeypatch.setattr(crops, "_HALVED_AT_ONCE", limit)
            crop = np.empty((32, 24, 3), np.uint8)
            crops.warp(pixels, matrix, crop)
            found.append(crop)
        assert np.array_equal(*found)
        covered = []
        for rows in (10**9, 7):
            monkeypatch.setattr("posecli.draw.faces._ROWS", rows)
            covered.append(pixels.copy())
            pixelate(covered[-1], [Area(150, 160, 140, 90), Area(20, 20, 30, 40, ellipse=False)])
        assert np.array_equal(*covered) and not np.array_equal(covered[0], pixels)


@pytest.mark.parametrize("every", [1, 7, None])
def test_results_do_not_depend_on_which_frames_share_a_batch(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, every: int | None
) -> None:
    write_video(tmp_path / "in" / "a.mp4", 24)
    write_video(tmp_path / "in" / "b.mp4", 17)
    # An untrained network's keypoints are never sure.
    calm = PropagationOptions(keypoint_threshold=0, min_keypoints=0, min_score_ratio=0, max_step=100)
    monkeypatch.setattr(
        "posecli.pipeline.estimate.BoxPropagator", lambda every, keypoints: BoxPropagator(every, keypoints, calm)
    )
    found = []
    for size in (8, 1, 3):
        monkeypatch.setattr("posecli.pipeline.estimate.BATCH_FRAMES", size)
        out = tmp_path / f"out{size}"
        seen: list[str] = []
        do(tmp_path / "in", out, tiny_weights, whole(seen), detect_every=every)
        assert len(seen) == 41 if every == 1 else 5 < len(seen) < 30
        found.append((out / "coco.json").read_bytes())
    assert found[0] == found[1] == found[2] and json.loads(found[0])["annotations"]


def test_images_of_a_video_are_not_the_decoders() -> None:
    """What is drawn on them does not get into later frames, also where the video has RGB itself."""
    for layout in ("rgb24", "yuv420p"):
        stored = VideoFrame.from_ndarray(picture(64, 48), "rgb24").reformat(format=layout)
        before = stored.to_ndarray().copy()
        image = rgb(stored, colour_of(stored), VideoReformatter())
        image[:] = 7
        assert np.array_equal(stored.to_ndarray(), before)
