"""The record of a finished input: resuming relies on it, and coco.json is made from it.

A record is a file of JSON lines in OUT/.posecli/records, in a subfolder named by the first two digits of its name:

    {"schema": 1, "name", "kind", "content": key of the input's bytes, "options": key of the settings,
     "version": of an input at an address, see remote.RemoteFile, "keypoints": their names}
    {"index", "time_s", "width", "height", "people": [...]}          one line for each frame, people may be empty
    {"status", "frames", "people", "lost_frames", "lost", "seconds", "error", "outputs", "warnings",
     "width", "height", "frame_rate", "tracks"}

It is written under a temporary name and renamed after its last line: a record is complete or absent.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import orjson

from posecli.atomic import create, temporary
from posecli.types import Frame, Poses

SCHEMA = 1
# Digits of a record's name that name its subfolder: no folder has more than some thousand files for a million inputs.
_SHARD = 2


@dataclass(frozen=True, slots=True)
class Summary:
    """The result of an input. status: "done", "partial" (frames were lost), "failed".

    people: sum over the frames. tracks: number of distinct track ids, None without tracking. frame_rate: nominal frames
    per second of the source, None for a photo or where unknown.
    """

    status: str
    frames: int = 0
    people: int = 0
    lost_frames: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None
    outputs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    width: int = 0
    height: int = 0
    frame_rate: float | None = None
    tracks: int | None = None


def record_path(out: Path, name: str) -> Path:
    """The path of the record of an input."""
    digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    return out / ".posecli" / "records" / digest[:_SHARD] / f"{digest}.jsonl"


def move_to_subfolders(out: Path) -> None:
    """Move records and thumbnails of an older posecli, which had them in one folder, to where they are now.

    Raises OSError.
    """
    for kind, suffix in (("records", ".jsonl"), ("thumbnails", ".jpg")):
        folder = out / ".posecli" / kind
        try:
            with os.scandir(folder) as entries:
                found = [entry.name for entry in entries if entry.name.endswith(suffix) and entry.is_file()]
        except FileNotFoundError:
            continue
        for name in found:
            shard = folder / name[:_SHARD]
            shard.mkdir(exist_ok=True)
            (folder / name).replace(shard / name)


class RecordWriter:
    """Writes one record; a context manager that deletes it unless finish was called."""

    def __init__(self, path: Path, header: Mapping[str, Any], keypoint_threshold: float) -> None:
        self._path, self._threshold = path, keypoint_threshold
        self._part = temporary(path)
        self._file: BinaryIO = create(self._part)
        self._write({"schema": SCHEMA, **header})
        self.frames = self.people = 0
        self._ids: set[int] = set()
        self._tracked = False

    @property
    def tracks(self) -> int | None:
        """Distinct track ids so far; None where no frame was tracked."""
        return len(self._ids) if self._tracked else None

    def _write(self, line: Mapping[str, Any] | Summary) -> None:
        self._file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")

    def write(self, frame: Frame, poses: Poses) -> None:
        """Append a frame and its people."""
        self._write(
            {
                "index": frame.index,
                "time_s": None if frame.time is None else round(float(frame.time), 6),
                "width": frame.width,
                "height": frame.height,
                "people": poses.to_coco(self._threshold),
            }
        )
        self.frames += 1
        self.people += len(poses)
        if poses.track_ids is not None:
            self._tracked = True
            self._ids.update(poses.track_ids.tolist())

    def finish(self, summary: Summary) -> None:
        """Write the last line and rename the record: from now on the input is finished."""
        self._write(summary)
        self._file.close()
        self._part.replace(self._path)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # a full disk: the file is deleted anyway
            self._file.close()
        self._part.unlink(missing_ok=True)


def read_header(path: Path) -> dict[str, Any] | None:
    """The first line of a record, None where it is missing or unreadable."""
    try:
        with path.open("rb") as file:
            header: dict[str, Any] = orjson.loads(file.readline())
    except (OSError, orjson.JSONDecodeError):
        return None
    return header if isinstance(header, dict) and header.get("schema") == SCHEMA else None


def read_summary(path: Path) -> Summary | None:
    """The last line of a record, None where the record is incomplete."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            size = file.tell()
            reach = min(size, 65536)
            file.seek(size - reach)
            tail = file.read()
    except OSError:
        return None
    lines = tail.splitlines()
    if not tail.endswith(b"\n") or not lines:
        return None
    try:
        values = orjson.loads(lines[-1])
        values |= {"outputs": tuple(values["outputs"]), "warnings": tuple(values["warnings"])}
        return Summary(**{**values, "status": sys.intern(values["status"])})
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None


def read_frames(path: Path) -> Iterator[dict[str, Any]]:
    """The frames of a complete record, one at a time."""
    with path.open("rb") as file:
        next(file)
        previous: bytes | None = None
        for line in file:
            if previous is not None:
                yield orjson.loads(previous)
            previous = line  # the last line is the summary
