"""The inputs of a run, and any frame of their records without reading the others."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import orjson

from posecli.corrections.state import predictions_key
from posecli.errors import DataError, UsageError
from posecli.keypoints import KeypointSet, from_category
from posecli.results.coco import Recorded
from posecli.results.output_list import read_output_list
from posecli.results.records import read_summary, record_path
from posecli.text import printed
from posecli.types import IntArray

# Records whose line offsets, and whose ids, are kept at the same time.
_INDEXED, _SCANNED = 256, 16
_BLOCK = 1 << 20


@dataclass(frozen=True)
class InputInfo:
    """An input of a run. kind: "photo" or "video". frames, people: sums of its record. frame_rate: None where unknown.

    source: its file, None where it was none (a stream, an address) or is no longer there.
    """

    name: str
    kind: str
    frames: int
    width: int
    height: int
    frame_rate: float | None
    source: Path | None
    people: int


@dataclass(frozen=True, eq=False)
class Scan:
    """Ids and fingerprints of all frames of a record. starts: (F + 1,), ids: those of frame f are
    ids[starts[f]:starts[f + 1]], -1 without tracking. keys: (F,) see state.predictions_key.
    """

    starts: IntArray
    ids: IntArray
    keys: Sequence[str]

    def frame(self, index: int) -> list[int | None]:
        """The ids of a frame's people."""
        ids = self.ids[self.starts[index] : self.starts[index + 1]].tolist()
        return [None if track < 0 else track for track in ids]


class RunInputs(Sequence[InputInfo]):
    """The inputs of OUT that have a record, in the order of its coco.json; each is described when it is asked for.

    Raises UsageError where OUT holds no results of posecli run, DataError where they are damaged.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        refuse_other_folders(out)
        self.keypoint_set = _keypoint_set(out / "coco.json")
        self.names: list[str] = []
        self._kinds: list[str] = []
        for row in _manifest_rows(out / "run.json"):
            if row["ended"] != "failed":
                self.names.append(row["name"])
                self._kinds.append(row["kind"])
        self._places = {name: place for place, name in enumerate(self.names)}
        self._sources = read_output_list(out).sources
        self._offsets: OrderedDict[str, IntArray] = OrderedDict()
        self._scans: OrderedDict[str, Scan] = OrderedDict()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> InputInfo: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[InputInfo]: ...

    def __getitem__(self, index: int | slice) -> InputInfo | Sequence[InputInfo]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        name, kind = self.names[index], self._kinds[index]
        summary = read_summary(record_path(self._out, name))
        if summary is None:
            raise DataError(f"{printed(name)}: its record in {printed(self._out)} is missing: start posecli run again")
        given = self._sources.get(name)
        source = Path(given) if given and "://" not in given else None
        return InputInfo(
            name,
            kind,
            summary.frames,
            summary.width,
            summary.height,
            summary.frame_rate,
            source if given and os.path.exists(given) else None,  # noqa: PTH110 - Path.exists raises for long names
            summary.people,
        )

    def place(self, name: str) -> int:
        """The position of an input. Raises UsageError where there is none of this name."""
        if name not in self._places:
            raise UsageError(f"input {printed(name[:200])}: not an input of {printed(self._out)}")
        return self._places[name]

    def recorded(self) -> Iterator[Recorded]:
        """The inputs as results.coco needs them."""
        for name, kind in zip(self.names, self._kinds, strict=True):
            yield Recorded(name, kind, record_path(self._out, name))

    def frames(self, name: str) -> int:
        """The number of frames of an input's record. Raises UsageError, DataError."""
        return len(self._lines(name)) - 1

    def read(self, name: str, index: int) -> dict[str, Any]:
        """The record's entry of a frame. Raises UsageError where there is no such frame, DataError."""
        offsets = self._lines(name)
        if not 0 <= index < len(offsets) - 1:
            raise UsageError(f"frame {index}: {printed(name)} has {len(offsets) - 1} frames, from 0")
        start, end = int(offsets[index]), int(offsets[index + 1])
        try:
            with record_path(self._out, name).open("rb") as file:
                file.seek(start)
                line: dict[str, Any] = orjson.loads(file.read(end - start))
        except (OSError, orjson.JSONDecodeError) as error:
            raise self._damaged(name) from error
        return line

    def read_all(self, name: str) -> Iterator[dict[str, Any]]:
        """The entries of all frames, one at a time."""
        count = self.frames(name)
        try:
            with record_path(self._out, name).open("rb") as file:
                next(file)
                for _ in range(count):
                    yield orjson.loads(next(file))
        except (OSError, StopIteration, orjson.JSONDecodeError) as error:
            raise self._damaged(name) from error

    def scan(self, name: str) -> Scan:
        """Ids and fingerprints of all frames; of the inputs scanned last they are kept."""
        with self._lock:
            if name not in self._scans:
                starts, ids, keys = [0], [], []
                for line in self.read_all(name):
                    ids += [person.get("track_id", -1) for person in line["people"]]
                    starts.append(len(ids))
                    keys.append(predictions_key(line["people"]))
                self._scans[name] = Scan(np.array(starts, np.int64), np.array(ids, np.int64), keys)
            self._scans.move_to_end(name)
            if len(self._scans) > _SCANNED:
                self._scans.popitem(last=False)
            return self._scans[name]

    def _lines(self, name: str) -> IntArray:
        """The byte offsets of the frames' lines, and of the line after them."""
        with self._lock:
            if name not in self._offsets:
                self.place(name)
                self._offsets[name] = self._index(name)
            self._offsets.move_to_end(name)
            if len(self._offsets) > _INDEXED:
                self._offsets.popitem(last=False)
            return self._offsets[name]

    def _index(self, name: str) -> IntArray:
        ends, position = [], 0
        try:
            with record_path(self._out, name).open("rb") as file:
                while block := file.read(_BLOCK):
                    ends.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + position + 1)
                    position += len(block)
        except OSError as error:
            raise self._damaged(name) from error
        found = np.concatenate([np.zeros(0, np.int64), *ends])
        if len(found) < 2 or found[-1] != position:
            raise self._damaged(name)
        return np.asarray(found[:-1], np.int64)  # the first line is the header, the last one the summary

    def _damaged(self, name: str) -> DataError:
        return DataError(f"{printed(name)}: its record in {printed(self._out)} is damaged: start posecli run again")


def refuse_other_folders(out: Path) -> None:
    """Raise UsageError where a folder holds no results of posecli run."""
    if not (out / "run.json").is_file() or not (out / "coco.json").is_file():
        raise UsageError(f"{printed(out)}: no results of posecli run there (run.json, coco.json)")


def _keypoint_set(path: Path) -> KeypointSet:
    """The keypoints of coco.json, whose second line has the category. Raises DataError."""
    try:
        with path.open("rb") as file:
            file.readline()
            line = file.readline(1 << 20).rstrip().removesuffix(b",")
        return from_category(orjson.loads(b"{" + line + b"}")["categories"][0])
    except (OSError, orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise DataError(f"{printed(path)}: not written by posecli run, or damaged: run it again") from error


def _manifest_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of run.json's inputs, one at a time: each begins and ends on a line of its own. Raises DataError."""
    try:
        with path.open("rb") as file:
            for line in file:
                if line.startswith(b'  "inputs": ['):
                    break
            row: list[bytes] = []
            for line in file:
                if line.rstrip(b",\n") == b"    }":
                    found = orjson.loads(b"".join([*row, b"}"]))
                    yield {name: found[name] for name in ("name", "kind", "ended")}
                    row = []
                else:
                    row.append(line)
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{printed(path)}: not written by posecli run, or damaged: run it again") from error
