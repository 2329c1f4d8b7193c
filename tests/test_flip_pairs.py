"""Left and right in keypoint names, and flip_pairs of a category."""

from typing import Any

import pytest

from posecli.keypoints import COCO17, describe_category
from posecli.sides import find_flip_pairs


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("LShoulder", "RShoulder"),
        ("shoulder_l", "shoulder_r"),
        ("shoulderLeft", "shoulderRight"),
        ("earL", "earR"),
        ("Hip.L", "Hip.R"),
        ("L-knee", "R-knee"),
        ("lank", "rank"),
        ("L Shoulder", "R Shoulder"),
        ("paw1LH", "paw1RH"),
        ("l_eye", "r_eye"),
        ("Left Eye", "Right Eye"),
        ("LEFT_EYE", "RIGHT_EYE"),
        ("lefteye", "righteye"),
        ("auge_links", "auge_rechts"),
        ("左目", "右目"),
        ("FL_paw", "FR_paw"),
        ("LSHOULDER", "RSHOULDER"),
        ("eye.L.001", "eye.R.001"),
        ("left_eye_right_corner", "right_eye_left_corner"),
        ("kp3_L", "kp3_R"),
    ],
)
def test_pairs_of_all_styles_of_names(left: str, right: str) -> None:
    assert find_flip_pairs(["nose", right, left]) == ((2, 1),)
    found, _ = describe_category({"keypoints": ["nose", left, right]})
    assert found.mirrors and found.flip_indices == (0, 2, 1) and (found.side(1), found.side(2)) == ("left", "right")


@pytest.mark.parametrize(
    "names",
    [["nail", "nair"], ["ball", "barr"], ["lip", "rip"], ["kp1", "kp2"], [f"kp_{c}" for c in "klmnopqrs"],
     ["leftovers", "rightful"], ["left_hand"], ["nose", "tail"]],
)  # fmt: skip
def test_no_pairs_where_there_are_none(names: list[str]) -> None:
    assert find_flip_pairs(names) == ()
    assert not describe_category({"keypoints": names})[0].mirrors


def test_a_side_without_its_partner_turns_mirroring_off() -> None:
    found, _ = describe_category({"keypoints": ["left_eye", "right_eye", "left_paw"]})
    assert found.flip_pairs == ((0, 1),) and not found.mirrors
    assert describe_category({"keypoints": ["nose"]})[0].mirrors


@pytest.mark.parametrize(
    ("given", "order", "told"),
    [
        ([[1, 2]], (0, 2, 1, 3), ""),
        ([["b", "c"]], (0, 2, 1, 3), ""),
        ([[3, 4]], (0, 1, 3, 2), ""),  # only from 1 on it fits
        ({"b": "c"}, (0, 2, 1, 3), ""),
        ([], (0, 1, 2, 3), ""),
        ([[1, 2], [2, 3]], None, "two pairs"),
        ([[1, 9]], None, "beyond"),
        ([["b", "z"]], None, "not two of the keypoints"),
        ("bc", None, "no list"),
    ],
)
def test_a_category_may_name_its_pairs(given: Any, order: tuple[int, ...] | None, told: str) -> None:
    found, notes = describe_category({"keypoints": ["a", "b", "c", "d"], "flip_pairs": given})
    assert found.mirrors == (order is not None)
    assert order is None or found.flip_indices == order
    assert any(told in note for note in notes) if told else not notes


def test_cocos_keypoints_by_other_names_have_cocos_sigmas() -> None:
    names = [name.replace("left_", "L").replace("right_", "R") for name in COCO17.names]
    found, notes = describe_category({"name": "person", "keypoints": names})
    assert found.sigmas == COCO17.sigmas and "COCO's sigmas" in notes[0]
    assert describe_category({"keypoints": [f"p{i}" for i in range(17)]})[0].sigmas is None
