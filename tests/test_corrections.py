"""Corrections: the journal, the fold, undo, and the merged file."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posecli.corrections.corrections import Corrections
from posecli.corrections.journal import journal_path
from posecli.corrections.merge import write_corrected
from posecli.errors import DataError, MachineError, PosecliError, UsageError
from posecli.types import Poses
from tests.run_factory import make_run


def poses(people: int, seed: int, tracks: list[int] | None = None) -> Poses:
    random = np.random.default_rng(seed)
    return Poses(
        keypoints=random.uniform(0, 300, (people, 17, 2)).astype(np.float32),
        std=random.uniform(0.5, 3, (people, 17, 2)).astype(np.float32),
        scores=random.uniform(0.1, 1, (people, 17)).astype(np.float32),
        boxes=np.tile(np.array([[2, 3, 150, 245]], np.float32), (people, 1)),
        box_scores=np.full(people, 0.9, np.float32),
        person_scores=np.full(people, 0.7, np.float32),
        track_ids=None if tracks is None else np.array(tracks, np.int64),
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    clip = [poses(2, i, [1, 2]) if i < 6 else poses(1, i, [2]) for i in range(10)]
    return make_run(tmp_path / "out", {"b.jpg": [poses(2, 99)], "clip.mp4": clip, "a.jpg": [poses(0, 5)]})


ADD = {"op": "add", "box": [10, 10, 90, 200], "keypoints": {str(k): [20 + k, 30 + k, 2] for k in range(17)}}


def move(frame: int, person: str = "p0", x: float = 5.0, name: str = "clip.mp4", k: str = "7") -> dict:
    return {"op": "keypoints", "input": name, "frame": frame, "person": person, "keypoints": {k: [x, 6.5, 2]}}


def test_inputs_are_described_in_the_order_of_coco_json(out: Path) -> None:
    with Corrections.open(out, write=False) as corrections:
        found = [(i.name, i.kind, i.frames, i.people, i.width, i.height, i.source) for i in corrections.inputs()]
        assert found == [
            ("b.jpg", "photo", 1, 2, 640, 360, None),
            ("clip.mp4", "video", 10, 16, 640, 360, None),
            ("a.jpg", "photo", 1, 0, 640, 360, None),
        ]
        state = corrections.frame("clip.mp4", 3)
        assert (state.index, state.time_s, [p.key for p in state.people]) == (3, 0.12, ["p0", "p1"])
        np.testing.assert_allclose(state.people[1].keypoints[:, :2], poses(2, 3).keypoints[1], atol=0.0051)
        assert not any(person.touched for person in state.people)
    assert not journal_path(out).exists()


def test_an_edit_is_there_after_opening_again(out: Path) -> None:
    with Corrections.open(out, write=True) as corrections:
        corrections.apply(move(2), "one")
        corrections.apply({**ADD, "input": "a.jpg", "frame": 0}, "one")
        corrections.apply({"op": "delete", "input": "b.jpg", "frame": 0, "person": "p0"}, "one")
    with Corrections.open(out, write=True) as corrections:
        assert corrections.seq == 3 and len(corrections.since(1)) == 2
        person = corrections.frame("clip.mp4", 2).people[0]
        assert person.corrected == (7,) and person.keypoints[7].tolist() == [5, 6.5, 2]
        assert person.keypoint_scores[7] == 1 and not person.keypoint_std[7].any()
        added = corrections.frame("a.jpg", 0).people[0]
        assert added.key == "a2" and added.added and added.corrected == tuple(range(17))
        assert [p.key for p in corrections.frame("b.jpg", 0).people] == ["p1"]


def test_only_one_writes(out: Path) -> None:
    with Corrections.open(out, write=True):
        with pytest.raises(MachineError, match="another posecli"):
            Corrections.open(out, write=True)
        Corrections.open(out, write=False).close()
    with Corrections.open(out, write=False) as corrections, pytest.raises(UsageError, match="read only"):
        corrections.apply(move(0), "one")


def test_undo_and_redo_are_each_clients_own(out: Path) -> None:
    with Corrections.open(out, write=True) as corrections:
        corrections.apply(move(0, x=1), "one")
        corrections.apply(move(0, x=2), "two")
        assert corrections.undo("three") is None and corrections.redo("one") is None
        assert corrections.undo("one").values == {"target": 1}
        assert corrections.frame("clip.mp4", 0).people[0].keypoints[7, 0] == 2
        corrections.undo("two")
        assert corrections.frame("clip.mp4", 0).people[0].corrected == ()
        assert corrections.redo("one").values == {"target": 1}
        assert corrections.frame("clip.mp4", 0).people[0].keypoints[7, 0] == 1
        corrections.apply(move(1), "two")
        assert corrections.redo("two") is None


def test_ids_change_from_a_frame_on(out: Path) -> None:
    with Corrections.open(out, write=True) as corrections:
        change = {"op": "track", "input": "clip.mp4", "frame": 2, "track": 1, "to": 2}
        with pytest.raises(UsageError, match="both in frame 2"):
            corrections.apply(change, "one")
        corrections.apply({**change, "swap": True, "until": 5}, "one")
        corrections.apply({**change, "frame": 0, "to": 9}, "one")
        ids = [[p.track for p in corrections.frame("clip.mp4", f).people] for f in range(10)]
        assert ids == [[9, 2]] * 2 + [[2, 9]] * 3 + [[9, 2]] + [[2]] * 4
        assert ids == [[track for _, track in corrections.ids("clip.mp4", f)] for f in range(10)]
        assert [(t.track, t.first, t.last, t.frames) for t in corrections.tracks("clip.mp4")] == [
            (2, 0, 9, 10),
            (9, 0, 5, 6),
        ]


def test_the_merged_file_is_coco_json_with_the_edits(out: Path) -> None:
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with Corrections.open(out, write=True) as corrections:
        assert json.loads(write_corrected(corrections).read_bytes()) == json.loads((out / "coco.json").read_bytes())
        corrections.apply(move(2, "p1"), "one")
        corrections.apply(
            {"op": "keypoints", "input": "clip.mp4", "frame": 2, "person": "p1", "keypoints": {"3": [9, 9, 0]}}, "one"
        )
        corrections.apply({"op": "delete", "input": "clip.mp4", "frame": 2, "person": "p0"}, "one")
        corrections.apply({**ADD, "input": "clip.mp4", "frame": 2, "track": 7}, "one")
        write_corrected(corrections)
    merged, plain = (json.loads((out / name).read_bytes()) for name in ("coco_corrected.json", "coco.json"))
    assert merged["images"] == plain["images"] and merged["videos"] == plain["videos"]
    image = next(i["id"] for i in merged["images"] if i["file_name"] == "clip.mp4#000002")
    moved, added = (a for a in merged["annotations"] if a["image_id"] == image)
    assert moved["corrected"] == [3, 7] and moved["keypoints"][9:12] == [0, 0, 0] and moved["num_keypoints"] == 16
    assert added["added"] and added["track_id"] == 7 and added["bbox"] == [10, 10, 80, 190]
    others = [{**a, "id": 0} for a in plain["annotations"] if a["image_id"] != image]
    assert others == [{**a, "id": 0} for a in merged["annotations"] if a["image_id"] != image]
    changed = {path.name for path in before if path.read_bytes() != before[path]}
    assert changed == {"outputs.json"}


def test_a_file_of_that_name_that_is_not_ours_stays(out: Path) -> None:
    (out / "coco_corrected.json").write_text("mine")
    with Corrections.open(out, write=True) as corrections, pytest.raises(UsageError, match="not posecli's"):
        write_corrected(corrections)
    assert (out / "coco_corrected.json").read_text() == "mine"


def test_an_incomplete_last_line_is_cut_off_wherever_it_ends(out: Path) -> None:
    with Corrections.open(out, write=True) as corrections:
        corrections.apply(move(0, x=1), "one")
        corrections.apply(move(1, x=2), "one")
    whole = journal_path(out).read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        journal_path(out).write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends) - 1
        with Corrections.open(out, write=False) as corrections:
            assert corrections.seq == max(0, kept)
        with Corrections.open(out, write=True) as corrections:
            assert corrections.seq == max(0, kept)
            corrections.apply(move(3, x=4), "one")
        lines = journal_path(out).read_bytes().splitlines()
        assert len(lines) == max(0, kept) + 2 and all(json.loads(line) for line in lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"something else\n", "not a journal"),
        (b'{"corrections":1}\n{"seq":1}\n', "line 2 is damaged"),
        (b'{"corrections":1}\n\n', "line 2 is damaged"),
        (b'{"corrections":1}\n{"seq":2,"time":"t","client":"c","op":"undo","target":1}\n', "line 2 is damaged"),
    ],
)
def test_a_damaged_journal_is_refused_and_kept(out: Path, content: bytes, message: str) -> None:
    journal_path(out).write_bytes(content)
    for write in (False, True):
        with pytest.raises(DataError, match=message):
            Corrections.open(out, write=write)
    assert journal_path(out).read_bytes() == content


def test_a_link_in_place_of_the_journal_is_refused(out: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    journal_path(out).symlink_to(tmp_path / "other")
    with pytest.raises(PosecliError):
        Corrections.open(out, write=True)
    journal_path(out).unlink()
    journal_path(out).hardlink_to(tmp_path / "other")
    with pytest.raises(PosecliError):
        Corrections.open(out, write=True)
    assert (tmp_path / "other").read_text() == "other"


def test_a_folder_without_results_is_refused_and_not_changed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results"):
        Corrections.open(tmp_path / "none", write=True)
    assert not (tmp_path / "none").exists()


def test_edits_wait_where_the_predictions_changed(out: Path) -> None:
    with Corrections.open(out, write=True) as corrections:
        corrections.apply(move(2), "one")
        corrections.apply({"op": "track", "input": "clip.mp4", "frame": 2, "track": 1, "to": 9}, "one")
    clip = [poses(2, i, [1, 2]) for i in range(10)]
    make_run(out, {"clip.mp4": clip}, options="other drawing")
    with Corrections.open(out, write=False) as corrections:
        assert not corrections.outdated() and corrections.frame("clip.mp4", 2).people[0].corrected == (7,)
    make_run(out, {"clip.mp4": [poses(2, i + 50, [1, 2]) for i in range(10)]})
    with Corrections.open(out, write=False) as corrections:
        assert [edit.seq for edit in corrections.outdated()] == [1, 2]
        assert not any(person.touched for f in range(10) for person in corrections.frame("clip.mp4", f).people)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "edit",
    [
        {},
        {"op": "keypoints"},
        {"op": "undo", "target": 1},
        {**move(0), "more": 1},
        move(10),
        move(-1),
        move(0, "p2"),
        move(0, "a1"),
        move(0, "p00"),
        move(0, name="../clip.mp4"),
        move(0, name="x" * 10**6),
        move(0, x=NAN),
        move(0, x=INF),
        move(0, x=1e300),
        move(0, x=2000),
        move(0, k="17"),
        move(0, k="-1"),
        move(0, k="07"),
        {**move(0), "frame": True},
        {**move(0), "frame": 0.0},
        {**move(0), "frame": 10**30},
        {**move(0), "keypoints": {}},
        {**move(0), "keypoints": [[1, 2, 2]]},
        {**move(0), "keypoints": {"0": [1, 2]}},
        {**move(0), "keypoints": {"0": [1, 2, 3]}},
        {**move(0), "keypoints": {"0": [1, 2, True]}},
        {**move(0), "keypoints": {"0": ["1", 2, 2]}},
        {"op": "box", "input": "clip.mp4", "frame": 0, "person": "p0", "box": [1, 1, 1, 5]},
        {"op": "box", "input": "clip.mp4", "frame": 0, "person": "p0", "box": [1, 1, NAN, 5]},
        {"op": "box", "input": "clip.mp4", "frame": 0, "person": "p0", "box": [1, 1, 9000, 5]},
        {**ADD, "input": "clip.mp4", "frame": 0, "track": 1},
        {**ADD, "input": "clip.mp4", "frame": 0, "keypoints": {"0": [1, 1, 1]}},
        {"op": "track", "input": "clip.mp4", "frame": 6, "track": 1, "to": 3},
        {"op": "track", "input": "clip.mp4", "frame": 1, "track": 1, "to": 1},
        {"op": "track", "input": "clip.mp4", "frame": 1, "track": 1, "to": -1},
        {"op": "track", "input": "clip.mp4", "frame": 1, "track": 1, "to": 3, "until": 1},
        {"op": "propagate", "input": "clip.mp4", "track": 1, "values": {}},
        {"op": "propagate", "input": "clip.mp4", "track": 1, "values": {"10": {"p0": {"1": [1, 1]}}}},
        {"op": "propagate", "input": "clip.mp4", "track": 1, "values": {"1": {"p9": {"1": [1, 1]}}}},
        {"op": "propagate", "input": "clip.mp4", "track": 1, "values": {"1": {"p0": {"1": [1, NAN]}}}},
    ],
)
def test_invalid_edits_are_refused_in_one_line_and_not_written(out: Path, edit: dict) -> None:
    with Corrections.open(out, write=True) as corrections:
        with pytest.raises(UsageError) as caught:
            corrections.apply(edit, "one")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
        assert corrections.seq == 0
    assert journal_path(out).read_bytes() == b'{"corrections":1}\n'


@pytest.mark.parametrize("client", ["", "x" * 300, "\ud800", 5])
def test_invalid_clients_are_refused(out: Path, client: object) -> None:
    with Corrections.open(out, write=True) as corrections, pytest.raises(UsageError):
        corrections.apply(move(0), client)  # type: ignore[arg-type]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["p0", "7", "clip.mp4"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["0", "7", "p0", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = ("input", "frame", "person", "keypoints", "box", "track", "to", "until", "swap", "values", "seq", "target")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    op=st.sampled_from(["keypoints", "box", "add", "delete", "track", "accept", "propagate", "undo"]) | VALUES,
    given_fields=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6),
    plain=st.booleans(),
)
def test_whatever_is_sent_is_an_edit_or_refused(out: Path, op: object, given_fields: dict, plain: bool) -> None:
    sent = {**({"input": "clip.mp4", "frame": 1, "person": "p0"} if plain else {}), **given_fields, "op": op}
    with Corrections.open(out, write=True) as corrections:
        before = corrections.seq
        try:
            corrections.apply(sent, "one")
        except UsageError as error:
            assert corrections.seq == before and "\n" not in str(error)
    with Corrections.open(out, write=False) as corrections:
        assert corrections.seq in (before, before + 1)
        assert len(corrections.frame("clip.mp4", 1).people) <= 2 + corrections.seq
