"""Corrections of a run: its records, the journal of edits, and the people of any frame after the edits."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from posecli.corrections.edits import Edit, checked_values, edit_from_json
from posecli.corrections.journal import CorrectionJournal, damaged, journal_path
from posecli.corrections.recorded import InputInfo, RunInputs, refuse_other_folders
from posecli.corrections.state import FrameState, Row, fold, person_state, predictions_key, rows_of
from posecli.errors import UsageError
from posecli.keypoints import KeypointSet
from posecli.results.lock import locked

# Edits of a range of frames; all others concern the frame that they name.
_RANGES = ("track", "propagate")


@dataclass(frozen=True)
class TrackInfo:
    """A track after the edits: first and last frame, number of frames, and those with a keypoint set by hand."""

    track: int
    first: int
    last: int
    frames: int
    corrected: tuple[int, ...]


@dataclass
class _InputEdits:
    """The edits of an input, undone ones included: by frame, and those of ranges."""

    frames: dict[int, list[Edit]] = field(default_factory=dict)
    ranges: list[Edit] = field(default_factory=list)

    @property
    def touched(self) -> set[int]:
        """The frames that edits name, without ranges of ids."""
        named = {frame for edit in self.ranges if edit.op == "propagate" for frame in map(int, edit.values["values"])}
        return named | set(self.frames)


@dataclass
class _Client:
    """What a client can undo and redo: numbers of edits, the last one first to go."""

    done: list[int] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)


class Corrections:
    """The corrections of a run's output folder; see `open`. A context manager. Usable from several threads."""

    def __init__(self, out: Path, write: bool, stack: ExitStack) -> None:
        self.out, self.write = out, write
        self._stack = stack
        self._inputs = RunInputs(out)
        self._lock = threading.RLock()
        self._edits: list[Edit] = []
        self._undone: set[int] = set()
        self._by_input: dict[str, _InputEdits] = {}
        self._clients: dict[str, _Client] = {}
        path = journal_path(out)
        self._journal = CorrectionJournal(path, write=write)
        stack.callback(self._journal.close)
        for number, line in self._journal.lines():
            try:
                edit = edit_from_json(line, len(self.keypoint_set))
                if edit.seq != self.seq + 1:
                    raise UsageError(f"seq {edit.seq} after {self.seq}")
            except UsageError as error:
                raise damaged(path, number, str(error)) from error
            self._take(edit)

    @classmethod
    def open(cls, out: Path, write: bool) -> "Corrections":
        """The corrections of an output folder of `posecli run`. write: hold the folder's lock, as a run does.

        Raises UsageError where there are no results, MachineError where another process writes there or the journal
        cannot be opened, DataError where results or journal are damaged.
        """
        with ExitStack() as stack:
            refuse_other_folders(out)  # before anything is created
            if write:
                stack.enter_context(locked(out, "review", ".posecli/lock"))
            return cls(out, write, stack.pop_all())

    def close(self) -> None:
        """Close the journal and release the lock."""
        self._stack.close()

    def __enter__(self) -> "Corrections":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seq(self) -> int:
        """The number of the last edit, 0 without one."""
        return len(self._edits)

    @property
    def keypoint_set(self) -> KeypointSet:
        """The keypoints of the run."""
        return self._inputs.keypoint_set

    @property
    def run_inputs(self) -> RunInputs:
        """The inputs with their records."""
        return self._inputs

    def inputs(self) -> Sequence[InputInfo]:
        """The inputs in the order of coco.json, each described when it is asked for."""
        return self._inputs

    def edit(self, seq: int) -> Edit:
        """An edit by its number. Raises UsageError."""
        if not 1 <= seq <= self.seq:
            raise UsageError(f"edit {seq}: there are {self.seq}")
        return self._edits[seq - 1]

    def since(self, seq: int) -> list[Edit]:
        """The edits after this one."""
        with self._lock:
            return self._edits[max(0, seq) :]

    def edit_count(self, name: str) -> int:
        """The number of edits of an input that are not undone."""
        with self._lock:
            found = self._by_input.get(name, _InputEdits())
            edits = [*found.ranges, *(edit for edits in found.frames.values() for edit in edits)]
            return sum(edit.seq not in self._undone for edit in edits)

    def frame(self, name: str, index: int) -> FrameState:
        """A frame of an input after the edits. index: 0 to frames - 1. Raises UsageError, DataError."""
        return self.state(name, index, self._inputs.read(name, index))

    def frames(self, name: str) -> Iterator[FrameState]:
        """All frames of an input after the edits, one at a time. Raises UsageError, DataError."""
        for index, line in enumerate(self._inputs.read_all(name)):
            yield self.state(name, index, line)

    def state(self, name: str, index: int, line: Mapping[str, Any]) -> FrameState:
        """A frame after the edits, whose entry in the record was read already."""
        rows = rows_of(line["people"])
        with self._lock:
            if self._effective(name, index, None):
                fold(rows, self._effective(name, index, predictions_key(line["people"])), index)
        people = tuple(person_state(row, len(self.keypoint_set)) for row in rows)
        return FrameState(index, line["index"], line["time_s"], line["width"], line["height"], people)

    def touched_frames(self, name: str) -> list[int]:
        """The frames that edits name, undone ones included, in order; not all those of a changed id."""
        with self._lock:
            return sorted(self._by_input.get(name, _InputEdits()).touched)

    def changes(self, name: str, index: int) -> bool:
        """Whether any edit in effect may concern this frame."""
        with self._lock:
            return bool(self._effective(name, index, None))

    def ids(self, name: str, index: int) -> list[tuple[str, int | None]]:
        """(key, track id) of the people of a frame after the edits: `frame` without their keypoints, from memory.

        The first call for an input reads its record once.
        """
        with self._lock:
            return [(row.key, row.track) for row in self._id_rows(name, index)]

    def tracks(self, name: str) -> list[TrackInfo]:
        """The tracks of an input after the edits, by id. Raises UsageError, DataError."""
        found: dict[int, list[Any]] = {}
        for index in range(self._inputs.frames(name)):
            with self._lock:
                rows = self._id_rows(name, index)
            for row in rows:
                if row.track is not None:
                    entry = found.setdefault(row.track, [index, index, 0, []])
                    entry[1], entry[2] = index, entry[2] + 1
                    if row.keypoints:
                        entry[3].append(index)
        return [TrackInfo(track, a, b, count, tuple(c)) for track, (a, b, count, c) in sorted(found.items())]

    def outdated(self) -> list[Edit]:
        """Edits whose predictions are no longer there, as the input was run again: they are kept, without effect."""
        with self._lock:
            names = set(self._inputs.names)
            return [
                edit
                for edit in self._edits
                if edit.input is not None and (edit.input not in names or not self._is_current(edit))
            ]

    def apply(self, edit: Mapping[str, Any], client: str) -> Edit:
        """Check an edit {"op", ...}, append it to the journal and apply it; the edit with its number.

        When this returns the edit is on the disk. Raises UsageError, one line, where a value is invalid or refers to
        what is not there; MachineError where the journal cannot be written. Nothing is changed then.
        """
        values = checked_values(edit, len(self.keypoint_set))
        op = str(edit["op"])
        with self._lock:
            self._check(op, values)
            made = self._made(client, op, values)
            assert made.frame is not None
            key = predictions_key(self._inputs.read(values["input"], made.frame)["people"])
            return self._append(self._made(client, op, values, key))

    def undo(self, client: str) -> Edit | None:
        """Undo the client's last edit that is in effect: the edit "undo", whose target it is; None without one."""
        with self._lock:
            done = self._clients.get(client, _Client()).done
            return self._append(self._made(client, "undo", {"target": done[-1]})) if done else None

    def redo(self, client: str) -> Edit | None:
        """Take back the client's last undo, unless it made another edit since; None without one."""
        with self._lock:
            undone = self._clients.get(client, _Client()).undone
            return self._append(self._made(client, "redo", {"target": undone[-1]})) if undone else None

    def _made(self, client: str, op: str, values: Mapping[str, Any], predictions: str | None = None) -> Edit:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return Edit(self.seq + 1, now, client, op, values, predictions)

    def _append(self, edit: Edit) -> Edit:
        if not self.write:
            raise UsageError("opened to be read only")
        line = edit.to_json()
        edit_from_json(line, len(self.keypoint_set))  # what could not be read again is never written
        self._journal.append(line)
        self._take(edit)
        return edit

    def _take(self, edit: Edit) -> None:
        """Apply an edit in memory."""
        self._edits.append(edit)
        client = self._clients.setdefault(edit.client, _Client())
        if edit.op in ("undo", "redo"):
            target = edit.values["target"]
            source, goal = (client.done, client.undone) if edit.op == "undo" else (client.undone, client.done)
            if target in source:
                source.remove(target)
                goal.append(target)
            if edit.op == "undo":
                self._undone.add(target)
            else:
                self._undone.discard(target)
            return
        client.done.append(edit.seq)
        client.undone.clear()
        assert edit.input is not None and edit.frame is not None
        mine = self._by_input.setdefault(edit.input, _InputEdits())
        if edit.op in _RANGES:
            mine.ranges.append(edit)
        else:
            mine.frames.setdefault(edit.frame, []).append(edit)

    def _effective(self, name: str, index: int, key: str | None) -> list[Edit]:
        """The edits in effect that may concern a frame, by number. key: of its predictions, None: not compared."""
        mine = self._by_input.get(name)
        if mine is None:
            return []
        found = [edit for edit in mine.frames.get(index, []) if key is None or edit.predictions == key]
        for edit in mine.ranges:
            if _concerns(edit, index) and (key is None or self._is_current(edit)):
                found.append(edit)
        return sorted((edit for edit in found if edit.seq not in self._undone), key=lambda edit: edit.seq)

    def _is_current(self, edit: Edit) -> bool:
        """Whether the predictions are those that the edit was made on."""
        assert edit.input is not None and edit.frame is not None
        keys = self._inputs.scan(edit.input).keys
        return edit.frame < len(keys) and keys[edit.frame] == edit.predictions

    def _id_rows(self, name: str, index: int) -> list[Row]:
        scan = self._inputs.scan(name)
        rows = [Row(f"p{i}", track) for i, track in enumerate(scan.frame(index))]
        return fold(rows, self._effective(name, index, scan.keys[index]), index)

    def _check(self, op: str, values: Mapping[str, Any]) -> None:
        """Raise UsageError where an edit refers to what is not there, or its values do not fit the frame."""
        name = values["input"]
        count = self._inputs.frames(name)
        if op == "propagate":
            self._check_propagation(values, count)
            return
        frame = values["frame"]
        if frame >= count:
            raise UsageError(f"frame {frame}: the input has {count} frames, from 0")
        if op == "track":
            self._check_ids(values, count)
            return
        line = self._inputs.read(name, frame)
        people = self._id_rows(name, frame)
        if "person" in values and values["person"] not in {row.key for row in people}:
            raise UsageError(f"person {values['person']}: not in frame {frame} (any more)")
        if op == "add" and values["track"] is not None and values["track"] in {row.track for row in people}:
            raise UsageError(f"track {values['track']}: another person in frame {frame} has this id")
        points = [point for point in values.get("keypoints", {}).values() if point[2] > 0]
        if "box" in values:
            points += [values["box"][:2], values["box"][2:]]
        _check_inside(points, line["width"], line["height"])

    def _check_ids(self, values: Mapping[str, Any], count: int) -> None:
        track, to = values["track"], values["to"]
        found = False
        for index in range(values["frame"], count if values["until"] is None else min(count, values["until"])):
            ids = {row.track for row in self._id_rows(values["input"], index)}
            found = found or track in ids
            if track in ids and to in ids and not values["swap"]:
                raise UsageError(
                    f"track {track} and track {to} are both in frame {index}: exchange them, or end before"
                )
        if not found:
            raise UsageError(f"track {track}: no person has this id from frame {values['frame']} on")

    def _check_propagation(self, values: Mapping[str, Any], count: int) -> None:
        for text, people in values["values"].items():
            if int(text) >= count:
                raise UsageError(f"frame {text}: the input has {count} frames, from 0")
            line = self._inputs.read(values["input"], int(text))
            keys = {row.key for row in self._id_rows(values["input"], int(text))}
            for key, points in people.items():
                if key not in keys:
                    raise UsageError(f"person {key}: not in frame {text} (any more)")
                _check_inside(list(points.values()), line["width"], line["height"])


def _concerns(edit: Edit, index: int) -> bool:
    """Whether an edit of a range may concern a frame."""
    values = edit.values
    if edit.op == "propagate":
        return str(index) in values["values"]
    return bool(values["frame"] <= index and (values["until"] is None or index < values["until"]))


def _check_inside(points: Sequence[Sequence[float]], width: int, height: int) -> None:
    """Raise UsageError for positions farther outside of the frame than its size: hidden limbs are seldom beyond."""
    for point in points:
        if not (-width <= point[0] <= 2 * width and -height <= point[1] <= 2 * height):
            raise UsageError(f"{point[0]:g}, {point[1]:g} is too far outside of the frame of {width}×{height}")
