"""`import posecli`: what it loads, README's lines, conversions of poses."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import posecli
from posecli.errors import DataError, MachineError, MediaError, UsageError
from posecli.keypoints import COCO17
from posecli.types import Frame, Poses
from tests.media_factory import picture, write_photo, write_video

ROOT = Path(__file__).parents[1]


def test_the_import_loads_nothing_heavy_and_lists_its_names() -> None:
    code = (
        "import posecli, sys\n"
        "names = dir(posecli)\n"
        "print([m for m in ('torch', 'cv2', 'av', 'numpy', 'click') if m in sys.modules], names)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"[] {sorted([*posecli.__all__, '__version__'])}"


def test_every_name_is_there_and_typed() -> None:
    stub = (ROOT / "posecli" / "__init__.pyi").read_text()
    assert set(re.findall(r"import (\w+) as \1", stub)) == set(posecli.__all__)
    for name in posecli.__all__:
        assert getattr(posecli, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = posecli.nothing  # type: ignore[attr-defined]


def test_readme_s_lines_work() -> None:
    section = (ROOT / "README.md").read_text().split("### In Python")[1].split("\n## ")[0]
    image, video = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len([line for line in image.splitlines() if line.strip()]) == 3
    video = video.replace("posecli.read_video(", "FIRST(").replace("import posecli\n", "")
    first = "from itertools import islice\ndef FIRST(path): return islice(posecli.read_video(path), 2)\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{image}print(len(poses), poses.keypoints.shape)\n{first}{video}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0].endswith("17, 2)") and int(lines[0].split()[0]) >= 1
    assert len(lines) == 3 and all(line.startswith("[") and line.endswith("17, 2)") for line in lines[1:])


def test_photos_and_videos_are_read_as_frames(tmp_path: Path) -> None:
    frame = posecli.read_image(str(write_photo(tmp_path / "a.jpg")))
    assert isinstance(frame, Frame) and frame.pixels.dtype == np.uint8 and frame.time is None
    frames = list(posecli.read_video(write_video(tmp_path / "a.mp4", 3)))
    assert [f.index for f in frames] == [0, 1, 2] and frames[1].time is not None
    with pytest.raises(MediaError):
        posecli.read_image(tmp_path / "none.jpg")
    with pytest.raises(MediaError):
        next(posecli.read_video(tmp_path / "none.mp4"))


def person(x: float, keypoint_count: int = 17) -> Poses:
    grid = np.stack([np.linspace(x, x + 20, keypoint_count), np.linspace(5, 45, keypoint_count)], -1)[None]
    ones = np.ones((1, keypoint_count), np.float32)
    box, score = np.array([[x, 5, x + 20, 45]], np.float32), np.array([0.9], np.float32)
    return Poses(grid.astype(np.float32), ones[..., None].repeat(2, -1), ones, box, score, score)


def test_drawing_leaves_the_image_as_it_is() -> None:
    image = picture(90, 70)
    before = image.copy()
    drawn = posecli.draw_poses(image, person(10))
    assert (drawn != image).any() and drawn.shape == image.shape and drawn.dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(drawn, posecli.draw_poses(Frame(image), person(10), COCO17, show_ids=True))
    with pytest.raises(UsageError, match=r"3 keypoints.*17: give predictor\.keypoints"):
        posecli.draw_poses(image, person(10, 3))
    with pytest.raises(UsageError, match="uint8"):
        posecli.draw_poses(image / 255, person(10))  # type: ignore[arg-type]


def test_tracking_gives_one_id_to_one_person() -> None:
    image = picture(90, 70)
    tracked = list(posecli.track((Frame(image, i), person(10 + i)) for i in range(4)))
    assert [poses.track_ids.tolist() for poses in tracked if poses.track_ids is not None] == [[1]] * 4
    with pytest.raises(UsageError, match="3 keypoints"):
        next(posecli.track([(Frame(image), person(10, 3))]))


places = st.floats(-200, 8000, width=32)
shares = st.floats(0, 1, width=32)


@st.composite
def people(draw: st.DrawFn) -> Poses:
    count, keypoints = draw(st.integers(0, 3)), draw(st.integers(1, 4))

    def array(values: st.SearchStrategy[float], *shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        return np.array(draw(st.lists(values, min_size=size, max_size=size)), np.float32).reshape(shape)

    corner, sides = array(places, count, 2), array(st.floats(1, 4000, width=32), count, 2)
    poses = Poses(
        array(places, count, keypoints, 2),
        array(st.floats(0, 500, width=32), count, keypoints, 2),
        array(shares, count, keypoints),
        np.concatenate([corner, corner + sides], axis=1),
        array(shares, count),
        array(shares, count),
    )
    ids = np.arange(1, count + 1) if count and draw(st.booleans()) else None
    raw = array(places, count, keypoints, 2) if count and draw(st.booleans()) else None
    return Poses(**{**vars(poses), "track_ids": ids, "raw_keypoints": raw})


@given(poses=people())
@settings(max_examples=60, deadline=None)
def test_coco_annotations_and_back_are_the_same_people(poses: Poses) -> None:
    count = poses.keypoints.shape[1]
    annotations = poses.to_coco()
    again = Poses.from_coco(annotations, count)
    for name, tolerance in {
        "keypoints": 0.006, "std": 0.006, "scores": 6e-5, "boxes": 0.012, "box_scores": 6e-6, "person_scores": 6e-6,
        "track_ids": 0, "raw_keypoints": 0.006,
    }.items():  # fmt: skip
        before, after = getattr(poses, name), getattr(again, name)
        assert (before is None) == (after is None), name
        if before is not None:
            assert before.shape == after.shape and before.dtype == after.dtype, name
            np.testing.assert_allclose(after, before, atol=tolerance, rtol=1e-7)
    for person, same in zip(annotations, again.to_coco(), strict=True):
        assert same["keypoints"] == person["keypoints"] and same["keypoint_scores"] == person["keypoint_scores"]


def test_visibility_is_that_of_the_score_as_it_is_written() -> None:
    almost = replace(person(10), scores=np.full((1, 17), 0.29998, np.float32))
    (annotation,) = almost.to_coco()
    assert annotation["keypoint_scores"][0] == 0.3 and annotation["keypoints"][2] == 2
    assert Poses.from_coco([annotation]).to_coco()[0]["keypoints"] == annotation["keypoints"]


def test_people_interpolated_over_a_gap_stay_so() -> None:
    both = [*person(10).to_coco(), *person(50).to_coco()]
    both[0]["filled"], both[1]["keypoints_raw"] = True, [1.0] * 34
    poses = Poses.from_coco(both)
    assert poses.filled is not None and poses.filled.tolist() == [True, False]
    assert poses.to_coco() == both


def test_ground_truth_is_read_and_what_does_not_fit_is_named() -> None:
    truth = {"keypoints": [5, 6, 2, 15, 26, 1, 0, 0, 0]}
    poses = Poses.from_coco([truth], 3)
    assert poses.boxes.tolist() == [[5, 6, 15, 26]] and poses.scores.tolist() == [[1, 1, 0]]
    assert poses.person_scores.tolist() == [1] and poses.track_ids is None
    assert Poses.from_coco([], 5).keypoints.shape == (0, 5, 2)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "annotation 0 has no keypoints"),
        (truth | {"keypoints": [1, 2]}, "keypoints must be 3 × 3 finite numbers"),
        (truth | {"bbox": [1, 2, float("nan"), 3]}, "bbox must be 4 finite numbers"),
        (truth | {"score": "high"}, "score must be 1 finite numbers"),
    ]
    for annotation, words in wrong:
        with pytest.raises(DataError, match=words):
            Poses.from_coco([annotation], 3)
    with pytest.raises(DataError, match="annotation 1 has no track_id"):
        Poses.from_coco([truth | {"track_id": 1}, truth], 3)


def test_supervision_s_key_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(KeyPoints=SimpleNamespace))
    found = posecli.Poses.to_supervision(person(10))
    np.testing.assert_array_equal(found.xy, person(10).keypoints)
    assert found.keypoint_confidence.shape == (1, 17) and found.class_id.tolist() == [0]
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MachineError, match=r"pip install 'posecli\[supervision\]'"):
        person(10).to_supervision()


def test_supervision_itself_takes_them() -> None:
    supervision = pytest.importorskip("supervision")
    found = person(10).to_supervision()
    assert isinstance(found, supervision.KeyPoints) and len(found) == 1
    assert len(Poses.empty(17).to_supervision()) == 0
