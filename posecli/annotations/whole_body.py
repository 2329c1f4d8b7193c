"""COCO-WholeBody's files: the category has COCO's 17 keypoints, each person further lists of feet, face and hands.

Jin et al., "Whole-Body Human Pose Estimation in the Wild", ECCV 2020.
"""

from collections.abc import Mapping
from typing import Any

from posecli.annotations.document import Repairs
from posecli.keypoints import COCO17, KEYPOINT_SETS, KeypointSet

# The further lists in the order of the 133 keypoints, with their numbers of keypoints.
_PARTS = {"foot_kpts": 6, "face_kpts": 68, "lefthand_kpts": 21, "righthand_kpts": 21}

Entry = Mapping[str, Any]


def with_whole_bodies(
    people: list[tuple[int, Entry]], keypoint_set: KeypointSet, repairs: Repairs
) -> tuple[list[tuple[int, Entry]], KeypointSet]:
    """The people with all of their keypoints in one list, and the set of 133; both as given in files of other kinds.

    A person without one of the lists has no labelled keypoints there.
    """
    if keypoint_set.names != COCO17.names or not any(_PARTS.keys() & entry.keys() for _, entry in people):
        return people, keypoint_set
    repairs.remarks.append("annotations of whole bodies: 133 keypoints, with feet, face and hands")
    return [(place, _joined(entry)) for place, entry in people], KEYPOINT_SETS["coco_wholebody"]


def _joined(entry: Entry) -> Entry:
    lists = [entry.get("keypoints") or [0] * (3 * len(COCO17))]
    lists += [entry.get(part) or [0] * (3 * count) for part, count in _PARTS.items()]
    # num_keypoints counts the body's only.
    rest = {key: value for key, value in entry.items() if key != "num_keypoints"}
    if not all(isinstance(values, list) for values in lists):
        return rest | {"keypoints": lists}  # refused by the reader, as any list of wrong length
    return rest | {"keypoints": [value for values in lists for value in values]}
