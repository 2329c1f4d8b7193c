"""coco_corrected.json: coco.json with the edits applied."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from posecli.corrections.corrections import Corrections
from posecli.corrections.state import PersonState
from posecli.errors import MachineError, UsageError
from posecli.results.coco import coco_images, has_own_ids, write_coco_file
from posecli.results.output_list import read_output_list, write_output_list
from posecli.text import printed

NAME = "coco_corrected.json"


def write_corrected(corrections: Corrections) -> Path:
    """Write OUT/coco_corrected.json and give its path; as coco.json, whose image ids it has, frame by frame.

    A person whom an edit refers to has "corrected" and "propagated", lists of indices of keypoints, and where it
    applies "added", "accepted", "box_corrected", "track_corrected": true. Keypoints with v 0 are 0, 0, 0. Memory does
    not grow with the records; the same records and edits give the same bytes. Raises UsageError where the file is
    there and not posecli's, MachineError where it cannot be written.
    """
    out = corrections.out
    listed = read_output_list(out)
    if (out / NAME).exists() and not listed.owns(NAME):
        raise UsageError(f"{printed(out / NAME)} is not posecli's: move it away")
    recorded = corrections.run_inputs.recorded
    try:
        if NAME not in listed.files:
            write_output_list(out, replace(listed, files=listed.files | {NAME}))
        images = coco_images(recorded(), has_own_ids(recorded()), lambda item: _frames(corrections, item.name))
        write_coco_file(out / NAME, recorded(), images, corrections.keypoint_set)
    except OSError as error:
        raise MachineError(f"{printed(out / NAME)}: cannot be written ({error.strerror})") from error
    return out / NAME


def _frames(corrections: Corrections, name: str) -> Iterator[dict[str, Any]]:
    """The frames of an input as a record has them, with the edits applied."""
    for index, line in enumerate(corrections.run_inputs.read_all(name)):
        if corrections.changes(name, index):
            line["people"] = [person_to_coco(person) for person in corrections.state(name, index, line).people]
        yield line


def person_to_coco(person: PersonState) -> dict[str, Any]:
    """The person as an entry of a record (a COCO annotation without ids): the prediction where nothing was edited."""
    if not person.touched and person.prediction is not None:
        return dict(person.prediction)
    keypoints = person.keypoints.copy()
    keypoints[keypoints[:, 2] == 0] = 0
    x0, y0, x1, y1 = person.box.tolist()
    result: dict[str, Any] = {
        **(person.prediction or {}),
        "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
        "area": round((x1 - x0) * (y1 - y0), 2),
        "keypoints": [value for x, y, v in keypoints.tolist() for value in (x, y, int(v))],
        "num_keypoints": int(np.count_nonzero(keypoints[:, 2])),
        "score": person.score,
        "box_score": 1.0 if person.prediction is None else person.prediction["box_score"],
        "keypoint_scores": person.keypoint_scores.tolist(),
        "keypoint_std": person.keypoint_std.tolist(),
    }
    if not person.box_corrected and person.prediction is not None:
        result |= {name: person.prediction[name] for name in ("bbox", "area")}
    if person.track is not None:
        result["track_id"] = person.track
    result |= {"corrected": list(person.corrected), "propagated": list(person.propagated)}
    flags = ("added", "accepted", "box_corrected", "track_corrected")
    return result | {flag: True for flag in flags if getattr(person, flag)}
