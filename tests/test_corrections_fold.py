"""The fold of the journal against an independent model, over random edits, undos, redos and openings."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posecli.corrections.corrections import Corrections
from posecli.corrections.journal import journal_path
from posecli.corrections.merge import write_corrected
from posecli.errors import UsageError
from posecli.types import Poses
from tests.run_factory import make_run

FRAMES, K = 4, 17
# Ids of the people in each frame of the clip.
IDS = [[1, 2], [1, 2, 3], [2], [3, 1]]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clip = []
    for frame, ids in enumerate(IDS):
        random, n = np.random.default_rng(frame), len(ids)
        clip.append(
            Poses(
                keypoints=random.uniform(0, 300, (n, K, 2)).astype(np.float32),
                std=np.ones((n, K, 2), np.float32),
                scores=random.uniform(0, 1, (n, K)).astype(np.float32),
                boxes=np.tile(np.array([[0, 0, 99, 99]], np.float32), (n, 1)),
                box_scores=np.ones(n, np.float32),
                person_scores=np.ones(n, np.float32),
                track_ids=np.array(ids, np.int64),
            )
        )
    return make_run(tmp_path_factory.mktemp("run") / "out", {"clip.mp4": clip})


numbers, keys = st.integers(0, 30), st.sampled_from(["p0", "p1", "p2", "a1", "a2", "a3", "a4", "a5"])
frames, ids, joints = st.integers(0, FRAMES), st.integers(1, 4), st.integers(0, 2).map(str)
points = st.dictionaries(joints, st.tuples(numbers, numbers, st.integers(0, 2)).map(list), min_size=1)
full = st.integers(0, 30).map(lambda x: {str(k): [x + k, x, 2] for k in range(K)})
places = st.dictionaries(joints, st.tuples(numbers, numbers).map(list), min_size=1)


def edit(op: str, **fields: Any) -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries({"op": st.just(op), "input": st.just("clip.mp4"), **fields})


edits = st.one_of(
    edit("keypoints", frame=frames, person=keys, keypoints=points),
    edit("box", frame=frames, person=keys, box=numbers.map(lambda x: [x, x, x + 5, x + 9])),
    edit("add", frame=frames, box=st.just([0, 0, 9, 9]), keypoints=full, track=st.none() | ids),
    edit("delete", frame=frames, person=keys),
    edit("accept", frame=frames, person=keys),
    edit("track", frame=frames, track=ids, to=ids, until=st.none() | frames, swap=st.booleans()),
    edit(
        "propagate",
        track=ids,
        values=st.dictionaries(
            st.integers(0, FRAMES - 1).map(str), st.dictionaries(keys, places, min_size=1), min_size=1
        ),
    ),
)
steps = st.lists(st.tuples(st.sampled_from("xy"), edits | st.sampled_from(["undo", "redo", "open"])), max_size=25)


class Model:
    """All people of all frames as dicts, computed anew from the list of edits each time."""

    def __init__(self) -> None:
        self.log: list[tuple[int, dict]] = []
        self.stacks: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        self.seq = 0

    def take(self, client: str, made: dict) -> None:
        self.seq += 1
        self.log.append((self.seq, made))
        self.stacks[client][0].append(self.seq)
        self.stacks[client][1].clear()

    def undo(self, client: str) -> bool:
        done, undone = self.stacks[client]
        if done:
            undone.append(done.pop())
            self.seq += 1
            return True
        return False

    def redo(self, client: str) -> bool:
        done, undone = self.stacks[client]
        if undone:
            done.append(undone.pop())
            self.seq += 1
            return True
        return False

    def people(self) -> list[list[dict]]:
        in_effect = {seq for done, _ in self.stacks.values() for seq in done}
        state = [
            [{"key": f"p{row}", "track": i, "hand": {}, "moved": {}, "flags": set()} for row, i in enumerate(of_frame)]
            for of_frame in IDS
        ]
        for seq, made in self.log:
            if seq in in_effect:
                self.one(state, seq, made)
        return state

    def one(self, state: list[list[dict]], seq: int, made: dict) -> None:
        op = made["op"]
        if op == "track":
            until = FRAMES if made["until"] is None else made["until"]
            for people in state[made["frame"] : until]:
                now = [p["track"] for p in people]
                if made["track"] in now and made["to"] in now and not made["swap"]:
                    continue
                renamed = {made["track"]: made["to"]} | ({made["to"]: made["track"]} if made["swap"] else {})
                for p in people:
                    if p["track"] in renamed:
                        p["track"] = renamed[p["track"]]
        elif op == "propagate":
            for frame, of_frame in made["values"].items():
                for p in state[int(frame)]:
                    p["moved"] |= {k: v for k, v in of_frame.get(p["key"], {}).items() if k not in p["hand"]}
        elif op == "add":
            people = state[made["frame"]]
            track = None if made["track"] in [p["track"] for p in people] else made["track"]
            hand = dict(made["keypoints"])
            people.append({"key": f"a{seq}", "track": track, "hand": hand, "moved": {}, "flags": {"box"}})
        else:
            for p in [p for p in state[made["frame"]] if p["key"] == made["person"]]:
                if op == "delete":
                    state[made["frame"]].remove(p)
                elif op == "keypoints":
                    p["hand"] |= made["keypoints"]
                    p["moved"] = {k: v for k, v in p["moved"].items() if k not in made["keypoints"]}
                else:
                    p["flags"].add(op)

    def refuses(self, made: dict) -> bool:
        """Whether an edit refers to what is not there."""
        state = self.people()
        if made["op"] == "propagate":
            return any(
                key not in [p["key"] for p in state[int(f)]]
                for f, of_frame in made["values"].items()
                for key in of_frame
            )
        if made["frame"] >= FRAMES:
            return True
        here = state[made["frame"]]
        if made["op"] == "add":
            return made["track"] is not None and made["track"] in [p["track"] for p in here]
        if made["op"] == "track":
            until = FRAMES if made["until"] is None else made["until"]
            if made["track"] == made["to"] or until <= made["frame"]:
                return True
            now = [{p["track"] for p in people} for people in state[made["frame"] : until]]
            both = any({made["track"], made["to"]} <= of_frame for of_frame in now)
            return (both and not made["swap"]) or not any(made["track"] in of_frame for of_frame in now)
        return made["person"] not in [p["key"] for p in here]


def check(corrections: Corrections, model: Model) -> None:
    assert corrections.seq == model.seq
    for frame, expected in enumerate(model.people()):
        found = corrections.frame("clip.mp4", frame).people
        assert [(p.key, p.track) for p in found] == [(p["key"], p["track"]) for p in expected]
        assert corrections.ids("clip.mp4", frame) == [(p["key"], p["track"]) for p in expected]
        tracks = [p.track for p in found if p.track is not None]
        assert len(tracks) == len(set(tracks))
        for p, e in zip(found, expected, strict=True):
            assert p.corrected == tuple(sorted(map(int, e["hand"]))) and p.propagated == tuple(
                sorted(map(int, e["moved"]))
            )
            assert all(p.keypoints[int(k)].tolist() == v for k, v in e["hand"].items())
            assert all(p.keypoints[int(k), :2].tolist() == v for k, v in e["moved"].items())
            assert p.accepted == ("accept" in e["flags"]) and (p.box_corrected or p.added) == ("box" in e["flags"])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps)
def test_the_fold_equals_a_model_that_starts_anew(out: Path, taken: list[tuple[str, Any]]) -> None:
    journal_path(out).unlink(missing_ok=True)
    predictions = {path: path.read_bytes() for path in (out / ".posecli" / "records").rglob("*.jsonl")}
    model, corrections = Model(), Corrections.open(out, write=True)
    try:
        for client, step in taken:
            if step == "open":
                corrections.close()
                corrections = Corrections.open(out, write=True)
            elif step in ("undo", "redo"):
                made = getattr(corrections, step)(client)
                assert (made is not None) == getattr(model, step)(client)
            elif model.refuses(step):
                with pytest.raises(UsageError):
                    corrections.apply(step, client)
            else:
                assert corrections.apply(step, client).seq == model.seq + 1
                model.take(client, step)
        check(corrections, model)
        first = write_corrected(corrections).read_bytes()
    finally:
        corrections.close()
    with Corrections.open(out, write=True) as again:
        check(again, model)
        assert write_corrected(again).read_bytes() == first
    assert len(json.loads(first)["annotations"]) == sum(map(len, model.people()))
    assert all(path.read_bytes() == content for path, content in predictions.items())
