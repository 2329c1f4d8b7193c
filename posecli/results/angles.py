"""Joint angles."""

import numpy as np
from numpy.typing import NDArray

from posecli.geometry import Float64Array
from posecli.keypoints import KeypointSet

# Joint → the three keypoints of its angle, the joint itself in the middle; for each of left and right.
JOINTS: dict[str, tuple[str, str, str]] = {
    "elbow": ("shoulder", "elbow", "wrist"),
    "hip": ("shoulder", "hip", "knee"),
    "knee": ("hip", "knee", "ankle"),
}


def angle_names(keypoint_set: KeypointSet) -> tuple[str, ...]:
    """Names of the angles that a keypoint set defines (left_elbow, right_elbow, ...); may be empty."""
    return tuple(
        f"{side}_{joint}"
        for joint, corners in JOINTS.items()
        for side in ("left", "right")
        if all(f"{side}_{corner}" in keypoint_set.names for corner in corners)
    )


def joint_angles(
    keypoints: NDArray[np.floating], keypoint_set: KeypointSet, sure: NDArray[np.bool_] | None = None
) -> Float64Array:
    """Angles (N, A) in degrees, 0 to 180, of N people in the image plane; A and their order as angle_names.

    180 is a straight limb. keypoints: (N, K, 2), in any unit that is the same for x and y. sure: (N, K), whether
    each keypoint counts. The angle is NaN where one of its three keypoints does not count or is not finite, and
    where two of them coincide.
    """
    index = {name: i for i, name in enumerate(keypoint_set.names)}
    triples = []
    for name in angle_names(keypoint_set):
        side, joint = name.split("_")
        triples.append([index[f"{side}_{corner}"] for corner in JOINTS[joint]])
    corners = np.array(triples, np.int64).reshape(-1, 3)
    points = np.asarray(keypoints, np.float64)[:, corners]
    one, other = points[:, :, 0] - points[:, :, 1], points[:, :, 2] - points[:, :, 1]
    cross = one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
    dot = (one * other).sum(axis=-1)
    # Near 0 and 180 the arc tangent is precise, the arc cosine is not.
    angles = np.degrees(np.arctan2(np.abs(cross), dot))
    known = np.isfinite(angles) & (one != 0).any(axis=-1) & (other != 0).any(axis=-1)
    if sure is not None:
        known &= np.asarray(sure, bool)[:, corners].all(axis=-1)
    return np.where(known, angles, np.nan)
