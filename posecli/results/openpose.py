"""People in OpenPose's JSON form: BODY_25, hands and face where the keypoint set has them.

Orders: OpenPose's documentation, 02_output.md (pose, hands of 21, face of 70: 68 points and two pupils).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from posecli.keypoints import KeypointSet

_ARMS = [f"{side}_{part}" for side in ("right", "left") for part in ("shoulder", "elbow", "wrist")]
_LEGS = [f"{side}_{part}" for side in ("right", "left") for part in ("hip", "knee", "ankle")]
_HEAD = [f"{side}_{part}" for part in ("eye", "ear") for side in ("right", "left")]
_FEET = [f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel")]
BODY_25 = ["nose", "neck", *_ARMS, "hip", *_LEGS, *_HEAD, *_FEET]
# Points that some sets lack: the middle of two others, with the lower of their scores.
_BETWEEN = {"neck": ("left_shoulder", "right_shoulder"), "hip": ("left_hip", "right_hip")}
_HAND = ["hand_root", *(f"{f}{i}" for f in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
                        for i in range(1, 5))]  # fmt: skip
_FACE = [*(f"face-{i}" for i in range(68)), "right_eye", "left_eye"]


def openpose_person(person: dict[str, Any], keypoint_set: KeypointSet) -> dict[str, Any]:
    """A person of a record. Sets with feet are written as BODY_25, others in their own order."""
    points = np.array(person["keypoints"], np.float64).reshape(-1, 3)
    points[:, 2] = person["keypoint_scores"]
    index = {name: i for i, name in enumerate(keypoint_set.names)}
    pose = points if "left_big_toe" not in index else _chosen(points, index, BODY_25)
    parts = {
        "pose": pose,
        "face": _chosen(points, index, _FACE),
        "hand_left": _chosen(points, index, [f"left_{name}" for name in _HAND]),
        "hand_right": _chosen(points, index, [f"right_{name}" for name in _HAND]),
    }
    return {
        "person_id": [person.get("track_id", -1)],
        **{f"{kind}_keypoints_2d": values.ravel().tolist() for kind, values in parts.items()},
        **{f"{kind}_keypoints_3d": [] for kind in parts},
    }


def _chosen(points: NDArray[np.float64], index: dict[str, int], names: list[str]) -> NDArray[np.float64]:
    """Rows (x, y, score) of these names; none where the set lacks one that cannot be put between two others."""
    rows = []
    for name in names:
        ends = [name] if name in index else _BETWEEN.get(name, ())
        if not ends or any(end not in index for end in ends):
            return np.zeros((0, 3))
        found = points[[index[end] for end in ends]]
        rows.append([*found[:, :2].mean(axis=0), found[:, 2].min()])
    return np.array(rows)
