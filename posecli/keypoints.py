"""Keypoint sets: names, skeleton, left/right pairs and OKS sigmas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posecli.errors import DataError


@dataclass(frozen=True)
class KeypointSet:
    """The keypoints a model predicts.

    names: K names, in the order of every array.
    skeleton: limbs as pairs of 0-based indices into names.
    flip_pairs: left/right pairs of 0-based indices; the others map to themselves when mirrored.
    sigmas: K per-keypoint OKS sigmas as in COCO (κ = 2σ), or None where nobody measured them.
    """

    name: str
    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def flip_indices(self) -> tuple[int, ...]:
        """Permutation that swaps left and right: mirrored[i] = original[flip_indices[i]]."""
        order = list(range(len(self.names)))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)

    def side(self, index: int) -> str:
        """'left', 'right' or 'middle' of the body, from the name."""
        name = self.names[index].lower()
        for side in ("left", "right"):
            if name.startswith(side) or name.endswith(side):
                return side
        return "middle"


# Sigmas: pycocotools, Params.setKpParams; Lin et al., COCO keypoint evaluation.
COCO17 = KeypointSet(
    name="coco17",
    names=(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    skeleton=(
        (15, 13),
        (13, 11),
        (16, 14),
        (14, 12),
        (11, 12),
        (5, 11),
        (6, 12),
        (5, 6),
        (5, 7),
        (6, 8),
        (7, 9),
        (8, 10),
        (1, 2),
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (4, 6),
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    sigmas=(
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ),
)

KEYPOINT_SETS: dict[str, KeypointSet] = {COCO17.name: COCO17}


def find_flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pair names that differ only in left/right (or a leading l_/r_)."""
    index = {name.lower(): i for i, name in enumerate(names)}
    pairs = []
    for name, i in index.items():
        for left, right in (("left", "right"), ("l_", "r_")):
            if name.startswith(left) or (left == "left" and left in name):
                other = index.get(name.replace(left, right, 1))
                if other is not None:
                    pairs.append((i, other))
                    break
    return tuple(pairs)


def from_category(category: Mapping[str, Any]) -> KeypointSet:
    """The keypoint set that a COCO category describes.

    The category's skeleton is 1-based as in COCO. The names of COCO's own person give COCO's sigmas;
    other sets bring theirs under "sigmas" or have none.

    Raises DataError where names, skeleton or sigmas do not fit each other.
    """
    names = tuple(str(name) for name in category.get("keypoints", ()))
    if not names:
        raise DataError(f"category {category.get('name', '?')!r} names no keypoints")
    if len(set(names)) != len(names):
        raise DataError(f"category {category.get('name', '?')!r} names a keypoint twice")
    for known in KEYPOINT_SETS.values():
        if known.names == names and "sigmas" not in category:
            return known
    skeleton = tuple((int(a) - 1, int(b) - 1) for a, b in category.get("skeleton", ()))
    if any(not 0 <= i < len(names) for limb in skeleton for i in limb):
        raise DataError(f"category {category.get('name', '?')!r}: skeleton points outside its {len(names)} keypoints")
    sigmas = category.get("sigmas")
    if sigmas is not None:
        sigmas = tuple(float(s) for s in sigmas)
        if len(sigmas) != len(names) or min(sigmas) <= 0:
            raise DataError(f"category {category.get('name', '?')!r} needs {len(names)} positive sigmas")
    return KeypointSet(
        name=str(category.get("name", "custom")),
        names=names,
        skeleton=skeleton,
        flip_pairs=find_flip_pairs(names),
        sigmas=sigmas,
    )
