"""People corrected by `posecli review` as training data, with a part of them held out.

A person takes part who was added, accepted, or has a box or a keypoint set by hand; of those that only a propagation
changed, two a second of each track, since neighbouring frames teach the same. Weights of keypoints: 1 where set by
hand, accepted or propagated, else the predicted score; 0 with v 0.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from posecli.corrections.corrections import Corrections
from posecli.corrections.source_frames import check_unchanged, source_frames
from posecli.corrections.sources import find_source
from posecli.corrections.state import FrameState, PersonState
from posecli.errors import DataError, MediaError
from posecli.evaluate.ground_truth import GroundTruth
from posecli.geometry import Float64Array, person_areas
from posecli.keypoints import KeypointSet, same_keypoints
from posecli.media.write_images import write_image
from posecli.results.output_list import read_output_list
from posecli.text import printed
from posecli.train.data import People

# Seconds between people of a track that only a propagation changed.
PROPAGATED_APART = 0.5
# Part of the corrected people that is held out by default.
HOLD_OUT = 0.2


@dataclass(frozen=True, eq=False)
class CorrectedPerson:
    """A person of a frame. image: the file with the frame's pixels, a photo itself or a decoded frame.

    content: hash of the source, by which people are held out: all of a clip or photo, in whatever folders it is.
    weight: factor on the weights of the keypoints, the folder's.
    """

    out: Path
    input: str
    kind: str
    frame: FrameState
    person: PersonState
    image: Path
    content: str
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class CorrectedData:
    """Corrected people to train on and to evaluate on. remarks: what was left out or is uncommon, for the user."""

    keypoint_set: KeypointSet
    training: tuple[CorrectedPerson, ...]
    held_out: tuple[CorrectedPerson, ...]
    remarks: tuple[str, ...] = ()

    def decode(self, say: Callable[[str], None] = lambda line: None) -> None:
        """Write the frames of clips that are not yet there as PNG files. Raises MediaError, OSError."""
        wanted = [one for one in (*self.training, *self.held_out) if one.image.suffix == _FRAME_SUFFIX]
        missing = {one.image: one for one in wanted if one.image.name.startswith(_FRAME) and not one.image.is_file()}
        if missing:
            say(f"decoding {len(missing)} corrected frames")
        for (out, name), people in groupby(sorted(missing.values(), key=_order), key=lambda one: (one.out, one.input)):
            of_input = list(people)
            source = find_source(read_output_list(out).sources, name)
            of_input[0].image.parent.mkdir(parents=True, exist_ok=True)
            pixels = source_frames(out, name, of_input[0].kind, source, [one.frame for one in of_input])
            for one, picture in zip(of_input, pixels, strict=True):
                write_image(one.image, picture)

    def people(self) -> People:
        """The people to train on."""
        found = self.training
        return People(
            self.keypoint_set,
            tuple(one.image for one in found),
            tuple(f"{one.out.name}/{one.input}#{one.frame.index:06d}:{one.person.key}" for one in found),
            np.array([one.person.box for one in found]).reshape(-1, 4),
            np.array([one.person.keypoints[:, :2] for one in found]).reshape(len(found), -1, 2),
            np.array([one.weight * keypoint_weights(one.frame, one.person) for one in found]),
            sizes=tuple((one.frame.width, one.frame.height) for one in found),
        )

    def ground_truth(self) -> GroundTruth | None:
        """The people held out; None without any. Of keypoints that were not set, those with v 2 count."""
        if not self.held_out:
            return None
        images = {image: number for number, image in enumerate(dict.fromkeys(one.image for one in self.held_out), 1)}
        sizes = {one.image: (one.frame.width, one.frame.height) for one in self.held_out}
        dataset: dict[str, Any] = {
            "images": [
                {"id": number, "file_name": image.name, "width": sizes[image][0], "height": sizes[image][1]}
                for image, number in images.items()
            ],
            "annotations": [
                _annotation(number, images[one.image], one.person) for number, one in enumerate(self.held_out, 1)
            ],
            "categories": [{"id": 1, "name": "person", "keypoints": list(self.keypoint_set.names)}],
        }
        places = {number: image for image, number in images.items()}
        return GroundTruth(dataset, self.held_out[0].image.parent, self.keypoint_set, places=places)


_FRAME, _FRAME_SUFFIX = "frame-", ".png"


def read_corrected(
    outs: Sequence[Path], cache: Path, hold_out: float = HOLD_OUT, weights: Sequence[float] | None = None
) -> CorrectedData:
    """The corrected people of output folders. cache: folder of decoded frames. weights: of the folders in the loss.

    hold_out: part of the people that is held out, whole clips and photos, chosen by their hash; with one
    clip alone the last part of its frames. Raises UsageError where a folder holds no results, DataError where keypoint
    sets differ, no person was corrected, or a source is gone or was changed.
    """
    found: list[CorrectedPerson] = []
    keypoint_set: KeypointSet | None = None
    for out, weight in zip(outs, weights or [1.0] * len(outs), strict=True):
        with Corrections.open(out, write=False) as corrections:
            if keypoint_set is not None and not same_keypoints(keypoint_set, corrections.keypoint_set):
                raise DataError(
                    f"--corrections {printed(out)}: its keypoints differ from those of the folder before it"
                )
            keypoint_set = keypoint_set or corrections.keypoint_set
            try:
                found += _people_of(corrections, cache, weight)
            except MediaError as error:
                raise DataError(f"--corrections {printed(out)}: {error}") from error
    if keypoint_set is None or not found:
        raise DataError(f"--corrections: no person was corrected in {', '.join(map(printed, outs))} (posecli review)")
    training, held_out, remarks = _split(found, hold_out)
    return CorrectedData(keypoint_set, tuple(training), tuple(held_out), tuple(remarks))


def _people_of(corrections: Corrections, cache: Path, weight: float) -> list[CorrectedPerson]:
    """The corrected people of a folder, by input and frame. Raises MediaError where a source is gone or changed."""
    listed, found = read_output_list(corrections.out), []
    for place, name in enumerate(corrections.run_inputs.names):
        frames = corrections.touched_frames(name)
        chosen = _chosen(corrections.frame(name, frame) for frame in frames if corrections.changes(name, frame))
        if not chosen:
            continue
        info, source = corrections.run_inputs[place], find_source(listed.sources, name)
        content = check_unchanged(corrections.out, name, source)
        whole = info.kind == "photo" and info.frames == 1
        key = hashlib.blake2b(
            f"{corrections.out.resolve()}\0{name}\0{_stamp(source)}".encode(), digest_size=8
        ).hexdigest()
        for state, person in chosen:
            image = Path(source) if whole else cache / f"{_FRAME}{key}-{state.index:06d}{_FRAME_SUFFIX}"
            found.append(CorrectedPerson(corrections.out, name, info.kind, state, person, image, content, weight))
    return found


def _stamp(source: Path | str) -> str:
    found = Path(source).stat() if isinstance(source, Path) else None
    return "" if found is None else f"{found.st_size} {found.st_mtime_ns}"


def _chosen(states: Iterable[FrameState]) -> list[tuple[FrameState, PersonState]]:
    found, last = [], dict[int | None, float]()
    for state in states:
        time = state.time_s if state.time_s is not None else float(state.index)
        for person in state.people:
            by_hand = person.added or person.accepted or person.corrected or person.box_corrected
            alone = person.propagated and time - last.get(person.track, -np.inf) >= PROPAGATED_APART
            if (by_hand or alone) and keypoint_weights(state, person).any():
                found.append((state, person))
                last[person.track] = time
    return found


def keypoint_weights(state: FrameState, person: PersonState) -> Float64Array:
    """Weights (K,) of a person's keypoints; 0 outside of the frame."""
    sure = np.zeros(len(person.keypoints), bool)
    sure[[*person.corrected, *person.propagated]] = True
    weights = np.where(sure | person.accepted, 1.0, person.keypoint_scores)
    points = person.keypoints[:, :2]
    inside = ((points >= 0) & (points <= [state.width, state.height])).all(axis=-1)
    return np.asarray(weights * inside * (person.keypoints[:, 2] > 0))


def _annotation(number: int, image: int, person: PersonState) -> dict[str, Any]:
    keypoints = person.keypoints.copy()
    known = np.full(len(keypoints), person.accepted)
    known[[*person.corrected, *person.propagated]] = True
    keypoints[~known & (keypoints[:, 2] < 2)] = 0
    keypoints[keypoints[:, 2] == 0] = 0
    box = person.box
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
        "area": float(person_areas(box)),
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": int(np.count_nonzero(keypoints[:, 2])),
    }


def _split(
    found: Sequence[CorrectedPerson], share: float
) -> tuple[list[CorrectedPerson], list[CorrectedPerson], list[str]]:
    """The people to train on, those held out, and remarks."""
    groups: dict[str, list[CorrectedPerson]] = {}
    for one in found:
        groups.setdefault(one.content, []).append(one)
    if share <= 0 or len(found) < 2:
        return list(found), [], []
    if len(groups) == 1:
        frames = sorted({one.frame.index for one in found})
        limit = frames[min(len(frames) - 1, round((1 - share) * len(frames)))]
        training = [one for one in found if one.frame.index < limit]
        if not training:
            return list(found), [], ["one frame alone was corrected: nothing is held out"]
        remark = "one clip alone was corrected: the last part of it is held out, which is like the rest of it"
        return training, [one for one in found if one.frame.index >= limit], [remark]
    held: set[str] = set()
    count = 0
    for group in sorted(groups):
        size = len(groups[group])
        # The first one always, unless it is more than half; others while they fit.
        if count + size <= max(share * len(found), 1) or (not held and 2 * size <= len(found)):
            held.add(group)
            count += size
    remarks = [] if held else ["most people were corrected in one clip: nothing is held out"]
    return [o for o in found if o.content not in held], [o for o in found if o.content in held], remarks


def _order(one: CorrectedPerson) -> tuple[str, str, int]:
    return str(one.out), one.input, one.frame.index


def joined(first: People | None, second: People) -> People:
    """Both, for one training. Raises DataError where their keypoints differ."""
    if first is None:
        return second
    if not same_keypoints(first.keypoint_set, second.keypoint_set):
        raise DataError("--corrections: the keypoints differ from those of --ann")
    return replace(
        first,
        images=first.images + second.images,
        ids=first.ids + second.ids,
        boxes=np.concatenate([first.boxes, second.boxes]),
        keypoints=np.concatenate([first.keypoints, second.keypoints]),
        weights=np.concatenate([first.weights, second.weights]),
        sizes=(first.sizes or (None,) * len(first)) + second.sizes,
        listed=(first.listed or len(set(first.images))) + len(set(second.images)),
    )
