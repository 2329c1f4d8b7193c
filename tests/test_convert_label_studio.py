"""Label Studio's JSON: documents as Label Studio exports them, its import of predictions, broken and hostile files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posecli.convert import label_studio_read, label_studio_write
from posecli.convert.dataset import AnnotationSet, Person, Picture, Report, Video, make_set
from posecli.convert.options import ReadOptions, WriteOptions
from posecli.errors import DataError, PosecliError, UsageError
from tests.test_annotation_mutations import mutate

SIZE = {"original_width": 200, "original_height": 100, "image_rotation": 0, "to_name": "img"}
INTERFACE = """<View>
  <View style="display: flex"><Image name="img" value="$image"/></View>
  <RectangleLabels name="rect" toName="img"><Label value="Person" background="#f00"/></RectangleLabels>
  <KeyPointLabels name="kp" toName="img" opacity="0.9">
    <Label value="Nose" model_index="1"/><Label value="Hand" model_index="0"/>
  </KeyPointLabels>
</View>"""


def box(own: str, x: float, label: str = "Person", **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": 10, "width": 20, "height": 50, "rotation": 0, "rectanglelabels": [label]} | more
    return {**SIZE, "id": own, "type": "rectanglelabels", "from_name": "rect", "origin": "manual", "value": value}


def point(own: str, x: float, label: str, parent: str | None = None, **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": 20, "width": 0.4, "keypointlabels": [label]} | more
    row = {**SIZE, "id": own, "type": "keypointlabels", "from_name": "kp", "value": value}
    return row | ({"parentID": parent} if parent else {})


def task(*results: dict[str, Any], **data: Any) -> dict[str, Any]:
    own = {"image": "/data/upload/3/0a1b2c3d-street.jpg"} | data
    annotation = {"id": 11, "completed_by": 1, "was_cancelled": False, "ground_truth": False, "result": list(results)}
    return {"id": 5, "data": own, "annotations": [annotation], "predictions": [], "project": 3, "file_upload": "x"}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., AnnotationSet]:
    def of(document: Any, interface: str | None = INTERFACE, **options: Any) -> AnnotationSet:
        path = tmp_path / "export.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        if interface is not None:
            (tmp_path / "export.label_config.xml").write_text(interface)
        return label_studio_read.read(path, ReadOptions(**options))

    return of


def test_an_export_with_parents(read: Callable[..., AnnotationSet]) -> None:
    hidden = {**SIZE, "id": "k2", "type": "choices", "from_name": "visible", "value": {"choices": ["Occluded"]}}
    number = {**SIZE, "id": "r1", "type": "number", "from_name": "who", "value": {"number": 7}}
    data = read([task(box("r1", 10), number, point("k1", 15, "Nose", "r1"), point("k2", 25, "Hand", "r1"), hidden)])
    assert data.keypoint_set.names == ("Hand", "Nose") and data.label == "Person"
    person = Person((50, 20, 1, 30, 20, 2), (20, 10, 40, 50), 7)
    assert data.pictures == (Picture("street.jpg", (200, 100), (person,)),)


def test_points_belong_by_relation_or_to_the_smallest_box_around(read: Callable[..., AnnotationSet]) -> None:
    relation = {"type": "relation", "from_id": "k1", "to_id": "r2", "direction": "right", "labels": []}
    wide = box("r3", 5, width=90)
    rows = [box("r1", 10), box("r2", 50), wide, point("k1", 15, "Nose"), relation, point("k2", 20, "Nose")]
    rows += [point("k3", 21, "Nose"), point("k4", 99, "Nose"), point("k5", 12, "Tail"), box("c", 0, "Car")]
    data = read([task(*rows)])
    assert [person.keypoints[3] for person in data.people] == [40, 30, 42]
    assert data.notes == ('not read: rectangles "Car" (1), keypoints "Tail" (1), keypoints of no person (1)',)


def test_points_alone_are_one_person_if_each_stands_once(read: Callable[..., AnnotationSet]) -> None:
    data = read([task(point("a", 10, "Nose"), point("b", 20, "Hand"))])
    assert [person.keypoints for person in data.people] == [(40, 20, 2, 20, 20, 2)]
    assert next(iter(data.people)).box is None
    assert not list(read([task(point("a", 10, "Nose"), point("b", 20, "Nose"))]).people)


def test_names_of_keypoints_without_an_interface(read: Callable[..., AnnotationSet], tmp_path: Path) -> None:
    unknown = [task(point("a", 10, "zz"), point("b", 20, "aa"))]
    data = read(unknown, None)
    assert data.keypoint_set.names == ("zz", "aa") and "--keypoints" in data.notes[0]
    known = read([task(point("a", 10, "left_hip"))], None)
    assert len(known.keypoint_set) == 17
    assert read([task(point("a", 10, "left_hip"))], None, keypoints="halpe26").keypoint_set.name == "halpe26"
    coco = {"categories": [{"id": 1, "name": "x", "keypoints": ["aa", "zz"], "skeleton": [[1, 2]]}]}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    assert read(unknown, None, keypoints=str(tmp_path / "coco.json")).keypoint_set.names == ("aa", "zz")
    with pytest.raises(UsageError, match="keypoint set"):
        read(unknown, None, keypoints="no such set")


def test_the_last_annotation_that_was_not_cancelled_counts(read: Callable[..., AnnotationSet]) -> None:
    row = task(box("r1", 10))
    row["annotations"] += [{"result": [box("r2", 30)]}, {"result": [box("r3", 60)], "was_cancelled": True}]
    assert [person.box for person in read([row]).people] == [(60, 10, 40, 50)]
    row["annotations"] = [{"result": [], "was_cancelled": True}]
    row["predictions"] = [{"result": [box("r4", 40)], "score": 0.5, "model_version": "m"}]
    assert [person.box for person in read([row]).people] == [(80, 10, 40, 50)]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"image": "/data/local-files/?d=frames/a%20b.jpg"}, "frames/a b.jpg"),
        ({"image": "https://example.org/x/c.png?token=1"}, "c.png"),
        ({"image": "s3://bucket/deep/d.jpg"}, "d.jpg"),
        ({"image": "photos/e.jpg"}, "photos/e.jpg"),
        ({"image": "/data/upload/1/deadbeef-my-file.jpg"}, "my-file.jpg"),
        ({"image": "x.jpg", "file_name": "own.jpg"}, "own.jpg"),
    ],
)
def test_names_of_pictures(data: dict[str, Any], name: str, read: Callable[..., AnnotationSet]) -> None:
    assert read([task(box("r", 1), **data)]).pictures[0].name == name


def test_a_turned_rectangle_gives_the_box_around_it(read: Callable[..., AnnotationSet]) -> None:
    data = read([task(box("r1", 50, rotation=90))])
    assert [person.box for person in data.people] == [(50, 10, 50, 40)] and "rotation of a box (1)" in data.notes[0]


def test_tracks_of_a_video_are_interpolated(read: Callable[..., AnnotationSet]) -> None:
    """As Label Studio shows them: frames count from 1, a shape that is not enabled is the last one."""

    def at(frame: int, x: float, enabled: bool = True) -> dict[str, Any]:
        return {
            "frame": frame,
            "time": frame / 25,
            "enabled": enabled,
            "rotation": 0,
            "x": x,
            "y": 0,
            "width": 10,
            "height": 10,
        }

    def pose(frame: int, x: float, enabled: bool = True) -> dict[str, Any]:
        vertices = [{"id": name, "x": x, "y": 50, "prevPointId": None, "isBezier": False} for name in ("Nose", "Hand")]
        return {"frame": frame, "enabled": enabled, "closed": False, "vertices": vertices}

    base = {"original_width": 200, "original_height": 100, "to_name": "video"}
    value = {
        "framesCount": 9,
        "duration": 0.36,
        "labels": ["Person"],
        "sequence": [at(1, 0), at(5, 20, False), at(7, 50)],
    }
    rows = [{**base, "id": "a", "type": "videorectangle", "from_name": "box", "value": value}]
    sequence = {"sequence": [pose(2, 10), pose(4, 20, False)]}
    rows += [{**base, "id": "v", "parentID": "a", "type": "videovector", "from_name": "pose", "value": sequence}]
    data = read([{"data": {"video": "/data/upload/3/0a1b2c3d-clip.mp4"}, "annotations": [{"result": rows}]}])
    assert data.videos[0].name == "clip.mp4" and len(data.pictures) == 9 and data.pictures[2].name == "clip.mp4#000002"
    boxes = [[person.box and person.box[0] for person in p.people] for p in data.pictures]
    assert boxes == [[0], [10], [20], [30], [40], [], [100], [100], [100]]
    noses = [[person.keypoints[3:] for person in p.people] for p in data.pictures][:5]
    assert noses == [[(0, 0, 0)], [(20, 50, 2)], [(30, 50, 2)], [(40, 50, 2)], [(0, 0, 0)]]
    assert {person.track for person in data.people} == {1}


def test_predictions_as_its_importer_takes_them(tmp_path: Path) -> None:
    """Ids are distinct but for results of one region, controls are those of the interface, values are per cent."""
    keypoint_set = make_set("person", ["head", "a<b"], [(0, 1)])
    score = {"score": 0.75, "keypoint_scores": [0.5, 0.25]}
    people = (Person((10, 20, 2, 300, 0, 1), (-10, 0, 60, 50), 3, extra=score), Person((1, 1, 1, 2, 2, 2), None, None))
    data = AnnotationSet(keypoint_set, (Picture("b/a c.jpg", (100, 50), people),))
    report = Report()
    label_studio_write.write(data, tmp_path / "t.json", WriteOptions(image_root="http://h/"), report)
    (row,) = json.loads((tmp_path / "t.json").read_text())
    assert row["data"]["image"] == "http://h/b/a%20c.jpg"
    (prediction,) = row["predictions"]
    assert prediction["score"] == 0.75 and prediction["model_version"] == "posecli"
    results = prediction["result"]
    assert [(r["id"], r["type"], r.get("parentID")) for r in results] == [
        ("p1", "rectanglelabels", None), ("p1", "number", None), ("p1k1", "keypointlabels", "p1"),
        ("p2", "rectanglelabels", None), ("p2k1", "keypointlabels", "p2"), ("p2k1", "choices", "p2"),
        ("p2k2", "keypointlabels", "p2"),
    ]  # fmt: skip
    assert results[0]["value"] == {
        "x": 0, "y": 0, "width": 50, "height": 100, "rotation": 0, "rectanglelabels": ["person"]
    }  # fmt: skip
    assert results[2]["score"] == 0.5
    names = {r["from_name"] for r in results}
    interface = (tmp_path / "t.label_config.xml").read_text()
    assert all(f'name="{name}"' in interface for name in names) and 'value="a&lt;b" model_index="1"' in interface
    assert report.left_out["keypoints outside of their picture"] == 1
    assert report.left_out["parts of boxes outside of their picture"] == 2


@pytest.mark.parametrize(
    ("extra", "choice", "key"),
    [
        ({"score": 1.0}, "auto", "predictions"),
        ({"score": 1.0, "corrected": [0]}, "auto", "annotations"),
        ({}, "auto", "annotations"),
        ({}, "predictions", "predictions"),
        ({"score": 1.0}, "annotations", "annotations"),
    ],
)
def test_predictions_or_annotations(extra: dict[str, Any], choice: str, key: str, tmp_path: Path) -> None:
    people = (Person((1, 2, 2), (0, 0, 5, 5), extra=extra),)
    data = AnnotationSet(make_set("person", ["head"]), (Picture("a.jpg", (9, 9), people),))
    label_studio_write.write(data, tmp_path / "t.json", WriteOptions(label_as=choice), Report())
    assert key in json.loads((tmp_path / "t.json").read_text())[0]


def test_photos_and_videos_are_two_projects(tmp_path: Path) -> None:
    pictures = (Picture("a.jpg", (9, 9)), Picture("c.mp4#000000", (9, 9), (), 0, 0))
    data = AnnotationSet(make_set("person", ["head"]), pictures, (Video("c.mp4"),))
    with pytest.raises(UsageError, match="two projects"):
        label_studio_write.files(data, tmp_path / "t.json", WriteOptions(video_tasks=True))


HOSTILE: dict[str, tuple[Any, str]] = {
    "no tasks": ("3", "not the tasks"),
    "JSON-MIN": ([{"image": "a.jpg", "kp": []}], "not JSON-MIN"),
    "a task that is none": ([None], "task 1 is null"),
    "a result that is none": ([task(3)], "a result is 3"),  # type: ignore[arg-type]
    "results that are none": ([{"data": {}, "annotations": [{"result": "x"}]}], 'the result is "x"'),
    "no coordinates": ([task(box("r1", 1, y=None))], 'region "r1" has no x and y'),
    "a box without sides": ([task(box("r1", 1, width=0))], "no width and height"),
    "no size": ([task({**box("r1", 1), "original_width": None})], "original_width"),
    "no picture": ([{"data": {"n": 1}, "annotations": [{"result": [point("a", 1, "Nose")]}]}], "names no picture"),
    "nothing labelled": ([{"data": {"image": "a.jpg"}}], "no keypoints"),
    "endless tracks": (
        [{"data": {"video": "a.mp4"}, "annotations": [{"result": [
            {**SIZE, "id": str(i), "type": "videorectangle", "value": {"framesCount": 10**7, "sequence": [
                {"frame": 1, "enabled": True, "x": 1, "y": 1, "width": 1, "height": 1}]}} for i in range(9)]}]}],
        "go on for more than",
    ),
    "a frame that is none": (
        [{"data": {"video": "a.mp4"}, "annotations": [{"result": [
            {**SIZE, "id": "v", "type": "videorectangle", "value": {"sequence": [{"frame": 0}]}}]}]}],
        "no number of a frame",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_broken_files_are_refused_in_one_line(name: str, read: Callable[..., AnnotationSet]) -> None:
    document, message = HOSTILE[name]
    interface = None if name == "nothing labelled" else INTERFACE
    with pytest.raises(DataError, match=message) as caught:
        read(document, interface)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_hostile_interface_is_refused(read: Callable[..., AnnotationSet]) -> None:
    bomb = '<!DOCTYPE View [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + INTERFACE.replace("Hand", "&x;")
    with pytest.raises(DataError, match="not XML without a DOCTYPE"):
        read([task(box("r1", 10))], bomb)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_files_are_read_or_refused(data: st.DataObject, read: Callable[..., AnnotationSet]) -> None:
    document = [task(box("r1", 10), point("k1", 15, "Nose", "r1"))]
    document[0]["annotations"][0]["result"].append(
        {**SIZE, "id": "k1", "type": "choices", "value": {"choices": ["hidden"]}}
    )
    mutate(document, data)
    try:
        read(document)
    except PosecliError as error:
        assert "\n" not in str(error)
