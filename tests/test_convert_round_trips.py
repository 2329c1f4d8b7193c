"""COCO to a format and back: everything that the format holds comes back, to its precision."""

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings

from posecli.annotations.people import box_of
from posecli.convert.dataset import AnnotationSet, Person
from posecli.convert.options import WriteOptions
from tests.convert_factory import near, photo_sets, rows, through, video_sets
from tests.media_factory import picture, write_photo

ROUNDS = settings(max_examples=20, deadline=None)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def boxed(data: AnnotationSet) -> AnnotationSet:
    """With the boxes that COCO needs, made from the keypoints where there are none."""

    def with_box(person: Person) -> Person:
        if person.box is not None or not person.labelled:
            return person
        x, y, width, height = box_of(person.keypoints, data.keypoint_set.names, "")
        return dataclasses.replace(person, box=(x, y, width, height))

    pictures = (dataclasses.replace(p, people=tuple(map(with_box, p.people))) for p in data.pictures)
    return dataclasses.replace(data, pictures=tuple(pictures))


def same_category(data: AnnotationSet, back: AnnotationSet) -> bool:
    one, other = data.keypoint_set, back.keypoint_set
    assert (one.names, sorted(one.skeleton)) == (other.names, sorted(other.skeleton))
    return data.label == back.label and one.flip_indices == other.flip_indices


@pytest.mark.parametrize("name", ["coco", "cvat", "cvat-coco"])
@given(data=photo_sets(inside=False))
@ROUNDS
def test_photos_with_everything(name: str, data: AnnotationSet) -> None:
    """CVAT and COCO hold coordinates outside of the picture, track ids and all fields; six decimals of a pixel."""
    with folder() as out:
        back, report = through(data, name, out)
    assert near(rows(boxed(data)), rows(back), 1e-6)
    assert same_category(data, back) and [p.size for p in data.pictures] == [p.size for p in back.pictures]
    assert not any(report.left_out.values())


@given(data=photo_sets(inside=True))
@ROUNDS
def test_photos_with_everything_in_label_studio(data: AnnotationSet) -> None:
    with folder() as out:
        back, report = through(data, "label-studio", out)
    assert near(rows(boxed(data)), rows(back), 1e-6)
    assert same_category(data, back) and [p.id for p in data.pictures] == [p.id for p in back.pictures]
    assert not any(report.left_out.values())


@given(data=photo_sets(inside=False))
@ROUNDS
def test_label_studio_leaves_out_what_lies_outside_and_counts_it(data: AnnotationSet) -> None:
    with folder() as out:
        back, report = through(data, "label-studio", out)
    outside = inside = 0
    for place, people in enumerate(data.pictures):
        width, height = people.size or (0, 0)
        there = [p for p in boxed(data).pictures[place].people if p.box and _overlaps(p.box, width, height)]
        for person in there:
            points = [(x, y) for x, y, v in person.points if v]
            within = sum(0 <= x <= width and 0 <= y <= height for x, y in points)
            inside, outside = inside + within, outside + len(points) - within
    assert report.left_out["keypoints outside of their picture"] == outside
    assert sum(person.labelled for person in back.people) == inside


def _overlaps(box: tuple[float, float, float, float], width: int, height: int) -> bool:
    return box[0] < width and box[1] < height and box[0] + box[2] > 0 and box[1] + box[3] > 0


@pytest.mark.parametrize("name", ["coco", "cvat"])
@given(data=video_sets(inside=False))
@ROUNDS
def test_videos_with_tracks(name: str, data: AnnotationSet) -> None:
    """The people of a frame come in the order of their tracks."""
    with folder() as out:
        back, report = through(data, name, out)
    wanted, found = rows(boxed(data)), rows(back)
    assert wanted.keys() <= found.keys() and not any(found[name] for name in found.keys() - wanted.keys())
    for key, people in wanted.items():
        assert near(sorted(people, key=lambda r: r[2]), sorted(found[key], key=lambda r: r[2]), 1e-6)
    assert same_category(data, back)
    if data.pictures[0].size and name == "cvat":
        times = report.left_out.pop("times of frames"), report.left_out.pop("frames per second")
        assert times == (len(data.pictures), 1) and back.videos[0].size == data.videos[0].size
    assert not any(report.left_out.values())


@given(data=video_sets(inside=True))
@ROUNDS
def test_tracks_in_label_studios_videos(data: AnnotationSet) -> None:
    """Boxes and positions of keypoints; no visibility, no fields; single keypoints of a person are none."""
    with folder() as out:
        back, _ = through(data, "label-studio", out, WriteOptions(video_tasks=True))
    for one, other in zip(data.pictures, back.pictures, strict=True):
        wanted = [p for p in one.people if p.box is not None or p.labelled > 1]
        assert one.name == other.name and sorted(p.track or 0 for p in wanted) == sorted(
            p.track or 0 for p in other.people
        )
        found = {person.track: person for person in other.people}
        for person in wanted:
            seen = person.labelled > 1
            points = [(x, y, 2) if v and seen else (0, 0, 0) for x, y, v in person.points]
            assert near(points, list(found[person.track].points), 1e-6)
            assert person.box is None or near(person.box, found[person.track].box, 1e-6)


@given(data=video_sets(inside=True))
@ROUNDS
def test_frames_in_label_studio(data: AnnotationSet) -> None:
    with folder() as out:
        back, report = through(data, "label-studio", out)
    assert near(rows(boxed(data)), rows(back), 1e-6) and data.videos[0] == back.videos[0]
    assert [(p.index, p.time_s, p.id) for p in data.pictures] == [(p.index, p.time_s, p.id) for p in back.pictures]
    assert not any(report.left_out.values())


@given(data=photo_sets(inside=True).filter(lambda data: data.pictures))
@settings(max_examples=25, deadline=None)
def test_photos_in_yolo_pose(data: AnnotationSet) -> None:
    """Keypoints and boxes within 0.001 pixels, without track ids and fields, which are counted."""
    small = [dataclasses.replace(p, size=None) for p in data.pictures]
    with folder() as out:
        sized = []
        for photo, there in zip(data.pictures, small, strict=True):
            width, height = photo.size or (0, 0)
            # The format is relative to the picture, whose file says its size.
            pixels = picture(8, 8)
            path = write_photo(out / "images" / there.name, pixels)
            sized.append(_with_header(path, width, height))
        back, report = through(data, "yolo-pose", out, WriteOptions(images=out / "images"))
    wanted = {name: [(k, b) for k, b, _, _ in people] for name, people in rows(data).items()}
    found = {name: [(k, b) for k, b, _, _ in people] for name, people in rows(back).items()}
    for name, people in wanted.items():
        for (points, box), (read_points, read_box) in zip(people, found[name], strict=True):
            assert near(points, read_points, 1e-3)
            if box is not None:
                assert near(box, read_box, 2e-3)
    assert same_category(data, back)
    everyone = list(data.people)
    assert report.left_out["track ids"] == sum(person.track is not None for person in everyone)
    assert report.left_out["score"] == sum("score" in person.extra for person in everyone)


def _with_header(path: Path, width: int, height: int) -> None:
    """Give a JPEG's header another size; the pixels are not read."""
    content = bytearray(path.read_bytes())
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    path.write_bytes(content)
