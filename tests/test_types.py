"""Frame, Detections and Poses check what they are built of."""

from dataclasses import fields, replace
from fractions import Fraction
from timeit import repeat
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posecli.errors import UsageError
from posecli.types import Detections, Frame, Poses

OPTIONAL = ("track_ids", "raw_keypoints", "filled")
counts = st.integers(0, 4)


def arrays(people: int, keypoints: int) -> dict[str, np.ndarray]:
    """What Poses of so many people and keypoints holds, all fields filled."""
    return {
        "keypoints": np.zeros((people, keypoints, 2), np.float32),
        "std": np.ones((people, keypoints, 2), np.float32),
        "scores": np.ones((people, keypoints), np.float32),
        "boxes": np.zeros((people, 4), np.float32),
        "box_scores": np.ones(people, np.float32),
        "person_scores": np.ones(people, np.float32),
        "track_ids": np.arange(people, dtype=np.int64),
        "raw_keypoints": np.zeros((people, keypoints, 2), np.float32),
        "filled": np.zeros(people, bool),
    }


def test_the_fields_are_all_here() -> None:
    assert list(arrays(1, 1)) == [field.name for field in fields(Poses)]


@given(people=counts, keypoints=st.integers(1, 5), left_out=st.sets(st.sampled_from(OPTIONAL)))
@settings(deadline=None)
def test_arrays_that_fit_are_taken_as_they_are(people: int, keypoints: int, left_out: set[str]) -> None:
    given_arrays: dict[str, Any] = {n: v for n, v in arrays(people, keypoints).items() if n not in left_out}
    poses = Poses(**given_arrays)
    assert len(poses) == people and len(poses.rows(np.zeros(people, bool))) == 0
    assert all(getattr(poses, name) is array for name, array in given_arrays.items())
    assert all(getattr(poses, name) is None for name in left_out)
    assert len(poses.rows(np.arange(people))) == people and len(poses.scaled(2, 3)) == people


@given(
    people=st.integers(1, 4),
    keypoints=st.integers(1, 5),
    name=st.sampled_from([field.name for field in fields(Poses)]),
    how=st.sampled_from(["longer", "an axis more", "float64", "a list"]),
)
@settings(max_examples=200, deadline=None)
def test_one_wrong_array_is_named_with_what_was_given(people: int, keypoints: int, name: str, how: str) -> None:
    whole: dict[str, Any] = arrays(people, keypoints)
    array = whole[name]
    wrong: Any = {
        "longer": np.concatenate([array, array[:1]]),
        "an axis more": array[None],
        "float64": array.astype(np.float64),
        "a list": array.tolist(),
    }[how]
    # More keypoints' rows than of all else: the next array is the one that does not fit.
    named = r"Poses\.std" if (name, how) == ("keypoints", "longer") else rf"Poses\.{name}"
    with pytest.raises(UsageError, match=named) as error:
        Poses(**whole | {name: wrong})
    text = str(error.value)
    assert "\n" not in text and ": expected (N" in text
    if named.endswith(name):
        assert text.endswith("not list" if how == "a list" else f"not {wrong.shape} of {wrong.dtype}")
    with pytest.raises(UsageError):
        replace(Poses(**whole), **{name: wrong})


@given(boxes=counts, scores=counts)
def test_detections_have_a_score_a_box(boxes: int, scores: int) -> None:
    corners, values = np.zeros((boxes, 4), np.float32), np.ones(scores, np.float32)
    if boxes == scores:
        assert len(Detections(corners, values)) == boxes
        return
    with pytest.raises(UsageError) as error:
        Detections(corners, values)
    assert str(error.value) == f"Detections.scores: expected (N,) = ({boxes},) of float32, not ({scores},) of float32"


@pytest.mark.parametrize(
    ("boxes", "scores", "words"),
    [
        (np.zeros((2, 4)), np.ones(2, np.float32), r"boxes: expected \(N, 4\) = \(2, 4\) of float32, not .* float64"),
        (np.zeros((2, 5), np.float32), np.ones(2, np.float32), r"= \(2, 4\) of float32, not \(2, 5\) of float32"),
        (np.zeros(4, np.float32), np.ones(1, np.float32), r"boxes: expected \(N, 4\) of float32, not \(4,\)"),
        ([[0, 0, 1, 1]], np.ones(1, np.float32), r"boxes: expected \(N, 4\) of float32, not list"),
        (np.zeros((1, 4), np.float32), 0.5, r"scores: expected \(N,\) = \(1,\) of float32, not float"),
    ],
)
def test_other_detections_are_refused(boxes: Any, scores: Any, words: str) -> None:
    with pytest.raises(UsageError, match=rf"Detections\.{words}|{words}"):
        Detections(boxes, scores)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((3, 40, 50), np.uint8), "channels first"),
        (np.zeros((40, 50), np.uint8), "grey is no RGB"),
        (np.zeros((40, 50, 4), np.uint8), "leave alpha out"),
        (np.zeros((40, 50, 3), np.float32), "float32: scale it"),
        (np.zeros((0, 50, 3), np.uint8), "an empty one"),
        ("photo.jpg", "not str; posecli.read_image"),
    ],
)
def test_a_frame_is_an_rgb_image(pixels: Any, words: str) -> None:
    with pytest.raises(
        UsageError, match=rf"^Frame\.pixels: expected an array \(height, width, 3\) of uint8, .*{words}"
    ):
        Frame(pixels)


def test_a_frame_s_time_is_exact() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    frame = Frame(pixels, 3, Fraction(3, 25))
    assert (frame.width, frame.height, frame.time) == (6, 4, Fraction(3, 25))
    with pytest.raises(UsageError, match=r"Frame\.time: expected a Fraction of seconds or None, not float"):
        Frame(pixels, 3, 0.12)  # type: ignore[arg-type]


def test_the_checks_take_microseconds() -> None:
    whole: dict[str, Any] = arrays(10, 17)
    boxes, scores, pixels = whole["boxes"], whole["box_scores"], np.zeros((1080, 1920, 3), np.uint8)
    for build in (lambda: Poses(**whole), lambda: Detections(boxes, scores), lambda: Frame(pixels)):
        assert min(repeat(build, number=200, repeat=5)) / 200 < 50e-6
