"""Very wide and very tall pictures."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.detect import load_detector
from posecli.detect.windows import Window, merge_windows, split_windows
from posecli.media.images import read_image
from posecli.types import Detections, Frame


@given(width=st.integers(1, 40000), height=st.integers(1, 40000))
def test_windows_cover_a_picture(width: int, height: int) -> None:
    windows = split_windows(width, height)
    long, short = max(width, height), min(width, height)
    assert windows[0].begin == 0 and windows[-1].end == long and len(windows) <= 450
    assert all(window.across == (width >= height) for window in windows)
    if long <= 3 * short:
        assert len(windows) == 1
    for one, other in pairwise(windows):
        # Whoever is half as wide as the picture is high is whole in one of them.
        assert one.begin < other.begin and one.end - other.begin >= 0.4 * short - 2


def people(*boxes: tuple[float, float, float, float]) -> Detections:
    scores = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores)


WINDOWS = [Window(0, 150, True), Window(90, 240, True)]


def test_a_person_at_an_edge_is_found_once_and_whole() -> None:
    # At 120 to 170: cut at 150 in the first window, whole in the second.
    found = merge_windows([people((120, 10, 150, 90)), people((30, 10, 80, 90))], WINDOWS, 0.5, 100)
    assert found.boxes.tolist() == [[120, 10, 170, 90]]


def test_a_person_in_both_windows_is_found_once() -> None:
    found = merge_windows([people((100, 10, 140, 90)), people((11, 10, 51, 90), (100, 10, 149, 90))], WINDOWS, 0.5, 100)
    assert found.boxes.tolist() == [[100, 10, 140, 90], [190, 10, 239, 90]]


def test_somebody_wider_than_the_overlap_is_kept_in_parts_rather_than_lost() -> None:
    found = merge_windows([people((50, 10, 150, 90)), people((0, 10, 100, 90))], WINDOWS, 0.5, 100)
    assert len(found) == 2
    assert len(merge_windows([people((50, 10, 150, 90)), Detections.empty()], WINDOWS, 0.5, 100)) == 1


def test_people_are_limited_over_all_windows_and_tall_pictures_work() -> None:
    tall = [Window(0, 150, False), Window(90, 240, False)]
    found = merge_windows([people((10, 100, 90, 140), (0, 0, 20, 30)), people((10, 11, 90, 51))], tall, 0.5, 2)
    assert found.boxes.tolist() == [[10, 100, 90, 140], [0, 0, 20, 30]] or len(found) == 2
    assert (np.diff(found.scores) <= 0).all()
    assert len(merge_windows([Detections.empty(), Detections.empty()], tall, 0.5, 2)) == 0


def strip(samples: Path, height: int = 240) -> list[np.ndarray]:
    photos = [read_image(samples / name) for name in ("astronaut.jpg", "walk_and_climb.jpg")]
    return [
        cv2.resize(photo, (round(photo.shape[1] * height / photo.shape[0]), height), interpolation=cv2.INTER_AREA)
        for photo in photos
    ]


def test_a_panorama_of_many_people_finds_them(samples: Path) -> None:
    detector = load_detector("person", device="cpu", runtime="torch", threshold=0.2)
    tiles = strip(samples)
    alone = sum(len(found) for found in detector([Frame(tile) for tile in tiles], ["", ""]))
    wide = np.ascontiguousarray(np.concatenate(tiles * 6, axis=1))
    assert alone >= 3 and wide.shape[1] > 15 * wide.shape[0]
    (found,) = detector([Frame(wide)], [""])
    assert 0.8 * 6 * alone <= len(found) <= 1.25 * 6 * alone
    places = np.searchsorted(np.cumsum([tile.shape[1] for tile in tiles * 6]), found.boxes[:, [0, 2]].mean(axis=1))
    assert len(set(places.tolist())) >= 11  # people everywhere


def test_the_tall_one_too_and_others_in_the_batch_stay_as_they_are(samples: Path) -> None:
    detector = load_detector("person", device="cpu", runtime="torch")
    tiles = strip(samples)
    usual = Frame(tiles[1])
    tall = Frame(np.ascontiguousarray(np.concatenate([np.pad(tiles[0], ((0, 0), (0, 0), (0, 0)))] * 6, axis=0)))
    found = detector([usual, tall, usual], ["", "", ""])
    (alone,) = detector([usual], [""])
    assert np.array_equal(found[0].boxes, alone.boxes) and np.array_equal(found[2].scores, alone.scores)
    assert len(found[1]) >= 5
    assert found[1].boxes[:, 3].max() > 1200


@settings(max_examples=20)
@given(width=st.integers(3, 12), height=st.integers(300, 3000))
def test_slivers_have_windows(width: int, height: int) -> None:
    assert all(0 <= w.begin < w.end <= height for w in split_windows(width, height))


@pytest.mark.parametrize("shape", [(1, 1500), (900, 2)])
def test_slivers_are_searched(shape: tuple[int, int]) -> None:
    detector = load_detector("person", device="cpu", runtime="torch")
    (found,) = detector([Frame(np.full((*shape, 3), 127, np.uint8))], [""])
    assert len(found) == 0
