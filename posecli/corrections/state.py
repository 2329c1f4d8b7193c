"""The people of a frame: the record's predictions with the edits applied, in their order.

The fold is a function of the frame's predictions and its edits alone. An edit that refers to what is not there, such
as a person whose addition was undone, changes nothing.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posecli.corrections.edits import Edit
from posecli.geometry import Float64Array


@dataclass(frozen=True, eq=False)
class PersonState:
    """A person of a frame after the edits. K keypoints; pixels of the upright frame.

    key: see edits. keypoints: (K, 3) x, y, v. box: (4,) x0 y0 x1 y1. score: of the person, 1 for added ones.
    keypoint_scores: (K,), 1 for corrected keypoints, 0 for those with v 0. keypoint_std: (K, 2), 0 for corrected ones.
    track: id, None without tracking. corrected, propagated: indices of keypoints set by hand, and by a propagation.
    added, accepted, box_corrected, track_corrected: what edits did. prediction: the record's entry, None where added.
    """

    key: str
    keypoints: Float64Array
    box: Float64Array
    score: float
    keypoint_scores: Float64Array
    keypoint_std: Float64Array
    track: int | None
    corrected: tuple[int, ...]
    propagated: tuple[int, ...]
    added: bool
    accepted: bool
    box_corrected: bool
    track_corrected: bool
    prediction: Mapping[str, Any] | None

    @property
    def touched(self) -> bool:
        """Whether any edit refers to the person."""
        flags = (self.added, self.accepted, self.box_corrected, self.track_corrected)
        return bool(self.corrected or self.propagated) or any(flags)


@dataclass(frozen=True, eq=False)
class FrameState:
    """A frame with its people. index: its position in the record, from 0. source_index: among the frames that are
    decoded from the source, which differs where a part of it was read. time_s: None for a photo.
    """

    index: int
    source_index: int
    time_s: float | None
    width: int
    height: int
    people: tuple[PersonState, ...]

    def person(self, key: str) -> PersonState | None:
        """The person of this key, None where there is none."""
        return next((person for person in self.people if person.key == key), None)


@dataclass
class Row:
    """A person while edits are applied: what differs from the prediction. keypoints, propagated: index → values."""

    key: str
    track: int | None
    prediction: Mapping[str, Any] | None = None
    keypoints: dict[int, list[float]] = field(default_factory=dict)
    propagated: dict[int, list[float]] = field(default_factory=dict)
    box: list[float] | None = None
    accepted: bool = False
    track_corrected: bool = False


def predictions_key(people: Sequence[Mapping[str, Any]]) -> str:
    """Fingerprint of the predicted boxes and positions of a frame, which edits refer to.

    Scores, ids and v do not count: another threshold or another smoothing of ids leaves the edits valid.
    """
    key = hashlib.blake2b(digest_size=6)
    for person in people:
        keypoints = np.array(person["keypoints"], np.float64).reshape(-1, 3)[:, :2]
        key.update(np.array(person["bbox"], np.float64).tobytes() + keypoints.tobytes() + b";")
    return key.hexdigest()


def rows_of(people: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The people of a record's frame before any edit."""
    return [Row(f"p{i}", person.get("track_id"), person) for i, person in enumerate(people)]


def fold(rows: list[Row], edits: Iterable[Edit], frame: int) -> list[Row]:
    """Apply the edits that concern this frame, in the order of seq. rows: changed in place.

    A keypoint set by hand stays when a propagation gives another value. Ids stay distinct within a frame: where an
    undo brought back a person of the id in question, the change of ids leaves this frame out.
    """
    for edit in edits:
        values = edit.values
        if edit.op == "add":
            rows.append(_added(edit, {row.track for row in rows}))
        elif edit.op == "track":
            _change_ids(rows, values)
        elif edit.op == "propagate":
            people = values["values"].get(str(frame), {})
            for row in rows:
                for index, point in people.get(row.key, {}).items():
                    if int(index) not in row.keypoints:
                        row.propagated[int(index)] = point
        else:
            _change_person(rows, edit)
    return rows


def _added(edit: Edit, taken: set[int | None]) -> Row:
    keypoints = {int(index): point for index, point in edit.values["keypoints"].items()}
    track = edit.values["track"]
    return Row(f"a{edit.seq}", None if track in taken else track, None, keypoints, box=edit.values["box"])


def _change_person(rows: list[Row], edit: Edit) -> None:
    for place, row in enumerate(rows):
        if row.key != edit.values["person"]:
            continue
        if edit.op == "delete":
            del rows[place]
        elif edit.op == "accept":
            row.accepted = True
        elif edit.op == "box":
            row.box = edit.values["box"]
        elif edit.op == "keypoints":
            for index, point in edit.values["keypoints"].items():
                row.keypoints[int(index)] = point
                row.propagated.pop(int(index), None)
        return


def _change_ids(rows: list[Row], values: Mapping[str, Any]) -> None:
    one = [row for row in rows if row.track == values["track"]]
    other = [row for row in rows if row.track == values["to"]]
    if one and other and not values["swap"]:
        return
    for row in one:
        row.track, row.track_corrected = values["to"], True
    if values["swap"]:
        for row in other:
            row.track, row.track_corrected = values["track"], True


def person_state(row: Row, keypoint_count: int) -> PersonState:
    """The person of a row with all arrays."""
    given = row.prediction
    if given is None:
        keypoints = np.zeros((keypoint_count, 3))
        scores, std, box, score = np.zeros(keypoint_count), np.zeros((keypoint_count, 2)), np.zeros(4), 1.0
    else:
        keypoints = np.array(given["keypoints"], np.float64).reshape(keypoint_count, 3)
        scores = np.array(given["keypoint_scores"], np.float64)
        std = np.array(given["keypoint_std"], np.float64).reshape(keypoint_count, 2)
        box = np.array(given["bbox"], np.float64)
        box[2:] += box[:2]
        score = float(given["score"])
    for index, point in row.propagated.items():
        keypoints[index, :2] = point
    for index, point in row.keypoints.items():
        keypoints[index] = point
        scores[index], std[index] = float(point[2] > 0), 0.0
    return PersonState(
        key=row.key,
        keypoints=keypoints,
        box=box if row.box is None else np.array(row.box, np.float64),
        score=score,
        keypoint_scores=scores,
        keypoint_std=std,
        track=row.track,
        corrected=tuple(sorted(row.keypoints)),
        propagated=tuple(sorted(row.propagated)),
        added=given is None,
        accepted=row.accepted,
        box_corrected=given is not None and row.box is not None,
        track_corrected=row.track_corrected,
        prediction=given,
    )
