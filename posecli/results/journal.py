"""The networks' answers for a video as they come, so that a run that was killed does not ask again.

A file of JSON lines: a header that says what the answers depend on, then a line a frame. float32 values are written
with as many digits as they need to be read back the same, so a resumed run ends in the same bytes.
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
    """First gives back what an earlier run left (recall), then takes what is new (append).

    key: what the answers depend on. A file with another key, or none, is begun anew.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        header = orjson.dumps({"journal": 1, "key": key}) + b"\n"
        if not _is_plain(path):
            remove(path)
        self._file: BinaryIO = path.open("r+b") if path.is_file() else path.open("x+b")
        self._recalls = self._file.readline() == header
        if not self._recalls:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(header)

    def recall(self, index: int) -> tuple[Poses, bool] | None:
        """The poses of the frame with this index and whether it was searched by the detector, if they are known.

        From the first frame on that is not known, nothing is: what stands after it is cut off.
        """
        if not self._recalls:
            return None
        place = self._file.tell()
        line = self._file.readline()
        found = _read(line)
        if found is not None and found[0] == index:
            return found[1], found[2]
        self._recalls = False
        self._file.seek(place)
        self._file.truncate()
        return None

    def append(self, index: int, poses: Poses, detected: bool = True, time: Fraction | None = None) -> None:
        """Keep a frame's poses. After a kill of the process they are still there; a power cut may cost the last."""
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
        """Leave the file for a later run."""
        self._file.close()

    def remove(self) -> None:
        """The input is finished, or has failed: nobody will ask."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def read_journal(path: Path) -> Iterator[tuple[Fraction, Poses]]:
    """Time and poses of each frame that stands in a journal."""
    with path.open("rb") as file:
        file.readline()
        for line in file:
            found = _read(line)
            if found is None:
                return
            yield Fraction(orjson.loads(line)["time"]), found[1]


def _is_plain(path: Path) -> bool:
    """Whether it is a file of one name: what another name leads to as well may be somebody's."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _read(line: bytes) -> tuple[int, Poses, bool] | None:
    """A line's frame, None where a kill cut the line short."""
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
