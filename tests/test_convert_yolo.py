"""YOLO-pose data sets: folders as Ultralytics describes them, its rules for labels, YAML, broken and hostile files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from posecli.convert import yolo_read, yolo_write
from posecli.convert.dataset import AnnotationSet, Person, Picture, Report, Video, make_set
from posecli.convert.options import ReadOptions, WriteOptions
from posecli.convert.yaml_subset import parse_yaml
from posecli.errors import DataError, PosecliError, UsageError
from posecli.keypoints import COCO17
from tests.media_factory import exif_orientation, picture, write_photo, write_video

DATA = """# A data set of pets
path: ../datasets/pets # of another machine
train: images/train # 2 pictures
val: images/val
test: # optional

# Keypoints
kpt_shape: [3, 3] # x, y and visibility
flip_idx: [0,
  2, 1]

names:
  0: person
  1: dog
kpt_names:
  0:
    - nose
    - left_paw
    - right_paw
  1: [a, b, c]
download: |
  import os
  print([
"""
ROW = "0 0.5 0.5 0.25 0.5 0.25 0.5 2 0 0 0 0.75 1 1"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., AnnotationSet]:
    def of(yaml: str = DATA, *, row: str = ROW, images: bool = True, **options: Any) -> AnnotationSet:
        root = tmp_path / "set"
        (root / "labels" / "train").mkdir(parents=True, exist_ok=True)
        (root / "data.yaml").write_text(yaml)
        (root / "labels" / "train" / "a.txt").write_text(row)
        for name in ("train/a.jpg", "train/b.jpg", "val/c.png"):
            write_photo((root / "images" if images else tmp_path / "other") / name, picture(200, 100))
        return yolo_read.read(root, ReadOptions(**options))

    return of


def test_a_data_set_as_ultralytics_describes_it(read: Callable[..., AnnotationSet]) -> None:
    data = read()
    assert data.keypoint_set.names == ("nose", "left_paw", "right_paw")
    assert data.keypoint_set.flip_indices == (0, 2, 1) and data.label == "person"
    assert [(p.name, p.size, p.extra) for p in data.pictures] == [
        ("a.jpg", (200, 100), {"split": "train"}),
        ("b.jpg", (200, 100), {"split": "train"}),
        ("c.png", (200, 100), {"split": "val"}),
    ]
    assert list(data.people) == [Person((50, 50, 2, 0, 0, 0, 150, 100, 1), (75, 25, 50, 50))]


def test_classes(read: Callable[..., AnnotationSet]) -> None:
    both = f"{ROW}\n1{ROW[1:]}\n"
    assert read(row=both).notes == ('people of class "dog": 1 left out',)
    assert read(row=both, category="dog").keypoint_set.names == ("a", "b", "c")
    with pytest.raises(UsageError, match='has the classes 0 "person", 1 "dog"'):
        read(category="cat")
    with pytest.raises(UsageError, match="several classes and none is person"):
        read(DATA.replace("person", "cat"))


def test_two_values_a_keypoint(read: Callable[..., AnnotationSet]) -> None:
    two = DATA.replace("[3, 3]", "[3, 2]")
    data = read(two, row="0 0.5 0.5 0.25 0.5 0.25 0.5 0 0 -1 -1")
    assert [person.keypoints for person in data.people] == [(50, 50, 2, 0, 0, 0, 0, 0, 0)]


def test_names_of_keypoints(read: Callable[..., AnnotationSet]) -> None:
    bare = DATA[: DATA.index("kpt_names")]
    assert read(bare).keypoint_set.names == ("1", "2", "3") and read(bare).keypoint_set.flip_indices == (0, 2, 1)
    flip = list(COCO17.flip_indices)
    coco = f"train: images/train\nval: images/val\nkpt_shape: [17, 3]\nnames: [person]\nflip_idx: {flip}"
    assert read(coco, row="").keypoint_set == COCO17
    assert read(coco, row="", keypoints="coco17").keypoint_set == COCO17
    with pytest.raises(UsageError, match=r"26 keypoints, .* has 17"):
        read(coco, row="", keypoints="halpe26")


def test_pictures_in_lists_and_elsewhere(read: Callable[..., AnnotationSet], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name that of the pictures with --images"):
        read(images=False)
    found = yolo_read.read(tmp_path / "set", ReadOptions(images=tmp_path / "other"))
    assert [p.name for p in found.pictures] == ["a.jpg"] and len(list(found.people)) == 1
    read()
    (tmp_path / "set" / "list.txt").write_text("./images/train/a.jpg\n./images/val/c.png\n")
    listed = read(
        DATA.replace("train: images/train # 2 pictures", "train: list.txt").replace("val: images/val", "val: []")
    )
    assert [p.name for p in listed.pictures] == ["a.jpg", "c.png"]
    roboflow = read(DATA.replace("images/train", "../images/train").replace("path: ../datasets/pets", "nc: 2 "))
    assert [p.name for p in roboflow.pictures] == ["a.jpg", "b.jpg", "c.png"]


HOSTILE: dict[str, tuple[dict[str, str], str]] = {
    "an alias": ({"yaml": "a: &x 1\nb: *x"}, "line 1: YAML that is not read"),
    "an object": ({"yaml": "train: !!python/object/apply:os.system ['x']"}, "line 1: YAML that is not read"),
    "a list": ({"yaml": "- a"}, "no names and values"),
    "no shape": ({"yaml": DATA.replace("kpt_shape", "shape")}, "kpt_shape is null"),
    "many keypoints": ({"yaml": DATA.replace("[3, 3]", "[100000, 3]")}, "kpt_shape is"),
    "no pairs": ({"yaml": DATA.replace("2, 1]", "2, 3]")}, "swaps no pairs"),
    "a folder around it": ({"yaml": DATA.replace("images/train", "..")}, "a folder around the data set"),
    "the root": ({"yaml": DATA.replace("images/train", "/")}, "a folder around the data set"),
    "another number of values": ({"row": ROW + " 1"}, r"a.txt: line 1: 15 values, not 14"),
    "a word": ({"row": ROW.replace("0.75", "x")}, "line 1: a value that is no finite number"),
    "nan": ({"row": ROW.replace("0.75", "nan")}, "line 1: a value that is no finite number"),
    "pixels": ({"row": ROW.replace("0.75", "150")}, "a keypoint that is not normalised"),
    "a box in pixels": ({"row": ROW.replace("0.5 0.5", "50 50", 1)}, "a box that is not normalised"),
    "another class": ({"row": "7" + ROW[1:]}, "class 7.0, which data.yaml does not name"),
    "half visible": ({"row": ROW[:-1] + "0.7"}, "visibility 0.7"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_broken_files_are_refused_in_one_line(name: str, read: Callable[..., AnnotationSet]) -> None:
    given_, message = HOSTILE[name]
    with pytest.raises(DataError, match=message) as caught:
        read(**given_)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_descriptions_are_read_or_refused(data: st.DataObject, read: Callable[..., AnnotationSet]) -> None:
    text = DATA
    for _ in range(data.draw(st.integers(1, 3))):
        place, cut = data.draw(st.integers(0, len(text))), data.draw(st.sampled_from([0, 1, 5, 30]))
        new = data.draw(
            st.sampled_from(["", "[", "]", "{", ":", "- ", "\n", " ", "'", '"', "#", "-1", "1e9", "null", "\t", "\0"])
        )
        text = text[:place] + new + text[place + cut :]
    try:
        read(text)
    except PosecliError as error:
        assert "\n" not in str(error)


YAML = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(st.characters(exclude_categories=("C",)), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab c", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(value=YAML)
@example(value={"a": ["# x", ": ", "'", '"', "- ", "[]"]})
@settings(max_examples=100, deadline=None)
def test_json_is_yaml(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert parse_yaml(f"key: {text}") == {"key": value}
    assert parse_yaml(text) == value


def lines(data: AnnotationSet, out: Path, **options: Any) -> tuple[list[list[str]], Report]:
    report = Report()
    yolo_write.write(data, out, WriteOptions(**options), report)
    return [path.read_text().splitlines() for path in sorted((out / "labels").rglob("*.txt"))], report


def test_labels_that_ultralytics_takes(tmp_path: Path) -> None:
    """Its loader refuses a picture with values above 1.01 or below -0.01, or with another number of columns."""
    keypoint_set = make_set("person", ["left_eye", "right_eye"], [(0, 1)])
    people = (
        Person((10, 20, 2, 300, 20, 1), (-10, -10, 60, 30), 3, extra={"score": 0.5}),
        Person((10, 20, 1, 5, 5, 2), None),
        Person((0, 0, 0, 0, 0, 0), None),
        Person((1, 1, 2, 1, 1, 2), (200, 0, 5, 5)),
        Person((1, 1, 2, 1, 1, 2), (0, 0, 5, 5), extra={"iscrowd": 1}),
    )
    pictures = (Picture("a.jpg", (100, 50), people), Picture("b/c.jpg", (9, 9)))
    rows, report = lines(AnnotationSet(keypoint_set, pictures), tmp_path)
    assert rows == [["0 0.25 0.2 0.5 0.4 0.1 0.4 2 0 0 0", "0 0.075 0.25 0.05 0.3 0.1 0.4 1 0.05 0.1 2"], []]
    for row in rows[0]:
        values = [float(cell) for cell in row.split()]
        assert len(values) == 5 + 2 * 3 and max(values[:7] + values[8:10]) <= 1.01 and min(values) >= 0
    assert {key: count for key, count in report.left_out.items() if count} == {
        "keypoints outside of their picture": 1, "parts of boxes outside of their picture": 1,
        "people's lack of a box (made from keypoints)": 1, "people with neither box nor keypoints": 1,
        "people outside of their picture": 1, "crowds": 1, "track ids": 1, "score": 1, "iscrowd": 1,
    }  # fmt: skip
    text = (tmp_path / "data.yaml").read_text()
    assert parse_yaml(text) == {
        "train": "images/train", "val": "images/train", "kpt_shape": [2, 3], "flip_idx": [1, 0],
        "names": {0: "person"}, "kpt_names": {0: ["left_eye", "right_eye"]}, "skeleton": [[0, 1]],
    }  # fmt: skip
    assert any("no val split" in note for note in report.notes)


def test_without_pairs_there_is_no_flip(tmp_path: Path) -> None:
    """Ultralytics then does not flip; a flip that swaps nothing would train left as right."""
    lines(AnnotationSet(make_set("person", ["left_eye", "nose"]), (Picture("a.jpg", (9, 9)),)), tmp_path)
    assert "flip_idx" not in (tmp_path / "data.yaml").read_text()


def test_a_video_is_in_one_split(tmp_path: Path) -> None:
    pictures = [Picture(f"v{v}.mp4#{i:06d}", (9, 9), (), v, i) for v in range(5) for i in range(3)]
    data = AnnotationSet(COCO17, tuple(pictures), tuple(Video(f"v{v}.mp4") for v in range(5)))
    lines(data, tmp_path, val_share=0.4)
    folders = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("labels/*/*"))
    assert len(folders) == 5 and sum(folder.startswith("labels/val/") for folder in folders) == 2
    assert all(folder.endswith(".mp4.frames") for folder in folders)


def test_the_field_split_decides(tmp_path: Path) -> None:
    pictures = tuple(Picture(f"{s}.jpg", (9, 9), extra={"split": s}) for s in ("test", "val", "train"))
    lines(AnnotationSet(COCO17, pictures), tmp_path)
    assert sorted(p.name for p in tmp_path.glob("labels/*/*.txt")) == ["test.txt", "train.txt", "val.txt"]
    assert "test: images/test" in (tmp_path / "data.yaml").read_text()


def test_two_pictures_with_one_label_file_are_refused(tmp_path: Path) -> None:
    data = AnnotationSet(COCO17, (Picture("a.jpg", (9, 9)), Picture("A.png", (9, 9))))
    with pytest.raises(DataError, match=r"a.jpg and A.png would have one file of labels"):
        yolo_write.files(data, tmp_path, WriteOptions())


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    names = ["../../x.jpg", "/etc/y.jpg", "C:\\d\\z.jpg", "a/./../w.jpg"]
    data = AnnotationSet(COCO17, tuple(Picture(name, (9, 9)) for name in names))
    files = yolo_write.files(data, tmp_path, WriteOptions())
    assert [f.relative_to(tmp_path).as_posix() for f in files[1:]] == [
        f"labels/train/{name}.txt" for name in ("x", "etc/y", "d/z", "a/w")
    ]
    with pytest.raises(DataError, match="no name of a picture"):
        yolo_write.files(AnnotationSet(COCO17, (Picture("..", (9, 9)),)), tmp_path, WriteOptions())


def test_pictures_are_copied_and_frames_decoded(tmp_path: Path) -> None:
    write_photo(tmp_path / "in" / "a.png", picture(64, 48))
    write_video(tmp_path / "in" / "d" / "c.mp4", 4)
    frames = tuple(Picture(f"c.mp4#{i:06d}", (64, 48), (), 0, i) for i in (1, 3))
    data = AnnotationSet(COCO17, (Picture("a.png", (64, 48)), *frames), (Video("c.mp4"),))
    lines(data, tmp_path / "out", images=tmp_path / "in")
    images = tmp_path / "out" / "images" / "train"
    assert (images / "a.png").read_bytes() == (tmp_path / "in" / "a.png").read_bytes()
    assert sorted(p.name for p in (images / "c.mp4.frames").iterdir()) == ["frame_000001.jpg", "frame_000003.jpg"]
    from posecli import read_image, read_video

    original = [frame.pixels.astype(int) for frame in read_video(tmp_path / "in" / "d" / "c.mp4")]
    copy = read_image(images / "c.mp4.frames" / "frame_000003.jpg").pixels.astype(int)
    differences = [float(np.abs(copy - pixels).mean()) for pixels in original]
    assert int(np.argmin(differences)) == 3


def test_a_photo_annotated_as_stored_is_written_as_stored(tmp_path: Path) -> None:
    """Ultralytics turns photos by their EXIF orientation."""
    path = write_photo(tmp_path / "in" / "a.jpg", picture(64, 48))
    path.write_bytes(exif_orientation(path.read_bytes(), 6))
    for size, same in (((48, 64), True), ((64, 48), False)):
        out = tmp_path / f"{size[0]}"
        lines(AnnotationSet(COCO17, (Picture("a.jpg", size),)), out, images=tmp_path / "in")
        copy = out / "images" / "train" / "a.jpg"
        assert (copy.read_bytes() == path.read_bytes()) is same
        assert yolo_read.read(out, ReadOptions()).pictures[0].size == size


def test_missing_pictures_and_frames_are_named(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "c.mp4", 2)
    data = AnnotationSet(COCO17, (Picture("a.png", (64, 48)),))
    with pytest.raises(DataError, match=r"1 of 1 pictures of --images are missing, first .*a.png"):
        lines(data, tmp_path / "out", images=tmp_path / "in")
    data = AnnotationSet(COCO17, (Picture("c.mp4#000009", (64, 48), (), 0, 9),), (Video("c.mp4"),))
    with pytest.raises(DataError, match="1 frames are not in it, first number 9"):
        lines(data, tmp_path / "out", images=tmp_path / "in")
