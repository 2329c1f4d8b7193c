"""Drawing, records, COCO files, gallery."""

import contextlib
import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from posecli.draw.skeleton import COLOURS, draw_poses, limb_side, line_thickness
from posecli.keypoints import COCO17
from posecli.results.coco import Recorded, write_coco
from posecli.results.gallery import write_gallery
from posecli.results.manifest import Finished, manifest, write_manifest
from posecli.results.records import RecordWriter, Summary, read_frames, read_header, read_summary, record_path
from posecli.types import Frame, Poses
from tests.media_factory import picture


def some_poses(people: int, seed: int = 0, size: float = 60) -> Poses:
    random = np.random.default_rng(seed)
    return Poses(
        keypoints=random.uniform(0, size, (people, 17, 2)).astype(np.float32),
        std=random.uniform(0.5, 3, (people, 17, 2)).astype(np.float32),
        scores=random.uniform(0.5, 1, (people, 17)).astype(np.float32),
        boxes=np.tile(np.array([[2, 3, 50, 45]], np.float32), (people, 1)),
        box_scores=np.full(people, 0.9, np.float32),
        person_scores=np.full(people, 0.7, np.float32),
    )


def test_no_people_leave_the_picture_as_it_is_and_a_person_does_not() -> None:
    pixels = picture()
    assert np.array_equal(draw_poses(pixels, Poses.empty(17), COCO17), pixels)
    before = pixels.copy()
    drawn = draw_poses(pixels, some_poses(2), COCO17)
    assert np.array_equal(pixels, before) and not np.array_equal(drawn, pixels)


def test_limbs_have_their_sides_colour_and_weak_keypoints_are_left_out() -> None:
    poses = some_poses(1)
    poses.boxes[0] = [0, 0, 200, 200]
    poses.scores[:] = 0
    poses.scores[0, [5, 7]] = 1  # left shoulder and elbow
    poses.keypoints[0, [5, 7]] = [[40, 40], [40, 160]]
    drawn = draw_poses(np.zeros((200, 200, 3), np.uint8), poses, COCO17)
    assert tuple(drawn[100, 40]) == COLOURS["left"]
    poses.scores[0, 7] = 0.2
    assert not draw_poses(np.zeros((200, 200, 3), np.uint8), poses, COCO17)[100, 40].any()
    assert [limb_side(COCO17, limb) for limb in ((5, 7), (6, 8), (5, 6), (0, 1))] == ["left", "right", "middle", "left"]


@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    values=st.lists(st.floats(-1e9, 1e9), min_size=34, max_size=34),
)
def test_any_coordinates_can_be_drawn(width: int, height: int, values: list[float]) -> None:
    poses = some_poses(1)
    poses.keypoints[0] = np.array(values, np.float32).reshape(17, 2)
    assert draw_poses(np.zeros((height, width, 3), np.uint8), poses, COCO17, show_boxes=True).shape == (
        height,
        width,
        3,
    )


def test_lines_grow_with_person_and_picture() -> None:
    assert line_thickness(20, 1080, 1920) == 1
    assert 3 <= line_thickness(600, 1080, 1920) <= 10
    assert line_thickness(600, 200, 200) <= 3


def write_record(out: Path, name: str, kind: str, people: list[int]) -> Recorded:
    path = record_path(out, name)
    with RecordWriter(path, {"name": name, "kind": kind, "content": "c", "options": "o"}, 0.6) as record:
        for index, count in enumerate(people):
            time = Fraction(index, 3) if kind == "video" else None
            record.write(Frame(picture(), index, time), some_poses(count, index))
        rate = 3.0 if kind == "video" else None
        summary = Summary("done", record.frames, record.people, outputs=(name,), width=64, height=48, frame_rate=rate)
        record.finish(summary)
    return Recorded(name, kind, path)


def test_records_hold_every_frame_and_end_with_a_summary(tmp_path: Path) -> None:
    recorded = write_record(tmp_path, "clip.mp4", "video", [2, 0, 1])
    assert read_header(recorded.record)["name"] == "clip.mp4"
    frames = list(read_frames(recorded.record))
    assert [len(frame["people"]) for frame in frames] == [2, 0, 1]
    assert [frame["time_s"] for frame in frames] == [0, 0.333333, 0.666667]
    summary = read_summary(recorded.record)
    assert summary is not None and (summary.frames, summary.people, summary.outputs) == (3, 3, ("clip.mp4",))
    person = frames[0]["people"][0]
    assert person["bbox"] == [2, 3, 48, 42] and person["area"] == 2016
    seen = [2 if score >= 0.6 else 1 for score in some_poses(2).scores[0]]
    assert person["keypoints"][2::3] == seen
    np.testing.assert_allclose(np.reshape(person["keypoint_std"], (17, 2)), some_poses(2).std[0], atol=0.006)


def test_a_record_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    path = record_path(tmp_path, "a.jpg")
    with RecordWriter(path, {"name": "a.jpg"}, 0.3) as record:
        record.write(Frame(picture()), Poses.empty(17))
    assert not path.exists() and not list(path.parent.iterdir())
    whole = write_record(tmp_path, "b.jpg", "photo", [1]).record
    whole.write_bytes(whole.read_bytes()[:-5])
    assert read_summary(whole) is None


def load(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_coco_files_load_and_account_for_every_frame(tmp_path: Path) -> None:
    inputs = [
        write_record(tmp_path, "b.jpg", "photo", [2]),
        write_record(tmp_path, "clip.mp4", "video", [1, 0, 3]),
        write_record(tmp_path, "a.jpg", "photo", [0]),
    ]
    write_coco(tmp_path, inputs, COCO17)
    coco = load(tmp_path / "coco.json")
    assert [image["file_name"] for image in coco.dataset["images"]] == [
        "b.jpg",
        "clip.mp4#000000",
        "clip.mp4#000001",
        "clip.mp4#000002",
        "a.jpg",
    ]
    assert [len(coco.getAnnIds(i)) for i in coco.getImgIds()] == [2, 1, 0, 3, 0]
    assert [a["id"] for a in coco.dataset["annotations"]] == [1, 2, 3, 4, 5, 6]
    video_frame = coco.dataset["images"][2]
    assert (video_frame["video_id"], video_frame["frame_index"], video_frame["time_s"]) == (1, 1, 0.333333)
    video = {"id": 1, "name": "clip.mp4", "width": 64, "height": 48, "frames": 3, "frame_rate": 3.0}
    assert coco.dataset["videos"] == [video]
    category = coco.dataset["categories"][0]
    assert category["keypoints"] == list(COCO17.names) and min(min(limb) for limb in category["skeleton"]) == 1
    with contextlib.redirect_stdout(io.StringIO()):
        assert len(coco.loadRes(str(tmp_path / "coco_results.json")).getAnnIds()) == 6
    first = (tmp_path / "coco.json").read_bytes()
    write_coco(tmp_path, inputs, COCO17)
    assert (tmp_path / "coco.json").read_bytes() == first


def test_numbered_photos_keep_their_coco_ids_and_nothing_is_a_valid_file(tmp_path: Path) -> None:
    inputs = [write_record(tmp_path, f"{i:012d}.jpg", "photo", [1]) for i in (785, 139)]
    write_coco(tmp_path, inputs, COCO17)
    assert [r["image_id"] for r in json.loads((tmp_path / "coco_results.json").read_bytes())] == [785, 139]
    write_coco(tmp_path, [], COCO17)
    assert json.loads((tmp_path / "coco_results.json").read_bytes()) == []
    assert load(tmp_path / "coco.json").getImgIds() == []


def test_manifest_and_gallery(tmp_path: Path) -> None:
    name = "<b> ü & #1%.jpg"
    finished = [
        Finished(name, f"in/{name}", "photo", Summary("done", 1, 2, outputs=(name,), width=64, height=48)),
        Finished("bad.mp4", "in/bad.mp4", "video", Summary("failed", error="in/bad.mp4: <broken>")),
        Finished("old.mp4", "in/old.mp4", "video", Summary("partial", 5, 0, 2, {"packet damaged": 2}), skipped=True),
    ]
    document = manifest(finished, {"options": {"crf": 20}})
    assert document["totals"]["status"] == {"done": 1, "failed": 1, "skipped": 1}
    write_manifest(tmp_path, document, finished)
    assert orjson.loads((tmp_path / "run.json").read_bytes())["inputs"][1]["error"] == "in/bad.mp4: <broken>"
    write_gallery(tmp_path, ((item, None) for item in finished), document["totals"], "mobilenet_v2")
    page = (tmp_path / "index.html").read_text()
    assert "<b>" not in page and "&lt;broken&gt;" in page and "2 frames lost" in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize("damage", [b"", b"{", b'{"schema": 99}\n'])
def test_records_of_another_kind_do_not_count(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(damage)
    assert read_header(path) is None and read_summary(path) is None
