"""Ids of painted people; what ids must not depend on; scene cuts."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.keypoints import COCO17
from posecli.tracking.cuts import differs, thumbnail
from posecli.tracking.tracker import Tracker
from posecli.types import Frame, Poses
from tests.painted import SCENES, Scene, idf1, street

BARS = {
    "apart": 0.95,
    "crossing": 0.85,
    "crossing alike": 0.85,
    "four crossing": 0.85,
    "leaving and returning": 0.85,
    "one leaves, another comes": 0.95,
}


def ids_of(
    scene: Scene, stride: int = 1, noise: float = 0.02, misses: float = 0.03
) -> list[tuple[list[int], list[int]]]:
    tracker = Tracker(COCO17)
    result = []
    for frame, poses, ids in list(scene.frames(noise, misses))[::stride]:
        tracked = tracker(frame, poses).track_ids
        assert tracked is not None and len(set(tracked.tolist())) == len(poses) and (tracked > 0).all()
        result.append((ids, tracked.tolist()))
    return result


@pytest.mark.parametrize("name", SCENES)
def test_painted_people_keep_their_ids(name: str) -> None:
    assert idf1(ids_of(SCENES[name])) >= BARS[name]


def test_every_fifth_frame_is_enough() -> None:
    """Real timestamps: the same clip at 5 frames a second."""
    assert idf1(ids_of(SCENES["crossing"], stride=5)) >= 0.85


def test_busy_streets() -> None:
    assert np.mean([idf1(ids_of(street(seed), noise=0.03, misses=0.08)) for seed in range(3)]) >= 0.9


def test_idf1_is_the_share_that_one_assignment_explains() -> None:
    assert idf1([([1, 2], [5, 6]), ([1, 2], [5, 6])]) == 1.0
    assert idf1([([1], [1]), ([1], [1]), ([1], [2]), ([2], [1])]) == 0.5


def test_a_short_absence_keeps_the_id_and_a_long_one_ends_it() -> None:
    (frame, poses, _), *_ = SCENES["apart"].frames()
    for gap, same in ((0.5, True), (2.5, True), (20.0, False)):
        tracker = Tracker(COCO17)
        for i in range(10):
            first = tracker(replace(frame, index=i, time=Fraction(i, 25)), poses).track_ids
        for i in range(10, 10 + int(gap * 25)):
            empty = tracker(replace(frame, index=i, time=Fraction(i, 25)), Poses.empty(17)).track_ids
            assert empty is not None and not len(empty)
        again = tracker(replace(frame, time=Fraction(9, 25) + Fraction(gap)), poses).track_ids
        assert first is not None and again is not None
        assert (first.tolist() == again.tolist()) == same
        assert same or set(again.tolist()) == {3, 4}


def test_ids_are_never_handed_over_a_cut() -> None:
    scene = list(SCENES["apart"].frames())[:20]
    tracker = Tracker(COCO17)
    for frame, poses, _ in scene[:10]:
        before = tracker(frame, poses).track_ids
    elsewhere = np.random.default_rng(0).integers(0, 2, (9, 16, 1)).repeat(3, 2).repeat(40, 0).repeat(40, 1) * 250
    frame = replace(scene[10][0], pixels=elsewhere.astype(np.uint8))
    after = tracker(frame, scene[10][1]).track_ids
    assert before is not None and after is not None and before.tolist() == [1, 2] and after.tolist() == [3, 4]


def is_cut(previous: Frame, frame: Frame) -> bool:
    return differs(thumbnail(previous), thumbnail(frame))


def test_cuts_and_what_is_none() -> None:
    frames = [frame for frame, *_ in SCENES["crossing"].frames()]
    assert not any(is_cut(a, b) for a, b in zip(frames, frames[10:], strict=False))
    bright = replace(frames[0], pixels=np.minimum(frames[0].pixels.astype(int) + 80, 255).astype(np.uint8))
    assert not is_cut(frames[0], bright), "a flash"
    dark, light = (Frame(np.full((48, 64, 3), value, np.uint8)) for value in (0, 200))
    assert is_cut(dark, light) and not is_cut(dark, dark)
    assert not is_cut(Frame(np.zeros((1, 1, 3), np.uint8)), Frame(np.zeros((1, 1, 3), np.uint8)))


def test_the_cuts_of_a_real_clip(shared: Path) -> None:
    from posecli.media.video import VideoReader

    with VideoReader(shared / "videos" / "street_bikes_cuts.mp4") as reader:
        frames = list(reader)
    cuts = [b.index for a, b in pairwise(frames) if is_cut(a, b)]
    assert cuts == [30, 76, 137, 187, 242]


def moved(frame: Frame, poses: Poses, scale: float, shift: np.ndarray) -> tuple[Frame, Poses]:
    pixels = np.broadcast_to(np.uint8(128), (2000, 3000, 3))
    boxes = poses.boxes * scale + np.tile(shift, 2)
    changed = replace(
        poses, boxes=boxes.astype(np.float32), keypoints=(poses.keypoints * scale + shift).astype(np.float32)
    )
    return replace(frame, pixels=pixels), changed


@settings(max_examples=6, deadline=None)
@given(scale=st.sampled_from([0.5, 1.0, 2.0]), x=st.integers(0, 100), y=st.integers(0, 100), seed=st.integers(0, 3))
def test_ids_do_not_depend_on_place_and_scale(scale: float, x: int, y: int, seed: int) -> None:
    here, there = Tracker(COCO17), Tracker(COCO17)
    for frame, poses, _ in list(street(seed, seconds=3).frames(0.03, 0.1, seed))[::2]:
        first = here(*moved(frame, poses, 1, np.array([300, 100]))).track_ids
        second = there(*moved(frame, poses, scale, np.array([300 * scale + x, 100 + y]))).track_ids
        assert first is not None and second is not None and first.tolist() == second.tolist()


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_people_does_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    plain, shuffled = Tracker(COCO17), Tracker(COCO17)
    for frame, poses, _ in list(street(seed % 5, seconds=3).frames(0.03, 0.1, seed))[::2]:
        order = random.permutation(len(poses))
        mixed = Poses(**{k: v if v is None else v[order] for k, v in vars(poses).items()})
        first, second = plain(frame, poses).track_ids, shuffled(frame, mixed).track_ids
        assert first is not None and second is not None and first[order].tolist() == second.tolist()


def test_photos_and_standing_clocks_are_no_trouble() -> None:
    for time in (None, Fraction(0)):
        tracker = Tracker(COCO17)
        for frame, poses, _ in list(SCENES["apart"].frames())[:5]:
            ids = tracker(replace(frame, time=time), poses).track_ids
            assert ids is not None and ids.tolist() == [1, 2]
