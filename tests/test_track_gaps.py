"""Filled gaps of tracks: against a whole clip in memory, and through the command line."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posecli.errors import UsageError
from posecli.pipeline.run_options import TrackingOptions
from posecli.tracking.gaps import GapFiller, interpolated
from posecli.tracking.smoothing import SmoothOptions
from posecli.types import Frame, Poses
from tests import media_factory
from tests.entry_points import QUICK, posecli
from tests.media_factory import picture, write_video

SIZE = 12 * 8 * 3


def people(frame: int, ids: list[int], raw: bool = True) -> Poses:
    """People whose keypoints move at speeds of their own, with other scores in each frame."""
    random = np.random.default_rng(frame)
    count = len(ids)
    base = np.array([[100.0 * i + 3 * i * frame, 50.0 + 2 * frame] for i in ids], np.float32).reshape(count, 1, 2)
    keypoints = (base + np.arange(34).reshape(1, 17, 2)).astype(np.float32)
    return Poses(
        keypoints=keypoints,
        std=random.uniform(1, 3, (count, 17, 2)).astype(np.float32),
        scores=random.uniform(0.2, 1, (count, 17)).astype(np.float32),
        boxes=np.concatenate([base[:, 0], base[:, 0] + [40, 90]], axis=1).astype(np.float32),
        box_scores=random.uniform(0.5, 1, count).astype(np.float32),
        person_scores=random.uniform(0.5, 1, count).astype(np.float32),
        track_ids=np.array(ids, np.int64),
        raw_keypoints=keypoints + 1 if raw and count else None,
    )


def clip(present: list[list[int]], times: list[float], raw: bool = True) -> list[tuple[Frame, Poses]]:
    pixels = np.zeros((8, 12, 3), np.uint8)
    frames = [Frame(pixels, i, Fraction(time)) for i, time in enumerate(times)]
    return [(frame, people(i, ids, raw)) for i, (frame, ids) in enumerate(zip(frames, present, strict=True))]


def filled(items: list[tuple[Frame, Poses]], max_gap: float, most: int = 10**9) -> list[tuple[Frame, Poses]]:
    filler, result = GapFiller(max_gap, most), []
    for number, (frame, poses) in enumerate(items):
        result += filler.add(frame, poses)
        assert filler.held_bytes == (number + 1 - len(result)) * SIZE <= most
    result += filler.end()
    assert filler.held_bytes == 0
    return result


presence = st.lists(st.sets(st.integers(1, 4)).map(sorted), min_size=1, max_size=25)


@given(presence, st.floats(0, 1), st.integers(0, 12), st.booleans(), st.randoms(use_true_random=False))
def test_against_the_whole_clip(present: list[list[int]], max_gap: float, most: int, raw: bool, random) -> None:  # type: ignore[no-untyped-def]
    """Who is there before and after a gap is in it, if the gap is short and its frames fit; nobody else changes."""
    times = np.cumsum([random.uniform(0.01, 0.2) for _ in present]).tolist()
    items = clip(present, times, raw)
    result = filled(items, max_gap, most * SIZE)
    assert [frame.index for frame, _ in result] == list(range(len(items)))
    for i, ((_, before), (_, after)) in enumerate(zip(items, result, strict=True)):
        assert after.track_ids is not None
        expected = {}
        for track in {1, 2, 3, 4} - set(present[i]):
            earlier = [k for k in range(i) if track in present[k]]
            later = [k for k in range(i + 1, len(items)) if track in present[k]]
            if earlier and later:
                a, b = earlier[-1], later[0]
                # The frames of the gap wait until the one after it is there.
                if times[b] - times[a] <= max_gap and b - a - 1 <= most and held(present, times, max_gap, most, a, b):
                    expected[track] = (times[i] - times[a]) / (times[b] - times[a]), a, b
        assert sorted(after.track_ids[len(before) :].tolist()) == sorted(expected)
        for name, column in vars(before).items():
            if name not in ("filled", "raw_keypoints") or (
                name == "raw_keypoints" and len(before) and column is not None
            ):
                np.testing.assert_array_equal(getattr(after, name)[: len(before)], column)
        if expected:
            assert after.filled is not None
            assert after.filled.tolist() == [False] * len(before) + [True] * len(expected)
        else:
            assert after is before
        for row in range(len(before), len(after)):
            track = int(after.track_ids[row])
            share, a, b = expected[track]
            ends = [items[k][1].rows(np.array([present[k].index(track)])) for k in (a, b)]
            for name, factor in (("keypoints", 1), ("boxes", 1), ("scores", 0.5), ("person_scores", 0.5)):
                first, second = (getattr(end, name)[0] for end in ends)
                between = factor * ((1 - share) * first + share * second)
                np.testing.assert_allclose(getattr(after, name)[row], between, rtol=1e-4, atol=1e-3)


def held(present: list[list[int]], times: list[float], max_gap: float, most: int, a: int, b: int) -> bool:
    """Whether the frames between a and b still wait when b comes: played with numbers alone."""
    first, last_seen = 0, {}
    for i in range(b):
        last_seen |= dict.fromkeys(present[i], i)
        missing = [k + 1 for k in last_seen.values() if k < i and times[i] - times[k] < max_gap]
        first = max(first, min(missing, default=i + 1), i + 1 - most)
    return first <= a + 1


def test_frames_wait_only_while_a_person_is_missing() -> None:
    filler = GapFiller(0.5, 10**9)
    ready = []
    for frame, poses in clip([[1, 2]] * 5 + [[2]] * 3 + [[1, 2]] * 2 + [[2]] * 20, [i / 16 for i in range(30)]):
        ready.append([f.index for f, _ in filler.add(frame, poses)])
    assert ready[:10] == [[0], [1], [2], [3], [4], [], [], [], [5, 6, 7, 8], [9]]
    # Frame 9 is the last one with person 1: frame 17 is half a second later.
    assert ready[10:] == [[]] * 7 + [list(range(10, 18)), *[[i] for i in range(18, 30)]]


def test_frames_without_a_time_do_not_wait() -> None:
    filler = GapFiller(0.5, 10**9)
    for index, ids in enumerate([[1], [], [1]]):
        frame, poses = Frame(np.zeros((8, 12, 3), np.uint8), index), people(index, ids)
        assert list(filler.add(frame, poses)) == [(frame, poses)]


def test_deviations_are_those_of_a_gaussian_process() -> None:
    """White-noise acceleration and an unknown speed: conditioned on both ends with dense matrices."""
    a, b = people(0, [1]), people(9, [1])
    start, end, times = 0.3, 1.0, np.array([0.3, 0.37, 0.65, 0.9, 1.0])
    size = 90.0
    q = (SmoothOptions.acceleration_noise * size) ** 2

    def covariance(s: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Of positions that start at 0 with a speed of variance 1e7 and go on as integrated Brownian motion."""
        low, high = np.minimum(s[:, None], t), np.maximum(s[:, None], t)
        return 1e7 * s[:, None] * t + q * (low**2 * high / 2 - low**3 / 6)

    ends = np.array([0.0, end - start])
    for joint, axis in ((0, 0), (16, 1)):
        noise = np.array([a.std[0, joint, axis], b.std[0, joint, axis]], np.float64) ** 2
        # An offset of any size: the position at the start is not known otherwise.
        prior = covariance(ends, ends) + 1e6
        cross = covariance(times - start, ends) + 1e6
        own = np.diag(covariance(times - start, times - start)) + 1e6
        posterior = own - np.einsum("ij,ij->i", cross @ np.linalg.inv(prior + np.diag(noise)), cross)
        found = interpolated(a, b, start, end, times).std[:, joint, axis]
        np.testing.assert_allclose(found, np.sqrt(posterior), rtol=0.01)


# ---- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clip, and boxes.json with a person in it, who is gone in frames 8 to 12."""
    monkeypatch.setattr(media_factory, "picture", lambda width=64, height=48, _=0: picture(width, height))
    clip = write_video(tmp_path / "a.mp4", 25)
    images = [{"id": i, "file_name": f"a.mp4#{i:06d}", "width": 64, "height": 48} for i in range(25)]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [10, 8, 30, 36]} for i in range(25) if not 8 <= i < 13]
    categories = [{"id": 1, "name": "person"}]
    document = {"images": images, "annotations": boxes, "categories": categories}
    (tmp_path / "boxes.json").write_text(json.dumps(document))
    return clip


@pytest.mark.parametrize("smooth", ["none", "kalman", "one-euro", "offline"])
def test_the_command_fills_gaps(
    gone: Path, tmp_path: Path, tiny_weights: Path, capfd: pytest.CaptureFixture[str], smooth: str
) -> None:
    for options, expected in (((), range(8, 13)), (("--fill-gaps", "0"), ()), (("--fill-gaps", "0.1"), ())):
        out = tmp_path / f"out{''.join(options)}"
        models = ("--weights", tiny_weights, *QUICK[2:], "--detector", f"boxes:{tmp_path / 'boxes.json'}")
        result = posecli(capfd, "video", gone, "-o", out, *models, "--smooth", smooth, *options)
        assert result.code == 0, result.err
        document = json.loads((out / "coco.json").read_bytes())
        index = {image["id"]: image["frame_index"] for image in document["images"]}
        assert sorted(index.values()) == list(range(25))
        found = {index[person["image_id"]]: person for person in document["annotations"]}
        assert [i for i, person in found.items() if person.get("filled")] == list(expected)
        assert len(found) == 20 + len(expected) and len({person["track_id"] for person in found.values()}) == 1


def test_gaps_that_do_not_exist() -> None:
    for seconds in (-0.1, 5.1, float("nan")):
        with pytest.raises(UsageError, match="--fill-gaps"):
            TrackingOptions(fill_gaps=seconds)
    assert TrackingOptions().gap(live=True) == 0 < TrackingOptions().gap(live=False) == SmoothOptions.max_gap
    assert replace(TrackingOptions(), fill_gaps=2).gap(live=True) == 2
