"""Tables for other programs, made from the records: one file, or one folder, per input beside its media.

csv, parquet and jsonl have a row per keypoint per person per frame, with COLUMNS; openpose has a JSON file per frame in
OpenPose's format; mot has the boxes of a clip in MOTChallenge's format. Adding a format takes one function and one line
in TABLES.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from posecli.atomic import AtomicFile, remove, temporary
from posecli.errors import MachineError, UsageError, is_full
from posecli.keypoints import KeypointSet
from posecli.results.coco import Recorded
from posecli.results.names import shortened_name, sibling_name
from posecli.results.openpose import openpose_person
from posecli.results.records import read_frames
from posecli.text import printed

# frame counts from 0, as in coco.json; person is the index within the frame, from 0. x, y, std_x, std_y are in source
# pixels; x_raw, y_raw are given where x, y are smoothed. Unknown values are empty (null).
COLUMNS = (
    "input",
    "frame",
    "time_s",
    "track_id",
    "person",
    "keypoint",
    "x",
    "y",
    "score",
    "std_x",
    "std_y",
    "x_raw",
    "y_raw",
    "filled",
)

_ROW_GROUP = 1 << 16

Row = tuple[Any, ...]


def check_tables(names: Sequence[str]) -> None:
    """Check, before any work, whether the tables of these names can be written.

    Raises UsageError for a name that is not in TABLES, MachineError where a package for one is missing.
    """
    for name in names:
        if name not in TABLES:
            raise UsageError(f"no table is called {name!r}; there are {', '.join(TABLES)}")
        if name == "parquet":
            _pyarrow()


def write_tables(
    out: Path,
    names: Sequence[str],
    inputs: Sequence[Recorded],
    keypoint_set: KeypointSet,
    failed: dict[str, str] | None = None,
) -> list[str]:
    """Write the tables of these names for all inputs; returns their paths relative to out, folders for openpose.

    The same records give the same bytes, each file is written atomically, and memory does not grow with the records.
    failed: receives the names of inputs whose tables cannot be written, with the reason; with None, that raises.
    Raises as check_tables does, OSError where the disk is full.
    """
    check_tables(names)
    written = []
    for name in dict.fromkeys(names):
        for item in inputs:
            path = table_path(out, name, item.place or item.name)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if TABLES[name](path, item, keypoint_set):
                    written.append(path.relative_to(out).as_posix())
            except OSError as error:
                if failed is None or is_full(error):
                    raise
                reason = f"{printed(path)}: cannot be written ({error.strerror})"
                failed[item.name] = f"{failed[item.name]}; {reason}" if item.name in failed else reason
    return written


def table_path(out: Path, table: str, place: str) -> Path:
    """The path of a table of the input that has this place."""
    return out / sibling_name(place, table_suffix(table))


def table_suffix(table: str) -> str:
    """The suffix that a table's file name adds to its input's."""
    return f".{'mot.txt' if table == 'mot' else table}"


def rows(item: Recorded, keypoint_set: KeypointSet) -> Iterator[Row]:
    """The rows of an input: frames in order, people as in the record, keypoints as in the set."""
    names = keypoint_set.names
    for frame in read_frames(item.record):
        for number, person in enumerate(frame["people"]):
            start = (item.name, frame["index"], frame["time_s"], person.get("track_id"), number)
            points, scores, std = person["keypoints"], person["keypoint_scores"], person["keypoint_std"]
            raw, filled = person.get("keypoints_raw"), person.get("filled", False)
            for k, name in enumerate(names):
                values = (points[3 * k], points[3 * k + 1], scores[k], *std[k])
                yield (*start, name, *values, *(raw[2 * k : 2 * k + 2] if raw else (None, None)), filled)


# ---- one function for each format: writes path, returns whether there was something to write -------------


def write_csv(path: Path, item: Recorded, keypoint_set: KeypointSet) -> bool:
    """CSV in UTF-8 with commas and a header line; filled is 0 or 1."""
    with AtomicFile(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*row[:-1], int(row[-1])) for row in rows(item, keypoint_set))
        text.detach()
    return True


def write_jsonl(path: Path, item: Recorded, keypoint_set: KeypointSet) -> bool:
    """A JSON object on each line, with the names of the columns."""
    with AtomicFile(path) as file:
        for row in rows(item, keypoint_set):
            file.write(orjson.dumps(dict(zip(COLUMNS, row, strict=True))) + b"\n")
    return True


def write_parquet(path: Path, item: Recorded, keypoint_set: KeypointSet) -> bool:
    """Apache Parquet in groups of 65,536 rows, compressed with Zstandard. Needs pyarrow."""
    arrow, parquet = _pyarrow()
    types = {
        "input": arrow.string(),
        "frame": arrow.int64(),
        "track_id": arrow.int64(),
        "person": arrow.int32(),
        "keypoint": arrow.string(),
        "filled": arrow.bool_(),
    }
    schema = arrow.schema([(name, types.get(name, arrow.float64())) for name in COLUMNS])
    remaining = rows(item, keypoint_set)
    with AtomicFile(path) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(remaining, _ROW_GROUP)):
            columns = [arrow.array(v, field.type) for v, field in zip(zip(*group, strict=True), schema, strict=True)]
            writer.write_table(arrow.table(columns, schema=schema), row_group_size=_ROW_GROUP)
    return True


def write_openpose(path: Path, item: Recorded, keypoint_set: KeypointSet) -> bool:
    """A folder with a JSON file for each frame, also those without people, in OpenPose's format (version 1.3).

    pose_keypoints_2d: x, y, score per keypoint, as BODY_25 where the set has feet (Halpe26, COCO-WholeBody), else in
    the set's own order: for COCO's seventeen nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles,
    left before right. Hands and face are filled where the set has them.
    person_id: the track id, or -1. A clip's frames are named <stem>_000000000012_keypoints.json, a photo
    <stem>_keypoints.json.
    """
    stem = PurePosixPath(item.name).stem
    part = temporary(path)
    remove(part)
    part.mkdir()
    try:
        for frame in read_frames(item.record):
            people = [openpose_person(person, keypoint_set) for person in frame["people"]]
            number = f"_{frame['index']:012d}" if item.kind == "video" or frame["index"] else ""
            text = orjson.dumps({"version": 1.3, "people": people})
            (part / shortened_name(stem, f"{number}_keypoints.json")).write_bytes(text)
        remove(path)
        part.replace(path)
    except BaseException:
        remove(part)
        raise
    return True


def write_mot(path: Path, item: Recorded, keypoint_set: KeypointSet) -> bool:
    """MOTChallenge: frame (from 1), id (-1 where not tracked), x, y, width, height, score, -1, -1, -1. Clips only."""
    if item.kind != "video":
        return False
    with AtomicFile(path) as file:
        for frame in read_frames(item.record):
            for person in sorted(frame["people"], key=lambda p: p.get("track_id", -1)):
                values = (frame["index"] + 1, person.get("track_id", -1), *person["bbox"], person["score"], -1, -1, -1)
                file.write(",".join(map(str, values)).encode() + b"\n")
    return True


TABLES: dict[str, Callable[[Path, Recorded, KeypointSet], bool]] = {
    "csv": write_csv,
    "parquet": write_parquet,
    "jsonl": write_jsonl,
    "openpose": write_openpose,
    "mot": write_mot,
}


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MachineError("parquet tables need pyarrow: pip install 'posecli[parquet]'") from error
    return pyarrow, pyarrow.parquet
