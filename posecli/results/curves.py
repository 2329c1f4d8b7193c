"""Tracks of a clip over time and their joint angles, in a limited number of bins whatever the clip's length."""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from posecli.draw.palette import css, id_colour
from posecli.geometry import Float64Array
from posecli.keypoints import KeypointSet
from posecli.results.angles import angle_names, joint_angles
from posecli.results.records import read_frames, read_header

# Frames whose angles are computed together.
_CHUNK = 512


@dataclass(frozen=True, eq=False)
class TrackCurves:
    """One track. seen: (B,) number of its frames in each bin; angles: (B, A) mean in degrees, NaN where unknown."""

    track_id: int
    seen: Float64Array
    angles: Float64Array


@dataclass(frozen=True, eq=False)
class Curves:
    """A clip in B bins with equal numbers of frames.

    times: (B + 1,) start of each bin in seconds, and end of the last. angles: names of the A angles. tracks: those with
    most frames, in the order of their ids; others: number of the remaining tracks.
    """

    times: Float64Array
    angles: tuple[str, ...]
    tracks: tuple[TrackCurves, ...]
    others: int


@dataclass(eq=False)
class _Bin:
    """Sums of one track in one bin."""

    angles: int
    seen: int = 0
    sums: Float64Array = field(init=False)
    counts: Float64Array = field(init=False)

    def __post_init__(self) -> None:
        self.sums, self.counts = np.zeros(self.angles), np.zeros(self.angles)

    def add(self, other: "_Bin") -> None:
        self.seen += other.seen
        self.sums += other.sums
        self.counts += other.counts


class _Binned:
    """Collects frames in at most `most` bins; when all are in use, pairs of bins are merged."""

    def __init__(self, most: int, keypoint_set: KeypointSet) -> None:
        self._most, self._set = most, keypoint_set
        self.names = angle_names(keypoint_set)
        self._frames, self._per_bin = 0, 1
        self.times: list[float] = []
        self.end = 0.0
        self.bins: dict[int, dict[int, _Bin]] = {}
        self._waiting: list[tuple[int, int, Any]] = []

    def add(self, time: float, people: list[dict[str, Any]]) -> None:
        if self._frames == self._most * self._per_bin:
            self._halve()
        place = self._frames // self._per_bin
        if place == len(self.times):
            self.times.append(time)
        self._frames += 1
        self.end = time + (time - self.times[0]) / max(1, self._frames - 1)
        for person in people:
            if "track_id" in person:
                self._waiting.append((place, person["track_id"], person["keypoints"]))
        if len(self._waiting) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        points = np.array([p for _, _, p in self._waiting], np.float64).reshape(len(self._waiting), -1, 3)
        # v is 2 where the keypoint's score reaches --kpt-thr.
        angles = joint_angles(points[..., :2], self._set, points[..., 2] == 2)
        known = np.isfinite(angles)
        angles = np.where(known, angles, 0)
        for (place, track_id, _), values, counted in zip(self._waiting, angles, known, strict=True):
            one = self.bins.setdefault(track_id, {}).setdefault(place, _Bin(len(self.names)))
            one.seen += 1
            one.sums += values
            one.counts += counted
        self._waiting.clear()

    def _halve(self) -> None:
        self.flush()
        self._per_bin *= 2
        self.times = self.times[::2]
        for track_id, bins in self.bins.items():
            merged: dict[int, _Bin] = {}
            for place, one in bins.items():
                merged.setdefault(place // 2, _Bin(len(self.names))).add(one)
            self.bins[track_id] = merged


def read_curves(record: Path, *, most_bins: int = 400, most_tracks: int = 12) -> Curves | None:
    """The curves of a clip's record, read in one pass; None without tracks or keypoint names in the record."""
    names = (read_header(record) or {}).get("keypoints")
    if not names:
        return None
    binned = _Binned(most_bins, KeypointSet("recorded", tuple(names)))
    for frame in read_frames(record):
        binned.add(frame["time_s"] or 0.0, frame["people"])
    binned.flush()
    if not binned.bins:
        return None
    by_sight = sorted(binned.bins, key=lambda i: (-sum(one.seen for one in binned.bins[i].values()), i))
    tracks = []
    for track_id in sorted(by_sight[:most_tracks]):
        seen, angles = np.zeros(len(binned.times)), np.full((len(binned.times), len(binned.names)), np.nan)
        for place, one in binned.bins[track_id].items():
            seen[place] = one.seen
            angles[place] = np.divide(one.sums, one.counts, out=angles[place], where=one.counts > 0)
        tracks.append(TrackCurves(track_id, seen, angles))
    times = np.array([*binned.times, binned.end])
    return Curves(times, binned.names, tuple(tracks), len(by_sight) - len(tracks))


def compact(curves: Curves) -> dict[str, Any]:
    """The curves as the gallery's script reads them.

    Spans of bins [start, end), and integer degrees from the track's first bin on, a byte each in base64, 255: unknown.
    """
    tracks = []
    for track in curves.tracks:
        places = np.flatnonzero(track.seen)
        first, last = int(places[0]), int(places[-1]) + 1
        degrees = np.nan_to_num(np.rint(track.angles[first:last]), nan=255).astype(np.uint8)
        tracks.append(
            {
                "id": track.track_id,
                "colour": css(id_colour(track.track_id)),
                "first": first,
                "spans": _spans(track.seen > 0),
                "angles": [base64.b64encode(column.tobytes()).decode() for column in degrees.T],
            }
        )
    times = np.round(curves.times, 3).tolist()
    return {"times": times, "angles": list(curves.angles), "tracks": tracks, "others": curves.others}


def _spans(seen: np.ndarray) -> list[list[int]]:
    """Runs of True as [start, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(np.int8)))
    spans: list[list[int]] = edges.reshape(-1, 2).tolist()
    return spans
