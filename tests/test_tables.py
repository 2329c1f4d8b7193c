"""Tables: what other programs read back is what the records hold."""

import builtins
import csv
import json
import re
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from posecli.errors import MachineError, UsageError
from posecli.keypoints import COCO17
from posecli.results.coco import Recorded
from posecli.results.gallery import write_gallery
from posecli.results.manifest import Finished, manifest
from posecli.results.records import RecordWriter, Summary, read_frames, record_path
from posecli.results.tables import COLUMNS, TABLES, check_tables, rows, write_tables
from posecli.types import Frame, Poses
from tests.media_factory import picture
from tests.test_output import some_poses, write_record

NEEDED = {"parquet": "pyarrow"}


def write_tracked(out: Path, name: str = "clip.mp4", frames: int = 4) -> Recorded:
    """A clip of people 3 and 1; the second frame is empty, in the last one person 3 is filled, all smoothed."""
    path = record_path(out, name)
    with RecordWriter(path, {"name": name, "kind": "video", "content": "c", "options": "o"}, 0.3) as record:
        for index in range(frames):
            poses = Poses.empty(17) if index == 1 else some_poses(2, index)
            if len(poses):
                poses = replace(
                    poses,
                    track_ids=np.array([3, 1]),
                    raw_keypoints=poses.keypoints + np.float32(0.5),
                    filled=np.array([index == frames - 1, False]),
                )
            record.write(Frame(picture(), index, Fraction(index, 30)), poses)
        record.finish(Summary("done", record.frames, record.people, tracks=record.tracks))
    return Recorded(name, "video", path)


def parsed(values: dict[str, str]) -> tuple[object, ...]:
    """A line of a CSV table as the values of its record."""
    whole = {"frame", "track_id", "person"}
    kept = {"input", "keypoint"}
    result: list[object] = []
    for column in COLUMNS:
        text = values[column]
        if column == "filled":
            result.append(text == "1")
        elif text == "":
            result.append(None)
        else:
            result.append(text if column in kept else int(text) if column in whole else float(text))
    return tuple(result)


def test_rows_hold_every_keypoint_of_every_person(tmp_path: Path) -> None:
    item = write_tracked(tmp_path)
    found = list(rows(item, COCO17))
    assert len(found) == 3 * 2 * 17 and {len(row) for row in found} == {len(COLUMNS)}
    first = dict(zip(COLUMNS, found[0], strict=True))
    poses = some_poses(2)
    assert (first["input"], first["frame"], first["track_id"], first["keypoint"]) == ("clip.mp4", 0, 3, "nose")
    np.testing.assert_allclose([first["x"], first["y"]], poses.keypoints[0, 0], atol=0.006)
    np.testing.assert_allclose([first["x_raw"], first["y_raw"]], poses.keypoints[0, 0] + 0.5, atol=0.006)
    np.testing.assert_allclose([first["std_x"], first["std_y"]], poses.std[0, 0], atol=0.006)
    # Who is filled was never seen raw.
    assert [row[-3:] for row in found if row[1] == 3 and row[4] == 0] == [(None, None, True)] * 17


def test_csv_and_json_lines_read_back_the_same(tmp_path: Path) -> None:
    item = write_tracked(tmp_path, 'odd, "name".mp4')
    assert write_tables(tmp_path, ["csv", "jsonl"], [item], COCO17) == [f"{item.name}.csv", f"{item.name}.jsonl"]
    expected = list(rows(item, COCO17))
    with (tmp_path / f"{item.name}.csv").open(newline="", encoding="utf-8") as file:
        assert [parsed(line) for line in csv.DictReader(file)] == expected
    lines = (tmp_path / f"{item.name}.jsonl").read_text().splitlines()
    assert [tuple(json.loads(line)[column] for column in COLUMNS) for line in lines] == expected


def test_parquet_reads_back_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("posecli.results.tables._ROW_GROUP", 40)
    item = write_tracked(tmp_path)
    write_tables(tmp_path, ["parquet"], [item], COCO17)
    table = parquet.ParquetFile(tmp_path / "clip.mp4.parquet")
    assert table.num_row_groups == 3 and table.schema_arrow.names == list(COLUMNS)
    assert [tuple(row.values()) for row in table.read().to_pylist()] == list(rows(item, COCO17))
    empty = write_record(tmp_path, "empty.mp4", "video", [0, 0])
    write_tables(tmp_path, ["parquet"], [empty], COCO17)
    assert parquet.read_table(tmp_path / "empty.mp4.parquet").num_rows == 0


def test_openpose_has_a_file_for_every_frame_also_without_people(tmp_path: Path) -> None:
    clip, photo = write_tracked(tmp_path, "a/clip.mp4"), write_record(tmp_path, "a/b.jpg", "photo", [1])
    stale = tmp_path / "a" / "clip.mp4.openpose"
    stale.mkdir(parents=True)
    (stale / "clip_000000000099_keypoints.json").write_text("{}")
    assert write_tables(tmp_path, ["openpose"], [clip, photo], COCO17) == ["a/clip.mp4.openpose", "a/b.jpg.openpose"]
    files = sorted(stale.iterdir())
    assert [file.name for file in files] == [f"clip_{i:012d}_keypoints.json" for i in range(4)]
    documents = [json.loads(file.read_text()) for file in files]
    assert {d["version"] for d in documents} == {1.3} and [len(d["people"]) for d in documents] == [2, 0, 2, 2]
    person = documents[0]["people"][0]
    values = np.reshape(person["pose_keypoints_2d"], (17, 3))
    np.testing.assert_allclose(values[:, :2], some_poses(2).keypoints[0], atol=0.006)
    np.testing.assert_allclose(values[:, 2], some_poses(2).scores[0], atol=1e-4)
    assert person["person_id"] == [3] and person["hand_left_keypoints_2d"] == []
    assert [f.name for f in (tmp_path / "a" / "b.jpg.openpose").iterdir()] == ["b_keypoints.json"]


def test_mot_parses_as_tracking_metrics_do(tmp_path: Path) -> None:
    clip, untracked = write_tracked(tmp_path), write_record(tmp_path, "u.mp4", "video", [1])
    photo = write_record(tmp_path, "b.jpg", "photo", [1])
    assert write_tables(tmp_path, ["mot"], [clip, untracked, photo], COCO17) == ["clip.mp4.mot.txt", "u.mp4.mot.txt"]
    frames: dict[int, list[int]] = defaultdict(list)
    for line in (tmp_path / "clip.mp4.mot.txt").read_text().splitlines():
        fields = line.split(",")
        assert len(fields) == 10 and fields[7:] == ["-1", "-1", "-1"]
        x, y, width, height, score = map(float, fields[2:7])
        assert (x, y, width, height) == (2, 3, 48, 42) and score == 0.7
        frames[int(fields[0])].append(int(fields[1]))
    assert frames == {1: [1, 3], 3: [1, 3], 4: [1, 3]}
    assert (tmp_path / "u.mp4.mot.txt").read_text().startswith("1,-1,")


def test_tables_are_the_same_each_time_and_leave_no_parts(tmp_path: Path) -> None:
    names = [name for name in TABLES if name not in NEEDED or pytest.importorskip(NEEDED[name])]
    item = write_tracked(tmp_path)

    def written() -> dict[str, bytes]:
        write_tables(tmp_path, names, [item], COCO17)
        return {str(f): f.read_bytes() for f in sorted(tmp_path.rglob("clip*")) if f.is_file()}

    first = written()
    assert len(first) == len(names) - 1 + 4 and first == written()
    assert not list(tmp_path.rglob("*.part"))


def test_inputs_of_one_stem_have_tables_of_their_own(tmp_path: Path) -> None:
    inputs = [write_tracked(tmp_path, name) for name in ("a.mp4", "a.avi", "deep/er/a.mp4")]
    assert write_tables(tmp_path, ["csv"], inputs, COCO17) == ["a.mp4.csv", "a.avi.csv", "deep/er/a.mp4.csv"]


def test_the_gallery_links_the_tables_that_are_there(tmp_path: Path) -> None:
    item = write_tracked(tmp_path, "a b#.mp4")
    write_tables(tmp_path, ["csv", "openpose"], [item], COCO17)
    finished = Finished(item.name, item.name, "video", Summary("done", 4, 6, tracks=2))
    write_gallery(tmp_path, [(finished, None)], manifest([finished], {})["totals"], "m")
    links = re.findall(r'<a href="(a%20b[^"]*)">(\w+)</a>', (tmp_path / "index.html").read_text())
    assert links == [("a%20b%23.mp4.csv", "csv"), ("a%20b%23.mp4.openpose", "openpose")]


def test_a_table_that_fails_leaves_the_former_one(tmp_path: Path) -> None:
    item = write_tracked(tmp_path)
    write_tables(tmp_path, ["csv", "openpose"], [item], COCO17)
    before = (tmp_path / "clip.mp4.csv").read_bytes()
    lines = item.record.read_bytes().splitlines(keepends=True)
    item.record.write_bytes(b"".join([*lines[:2], b"{broken\n", *lines[2:]]))
    for name in ("csv", "openpose"):
        with pytest.raises(json.JSONDecodeError):
            write_tables(tmp_path, [name], [item], COCO17)
    assert (tmp_path / "clip.mp4.csv").read_bytes() == before
    assert len(list((tmp_path / "clip.mp4.openpose").iterdir())) == 4 and not list(tmp_path.rglob("*.part"))


def test_what_cannot_be_written_is_said_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"xlsx.*csv"):
        check_tables(["csv", "xlsx"])
    original = builtins.__import__

    def without_pyarrow(name: str, *arguments: object, **options: object) -> object:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(MachineError, match=r"pip install 'posecli\[parquet\]'"):
        check_tables(["parquet"])
    check_tables(["csv", "mot"])


def test_the_record_says_how_many_people_there_are(tmp_path: Path) -> None:
    people = [person for frame in read_frames(write_tracked(tmp_path).record) for person in frame["people"]]
    assert {person["track_id"] for person in people} == {1, 3}
    assert [("filled" in p, "keypoints_raw" in p) for p in people] == [(False, True)] * 4 + [
        (True, False),
        (False, True),
    ]
