"""What the page is told, as JSON values."""

from typing import Any

from posecli import __version__
from posecli.corrections.corrections import Corrections, TrackInfo
from posecli.corrections.edits import Edit
from posecli.corrections.recorded import InputInfo
from posecli.corrections.state import FrameState, PersonState
from posecli.draw.palette import COLOURS, ID_COLOURS, css, drawn_side
from posecli.errors import UsageError
from posecli.keypoints import KeypointSet


def session(corrections: Corrections) -> dict[str, Any]:
    """What holds for all frames."""
    return {
        "version": __version__,
        "seq": corrections.seq,
        "keypoints": keypoints(corrections.keypoint_set),
        "id_colors": [css(colour) for colour in ID_COLOURS],
        "inputs": len(corrections.inputs()),
        "out": corrections.out.resolve().name,
        "read_only": not corrections.write,
    }


def keypoints(found: KeypointSet) -> dict[str, Any]:
    """Names, pairs of a skeleton's ends, the mirrored keypoint of each, and the colour of each; indices from 0."""
    return {
        "names": list(found.names),
        "skeleton": [list(pair) for pair in found.skeleton],
        "mirrors": list(found.flip_indices),
        "colors": [css(COLOURS[drawn_side(found, index)]) for index in range(len(found))],
    }


def input_info(number: int, info: InputInfo, edits: int) -> dict[str, Any]:
    """An input. number: by which it is called in requests."""
    return {
        "id": number,
        "name": info.name,
        "kind": info.kind,
        "frames": info.frames,
        "width": info.width,
        "height": info.height,
        "frame_rate": info.frame_rate,
        "people": info.people,
        "edits": edits,
    }


def frame(number: int, state: FrameState, seq: int) -> dict[str, Any]:
    """A frame with its people. number: of the input."""
    return {
        "input": number,
        "frame": state.index,
        "time_s": state.time_s,
        "width": state.width,
        "height": state.height,
        "seq": seq,
        "people": [person(each) for each in state.people],
    }


def person(state: PersonState) -> dict[str, Any]:
    """A person of a frame."""
    points = state.keypoints.tolist()
    return {
        "key": state.key,
        "keypoints": [[x, y, int(v)] for x, y, v in points],
        "scores": state.keypoint_scores.tolist(),
        "std": state.keypoint_std.tolist(),
        "box": state.box.tolist(),
        "score": state.score,
        "track": state.track,
        "corrected": list(state.corrected),
        "propagated": list(state.propagated),
        "added": state.added,
        "accepted": state.accepted,
        "box_corrected": state.box_corrected,
    }


def track(info: TrackInfo) -> dict[str, Any]:
    """A track of an input."""
    return {
        "track": info.track,
        "first": info.first,
        "last": info.last,
        "frames": info.frames,
        "corrected": list(info.corrected),
    }


def edit(corrections: Corrections, made: Edit) -> dict[str, Any]:
    """An edit as in the journal, but with the input's number (None where it is no longer there) besides its name."""
    line = made.to_json()
    line.pop("predictions", None)
    if made.input is not None:
        line |= {"input": number_of(corrections, made.input), "name": made.input}
    return line


def number_of(corrections: Corrections, name: str) -> int | None:
    """The number of an input; None where there is none of this name."""
    try:
        return corrections.run_inputs.place(name)
    except UsageError:
        return None
