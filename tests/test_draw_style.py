"""Styles of annotated media: ids, trails, blurred faces, black background, source beside."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.draw.annotate import Annotator
from posecli.draw.faces import FaceBlur, head_areas, pixelate
from posecli.draw.palette import ID_COLOURS, id_colour
from posecli.draw.skeleton import draw_poses
from posecli.draw.style import DrawStyle
from posecli.draw.trails import Trails
from posecli.keypoints import COCO17, KeypointSet
from posecli.media.encoders import EncodeOptions
from posecli.media.video import VideoReader
from posecli.results import media_writer as sinks
from posecli.results.gallery import thumbnail_path
from posecli.results.input_writer import InputWriter
from posecli.results.records import read_frames, record_path
from posecli.types import Frame, Poses
from tests.media_factory import picture

# A standing person 330 pixels high, the middle of the shoulders at the origin: head from about -64 to -16.
STANDING = np.array(
    [
        [0, -34], [6, -40], [-6, -40], [14, -37], [-14, -37],
        [33, 0], [-33, 0], [40, 55], [-40, 55], [44, 105], [-44, 105],
        [20, 95], [-20, 95], [22, 180], [-22, 180], [22, 260], [-22, 260],
    ],
    np.float32,
)  # fmt: skip
HEAD = (0.0, -40.0, 18.0, 26.0)  # centre and half sides of the face with forehead and chin


def standing(x: float = 200, y: float = 100, *, scale: float = 1.0, track_id: int | None = None) -> Poses:
    keypoints = (scale * STANDING + [x, y]).astype(np.float32)[None]
    box = np.array([[x - 50 * scale, y - 66 * scale, x + 50 * scale, y + 268 * scale]], np.float32)
    return Poses(
        keypoints=keypoints,
        std=np.ones((1, 17, 2), np.float32),
        scores=np.full((1, 17), 0.9, np.float32),
        boxes=box,
        box_scores=np.ones(1, np.float32),
        person_scores=np.ones(1, np.float32),
        track_ids=None if track_id is None else np.array([track_id]),
    )


def noise(width: int = 400, height: int = 400) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def shown(frame: Frame, poses: Poses, **options: Any) -> np.ndarray:
    annotator = Annotator(DrawStyle(**options), COCO17)
    annotator.update(frame, poses)
    return annotator.draw(frame, poses)


# ---- ids, boxes, ground ---------------------------------------------------------------------------------


def test_plain_looks_draw_as_before() -> None:
    frame, poses = Frame(noise()), standing(track_id=3)
    assert np.array_equal(shown(frame, poses), draw_poses(frame.pixels, poses, COCO17))
    assert np.array_equal(shown(frame, poses), shown(frame, replace(poses, track_ids=None)))


def test_ids_give_people_their_colour_and_a_label() -> None:
    black = np.zeros((400, 400, 3), np.uint8)
    for track_id in (1, 2, 1 + len(ID_COLOURS)):
        drawn = draw_poses(black, standing(track_id=track_id), COCO17, show_ids=True)
        assert tuple(drawn[127, 236]) == id_colour(track_id)  # left upper arm
        plate = (drawn[: 100 - 40] == id_colour(track_id)).all(axis=-1)
        assert plate.sum() > 40
    assert id_colour(1) == id_colour(1 + len(ID_COLOURS)) != id_colour(2)
    assert len(set(ID_COLOURS)) == len(ID_COLOURS)


@given(x=st.floats(-300, 700), y=st.floats(-400, 700), track_id=st.integers(1, 99999))
@settings(max_examples=30)
def test_labels_stay_inside_the_picture(x: float, y: float, track_id: int) -> None:
    poses = standing(x, y, track_id=track_id)
    poses.scores[:] = 0
    drawn = draw_poses(np.zeros((240, 320, 3), np.uint8), poses, COCO17, show_ids=True)
    rows, columns = np.nonzero((drawn == id_colour(track_id)).all(axis=-1))
    assert rows.max() - rows.min() >= 7 and columns.max() - columns.min() >= 6


def test_filled_people_are_thinner_and_broken() -> None:
    black = np.zeros((400, 400, 3), np.uint8)
    seen = draw_poses(black, standing(), COCO17)
    filled = draw_poses(black, replace(standing(), filled=np.array([True])), COCO17)
    assert 0.1 < np.count_nonzero(filled) / np.count_nonzero(seen) < 0.6
    assert np.array_equal(seen, draw_poses(black, replace(standing(), filled=np.array([False])), COCO17))


def test_black_ground_holds_nothing_of_the_picture() -> None:
    poses = standing()
    assert np.array_equal(shown(Frame(noise()), poses, black=True), shown(Frame(picture(400, 400)), poses, black=True))
    assert not shown(Frame(noise()), Poses.empty(17), black=True).any()


def test_the_source_stands_left_of_the_drawing() -> None:
    frame, poses = Frame(noise()), standing()
    both = shown(frame, poses, side_by_side=True)
    assert both.shape == (400, 800, 3)
    assert np.array_equal(both[:, :400], frame.pixels)
    assert np.array_equal(both[:, 400:], draw_poses(frame.pixels, poses, COCO17))
    dark = shown(frame, poses, side_by_side=True, black=True)
    assert np.array_equal(dark[:, :400], frame.pixels)
    assert np.array_equal(dark[:, 400:], shown(frame, poses, black=True))


# ---- trails ---------------------------------------------------------------------------------------------


def walk(trails: Trails, frames: int, track_id: int = 1, start: int = 0) -> None:
    for i in range(start, start + frames):
        trails.update(standing(50 + 5 * i, track_id=track_id), i / 10)


def test_trails_follow_the_hips_and_fade() -> None:
    trails = Trails(COCO17, 0.3, 2.0)
    walk(trails, 31)
    canvas = np.zeros((400, 400, 3), np.uint8)
    trails.draw(canvas, 3.0)
    line = canvas[195, :, 0].astype(int)  # hips are 95 below the shoulders at 100
    assert (line[110:195] > 0).all() and not line[:95].any()
    assert line[110] < line[150] < line[195]


def test_trails_forget_and_leave_gaps() -> None:
    trails = Trails(COCO17, 0.3, 1.0)
    walk(trails, 500)
    assert sum(map(len, trails._points.values())) <= 12
    for i in range(500, 520):
        trails.update(Poses.empty(17), i / 10)
    assert not trails._points
    gap = Trails(COCO17, 0.3, 5.0)
    walk(gap, 5)
    walk(gap, 5, start=15)
    canvas = np.zeros((400, 400, 3), np.uint8)
    gap.draw(canvas, 2.0)
    assert canvas[195, 55:68].any() and not canvas[195, 80:115].any() and canvas[195, 130:140].any()


def test_trails_need_ids_and_follow_boxes_without_hips() -> None:
    canvas = np.zeros((400, 400, 3), np.uint8)
    untracked = Trails(COCO17, 0.3, 2.0)
    untracked.update(standing(), 0.0)
    untracked.draw(canvas, 0.0)
    assert not canvas.any()
    fish = Trails(KeypointSet("fish", tuple(f"k{i}" for i in range(17))), 0.3, 2.0)
    walk(fish, 3)
    assert set(fish._points) == {1}


@given(st.lists(st.tuples(st.floats(-1e8, 1e8), st.floats(-1e8, 1e8)), min_size=2, max_size=6))
@settings(max_examples=30, deadline=None)
def test_trails_far_out_can_be_drawn(places: list[tuple[float, float]]) -> None:
    trails = Trails(COCO17, 0.3, 2.0)
    for i, (x, y) in enumerate(places):
        trails.update(standing(x, y, track_id=1), i / 10)
    trails.draw(np.zeros((40, 60, 3), np.uint8), 1.0)


# ---- faces ----------------------------------------------------------------------------------------------


def covered(poses: Poses, size: int = 400) -> np.ndarray:
    """Where a noisy picture was changed."""
    before = noise(size, size)
    after = before.copy()
    pixelate(after, FaceBlur(COCO17, 0.3).update(poses, 0.0))
    return (before != after).any(axis=-1)


def face(x: float, y: float, scale: float, turned: float, size: int = 400) -> np.ndarray:
    """The true face as a mask, the person turned by so many degrees about the shoulders."""
    mask = np.zeros((size, size), np.uint8)
    cx, cy, half_width, half_height = (scale * v for v in HEAD)
    angle = np.radians(turned)
    centre = (x + cx * np.cos(angle) - cy * np.sin(angle), y + cx * np.sin(angle) + cy * np.cos(angle))
    axes = (half_width, half_height)
    cv2.ellipse(mask, tuple(map(round, centre)), tuple(map(round, axes)), turned, 0, 360, 1, -1)
    return mask.astype(bool)


def turned(poses: Poses, x: float, y: float, degrees: float) -> Poses:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    keypoints = ((poses.keypoints - [x, y]) @ turn.T + [x, y]).astype(np.float32)
    low, high = keypoints[0].min(axis=0) - 20, keypoints[0].max(axis=0) + 20
    return replace(poses, keypoints=keypoints, boxes=np.concatenate([low, high])[None])


@given(
    degrees=st.floats(-180, 180),
    scale=st.floats(0.3, 1.5),
    weak=st.sets(st.integers(0, 16), max_size=17),
    shift=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
)
@settings(max_examples=120, deadline=None)
def test_whichever_way_up_and_however_unsure_the_face_is_covered(
    degrees: float, scale: float, weak: set[int], shift: tuple[float, float]
) -> None:
    poses = turned(standing(200, 200, scale=scale), 200, 200, degrees)
    poses.scores[0, sorted(weak)] = 0.1
    poses.keypoints[0, sorted(weak)] += np.float32(shift) * scale
    whole, hidden = face(200, 200, scale, degrees), covered(poses)
    # Noise keeps one value in some cells by chance.
    assert (hidden & whole).sum() >= 0.97 * whole.sum()


def test_without_any_sure_keypoint_of_the_head_the_top_of_the_box_is_covered() -> None:
    poses = standing(200, 100)
    poses.scores[0, :5] = 0.0
    poses.keypoints[0, :5] = [350, 350]  # nonsense
    hidden = covered(poses)
    assert hidden[34:100, 160:240].mean() > 0.97
    poses.scores[:] = 0.0
    assert covered(poses)[34:368, 150:250].mean() > 0.97  # nothing is sure: all of the box


def test_one_wrong_keypoint_of_the_face_covers_no_crowd() -> None:
    poses = standing(200, 100)
    poses.keypoints[0, 3] = [290, 60]
    assert covered(poses).sum() < 4 * np.pi * 35 * 35


def test_heads_at_the_edge_and_outside_do_no_harm() -> None:
    for x, y in ((0, 0), (-500, 100), (399, 30), (200, 900)):
        covered(standing(x, y))
    odd = standing()
    odd.keypoints[:], odd.boxes[:], odd.std[:] = np.nan, np.nan, np.nan
    covered(odd)
    assert head_areas(np.zeros((0, 2)), [], np.array([0.0, 0, 10, 10]), KeypointSet("none", ()))[0].half_width >= 5


def test_a_mosaic_has_few_cells() -> None:
    pixels = noise()
    areas = FaceBlur(COCO17, 0.3).update(standing(), 0.0)
    pixelate(pixels, areas)
    middle = pixels[45:75, 185:215]
    assert len(np.unique(middle.reshape(-1, 3), axis=0)) <= 25


def test_a_face_that_is_missed_for_a_moment_stays_covered() -> None:
    two = [standing(100, 100), standing(300, 100)]
    both = Poses(*(np.concatenate([getattr(p, n) for p in two]) for n in list(Poses.__annotations__)[:6]))
    faces = FaceBlur(COCO17, 0.3)
    assert len(faces.update(both, 0.0)) == 2
    after = faces.update(two[0], 0.1)
    assert len(after) == 2 and after[1].x == pytest.approx(300) and after[1].half_width > after[0].half_width
    assert len(faces.update(both, 0.2)) == 2  # found again
    faces.update(two[0], 0.3)
    assert len(faces.update(two[0], 1.0)) == 1  # gone


def test_a_fast_head_is_covered_where_it_is_not_where_it_was_smoothed_to() -> None:
    poses = standing(200, 100)
    poses = replace(poses, raw_keypoints=poses.keypoints + np.float32([60, 0]))
    assert FaceBlur(COCO17, 0.3).update(poses, 0.0)[0].x == pytest.approx(260)


# ---- through the sink -----------------------------------------------------------------------------------


def test_photo_and_thumbnail_show_no_face(tmp_path: Path) -> None:
    record = record_path(tmp_path, "a.png")
    frame = Frame(noise())
    sink = InputWriter(
        tmp_path,
        "a.png",
        record,
        {"name": "a.png"},
        COCO17,
        None,
        style=DrawStyle(blur_faces=True),
        encoding=EncodeOptions(),
    )
    sink.write(frame, standing(200, 200))
    sink.finish(seconds=0, lost={})
    plain = draw_poses(frame.pixels, standing(200, 200), COCO17)
    whole = face(200, 200, 1, 0)
    for path in (tmp_path / "a.png", thumbnail_path(tmp_path, record)):
        pixels = cv2.imread(str(path))[..., ::-1]
        assert pixels.shape == plain.shape
        detail = np.abs(np.diff(pixels.astype(int), axis=1))[:, :, 1]
        assert detail[whole[:, 1:]].mean() < 0.4 * detail[300:, :100].mean()


def test_an_input_that_fails_leaves_no_picture_behind(tmp_path: Path) -> None:
    record = record_path(tmp_path, "a.png")
    sink = InputWriter(
        tmp_path, "a.png", record, {"name": "a.png"}, COCO17, None, style=DrawStyle(), encoding=EncodeOptions()
    )
    sink.write(Frame(noise()), standing())
    sink.abort()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_video_is_encoded_as_the_options_say_at_the_size_of_the_style(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, ...]] = []

    class Writer:
        warnings: tuple[str, ...] = ()

        def __init__(self, path: Path, source: Any, options: EncodeOptions, *, size: tuple[int, int]) -> None:
            self._given = options, size

        def write(self, pixels: np.ndarray, time: Fraction) -> None:
            told.append((*self._given, pixels.shape))

        def close(self) -> None: ...
        def abort(self) -> None: ...

    class Source:
        width, height, frame_rate = 400, 400, Fraction(30000, 1001)

    monkeypatch.setattr(sinks, "VideoWriter", Writer)
    for style, encoding in (
        (DrawStyle(), EncodeOptions()),
        (DrawStyle(side_by_side=True), EncodeOptions("hevc", audio=False)),
    ):
        record, source = record_path(tmp_path, "a.mp4"), cast(VideoReader, Source())
        header = {"name": "a.mp4"}
        writer = InputWriter(tmp_path, "a.mp4", record, header, COCO17, source, style=style, encoding=encoding)
        writer.write(Frame(noise(), 0, Fraction(0)), standing(track_id=4))
        summary = writer.finish(seconds=0, lost={})
        assert (summary.frame_rate, summary.tracks) == (29.97, 1)
        assert next(iter(read_frames(record)))["people"][0]["track_id"] == 4
    assert told == [
        (EncodeOptions(), (400, 400), (400, 400, 3)),
        (EncodeOptions("hevc", audio=False), (800, 400), (400, 800, 3)),
    ]
