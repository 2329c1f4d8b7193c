"""The networks' outputs for a video, stored frame by frame, so that a resumed run does not compute them again.

A file of JSON lines: a header with the key of what the outputs depend on, then a line for each frame. float32 values
are written with all digits that are needed to read them back exactly, so that a resumed run ends in the same bytes.
"""

import stat
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from posecli.atomic import remove
from posecli.errors import UsageError
from posecli.types import Poses

_ARRAYS = ("keypoints", "std", "scores", "boxes", "box_scores", "person_scores")


class Journal:
    """The journal of one video: first frames of an earlier run are read (lookup), then new ones are written (append).

    key: hash of what the outputs depend on. A file with another key is replaced.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._header = header = orjson.dumps({"journal": 1, "key": key}) + b"\n"
        if not _is_plain(path):
            remove(path)
        self._file: BinaryIO = path.open("r+b") if path.is_file() else path.open("x+b")
        self._recalls = self._file.readline() == header
        if not self._recalls:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(header)

    def lookup(self, index: int) -> tuple[Poses, bool] | None:
        """The poses of the frame with this index and whether the detector ran on it; None where it is not stored.

        After the first frame that is not stored, the rest of the file is cut off.
        """
        place = self._file.tell()
        found = self.next()
        if found is not None and found[0] == index:
            return found[1], found[2]
        if self._recalls:
            self._cut(place)
        return None

    def next(self) -> tuple[int, Poses, bool] | None:
        """The next stored frame: its number, poses, and whether the detector ran on it; None at the end.

        An incomplete line, and what follows it, is cut off.
        """
        if not self._recalls:
            return None
        place = self._file.tell()
        found = _read(self._file.readline())
        if found is None:
            self._cut(place)
        return found

    def _cut(self, place: int) -> None:
        self._recalls = False
        self._file.seek(place)
        self._file.truncate()

    def append_from(self, part: Path, last: int) -> int:
        """Store the frames after the number last that another journal of the same key has; returns the last number."""
        with part.open("rb") as file:
            if file.readline() != self._header:
                return last
            for line in file:
                found = _read(line)
                if found is None:
                    break
                if found[0] > last:
                    self._file.write(line)
                    last = found[0]
        return last

    def append(self, index: int, poses: Poses, detected: bool = True, time: Fraction | None = None) -> None:
        """Store a frame's poses. They survive the end of the process; a power failure may lose the last ones."""
        values = {name: np.ascontiguousarray(getattr(poses, name), np.float32) for name in _ARRAYS}
        row: dict[str, Any] = {
            "index": index,
            "time": str(time or 0),
            "detected": detected,
            "joints": poses.keypoints.shape[1],
            "track_ids": None if poses.track_ids is None else poses.track_ids.tolist(),
        }
        self._file.write(orjson.dumps(row | values, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file, which stays for a later run."""
        self._file.close()

    def remove(self) -> None:
        """Delete the file, once the input is finished or has failed."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def read_journal(path: Path) -> Iterator[tuple[Fraction, Poses]]:
    """Time and poses of each frame of a journal."""
    with path.open("rb") as file:
        file.readline()
        for line in file:
            found = _read(line)
            if found is None:
                return
            yield Fraction(orjson.loads(line)["time"]), found[1]


def part_path(path: Path, first: int) -> Path:
    """The journal of the part of a video that begins with this frame. path: the video's own."""
    return path.with_name(f"{path.stem}-{first:09d}{path.suffix}")


def _parts(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))


def join_parts(path: Path, key: str) -> None:
    """Append the journals of a video's parts to its own, in the order of frames, and delete them. Raises OSError."""
    parts = _parts(path)
    if not parts:
        return
    journal = Journal(path, key)
    last = -1
    while (found := journal.next()) is not None:
        last = found[0]
    for part in parts:
        if _is_plain(part):
            last = journal.append_from(part, last)
    journal.close()
    for part in parts:
        remove(part)


def remove_journals(path: Path) -> None:
    """Delete the journal of a video and those of its parts, if they exist. Raises OSError."""
    for file in (path, *_parts(path)):
        file.unlink(missing_ok=True)


def _is_plain(path: Path) -> bool:
    """Whether it is a regular file with one name: a link may lead to a file that is not posecli's."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _read(line: bytes) -> tuple[int, Poses, bool] | None:
    """The frame of a line, None where the line is incomplete because the process was killed."""
    if not line.endswith(b"\n"):
        return None
    try:
        row = orjson.loads(line)
        joints = row["joints"]
        shapes = {"keypoints": (-1, joints, 2), "std": (-1, joints, 2), "scores": (-1, joints), "boxes": (-1, 4)}
        arrays = {name: np.array(row[name], np.float32).reshape(shapes.get(name, (-1,))) for name in _ARRAYS}
        ids = None if row["track_ids"] is None else np.array(row["track_ids"], np.int64)
        return row["index"], Poses(**arrays, track_ids=ids), row["detected"]
    except (orjson.JSONDecodeError, KeyError, ValueError, TypeError, UsageError):
        return None
