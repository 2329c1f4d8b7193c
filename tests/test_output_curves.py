"""Joint angles, curves of a clip, and the page that shows them."""

import base64
import json
import math
import re
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posecli.draw.palette import css, id_colour
from posecli.keypoints import COCO17, KeypointSet
from posecli.results.angles import angle_names, joint_angles
from posecli.results.curves import compact, read_curves
from posecli.results.gallery import write_gallery
from posecli.results.manifest import Finished, manifest
from posecli.results.records import RecordWriter, Summary, record_path
from posecli.types import Frame, Poses
from tests.test_output import some_poses

NAMES = angle_names(COCO17)


def arm(degrees: float, turned: float = 0.0, scale: float = 50.0) -> np.ndarray:
    """Keypoints (17, 2) whose left elbow has this angle, the upper arm turned by so many degrees."""
    points = np.zeros((17, 2))
    for keypoint, direction in ((5, turned), (9, turned + degrees)):
        points[keypoint] = scale * np.array([math.cos(math.radians(direction)), math.sin(math.radians(direction))])
    return points + 100


def test_angles_are_what_a_protractor_says() -> None:
    assert NAMES == ("left_elbow", "right_elbow", "left_hip", "right_hip", "left_knee", "right_knee")
    points = np.full((1, 17, 2), 0.0)
    points[0, [6, 12, 14, 16]] = [[10, 0], [10, 100], [110, 100], [110, 200]]  # right: upright, sitting, foot down
    points[0, [8, 10]] = [[10, 50], [10, 20]]  # right arm folded: the wrist comes back towards the shoulder
    angles = dict(zip(NAMES, joint_angles(points, COCO17)[0], strict=True))
    assert angles["right_hip"] == 90 and angles["right_knee"] == 90 and angles["right_elbow"] == 0
    assert math.isnan(angles["left_elbow"])  # all three in one place
    points[0, 16] = [210, 100]
    assert joint_angles(points, COCO17)[0, NAMES.index("right_knee")] == 180


@given(degrees=st.floats(0, 180), turned=st.floats(-360, 360), scale=st.floats(0.1, 1e4), mirrored=st.booleans())
def test_angles_stay_when_a_person_is_turned_sized_or_mirrored(
    degrees: float, turned: float, scale: float, mirrored: bool
) -> None:
    points = arm(degrees, turned, scale) * np.array([-1 if mirrored else 1, 1])
    assert joint_angles(points[None], COCO17)[0, 0] == pytest.approx(degrees, abs=1e-4)


def test_unsure_or_missing_keypoints_have_no_angle() -> None:
    points, sure = np.stack([arm(90), arm(90), arm(90)]), np.ones((3, 17), bool)
    sure[1, 9] = False
    points[2, 5] = np.nan
    assert np.isnan(joint_angles(points, COCO17, sure)[:, 0]).tolist() == [False, True, True]
    assert joint_angles(np.zeros((0, 17, 2)), COCO17).shape == (0, 6)
    dots = KeypointSet("dots", ("a", "b"))
    assert angle_names(dots) == () and joint_angles(np.zeros((4, 2, 2)), dots).shape == (4, 0)


def write_clip(out: Path, frames: list[list[tuple[int, float, bool]]], name: str = "clip.mp4") -> Path:
    """A record at ten frames a second of people by (id, degrees of the left elbow, whether it is sure)."""
    path = record_path(out, name)
    header = {"name": name, "kind": "video", "content": "c", "options": "o", "keypoints": list(COCO17.names)}
    with RecordWriter(path, header, 0.3) as record:
        for index, people in enumerate(frames):
            poses = some_poses(len(people)) if people else Poses.empty(17)
            scores = np.zeros((len(people), 17), np.float32)
            for row, (_, degrees, sure) in enumerate(people):
                poses.keypoints[row] = arm(degrees)
                scores[row, [5, 7, 9]] = 0.9 if sure else 0.1
            ids = np.array([i for i, _, _ in people], np.int64)
            poses = replace(poses, scores=scores, track_ids=ids)
            record.write(Frame(np.zeros((8, 8, 3), np.uint8), index, Fraction(index, 10)), poses)
        record.finish(Summary("done", record.frames, record.people, tracks=record.tracks, outputs=(name,)))
    return path


def test_curves_of_a_short_clip_are_its_frames(tmp_path: Path) -> None:
    frames = [[(7, 90, True)], [(7, 100, True), (2, 30, True)], [(2, 40, False)], [], [(7, 120, True)]]
    curves = read_curves(write_clip(tmp_path, frames))
    assert curves is not None and curves.others == 0
    np.testing.assert_allclose(curves.times, [0, 0.1, 0.2, 0.3, 0.4, 0.5])
    two, seven = curves.tracks
    assert (two.track_id, seven.track_id) == (2, 7)
    assert seven.seen.tolist() == [1, 1, 0, 0, 1] and two.seen.tolist() == [0, 1, 1, 0, 0]
    np.testing.assert_allclose(seven.angles[:, 0], [90, 100, np.nan, np.nan, 120], atol=0.02)
    np.testing.assert_allclose(two.angles[:, 0], [np.nan, 30, np.nan, np.nan, np.nan], atol=0.02)
    page = compact(curves)
    assert [t["spans"] for t in page["tracks"]] == [[[1, 3]], [[0, 2], [4, 5]]]
    assert [t["colour"] for t in page["tracks"]] == [css(id_colour(2)), css(id_colour(7))]
    assert [t["first"] for t in page["tracks"]] == [1, 0]
    assert list(base64.b64decode(page["tracks"][1]["angles"][0])) == [90, 100, 255, 255, 120]


def test_long_clips_are_averaged_into_few_bins(tmp_path: Path) -> None:
    frames = [[(1, 60 + (i % 2) * 20, i < 700)] for i in range(1000)]
    curves = read_curves(write_clip(tmp_path, frames), most_bins=100)
    assert curves is not None and len(curves.times) - 1 == 63  # of 16 frames each
    (track,) = curves.tracks
    assert track.seen.sum() == 1000
    np.testing.assert_allclose(track.angles[:43, 0], 70, atol=0.1)
    assert np.isnan(track.angles[44:, 0]).all()
    np.testing.assert_allclose(np.diff(curves.times)[:-1], 1.6)
    assert curves.times[-1] == pytest.approx(100)


def test_of_many_people_those_seen_longest_are_shown(tmp_path: Path) -> None:
    frames = [[(i, 90.0, True) for i in range(1, 31) if t <= i] for t in range(31)]
    curves = read_curves(write_clip(tmp_path, frames))
    assert curves is not None
    assert [t.track_id for t in curves.tracks] == list(range(19, 31)) and curves.others == 18


def test_memory_of_curves_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    peaks = []
    for count in (1500, 6000):
        record = write_clip(tmp_path, [[(1, 90.0, True)]] * count, f"{count}.mp4")
        tracemalloc.start()
        read_curves(record)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 100_000


def test_the_page_shows_clips_with_ids_and_counts_their_people(tmp_path: Path) -> None:
    write_clip(tmp_path, [[(1, 90.0, True), (3, 80.0, True)]] * 5)
    summary = Summary("done", 5, 10, outputs=("clip.mp4",), tracks=2)
    plain = Finished("plain.mp4", "plain.mp4", "video", Summary("done", 5, 10, outputs=("plain.mp4",)))
    finished = [Finished("clip.mp4", "clip.mp4", "video", summary), plain]
    write_gallery(tmp_path, [(f, None) for f in finished], manifest(finished, {})["totals"], "m")
    page = (tmp_path / "index.html").read_text()
    (inlined,) = re.findall(r'<script type="application/json">(.*?)</script>', page)
    assert [t["id"] for t in json.loads(inlined)["tracks"]] == [1, 3]
    assert page.count("<article class=clip") == 1
    assert "2 people · 5 frames" in page and "10 poses · 5 frames" in page
    assert "http" not in page.replace("http-equiv", "") and "{css}" not in page


def test_a_record_without_ids_or_names_has_no_curves(tmp_path: Path) -> None:
    assert read_curves(write_clip(tmp_path, [[], []])) is None
    assert read_curves(tmp_path / "nowhere.jsonl") is None
