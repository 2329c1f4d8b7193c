"""Selection of people by --person."""

import re
from collections.abc import Callable

import numpy as np

from posecli.errors import UsageError
from posecli.types import Poses

Choice = Callable[[Poses], Poses]


def person_choice(text: str) -> Choice:
    """The selection for "all", "largest", a number N (the N largest), or "id:N" (the person with that track id).

    Size is the box's area in each frame; the order of the people is kept. Raises UsageError for other texts.
    """
    if text == "all":
        return lambda poses: poses
    if match := re.fullmatch(r"id:([1-9]\d*)", text):
        wanted = int(match[1])
        return lambda poses: poses.rows(_ids(poses) == wanted)
    if text == "largest" or re.fullmatch(r"[1-9]\d*", text):
        count = 1 if text == "largest" else int(text)
        return lambda poses: poses.rows(_largest(poses, count))
    raise UsageError(f"--person {text}: all, largest, a number of people, or id:N for one person of a video")


def _ids(poses: Poses) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.zeros(len(poses), np.int64) if poses.track_ids is None else poses.track_ids


def _largest(poses: Poses, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    areas = np.prod(poses.boxes[:, 2:] - poses.boxes[:, :2], axis=1)
    return np.sort(np.argsort(-areas, kind="stable")[:count])
