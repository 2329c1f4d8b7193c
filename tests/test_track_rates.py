"""Ids of clips of few frames a second, and of every N-th frame of a clip."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from posecli.keypoints import COCO17
from posecli.tracking.tracker import Tracker
from tests.painted import SCENES, idf1, street


def followed(name_or_seed: str | int, stride: int, slower: int = 1) -> float:
    """IDF1 of every stride-th frame, with times so many times as long."""
    scene = SCENES[name_or_seed] if isinstance(name_or_seed, str) else street(name_or_seed)
    tracker, frames = Tracker(COCO17), []
    for frame, poses, ids in [*scene.frames(0.02, 0.03, 1)][::stride]:
        found = tracker(replace(frame, time=(frame.time or Fraction(0)) * slower), poses)
        assert found.track_ids is not None
        frames.append((ids, found.track_ids.tolist()))
    return idf1(frames)


@pytest.mark.parametrize("name", ["apart", "crossing", "leaving and returning"])
@pytest.mark.parametrize("stride", [1, 5, 25, 50])
def test_ids_are_kept_at_any_rate(name: str, stride: int) -> None:
    # Of four frames one is a quarter.
    assert followed(name, stride) > (0.95 if stride < 25 else 0.8)


def test_busy_streets_once_a_second() -> None:
    assert np.mean([followed(seed, 25) for seed in range(6)]) > 0.85


@pytest.mark.parametrize("slower", [25, 250, 2500])
def test_ids_are_kept_where_hours_pass_between_frames(slower: int) -> None:
    assert followed("apart", 1, slower) == 1


def test_at_the_usual_rate_nobody_is_remembered_for_longer() -> None:
    frames = [*SCENES["apart"].frames(0.01)]
    frame, poses, _ = frames[10]
    empty = poses.rows(np.zeros(0, np.int64))
    for seen, gone, same in ((10, 2.8, True), (10, 3.2, False), (2, 0.5, True), (2, 0.7, False)):
        tracker = Tracker(COCO17)
        for i in range(seen):
            first = tracker(replace(frame, index=i, time=Fraction(i, 25)), poses).track_ids
        for i in range(seen, seen + round(gone * 25)):
            tracker(replace(frame, index=i, time=Fraction(i, 25)), empty)
        last = tracker(replace(frame, index=seen + 99, time=Fraction(seen + round(gone * 25), 25)), poses).track_ids
        assert first is not None and last is not None
        assert (first.tolist() == last.tolist()) == same
