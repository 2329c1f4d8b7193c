"""CVAT's XML: documents as CVAT writes them, what other programs write, and broken and hostile ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posecli.convert import cvat_read, cvat_tracks, cvat_write
from posecli.convert.dataset import AnnotationSet, Person, Picture, Report, Video, make_set
from posecli.convert.formats import FORMATS
from posecli.convert.options import ReadOptions, WriteOptions
from posecli.errors import DataError, PosecliError, UsageError

LABELS = """
<labels>
  <label><name>car</name><type>rectangle</type><attributes></attributes></label>
  <label><name>person</name><color>#c06060</color><type>skeleton</type>
    <attributes><attribute><name>pose</name><mutable>True</mutable><input_type>text</input_type>
    <default_value></default_value><values></values></attribute></attributes>
    <svg>&lt;line x1="30" y1="40" x2="60" y2="20" stroke="black" data-type="edge" data-node-from="2" stroke-width="0.5"
    data-node-to="3"&gt;&lt;/line&gt;&lt;circle r="1.5" cx="30" cy="40" data-type="element node" data-element-id="2"
    data-node-id="2" data-label-name="hand"&gt;&lt;/circle&gt;&lt;circle r="1.5" cx="60" cy="20" data-node-id="3"
    data-label-name="foot"&gt;&lt;/circle&gt;&lt;circle cx="5" cy="5" data-node-id="1" data-label-name="head"&gt;
    &lt;/circle&gt;</svg></label>
  <label><name>head</name><type>points</type><attributes></attributes><parent>person</parent></label>
  <label><name>hand</name><type>points</type><attributes></attributes><parent>person</parent></label>
  <label><name>foot</name><type>points</type><attributes></attributes><parent>person</parent></label>
</labels>"""
IMAGES = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>4</id><name>walk</name><size>2</size><mode>annotation</mode>{LABELS}</task>
    <dumped>2026-02-01 10:00:00+00:00</dumped></meta>
  <image id="0" name="a/1.jpg" width="640" height="480">
    <box label="person_box" source="manual" occluded="0" xtl="10.00" ytl="20.50" xbr="110.00" ybr="220.50" z_order="0"
      group_id="3"></box>
    <box label="car" source="manual" occluded="0" xtl="1.00" ytl="2.00" xbr="3.00" ybr="4.00" z_order="0"></box>
    <polygon label="car" source="manual" occluded="0" points="1,1;2,2;3,1" z_order="0"></polygon>
    <skeleton label="person" source="manual" z_order="0" group_id="3">
      <points label="foot" source="manual" outside="0" occluded="1" points="50.25,200.00"></points>
      <points label="head" source="manual" outside="0" occluded="0" points="60.00,30.00"></points>
      <points label="hand" source="manual" outside="1" occluded="0" points="70.00,90.00"></points>
      <attribute name="pose">walking</attribute>
      <attribute name="track_id">7</attribute>
    </skeleton>
    <skeleton label="person" source="manual" z_order="0">
      <points label="head" source="manual" outside="0" occluded="0" points="1.00,2.00"></points>
    </skeleton>
  </image>
  <image id="1" name="a/2.jpg" width="320" height="240"></image>
</annotations>
"""


def skeleton(frame: int, head: str, *, outside: int = 0, key: int = 1, more: str = "") -> str:
    points = "".join(
        f'<points label="{name}" outside="{outside}" occluded="0" keyframe="{key}" points="{place}"></points>'
        for name, place in (("head", head), ("hand", "10.00,10.00"), ("foot", "20.00,40.00"))
    )
    return f'<skeleton frame="{frame}" keyframe="{key}" z_order="0">{points}{more}</skeleton>'


def video(*tracks: str, size: int = 10, more: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><id>5</id>'
        f"<name>task 5</name><size>{size}</size><mode>interpolation</mode>{more}{LABELS}<original_size>"
        "<width>640</width><height>480</height></original_size><source>clip.mp4</source></task></meta>"
        + "".join(tracks)
        + "</annotations>"
    )


def track(number: int, *shapes: str, more: str = "") -> str:
    return f'<track id="{number}" label="person" source="manual"{more}>' + "".join(shapes) + "</track>"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., AnnotationSet]:
    def of(text: str, **options: Any) -> AnnotationSet:
        path = tmp_path / "annotations.xml"
        path.write_text(text, encoding="utf-8")
        return cvat_read.read(path, ReadOptions(**options))

    return of


def test_images_as_cvat_exports_them(read: Callable[..., AnnotationSet]) -> None:
    data = read(IMAGES)
    assert data.keypoint_set.names == ("head", "hand", "foot") and data.keypoint_set.skeleton == ((1, 2),)
    assert [(p.name, p.size) for p in data.pictures] == [("a/1.jpg", (640, 480)), ("a/2.jpg", (320, 240))]
    first, second = data.pictures[0].people
    assert first == Person((60, 30, 2, 70, 90, 0, 50.25, 200, 1), (10, 20.5, 100, 200), 7, extra={"pose": "walking"})
    assert second == Person((1, 2, 2, 0, 0, 0, 0, 0, 0))
    assert data.notes == ('not read: polygons (1), boxes "car" (1)',)


def test_a_category_can_be_chosen(read: Callable[..., AnnotationSet]) -> None:
    dog = IMAGES.replace('<skeleton label="person" source="manual" z_order="0">', '<skeleton label="dog">')
    assert read(dog).label == "person"
    data = read(dog, category="dog")
    assert data.label == "dog" and data.keypoint_set.names == ("head",) and len(list(data.people)) == 1
    with pytest.raises(UsageError, match=r'--category "cat": .* has skeletons "person", "dog"'):
        read(dog, category="cat")


def test_a_video_as_cvat_exports_it(read: Callable[..., AnnotationSet]) -> None:
    """Every frame is there, interpolated ones too; a track ends with a shape outside."""
    data = read(
        video(
            track(0, skeleton(2, "0,0"), skeleton(3, "4,2", key=0), skeleton(4, "8,4"), skeleton(5, "8,4", outside=1)),
            track(
                1, skeleton(3, "100,50", more='<attribute name="score">0.5</attribute>'), skeleton(4, "1,1", outside=1)
            ),
        )
    )
    assert data.videos == (Video("clip.mp4", (640, 480), 10),) and len(data.pictures) == 10
    heads = {p.index: [(person.track, *person.keypoints[:3]) for person in p.people] for p in data.pictures if p.people}
    # A track of one frame is a shape of CVAT's, which has no id.
    assert heads == {2: [(0, 0, 0, 2)], 3: [(0, 4, 2, 2), (None, 100, 50, 2)], 4: [(0, 8, 4, 2)]}
    assert data.pictures[3].people[1].extra == {"score": 0.5} and data.pictures[3].name == "clip.mp4#000003"


def test_keyframes_are_interpolated_as_cvat_does(read: Callable[..., AnnotationSet]) -> None:
    box = '<box frame="{}" keyframe="1" outside="{}" occluded="0" xtl="{}" ytl="0" xbr="{}" ybr="10"></box>'
    data = read(
        video(
            track(4, skeleton(0, "0,0"), skeleton(4, "8,4"), skeleton(8, "8,4", outside=1), more=' group_id="2"'),
            '<track id="5" label="person_box" group_id="2">'
            + box.format(0, 0, 0, 10)
            + box.format(4, 1, 0, 10)
            + "</track>",
        )
    )
    found = {p.index: p.people for p in data.pictures}
    assert [found[i][0].keypoints[:2] for i in range(8)] == [(0, 0), (2, 1), (4, 2), (6, 3), *[(8, 4)] * 4]
    assert [found[i][0].box for i in (3, 4)] == [(0, 0, 10, 10), None] and not found[8]
    assert {person.track for person in data.people} == {4}


def test_a_track_that_never_ends_goes_on_to_the_last_frame(read: Callable[..., AnnotationSet]) -> None:
    data = read(video(track(0, skeleton(2, "0,0"), skeleton(4, "8,4")), size=7))
    assert [len(p.people) for p in data.pictures] == [0, 0, 1, 1, 1, 1, 1]


def test_every_third_frame(read: Callable[..., AnnotationSet]) -> None:
    more = "<start_frame>3</start_frame><stop_frame>9</stop_frame><frame_filter>step=3</frame_filter>"
    data = read(video(track(0, skeleton(3, "0,0"), skeleton(9, "6,6")), size=3, more=more))
    assert [(p.index, p.people[0].keypoints[:2]) for p in data.pictures] == [(3, (0, 0)), (6, (3, 3)), (9, (6, 6))]


def test_the_second_part_of_a_split_track_gets_an_id_of_its_own(read: Callable[..., AnnotationSet]) -> None:
    own = '<attribute name="track_id">7</attribute>'
    first = track(0, skeleton(0, "0,0", more=own), skeleton(1, "0,0", outside=1))
    second = track(1, skeleton(1, "1,1", more=own), skeleton(2, "2,2", more=own), skeleton(3, "2,2", outside=1))
    assert [person.track for person in read(video(first, second)).people] == [7, 1, 1]


def attributes(element: ElementTree.Element) -> set[str]:
    return set(element.attrib)


def test_what_cvats_importer_needs_is_there(tmp_path: Path) -> None:
    """Its loader takes these attributes of each shape for granted."""
    keypoint_set = make_set("person", ["head", "foot"], [(0, 1)])
    people = (Person((1, 2, 2, 3, 4, 1), (0, 0, 9, 9), 3), Person((5, 6, 2, 0, 0, 0), None, None))
    size = (64, 48)
    photos = AnnotationSet(keypoint_set, (Picture("a.jpg", size, people),))
    frames = tuple(Picture(f"c.mp4#{i:06d}", size, people, 0, i) for i in range(2))
    for data in (photos, AnnotationSet(keypoint_set, frames, (Video("c.mp4", size, 4),))):
        cvat_write.write(data, tmp_path / "x.xml", WriteOptions(), Report())
        root = ElementTree.parse(tmp_path / "x.xml").getroot()
        for image in root.iter("image"):
            assert attributes(image) >= {"id", "name", "width", "height"}
            for shape in image:
                assert "label" in shape.attrib and int(shape.get("group_id", 0)) >= 0
        for container in root.iter("track"):
            assert attributes(container) >= {"id", "label"}
            for shape in container:
                assert attributes(shape) >= {"frame", "keyframe"}
                assert all("keyframe" in point.attrib for point in shape.iter("points"))
        for point in root.iter("points"):
            assert attributes(point) >= {"label", "outside", "occluded", "points"}
        for box in root.iter("box"):
            assert attributes(box) >= {"occluded", "xtl", "ytl", "xbr", "ybr"}
        labels = {label.findtext("name"): label.findtext("type") for label in root.iter("label")}
        assert labels == {"person": "skeleton", "head": "points", "foot": "points", "person_box": "rectangle"}
        assert [s.get("frame") for s in root.iter("skeleton") if s.find("points[@outside='0']") is None] == (
            [] if data is photos else ["2", "1", "2"]
        )
        constructor = json.loads((tmp_path / "x.labels.json").read_text())
        assert [label["name"] for label in constructor] == ["person", "person_box"]
        assert [part["name"] for part in constructor[0]["sublabels"]] == ["head", "foot"]


def test_without_boxes(tmp_path: Path) -> None:
    keypoint_set = make_set("person", ["head"])
    data = AnnotationSet(keypoint_set, (Picture("a.jpg", (9, 9), (Person((1, 2, 2), (0, 0, 5, 5)),)),))
    report = Report()
    cvat_write.write(data, tmp_path / "x.xml", WriteOptions(boxes=False), report)
    text = (tmp_path / "x.xml").read_text()
    assert "<box" not in text and "person_box" not in text and report.left_out["boxes (--no-boxes)"] == 1


@pytest.mark.parametrize("name", ["cvat", "label-studio"])
def test_names_that_xml_cannot_hold(name: str, tmp_path: Path) -> None:
    people = (Person((1, 2, 2, 3, 4, 1), (0, 0, 5, 5)),)
    data = AnnotationSet(make_set("a\x08", ["b\x00", "c\ud800"]), (Picture("d.jpg", (9, 9), people),), label="a\x08")
    out = tmp_path / {"cvat": "x.xml", "label-studio": "x.json"}[name]
    FORMATS[name].write(data, out, WriteOptions(), Report())
    back = FORMATS[name].read(out, ReadOptions())
    assert (back.label, back.keypoint_set.names) == ("a?", ("b?", "c?")) and list(back.people) == list(people)
    twins = AnnotationSet(make_set("a", ["b\x00", "b\x01"]), data.pictures)
    with pytest.raises(DataError, match="differ only in characters which XML does not have"):
        FORMATS[name].write(twins, out, WriteOptions(), Report())


def test_several_tasks_need_a_folder(tmp_path: Path) -> None:
    keypoint_set, size = make_set("person", ["head"]), (9, 9)
    pictures = (Picture("a.jpg", size), Picture("d/c.mp4#000000", size, (), 0, 0))
    data = AnnotationSet(keypoint_set, pictures, (Video("d/c.mp4", size, 1),))
    with pytest.raises(UsageError, match="1 photos and 1 videos are several tasks"):
        cvat_write.files(data, tmp_path / "x.xml", WriteOptions())
    cvat_write.write(data, tmp_path / "out", WriteOptions(), Report())
    files = cvat_write.files(data, tmp_path / "out", WriteOptions())
    assert [f.relative_to(tmp_path / "out").as_posix() for f in files] == ["images.xml", "d/c.mp4.xml", "labels.json"]
    assert all(file.is_file() for file in files)


BOMB = "".join(f'<!ENTITY a{i + 1} "&a{i};&a{i};&a{i};&a{i};">' for i in range(20))
HOSTILE = {
    "an entity bomb": (f'<!DOCTYPE annotations [<!ENTITY a0 "x">{BOMB}]><annotations>&a20;</annotations>', "DOCTYPE"),
    "an external entity": (
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotations>&x;</annotations>', "DOCTYPE",
    ),
    "an external DTD": ('<!DOCTYPE annotations SYSTEM "http://127.0.0.1:1/x.dtd"><annotations/>', "DOCTYPE"),
    "elements without end": ("<annotations>" + "<image>" * 1000, "nested more than"),
    "no XML": ("{}", "not XML"),
    "nothing": ("", "not XML"),
    "another root": ("<html/>", "not annotations"),
    "cut off": (IMAGES[:1500], "not XML"),
    "no skeletons": ("<annotations><meta><task></task></meta></annotations>", "no skeletons"),
    "a point that is none": (IMAGES.replace("60.00,30.00", "60.00"), r'image "a/1.jpg": point "head" is at "60.00"'),
    "a point at nan": (IMAGES.replace("60.00,30.00", "nan,1"), 'point "head" is at "nan,1"'),
    "a point twice": (IMAGES.replace('label="foot" source', 'label="head" source'), 'two points of a skeleton are'),
    "a box inside out": (IMAGES.replace('xbr="110.00"', 'xbr="1"'), "a box from 10.0"),
    "a frame that is none": (video(track(0, skeleton(0, "0,0").replace('frame="0"', 'frame="x"'))), 'frame "x"'),
    "a frame far away": (video(track(0, skeleton(10**12, "0,0"))), "not a number of a frame"),
    "endless tracks": (video(*[track(i, skeleton(0, "0,0")) for i in range(9)], size=10**6), "go on for more than"),
    "endless frames": (video(size=2 * 10**9), "more than 10000000"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_broken_files_are_refused_in_one_line(name: str, read: Callable[..., AnnotationSet]) -> None:
    text, message = HOSTILE[name]
    with pytest.raises(DataError, match=message) as caught:
        read(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_files_are_read_or_refused(data: st.DataObject, read: Callable[..., AnnotationSet]) -> None:
    text = data.draw(st.sampled_from([IMAGES, video(track(0, skeleton(0, "0,0"), skeleton(2, "1,1")), size=4)]))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.sampled_from([0, 1, 5, 40]))
        new = data.draw(
            st.sampled_from(["", "<", ">", '"', "&", "&#0;", "-1", "1e999", "\ud7ff", "<points/>", "</image>"])
        )
        text = text[:place] + new + text[place + cut :]
    try:
        found = read(text)
    except PosecliError as error:
        assert "\n" not in str(error)
    else:
        assert all(len(person.keypoints) == 3 * len(found.keypoint_set) for person in found.people)


def test_the_span_of_a_task() -> None:
    assert cvat_tracks.Span(2, 8, 3).frames == 3 and cvat_tracks.Span(2, None, 1, 4).last == 5
    assert cvat_tracks.Span().frames is None
