"""`posecli convert` from the command line: formats by content, nothing replaced, results that train and eval read."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posecli.cli.convert import FORMAT_NAMES
from posecli.convert import formats
from posecli.convert.convert import convert
from posecli.convert.formats import FORMATS
from posecli.convert.options import ReadOptions, WriteOptions
from posecli.errors import PosecliError
from posecli.evaluate.ground_truth import read_ground_truth
from posecli.keypoints import COCO17
from posecli.train.data import Source, read_people
from tests.entry_points import QUICK, posecli
from tests.media_factory import picture, write_photo, write_video
from tests.test_annotation_mutations import mutate

TARGETS = {"coco": "x.json", "cvat": "x.xml", "cvat-coco": "x.json", "label-studio": "x.json", "yolo-pose": "x"}


def person(number: int, image: int, **more: Any) -> dict[str, Any]:
    points = [value for i in range(17) for value in (1.25 * i + number, 2.5 * i, i % 3)]
    points = [0 if points[i // 3 * 3 + 2] == 0 else value for i, value in enumerate(points)]
    box = {"bbox": [1.5, 2, 40, 40.25], "area": 1234.5, "iscrowd": 0, "num_keypoints": sum(v > 0 for v in points[2::3])}
    return {"id": number, "image_id": image, "category_id": 1, "keypoints": points, **box, **more}


def document(images: list[dict[str, Any]], people: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    skeleton = [[a + 1, b + 1] for a, b in COCO17.skeleton]
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.names), "skeleton": skeleton}
    return {"images": images, "annotations": people, "categories": [category], **more}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    images = []
    for number in (1, 2, 3):
        write_photo(tmp_path / "photos" / "a" / f"{number}.png", picture(64, 48, number))
        images.append({"id": number, "file_name": f"a/{number}.png", "width": 64, "height": 48})
    people = [person(1, 1, score=0.5, keypoint_scores=[0.5] * 17), person(2, 1, score=0.25), person(3, 2, score=1)]
    (tmp_path / "people.json").write_text(json.dumps(document(images, people)))
    return tmp_path / "people.json"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_video(tmp_path / "clips" / "c.mp4", 4)
    size = {"width": 64, "height": 48}
    images = [
        {"id": i + 1, "file_name": f"c.mp4#{i:06d}", "video_id": 1, "frame_index": i, "time_s": i / 25, **size}
        for i in range(4)
    ]
    people = [person(i + 1, i + 1, track_id=5, score=0.5) for i in range(4)]
    videos = [{"id": 1, "name": "c.mp4", "frames": 4, "frame_rate": 25.0, **size}]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "coco.json").write_text(json.dumps(document(images, people, videos=videos)))
    return tmp_path / "results" / "coco.json"


def test_the_help_names_the_formats() -> None:
    assert tuple(FORMATS) == FORMAT_NAMES == tuple(TARGETS)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "coco"])
def test_train_and_eval_read_what_comes_back(
    name: str, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = photos.read_bytes()
    images, out = ("--images", tmp_path / "photos"), tmp_path / "out" / TARGETS[name]
    there = posecli(capfd, "convert", photos, "--to", name, "--out", out, *images)
    assert there.code == 0, there.err
    assert f"3 pictures, 3 people, 17 keypoints (coco to {name})" in there.out
    back = posecli(capfd, "convert", out, "--to", "coco", "--out", tmp_path / "back.json")
    assert back.code == 0, back.err
    source = "coco" if name == "cvat-coco" else name
    assert f"({source} to coco)" in back.out and photos.read_bytes() == before
    folder = out / "images" if name == "yolo-pose" else tmp_path / "photos"
    wanted, found = (
        read_people([Source(f, d)]) for f, d in ((photos, tmp_path / "photos"), (tmp_path / "back.json", folder))
    )
    assert wanted.keypoints.tolist() == found.keypoints.tolist() and wanted.boxes.tolist() == found.boxes.tolist()
    assert [p.name for p in wanted.images] == [p.name for p in found.images]
    # In a YOLO-pose data set they are in the folders of the splits.
    assert not found.notes or (name == "yolo-pose" and "in other folders" in found.notes[0])
    truth = read_ground_truth(tmp_path / "back.json", folder)
    assert len(truth.dataset["annotations"]) == 3 and truth.keypoint_set.sigmas == COCO17.sigmas


def test_eval_runs_on_frames_that_came_through_cvat(
    clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], tiny_weights: Path
) -> None:
    assert posecli(capfd, "convert", clip.parent, "--to", "cvat", "--out", tmp_path / "cvat").code == 0
    assert sorted(p.name for p in (tmp_path / "cvat").glob("[a-z]*")) == ["c.mp4.xml", "labels.json"]
    back = ("convert", tmp_path / "cvat" / "c.mp4.xml", "--to", "coco", "--out", tmp_path / "back.json")
    frames = ("--images", tmp_path / "clips", "--pictures", tmp_path / "frames")
    result = posecli(capfd, *back, *frames)
    assert result.code == 0, result.err
    images = json.loads((tmp_path / "back.json").read_text())["images"]
    assert images[2] == {
        "id": 3, "file_name": "c.mp4.frames/frame_000002.jpg", "video_id": 1, "frame_index": 2,
        "width": 64, "height": 48,
    }  # fmt: skip
    assert len(list((tmp_path / "frames" / "c.mp4.frames").iterdir())) == 4
    measured = ("eval", tiny_weights, "--ann", tmp_path / "back.json", "--images", tmp_path / "frames")
    on_cpu = ("--device", "cpu", "--runtime", "torch", "--out", tmp_path / "eval", "--bootstrap", 0)
    result = posecli(capfd, *measured, *on_cpu)
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text())["images"] == 4


def test_a_real_run_goes_to_every_format_and_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], tiny_weights: Path
) -> None:
    write_video(tmp_path / "in" / "c.mp4", 3)
    write_photo(tmp_path / "in" / "p.png", picture(64, 48))
    out = tmp_path / "out"
    assert posecli(capfd, "run", tmp_path / "in", "--out", out, "--weights", tiny_weights, *QUICK).code == 0
    original = json.loads((out / "coco.json").read_text())
    for name, target in (("cvat", "cvat"), ("label-studio", "t.json"), ("yolo-pose", "yolo")):
        images = ("--images", tmp_path / "in")
        result = posecli(capfd, "convert", out, "--to", name, "--out", tmp_path / target, *images)
        assert result.code == 0, result.err
    back = posecli(capfd, "convert", tmp_path / "t.json", "--to", "coco", "--out", tmp_path / "b.json")
    assert back.code == 0, back.err
    found = json.loads((tmp_path / "b.json").read_text())
    assert [i["file_name"] for i in found["images"]] == [i["file_name"] for i in original["images"]]
    assert found["videos"] == original["videos"]
    keys = ("track_id", "score", "keypoint_std", "keypoint_scores")
    for one, other in zip(original["annotations"], found["annotations"], strict=True):
        assert {key: one.get(key) for key in keys} == {key: other.get(key) for key in keys}


def test_nothing_is_replaced(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def run(target: str, out: Path, *more: object) -> Any:
        return posecli(capfd, "convert", photos, "--to", target, "--out", out, *more)

    before = photos.read_bytes()
    for target, out in (("coco", photos), ("label-studio", photos)):
        refused = run(target, out, "--overwrite")
        assert refused.code == 2 and "would replace the input" in refused.err and photos.read_bytes() == before
    (tmp_path / "link.json").symlink_to(photos)
    assert run("coco", tmp_path / "link.json", "--overwrite").code == 2 and photos.read_bytes() == before
    (tmp_path / "mine.json").write_text("mine")
    refused = run("coco", tmp_path / "mine.json")
    assert refused.code == 2 and "mine.json exists: --overwrite replaces it" in refused.err
    assert (tmp_path / "mine.json").read_text() == "mine" and refused.err.count("\n") == 1
    assert run("coco", tmp_path / "mine.json", "--overwrite").code == 0
    # The labelling interface beside the tasks is an output, too.
    (tmp_path / "t.label_config.xml").write_text("mine")
    assert run("label-studio", tmp_path / "t.json").code == 2 and not (tmp_path / "t.json").exists()
    for out in ("x.txt", "x.yaml"):
        assert run("coco", tmp_path / out).code == 2 and run("label-studio", tmp_path / out).code == 2


def test_a_data_set_is_renewed_and_others_files_stay(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, images = tmp_path / "yolo", ("--images", tmp_path / "photos")
    to = ("--to", "yolo-pose", "--out", out, *images)
    assert posecli(capfd, "convert", photos, *to).code == 0
    own = out / "labels" / "train" / "mine.txt"
    own.write_text("mine")
    content = json.loads(photos.read_text())
    content["images"] = content["images"][:1]
    content["annotations"] = content["annotations"][:2]
    photos.write_text(json.dumps(content))
    assert posecli(capfd, "convert", photos, *to).code == 0
    left = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and ".posecli" not in p.parts)
    assert left == ["data.yaml", "images/train/a/1.png", "labels/train/a/1.txt", "labels/train/mine.txt"]
    # Its own folder as input and output: its label files are inputs.
    own.unlink()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    refused = posecli(capfd, "convert", out, "--to", "yolo-pose", "--out", out, "--overwrite")
    assert refused.code == 2 and "would replace the input" in refused.err
    assert {path: path.read_bytes() for path in before} == before
    # A folder with somebody else's data set is refused.
    shutil.rmtree(out / ".posecli")
    assert posecli(capfd, "convert", photos, *to).code == 2


def test_a_list_of_files_cannot_lead_out_of_the_folder(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "yolo"
    (out / ".posecli").mkdir(parents=True)
    (tmp_path / "victim.txt").write_text("mine")
    names = ["labels/../../victim.txt", str(tmp_path / "victim.txt"), "data.yaml", 3]
    (out / ".posecli" / "converted.json").write_text(json.dumps({"files": names}))
    assert posecli(capfd, "convert", photos, "--to", "yolo-pose", "--out", out).code == 0
    assert (tmp_path / "victim.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "", "none of the formats"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[]", "no keypoints"),
        ("a.json", '{"images": [], "annotations": [], "categories": []}', "no categories"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.xml", "<a/>", "not annotations"),
        ("a.yaml", "a: [", "YAML that is not read"),
        ("a.bin", "\x00\x01\x02", "none of the formats"),
        ("é\n.json", "{}", "not COCO keypoints"),
    ],
)
def test_broken_inputs_are_one_line(
    name: str, content: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content)
    result = posecli(capfd, "convert", tmp_path / name, "--to", "cvat", "--out", tmp_path / "o.xml")
    assert result.code == 1 and message in result.err and result.err.count("\n") == 1, result.err
    assert not (tmp_path / "o.xml").exists() and not list(tmp_path.glob(".posecli*"))


def test_other_inputs_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("annotations.xml", "<annotations/>")
    to = ("--to", "cvat", "--out", tmp_path / "o.xml")
    packed = posecli(capfd, "convert", tmp_path / "a.zip", *to)
    assert packed.code == 1 and "a ZIP archive: unpack it" in packed.err
    assert posecli(capfd, "convert", tmp_path / "none.json", *to).code == 3
    (tmp_path / "empty").mkdir()
    assert posecli(capfd, "convert", tmp_path / "empty", *to).code == 3
    (tmp_path / "large.json").write_text("{" + " " * 100 + "}")
    monkeypatch.setattr(formats, "MOST_BYTES", 50)
    large = posecli(capfd, "convert", tmp_path / "large.json", *to)
    assert large.code == 1 and "convert it in parts" in large.err


def test_pictures_need_the_videos(clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    to = ("--to", "coco", "--out", tmp_path / "o.json", "--pictures", tmp_path / "frames")
    assert "--pictures needs --images" in posecli(capfd, "convert", clip, *to).err
    # Found by its name in a folder below.
    assert posecli(capfd, "convert", clip, *to, "--images", tmp_path).code == 0
    none = posecli(capfd, "convert", clip, *to, "--images", tmp_path / "results", "--overwrite")
    assert none.code == 1 and "4 of 4 pictures of --images are missing" in none.err and none.err.count("\n") == 1


def test_sizes_come_from_the_pictures(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = json.loads(photos.read_text())
    for image in content["images"]:
        del image["width"], image["height"]
    photos.write_text(json.dumps(content))
    to = ("--to", "label-studio", "--out", tmp_path / "t.json")
    refused = posecli(capfd, "convert", photos, *to)
    assert refused.code == 1 and "Label Studio needs the size of a/1.png" in refused.err
    assert posecli(capfd, "convert", photos, *to, "--images", tmp_path / "photos").code == 0


def test_what_is_left_out_is_one_line(clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = posecli(capfd, "convert", clip, "--to", "yolo-pose", "--out", tmp_path / "y")
    assert result.code == 0
    (line,) = (line for line in result.err.splitlines() if "no place" in line)
    assert line == (
        "note: YOLO-pose has no place for: times of frames (4), frames per second (1), track ids (4), area (4), "
        "score (4): left out"
    )


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_coco_files_are_converted_or_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    images = [
        {
            "id": 1,
            "file_name": "c.mp4#000003",
            "video_id": 1,
            "frame_index": 3,
            "time_s": 0.1,
            "width": 64,
            "height": 48,
        },
        {"id": 2, "file_name": "a.tif#000001", "page": 1, "width": 64, "height": 48, "split": "val"},
    ]
    attributes = {"occluded": False, "track_id": 4, "note": "x"}
    people = [person(1, 1, track_id=3, score=0.5, keypoint_scores=[0.5] * 17), person(2, 2, attributes=attributes)]
    changed = document(images, people, videos=[{"id": 1, "name": "c.mp4", "frames": 9, "width": 64, "height": 48}])
    mutate(changed, data, 4)
    (tmp_path / "m.json").write_text(json.dumps(changed))
    for name, target in (*TARGETS.items(), ("cvat", "folder"), ("label-studio", "videos.json")):
        options = WriteOptions(video_tasks=target == "videos.json")
        out = tmp_path / "out" / target
        try:
            convert(tmp_path / "m.json", None, name, out, ReadOptions(), options, overwrite=True)
        except PosecliError as error:
            assert "\n" not in str(error)
            continue
        if target not in ("folder", "videos.json", "x"):
            back = convert(out, None, "coco", tmp_path / "back.json", ReadOptions(), WriteOptions(), overwrite=True)
            assert all(len(p.keypoints) == 3 * len(back.data.keypoint_set) for p in back.data.people)


def test_fields_of_a_tool_replace_nothing(tmp_path: Path, photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert posecli(capfd, "convert", photos, "--to", "cvat", "--out", tmp_path / "x.xml").code == 0
    text = (tmp_path / "x.xml").read_text().replace('<attribute name="score">', '<attribute name="keypoints">')
    (tmp_path / "x.xml").write_text(text.replace('<attribute name="area">', '<attribute name="image_id">'))
    assert posecli(capfd, "convert", tmp_path / "x.xml", "--to", "coco", "--out", tmp_path / "b.json").code == 0
    one, other = (json.loads(path.read_text())["annotations"] for path in (photos, tmp_path / "b.json"))
    for key in ("keypoints", "image_id", "bbox"):
        assert [person[key] for person in one] == [person[key] for person in other]


def test_results_of_coco_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "coco_results.json").write_text('[{"image_id": 1, "category_id": 1, "keypoints": [], "score": 1}]')
    result = posecli(capfd, "convert", tmp_path / "coco_results.json", "--to", "cvat", "--out", tmp_path / "o.xml")
    assert result.code == 1 and "results of COCO's without images" in result.err
