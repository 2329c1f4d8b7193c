"""`posecli review OUT --render`: media drawn anew with the corrections, into OUT/corrected."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from av.error import FFmpegError

from posecli.corrections.corrections import Corrections
from posecli.corrections.merge import person_to_coco
from posecli.corrections.recorded import InputInfo
from posecli.corrections.sources import changed, find_source, is_unchanged
from posecli.corrections.state import FrameState
from posecli.draw.style import DrawStyle
from posecli.errors import DataError, MediaError, PosecliError, UsageError
from posecli.media.encoders import EncodeOptions
from posecli.media.identity import name_key
from posecli.media.images import DEFAULT_MAX_PIXELS
from posecli.media.photos import PhotoReader
from posecli.media.span import Span
from posecli.media.video import VideoReader
from posecli.media.write_images import photo_name
from posecli.media.write_video import video_name
from posecli.pipeline.error_messages import error_message
from posecli.pipeline.events import Progress
from posecli.results.manifest import Finished, read_options
from posecli.results.media_writer import MediaWriter
from posecli.results.output_list import read_output_list, write_output_list
from posecli.results.protect import Protected, refuse_replacing
from posecli.results.records import Summary, read_summary, record_path
from posecli.text import printed
from posecli.types import Frame, Poses

FOLDER = "corrected"
_INPUT_ERRORS = (PosecliError, FFmpegError, OSError, ValueError, MemoryError)

Kind = TypeVar("Kind", DrawStyle, EncodeOptions)


@dataclass(frozen=True)
class Look:
    """How the run drew its media: its options, by which they are drawn again."""

    style: DrawStyle
    encoding: EncodeOptions
    span: Span
    max_pixels: int


def corrected_inputs(corrections: Corrections) -> list[str]:
    """The names of the inputs that have an edit in effect, in the order of the run."""
    return [name for name in corrections.run_inputs.names if corrections.edit_count(name)]


def render(corrections: Corrections, names: list[str], progress: Progress) -> list[Finished]:
    """Draw the inputs of these names with their corrections; the media of the predictions stay as they are.

    Files have the run's names, in OUT/corrected, and its look and encoder. One that fails is told to progress, and the
    rest goes on. Raises UsageError where a file there is not posecli's or would replace an input, OSError where the
    disk is full.
    """
    out = corrections.out
    look = run_look(read_options(out))
    places = {name: _place(corrections, name) for name in names}
    _claim(out, [*places.values()])
    done = []
    for name in names:
        began = time.monotonic()
        info = corrections.inputs()[corrections.run_inputs.place(name)]
        progress.begin(name, info.frames)
        try:
            warnings = _render_one(corrections, info, out / places[name], look, progress)
            summary = Summary("done", frames=info.frames, outputs=(places[name],), warnings=tuple(warnings))
        except _INPUT_ERRORS as error:
            summary = Summary("failed", error=error_message(error, name))
        item = Finished(name, name, info.kind, replace(summary, seconds=round(time.monotonic() - began, 3)))
        progress.finish(item)
        done.append(item)
    return done


def run_look(options: Mapping[str, Any]) -> Look:
    """The look of a run by the options in its run.json. Raises DataError where they are of another version."""
    try:
        span = {name: _position(value) for name, value in options.get("span", {}).items()}
        return Look(
            _known(DrawStyle, options.get("style", {})),
            _known(EncodeOptions, options.get("encoding", {})),
            Span(**span),
            int(options.get("max_pixels", DEFAULT_MAX_PIXELS)),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError("run.json: its options are not those of this version of posecli: run again") from error


def _known(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names})


def _position(value: Any) -> Any:
    """A limit of a span; seconds are texts of fractions."""
    return Fraction(value) if isinstance(value, str) else value


def _place(corrections: Corrections, name: str) -> str:
    """The path of an input's drawn file, relative to OUT."""
    summary = read_summary(record_path(corrections.out, name))
    if summary is not None and summary.outputs:
        place = summary.outputs[0]
    else:  # a run without media
        kind = corrections.inputs()[corrections.run_inputs.place(name)].kind
        place = video_name(name) if kind == "video" else photo_name(name)
    parts = PurePosixPath(place).parts
    if not parts or PurePosixPath(place).is_absolute() or ".." in parts or "\\" in place:
        raise DataError(f"{printed(place)}: no path within the output folder")
    return f"{FOLDER}/{place}"


def _claim(out: Path, places: list[str]) -> None:
    """Add the files to the list of posecli's. Raises UsageError where one of them is not its own."""
    listed = read_output_list(out)
    if any(name_key(name).startswith(f"{FOLDER}/") for name in listed.sources):
        raise UsageError(
            f"--render: the run has media in its own {printed(out / FOLDER)}: rename that folder of inputs"
        )
    refuse_replacing(Protected(Path(s) for s in listed.sources.values()), (out / p for p in places), "--render")
    foreign = [place for place in places if (out / place).exists() and place not in listed.files]
    if foreign:
        raise UsageError(f"--render: {printed(out / foreign[0])} is not posecli's: move it away")
    write_output_list(out, replace(listed, files=listed.files | {*places}))


def _render_one(corrections: Corrections, info: InputInfo, path: Path, look: Look, progress: Progress) -> list[str]:
    out = corrections.out
    source = find_source(read_output_list(out).sources, info.name)
    if not is_unchanged(out, info.name, source):
        raise changed(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(corrections.keypoint_set)
    with ExitStack() as stack:
        reader: VideoReader | None = None
        if info.kind == "video":
            reader = stack.enter_context(VideoReader(source, span=look.span))
        pages = PhotoReader(Path(source), max_pixels=look.max_pixels)
        photo = Path(source) if reader is None else None
        writer = MediaWriter(
            path, reader, corrections.keypoint_set, style=look.style, encoding=look.encoding, photo=photo
        )
        stack.callback(writer.abort)
        frames: Iterator[Frame] = iter(pages if reader is None else reader)
        for state in corrections.frames(info.name):
            frame = _frame_of(frames, state)
            poses = poses_of(state, count)
            writer.update(frame, poses)
            writer.encode(writer.draw(frame, poses), frame)
            progress.advance(info.name, 1)
        warnings = writer.finish()
        stack.pop_all()
        if reader is not None:
            reader.close()
    return warnings


def _frame_of(frames: Iterator[Frame], state: FrameState) -> Frame:
    """The frame of a record's entry. Raises MediaError where the source has none."""
    frame = next(frames, None)
    if frame is None or frame.index != state.source_index or (frame.width, frame.height) != (state.width, state.height):
        raise MediaError(f"frame {state.index} is not that of the run: was its source changed?")
    return frame


def poses_of(state: FrameState, keypoints: int) -> Poses:
    """The people of a frame to be drawn; keypoints that follow from corrections are, whatever their score."""
    people = []
    tracked = any(person.track is not None for person in state.people)
    for row, person in enumerate(state.people):
        scores = person.keypoint_scores.copy()
        scores[list(person.propagated)] = 1.0
        track = {"track_id": -row if person.track is None else person.track} if tracked else {}
        people.append({**person_to_coco(person), "keypoint_scores": scores.tolist(), **track})
    return Poses.from_coco(people, keypoints)
